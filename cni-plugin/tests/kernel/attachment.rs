//! ADD and DEL where all goes well: what is made, what flows, what is gone.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::node::{Node, address, answer, serve, talk};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn add_makes_what_its_result_tells() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24"]);
    let pod = node.pod("c1");
    let result = node.add(&pod, &config);

    let (bridge, inside) = (node.route().link("cni0").unwrap(), pod.link().unwrap());
    let host = node.links().into_iter().find(|link| link.kind.as_deref() == Some("veth")).unwrap();
    let expected = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "cni0", "mac": bridge.mac.unwrap().to_string(), "mtu": 1500},
            {"name": host.name, "mac": host.mac.unwrap().to_string(), "mtu": 1500},
            {"name": "eth0", "mac": inside.mac.unwrap().to_string(), "mtu": 1500, "sandbox": pod.netns},
        ],
        "ips": [{"address": "10.244.1.2/24", "gateway": "10.244.1.1", "interface": 2}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}],
    });
    assert_eq!(result, expected);
    assert!(bridge.up && host.up && inside.up);
    assert_eq!((host.master, inside.peer), (Some(bridge.index), Some(host.index)));
    assert_eq!(host.alias.as_deref(), Some("weft/c1/eth0"));
    assert_eq!(bridge.mac.unwrap().to_string(), "0a:58:0a:f4:01:01", "it does not change with the ports");
    assert_eq!(pod.gateways(), [ip("10.244.1.1")]);
    let addresses = node.route().addresses(Some(bridge.index)).unwrap();
    assert!(addresses.iter().any(|address| address.address == "10.244.1.1/24".parse().unwrap()));
}

#[test]
fn pods_reach_each_other_and_the_gateway_in_both_families() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24", "fd00:1::/64"]);
    let (one, two) = (node.pod("c1"), node.pod("c2"));
    let (first, second) = (node.add(&one, &config), node.add(&two, &config));
    for place in [0, 1] {
        let gateway: IpAddr = first["ips"][place]["gateway"].as_str().unwrap().parse().unwrap();
        let (client, server) = (address(&first, place), address(&second, place));
        serve(two.namespace(), SocketAddr::new(server, 8080));
        serve(&node.namespace, SocketAddr::new(gateway, 8080));
        assert_eq!(talk(one.namespace(), SocketAddr::new(server, 8080)).unwrap(), client, "pod to pod");
        assert_eq!(talk(one.namespace(), SocketAddr::new(gateway, 8080)).unwrap(), client, "pod to gateway");
        assert_eq!(talk(&node.namespace, SocketAddr::new(server, 8080)).unwrap(), gateway, "host to pod");
    }
}

#[test]
fn pods_of_a_plain_bridge_reach_each_other_directly() {
    let node = Node::new();
    let mut config = node.config(&["10.244.1.0/24", "fd00:1::/64"]);
    config["portIsolation"] = false.into();
    config["hairpinMode"] = true.into();
    config["mtu"] = 1400.into();
    let (one, two) = (node.pod("c1"), node.pod("c2"));
    let (first, second) = (node.add(&one, &config), node.add(&two, &config));
    assert_eq!((one.link().unwrap().mtu, node.route().link("cni0").unwrap().mtu), (1400, 1400));
    for place in [0, 1] {
        let server = SocketAddr::new(address(&second, place), 8080);
        serve(two.namespace(), server);
        assert_eq!(talk(one.namespace(), server).unwrap(), address(&first, place));
    }
}

#[test]
fn del_takes_everything_away_and_may_come_twice() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24"]);
    let (pod, other) = (node.pod("c1"), node.pod("c2"));
    node.add(&pod, &config);
    node.add(&other, &config);
    for _ in 0..2 {
        node.del(&pod, &config);
        assert_eq!(pod.link(), None);
        assert_eq!(node.reserved().into_iter().collect::<Vec<_>>(), [ip("10.244.1.3")]);
        assert_eq!(node.veths().len(), 1, "the other's stays");
    }
    assert!(other.link().is_some());
    assert_eq!(address(&node.add(&pod, &config), 0), ip("10.244.1.4"), "round robin: not the one just freed");
}

#[test]
fn del_works_without_the_namespace() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24"]);
    let (mut gone, mut empty, held) = (node.pod("c1"), node.pod("c2"), node.pod("c3"));
    for pod in [&gone, &empty, &held] {
        node.add(pod, &config);
    }
    gone.vanish();
    node.del(&gone, &config);
    // Unmounted, but alive because a process (here: this test) holds it; and the runtime has lost its path.
    let kept = empty.namespace.take();
    let program = env!("CARGO_BIN_EXE_weft-cni");
    assert_eq!(answer(node.spawn_program(program, "DEL", "c2", "", &config)), Ok(Value::Null));
    empty.namespace = kept;
    assert_eq!(empty.link(), None);
    assert_eq!(node.reserved().into_iter().collect::<Vec<_>>(), [ip("10.244.1.4")]);
    assert_eq!(node.veths().len(), 1);
}

#[test]
fn del_of_a_pod_that_the_reference_plugin_made() {
    let node = Node::new();
    let mut config = node.config(&["10.244.1.0/24"]);
    config["cniVersion"] = "1.0.0".into();
    config["ipam"]["type"] = "host-local".into();
    let (theirs, ours) = (node.pod("c1"), node.pod("c2"));
    let netns = theirs.netns.to_string_lossy().into_owned();
    let reference = |command: &str, id: &str, netns: &str| {
        answer(node.spawn_program("/usr/lib/cni/bridge", command, id, netns, &config))
    };
    let result = reference("ADD", "c1", &netns).unwrap();
    assert_eq!(address(&result, 0), ip("10.244.1.2"));
    assert_eq!(address(&node.add(&ours, &config), 0), ip("10.244.1.3"));
    node.del(&theirs, &config);
    assert_eq!(theirs.link(), None);
    // And the other way round.
    assert_eq!(reference("DEL", "c2", &ours.netns.to_string_lossy()), Ok(Value::Null));
    assert_eq!(ours.link(), None);
    assert!(node.reserved().is_empty() && node.veths().is_empty());
}

/// Debian's containernetworking-plugins has an IPAM plugin `static`.
#[test]
fn another_ipam_plugin_is_run_and_its_failure_passed_on() {
    let node = Node::new();
    let mut config = node.config(&[]);
    for version in ["0.2.0", "1.0.0"] {
        config["cniVersion"] = version.into();
        config["ipam"] = json!({"type": "static", "addresses": [
            {"address": "10.244.9.9/24", "gateway": "10.244.9.1"},
            {"address": "fd00:9::9/64", "gateway": "fd00:9::1"},
        ]});
        let pod = node.pod("c1");
        let result = node.add(&pod, &config);
        let given = if version == "0.2.0" { &result["ip4"]["ip"] } else { &result["ips"][0]["address"] };
        assert_eq!(given, "10.244.9.9/24");
        assert_eq!(pod.gateways(), [ip("10.244.9.1"), ip("fd00:9::1")]);
        node.del(&pod, &config);
        assert_eq!(pod.link(), None);
    }
    config["ipam"]["addresses"] = json!([{"address": "nonsense"}]);
    let error = node.call("ADD", &node.pod("c2"), &config).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("/usr/lib/cni/static: "), "{error}");
}

#[test]
fn the_bridge_heals_when_the_pod_cidr_changes() {
    let node = Node::new();
    node.add(&node.pod("c1"), &node.config(&["10.244.1.0/24"]));
    let mut changed = node.config(&["10.244.7.0/24"]);
    let pod = node.pod("c2");
    changed["forceAddress"] = false.into();
    let error = node.call("ADD", &pod, &changed).unwrap_err();
    assert_eq!(
        error["msg"],
        "bridge cni0 already has an IP address different from 10.244.7.1/24: 10.244.1.1/24"
    );
    assert_eq!(node.reserved().len(), 1, "the refused one's address is free again");
    changed["forceAddress"] = true.into();
    node.add(&pod, &changed);
    let bridge = node.route().link("cni0").unwrap();
    let addresses = node.route().addresses(Some(bridge.index)).unwrap();
    let ipv4: Vec<_> =
        addresses.iter().filter(|address| address.address.is_ipv4()).map(|a| a.address.to_string()).collect();
    assert_eq!(ipv4, ["10.244.7.1/24"]);
}

#[test]
fn the_asked_for_mac_and_address_are_given() {
    let node = Node::new();
    let mut config = node.config(&["10.244.1.0/24"]);
    config["runtimeConfig"] = json!({"mac": "02:00:00:00:00:07", "ips": ["10.244.1.77"]});
    let pod = node.pod("c1");
    assert_eq!(address(&node.add(&pod, &config), 0), ip("10.244.1.77"));
    assert_eq!(pod.link().unwrap().mac.unwrap().to_string(), "02:00:00:00:00:07");
}

#[test]
fn check_passes_after_add_and_names_what_is_gone() {
    let node = Node::new();
    let mut config = node.config(&["10.244.1.0/24", "fd00:1::/64"]);
    let pod = node.pod("c1");
    config["prevResult"] = node.add(&pod, &config);
    assert_eq!(node.call("CHECK", &pod, &config), Ok(Value::Null));
    let mut route = pod.route();
    let link = pod.link().unwrap();
    let default = weft_netlink::rtnl::Route::default_via(ip("10.244.1.1"));
    route.delete_route(&default).unwrap();
    assert_eq!(
        node.call("CHECK", &pod, &config).unwrap_err()["msg"],
        "container c1: the route to 0.0.0.0/0 is gone"
    );
    for address in route.addresses(Some(link.index)).unwrap() {
        route.delete_address(address).unwrap();
    }
    assert_eq!(
        node.call("CHECK", &pod, &config).unwrap_err()["msg"],
        "container c1: eth0 lacks address 10.244.1.2/24"
    );
}

#[test]
fn garbage_collection_deletes_only_what_is_this_networks_and_not_valid() {
    let node = Node::new();
    let mut config = node.config(&["10.244.1.0/24"]);
    let mut other = node.config(&["10.244.2.0/24"]);
    other["name"] = "other".into();
    other["bridge"] = "cni1".into();
    let (stale, valid, foreign) = (node.pod("c1"), node.pod("c2"), node.pod("c3"));
    node.add(&stale, &config);
    node.add(&valid, &config);
    node.add(&foreign, &other);
    config["cni.dev/valid-attachments"] = json!([{"containerID": "c2", "ifname": "eth0"}]);
    assert_eq!(node.call("GC", &stale, &config), Ok(Value::Null));
    assert_eq!(stale.link(), None);
    assert!(valid.link().is_some() && foreign.link().is_some());
    assert_eq!(node.reserved().into_iter().collect::<Vec<_>>(), [ip("10.244.1.3")]);
}

#[test]
fn of_two_default_routes_the_first_stays() {
    let node = Node::new();
    let (pod, mut config) = (node.pod("c1"), node.config(&["10.244.1.0/24"]));
    node.add(&pod, &config);
    config["name"] = "other".into();
    config["bridge"] = "cni1".into();
    config["ipam"]["ranges"] = json!([[{"subnet": "10.244.2.0/24"}]]);
    let netns = pod.netns.to_string_lossy();
    let variables =
        [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth1"), ("CNI_NETNS", &*netns)];
    let program = env!("CARGO_BIN_EXE_weft-cni");
    let stdin = config.to_string().into_bytes();
    assert_eq!(address(&answer(node.spawn_in(program, &variables, &stdin)).unwrap(), 0), ip("10.244.2.2"));
    assert_eq!(pod.gateways(), [ip("10.244.1.1")]);
}

#[test]
fn loopback_by_its_name_sets_lo_up() {
    let node = Node::new();
    let pod = node.pod("c1");
    let program = called(&node, "loopback");
    let netns = pod.netns.to_string_lossy();
    let config = json!({"cniVersion": "1.0.0", "name": "cni-loopback", "type": "loopback"});
    let call = |command: &str| {
        answer(node.spawn_program(&program.to_string_lossy(), command, "c1", &netns, &config))
    };
    assert!(!pod.route().link("lo").unwrap().up);
    let result = call("ADD").unwrap();
    assert!(pod.route().link("lo").unwrap().up);
    assert_eq!(
        result["interfaces"][0],
        json!({"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": pod.netns})
    );
    assert_eq!(result["ips"][0], json!({"address": "127.0.0.1/8", "interface": 0}));
    assert_eq!(call("DEL"), Ok(Value::Null));
}

/// The plugin's program in a folder of the node, called by another name.
fn called(node: &Node, name: &str) -> PathBuf {
    let program = node.folder.path().join(name);
    symlink(env!("CARGO_BIN_EXE_weft-cni"), &program).unwrap();
    program
}

#[test]
fn by_the_names_of_an_ipam_it_gives_addresses() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24"]);
    for (number, name) in ["weft-ipam", "host-local"].into_iter().enumerate() {
        let program = called(&node, name);
        let container = format!("c{number}");
        let call = |command: &str| {
            answer(node.spawn_program(
                &program.to_string_lossy(),
                command,
                &container,
                "/proc/self/ns/net",
                &config,
            ))
        };
        let address = address(&call("ADD").unwrap(), 0);
        assert!(node.reserved().contains(&address), "{name}: {address}");
        assert_eq!(call("DEL"), Ok(Value::Null));
        assert!(!node.reserved().contains(&address), "{name}: {address}");
    }
    assert_eq!(node.veths().len(), 0);
}

#[test]
fn pods_of_two_ipv6_networks_on_one_bridge_have_ethernet_addresses_of_their_own() {
    let node = Node::new();
    let [blue, red] = [("blue", "fd00:1::/64"), ("red", "fd00:2::/64")].map(|(name, subnet)| {
        let mut config = node.config(&[subnet]);
        config["name"] = name.into();
        config["portIsolation"] = false.into();
        config
    });
    let (one, other) = (node.pod("c1"), node.pod("c2"));
    let results = [node.add(&one, &blue), node.add(&other, &red)];
    let macs = [&one, &other].map(|pod| pod.link().unwrap().mac);
    assert_ne!(macs[0], macs[1]);
    for (pod, result) in [&one, &other].into_iter().zip(&results) {
        serve(pod.namespace(), SocketAddr::new(address(result, 0), 80));
    }
    for _ in 0..5 {
        results.iter().for_each(|result| {
            talk(&node.namespace, SocketAddr::new(address(result, 0), 80)).unwrap();
        });
    }
    node.del(&one, &blue);
    let next = node.pod("c3");
    let mut config = blue;
    config["runtimeConfig"] = json!({"ips": [address(&results[0], 0).to_string()]});
    node.add(&next, &config);
    assert_eq!(next.link().unwrap().mac, macs[0], "so that no neighbour's table is out of date");
}

#[test]
fn a_bridge_that_was_there_before_keeps_its_ethernet_address_whatever_ports_come_and_go() {
    for has_address in [false, true] {
        let node = Node::new();
        node.run("ip", &["link", "add", "cni0", "up", "type", "bridge"]);
        if has_address {
            node.run("ip", &["address", "add", "10.244.1.1/24", "dev", "cni0"]);
        }
        let config = node.config(&["10.244.1.0/24"]);
        let pods: Vec<_> = (0..6).map(|number| node.pod(&format!("c{number}"))).collect();
        node.add(&pods[0], &config);
        let mac = || node.route().link("cni0").unwrap().mac.unwrap();
        let first = mac();
        for pod in &pods[1..] {
            node.add(pod, &config);
            assert_eq!(mac(), first, "{}", pod.id);
        }
        for pod in &pods {
            node.del(pod, &config);
            assert_eq!(mac(), first, "{}", pod.id);
        }
    }
}

#[test]
fn a_bridge_of_the_hosts_own_link_keeps_that_links_ethernet_address() {
    let node = Node::new();
    node.run("ip", &["link", "add", "uplink", "up", "address", "52:54:00:00:00:01", "type", "veth"]);
    node.run("ip", &["link", "add", "br0", "up", "type", "bridge"]);
    node.run("ip", &["link", "set", "uplink", "master", "br0"]);
    let mut config = node.config(&["10.244.1.0/24"]);
    for (key, value) in
        [("bridge", json!("br0")), ("isGateway", json!(false)), ("isDefaultGateway", json!(false))]
    {
        config[key] = value;
    }
    for number in 0..12 {
        let pod = node.pod(&format!("c{number}"));
        node.add(&pod, &config);
        let mac = node.route().link("br0").unwrap().mac.unwrap().to_string();
        assert_eq!(mac, "52:54:00:00:00:01", "c{number}");
    }
}

#[test]
fn no_pod_becomes_the_others_default_router() {
    let node = Node::new();
    let accepts = |config: &Value| {
        let pod = node.pod("c1");
        node.add(&pod, config);
        let read = || std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra");
        let accepts = pod.namespace().run(read).unwrap().unwrap().trim() != "0";
        node.del(&pod, config);
        accepts
    };
    for subnets in [&["10.244.1.0/24"][..], &["10.244.1.0/24", "fd00:1::/64"], &["fd00:1::/64"]] {
        assert!(!accepts(&node.config(subnets)), "{subnets:?}");
    }
    let mut link_only = node.config(&["10.244.1.0/24"]);
    for key in ["isGateway", "isDefaultGateway"] {
        link_only[key] = false.into();
    }
    assert!(accepts(&link_only), "its router may be on the link");
}
