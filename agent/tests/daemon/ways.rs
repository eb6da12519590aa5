//! The ways to other nodes: direct, through the tunnel, put back, and how a node knows by which of its
//! addresses.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Machine, NODES, TO_NODE2, joined, node};

/// The tunnel's device, what it is told, and the ways through it, without what comes and goes by itself.
const TUNNEL: &str = "ip -br link show dev weft-vxlan; bridge fdb show dev weft-vxlan; ip neigh show dev weft-vxlan nud permanent; \
                      ip route show proto 119; ip -4 -br addr show dev weft-vxlan";

/// Two other nodes, one of them behind a router.
fn among_near_and_far() -> Machine {
    let mut machine = Machine::new();
    machine.install_plugin();
    machine.backend = "auto";
    machine.sh("ip link add cni0 type bridge && ip route add default via 172.30.0.1");
    // The way to the one nearby works since before the agent was started.
    machine.sh("ip route add 10.244.2.0/24 via 172.30.0.12 proto 119");
    (1..=2).for_each(|number| machine.server.put(NODES, node(number)));
    machine.server.put(NODES, far("10.244.3.0/24"));
    machine.start();
    machine.until("the configuration", |machine| machine.conflist().exists());
    machine.until("ways to both", |machine| machine.routes() == [TO_NODE2, "10.244.3.0/24 via 10.244.3.0"]);
    machine
}

/// This node and the next, on one link.
fn neighbours() -> [Machine; 2] {
    let mut machines = joined();
    for machine in &mut machines {
        machine.backend = "auto";
        machine.install_plugin();
        machine.sh("echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter");
        (1..=2).for_each(|number| machine.server.put(NODES, node(number)));
    }
    machines
}

#[test]
fn a_direct_path_is_used_where_it_is_proved_and_left_where_it_fails() {
    let mut machines = neighbours();
    machines.iter_mut().for_each(Machine::start);
    machines[0].until("the direct path", |machine| machine.routes() == [TO_NODE2]);
    machines[1].until("the direct path back", |machine| machine.routes().len() == 1);
    let filter = machines[0].sh("cat /proc/sys/net/ipv4/conf/uplink/rp_filter");
    assert_eq!(filter, "2\n", "what comes the other way while one changes is not dropped");

    // As a cloud's network does, which knows the addresses of nodes only.
    for machine in &mut machines {
        machine.kill();
        machine.sh("nft 'add table ip cloud; add chain ip cloud in { type filter hook input priority 0; }'");
        machine.sh("nft add rule ip cloud in iifname uplink ip saddr 10.244.0.0/16 drop");
        machine.start();
    }
    let through = ["10.244.2.0/24 via 10.244.2.0", "10.244.2.1 via 172.30.0.12"];
    machines[0].until("the tunnel", |machine| machine.routes() == through);
    machines[0].until("a word about it", |machine| {
        let (status, body) = machine.ask("/readyz");
        status == "200" && body.contains("packets sent directly to its pods (10.244.2.0/24) do not arrive")
    });
    let mtu = |machine: &Machine| fs::read_to_string(machine.conflist()).unwrap().contains("\"mtu\": 1400");
    machines[0].until("the tunnel's MTU", mtu);
    let metrics = machines[0].ask("/metrics").1;
    assert!(metrics.contains("weft_agent_tunnelled_ranges 1\n"), "{metrics}");

    for machine in &mut machines {
        machine.kill();
        machine.sh("nft delete table ip cloud");
        machine.start();
    }
    machines[0].until("the direct path again", |machine| machine.routes() == [TO_NODE2]);
}

/// A connection through the tunnel whose source the node rewrote would end with the change to the direct
/// path.
#[test]
fn a_node_that_answers_at_once_is_never_reached_through_the_tunnel_first() {
    let [mut own, mut peer] = neighbours();
    peer.start();
    // This one had nobody to answer it.
    peer.until("the tunnel", |machine| machine.routes().contains(&"10.244.1.0/24 via 10.244.1.0".to_owned()));
    own.start();
    own.until("the direct path", |machine| machine.routes() == [TO_NODE2]);
    let log = own.log();
    let first = log.lines().find(|line| line.contains("added a route") && line.contains("10.244.2.0/24"));
    assert!(first.is_some_and(|line| line.contains("via 172.30.0.12")), "{log}");
    assert!(!log.contains("10.244.2.0/24 via 10.244.2.0"), "{log}");
    peer.until("the direct path back", |machine| machine.routes() == ["10.244.1.0/24 via 172.30.0.11"]);
}

/// As with an agent that is restarted before its peers answer: connections through the tunnel go on.
#[test]
fn a_way_through_the_tunnel_that_is_there_stays_while_nothing_is_known_of_the_direct_path() {
    let [mut own, _peer] = neighbours();
    own.start();
    let tunnel = "10.244.2.0/24 via 10.244.2.0".to_owned();
    own.until("the tunnel", |machine| machine.routes().contains(&tunnel));
    own.kill();
    let lines = own.log().lines().count();
    fs::remove_file(own.conflist()).unwrap();
    own.start();
    // It is written last in a round.
    own.until("the configuration", |machine| machine.conflist().exists());
    assert!(own.routes().contains(&tunnel));
    let log = own.log();
    assert!(!log.lines().skip(lines).any(|line| line.contains("a route")), "{log}");
}

#[test]
fn a_node_behind_a_translation_says_so_and_sends_from_its_own_address() {
    let mut machine = Machine::new();
    machine.install_plugin();
    machine.backend = "auto";
    let mut own = node(1);
    own["status"]["addresses"][0]["address"] = json!("203.0.113.7");
    machine.server.put(NODES, own);
    machine.server.put(NODES, node(2));
    machine.start();
    machine.until("the tunnel", |machine| {
        machine.sh("ip -d link show type vxlan").contains("local 172.30.0.11")
    });
    machine.until("a word about it", |machine| {
        machine.ask("/readyz").1.contains("203.0.113.7, which is on no interface of this machine")
    });
}

fn far(pod_cidr: &str) -> Value {
    let mut far = node(3);
    far["spec"]["podCIDR"] = json!(pod_cidr);
    far["status"]["addresses"] = json!([{"type": "InternalIP", "address": "192.0.2.13"}]);
    far
}

#[test]
fn addresses_ranges_and_mtu_are_followed_live() {
    let machine = among_near_and_far();
    let mtus = |machine: &Machine| {
        let conflist: Value = serde_json::from_slice(&fs::read(machine.conflist()).unwrap()).unwrap();
        let of = |link: &str| {
            let text = machine.sh(&format!("ip -o link show dev {link}"));
            let mtu = text.split_whitespace().skip_while(|word| *word != "mtu").nth(1);
            mtu.unwrap().parse::<u64>().unwrap()
        };
        [conflist["plugins"][0]["mtu"].as_u64().unwrap(), of("weft-vxlan"), of("cni0")]
    };
    machine.until("the MTU that fits", |machine| mtus(machine) == [1400; 3]);
    machine.sh("ip link set uplink mtu 1350");
    machine.until("the MTU that fits now", |machine| mtus(machine) == [1300; 3]);

    let mut moved = node(2);
    moved["status"]["addresses"][0]["address"] = json!("172.30.0.22");
    machine.server.put(NODES, moved);
    machine.server.put(NODES, far("10.244.33.0/24"));
    machine.until("the other ways", |machine| {
        let (near, far) = ("10.244.2.0/24 via 10.244.2.0", "10.244.33.0/24 via 10.244.33.0");
        machine.routes() == [near, "10.244.2.1 via 172.30.0.22", far]
    });

    machine.sh("ip addr add 172.30.0.31/24 dev uplink");
    let mut own = node(1);
    own["spec"]["podCIDR"] = json!("10.244.11.0/24");
    own["status"]["addresses"][0]["address"] = json!("172.30.0.31");
    machine.server.put(NODES, own);
    machine.until("this node's other range and address", |machine| {
        let rules = machine.sh("nft list ruleset");
        fs::read_to_string(machine.conflist()).unwrap().contains("10.244.11.0/24")
            && machine.sh("ip -d link show weft-vxlan").contains("local 172.30.0.31")
            && rules.contains("ip saddr 10.244.11.0/24 masquerade")
            && !rules.contains("10.244.1.0/24")
    });
}

/// So often that the time would not do for an agent that only looks every few seconds.
#[test]
fn what_is_deleted_is_put_back_by_notification() {
    let machine = among_near_and_far();
    let whole = machine.sh(TUNNEL);
    let damages = [
        "ip route del 10.244.2.0/24",
        "ip route del 10.244.3.0/24",
        "ip neigh del 10.244.3.0 dev weft-vxlan",
        "bridge fdb show dev weft-vxlan | while read mac rest; do bridge fdb del $mac dev weft-vxlan; done",
        "ip addr del 10.244.1.0/32 dev weft-vxlan",
        "ip link set weft-vxlan down",
        "ip link del weft-vxlan",
    ];
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<BTreeSet<_>>();
    let start = Instant::now();
    for damage in [damages; 3].concat() {
        machine.sh(damage);
        let is_whole = |machine: &Machine| {
            lines(&machine.sh(&format!("({TUNNEL}) 2>/dev/null || true"))) == lines(&whole)
        };
        machine.until(&format!("as before {damage}"), is_whole);
    }
    assert!(start.elapsed() < Duration::from_secs(60), "found by looking, not by being told");
}
