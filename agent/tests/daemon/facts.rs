//! `/facts`: what the agent tells of its machine, as `weft doctor` reads it.

use std::fs;

use weft_types::node_facts::{ChainFacts, NodeFacts};

use crate::{Machine, NODES, node};

fn facts(machine: &Machine) -> NodeFacts {
    let (status, body) = machine.ask("/facts");
    assert_eq!(status, "200", "{body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn the_machine_is_told_of_as_it_is() {
    let mut machine = Machine::new();
    machine.install_plugin();
    machine.server.put(NODES, node(1));
    machine.start();
    machine.until("the configuration", |machine| machine.conflist().exists());
    machine.until("readiness", |machine| machine.ask("/readyz").0 == "200");
    fs::write(machine.path("net.d/05-theirs.conf"), "{}").unwrap();
    machine.reserve("10.244.1.9", "gone");
    machine.sh("ip link add flannel.1 mtu 1400 type bridge
        nft add table ip filter
        nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'
        nft add chain ip filter KUBE-SVC-A");
    machine.until("all of it", |machine| facts(machine).chains.len() == 2);
    let facts = facts(&machine);
    assert!(facts.is_ready && facts.enforces_policies && facts.time > 0 && !facts.kernel.is_empty());
    assert_eq!(facts.cni.files, ["05-theirs.conf", "10-weft.conflist"]);
    assert_eq!((&*facts.cni.own, facts.proxy), ("10-weft.conflist", None));
    assert_eq!(facts.sysctls["net.ipv4.ip_forward"], "1");
    assert!(facts.sysctls.contains_key("net.ipv4.conf.uplink.rp_filter"));
    let range = facts.ranges.iter().find(|range| range.range.is_ipv4()).unwrap();
    assert_eq!((range.range.to_string().as_str(), range.most, range.used), ("10.244.1.0/24", 253, 1));
    assert_eq!(facts.unused_reservations, ["10.244.1.9".parse::<std::net::IpAddr>().unwrap()]);
    let link = |name: &str| facts.links.iter().find(|link| link.name == name).unwrap();
    assert_eq!((link("uplink").mtu, link("flannel.1").mtu), (1450, 1400));
    assert_eq!(link("uplink").addresses[0].to_string(), "172.30.0.11/24");
    let chain = |name: &str, hook: Option<&str>| ChainFacts {
        table: "ip filter".to_owned(),
        name: name.to_owned(),
        hook: hook.map(str::to_owned),
        drops: hook.is_some(),
        is_ours: false,
    };
    assert_eq!(facts.chains, [chain("FORWARD", Some("forward")), chain("KUBE-SVC-A", None)]);
}
