//! These run in the virtual machine.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use weft_agent::plan::NodePlan;
use weft_agent::routing::probe::plan::{PathState, PathStates};
use weft_testkit::namespace::{sh, sh_output};

use crate::world::{Site, World};

/// What the pod of a node hears when it asks for an answer.
fn ping(site: &Site, address: &str) -> String {
    let said = sh_output(&site.pod, &format!("ping -c 1 -W 3 {address}"));
    String::from_utf8_lossy(&said.stdout).into_owned()
}

#[test]
#[ignore = "runs in the virtual machine"]
fn pods_reach_each_other_and_nobody_in_between_sees_who_they_are() {
    for is_ipv4 in [true, false] {
        let mut world = World::new(2, is_ipv4);
        world.settle();
        world.assert_encrypted(&[(0, 1), (1, 0)]);
        let before = world.sites[0].state();
        assert!(before.contains("mtu 1420"), "{before}");
        world.settle();
        assert_eq!(world.sites[0].state(), before, "what is as planned is not touched");
    }
}

#[test]
#[ignore = "runs in the virtual machine"]
fn the_largest_packet_of_a_pod_arrives_whole() {
    let mut world = World::new(2, false);
    world.settle();
    for (to, headers) in [("10.244.2.2", 28), ("fd00:10:2::2", 48)] {
        let payload = world.plan(0).bridge_mtu().unwrap() - headers;
        sh(&world.sites[0].pod, &format!("ping -c 1 -W 10 -M do -s {payload} {to}"));
    }
}

#[test]
#[ignore = "runs in the virtual machine"]
fn packets_are_held_until_the_other_node_has_a_key_and_pods_are_told() {
    let mut world = World::new(2, true);
    world.sites[1].is_there = false;
    world.settle();
    // The Node comes, and its key later.
    world.sites[1].is_there = true;
    let plan = world.plan(0);
    assert_eq!(world.sites[0].apply(&plan), Vec::<String>::new());
    let wire = world.watch(0);
    for held in ["10.244.2.2", "fd00:10:2::2", "10.244.77.2", "fd00:10:77::2"] {
        let said = ping(&world.sites[0], held);
        assert!(said.contains("nreachable"), "{held}: {said}");
    }
    wire.passed().assert_nothing();
    world.settle();
    world.assert_encrypted(&[(0, 1)]);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn without_a_device_nothing_leaves_either() {
    let mut world = World::new(2, true);
    world.settle();
    world.assert_reached(0, 1);
    let key = world.sites[0].device().public_key;
    // Another program has its name.
    sh(&world.sites[0].node, "ip link delete weft-wg; ip link add weft-wg type dummy");
    let plan = world.plan(0);
    let errors = world.sites[0].apply(&plan);
    assert!(errors[0].contains("weft-wg that is no WireGuard device"), "{errors:?}");
    let wire = world.watch(0);
    assert!(ping(&world.sites[0], "10.244.2.2").contains("nreachable"));
    wire.passed().assert_nothing();
    sh(&world.sites[0].node, "ip link delete weft-wg");
    world.settle();
    world.assert_reached(0, 1);
    assert_eq!(world.sites[0].device().public_key, key, "the key on disk is the same");
}

#[test]
#[ignore = "runs in the virtual machine"]
fn an_agent_that_starts_again_takes_over_what_is_there_with_its_sessions() {
    let mut world = World::new(3, true);
    world.settle();
    world.assert_reached(0, 1);
    world.assert_reached(0, 2);
    let (state, device) = (world.sites[0].state(), world.sites[0].device());
    assert!(device.peers.iter().all(|peer| peer.last_handshake.is_some()), "{device:?}");
    world.sites[0].restart();
    world.settle();
    let after = world.sites[0].device();
    assert_eq!((world.sites[0].state(), &after), (state, &device));
    world.assert_reached(0, 1);
    let handshakes = |device: &weft_netlink::genl::wireguard::Device| {
        device.peers.iter().map(|peer| peer.last_handshake).collect::<Vec<_>>()
    };
    assert_eq!(handshakes(&world.sites[0].device()), handshakes(&device));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn a_node_that_is_gone_is_no_peer_and_its_addresses_are_refused() {
    let mut world = World::new(3, true);
    world.settle();
    world.assert_reached(0, 2);
    world.sites[2].is_there = false;
    world.settle();
    assert_eq!(world.sites[0].device().peers.len(), 1);
    assert!(!world.sites[0].state().contains("10.244.3.0/24"), "{}", world.sites[0].state());
    let wire = world.watch(0);
    assert!(ping(&world.sites[0], "10.244.3.2").contains("nreachable"));
    wire.passed().assert_nothing();
    world.assert_reached(0, 1);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn a_key_is_replaced_on_request_and_the_others_follow() {
    let mut world = World::new(2, true);
    world.settle();
    world.assert_reached(0, 1);
    let old = world.sites[1].end.key.clone();
    world.sites[1].end.retired_key.clone_from(&old);
    world.settle();
    let new = world.sites[1].end.key.clone();
    assert_ne!(new, old);
    world.assert_encrypted(&[(0, 1), (1, 0)]);
    assert_eq!(world.sites[0].device().peers.len(), 1, "the old key is nobody's");
    world.settle();
    assert_eq!(world.sites[1].end.key, new, "once");
    // Or by hand.
    std::fs::remove_file(&world.sites[1].key_file).unwrap();
    world.settle();
    assert_ne!(world.sites[1].end.key, new);
    world.assert_reached(0, 1);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn all_goes_with_the_backend_but_for_the_key() {
    let mut world = World::new(2, true);
    world.settle();
    let key = world.sites[0].end.key.clone();
    let mode = || std::fs::metadata(&world.sites[0].key_file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    assert_eq!(world.sites[0].apply(&NodePlan::default()), Vec::<String>::new());
    let links = sh(&world.sites[0].node, "ip -br link; ip route show proto 119; ip -6 route show proto 119");
    assert!(!links.contains("weft") && !links.contains("unreachable"), "{links}");
    world.sites[0].end = Default::default();
    world.sites[0].restart();
    world.settle();
    assert_eq!(world.sites[0].end.key, key);
    world.assert_reached(0, 1);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn whatever_is_changed_is_put_back() {
    let mut world = World::new(2, true);
    world.settle();
    let (whole, device) = (world.sites[0].state(), world.sites[0].device());
    for damage in [
        "ip link delete weft-wg",
        "ip link set weft-wg down",
        "ip link set weft-wg mtu 1300",
        "ip route flush proto 119; ip -6 route flush proto 119",
        "ip addr flush dev weft-wg; ip addr add 10.9.9.9/32 dev weft-wg",
        "ip route replace unreachable 10.244.2.0/24 proto 119",
    ] {
        sh(&world.sites[0].node, damage);
        world.settle();
        let comparable = |text: &str| -> Vec<String> {
            // A device that is made anew has another number.
            let mut lines: Vec<String> = text
                .lines()
                .map(|line| line.split_once(": weft-wg").map_or(line, |(_, rest)| rest).to_owned())
                .collect();
            lines.sort();
            lines
        };
        assert_eq!(comparable(&world.sites[0].state()), comparable(&whole), "after {damage}");
        assert_eq!(world.sites[0].device().public_key, device.public_key);
        world.assert_reached(0, 1);
    }
}

#[test]
#[ignore = "runs in the virtual machine"]
fn what_a_node_itself_sends_to_pods_of_others_is_encrypted_too() {
    let mut world = World::new(2, true);
    world.settle();
    let wire = world.watch(0);
    for (to, from) in [("10.244.2.2", "10.244.1.0"), ("fd00:10:2::2", "fd00:10:1::")] {
        let to: IpAddr = to.parse().unwrap();
        let server = SocketAddr::new(to, 7);
        let listener = world.sites[1].pod.run(|| UdpSocket::bind(server)).unwrap().unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        let node = world.sites[0].node.run(|| UdpSocket::bind((any, 0))).unwrap().unwrap();
        node.send_to(b"hello", server).unwrap();
        assert_eq!(listener.recv_from(&mut [0; 16]).unwrap().1.ip(), from.parse::<IpAddr>().unwrap());
    }
    wire.passed().assert_encrypted();
}

#[test]
#[ignore = "runs in the virtual machine"]
fn nodes_without_a_key_are_reached_by_the_other_tunnel_where_that_is_preferred() {
    let mut world = World::new(2, true);
    world.flags.push("--encryption=prefer");
    // Neither has a key yet.
    world.apply_once();
    let wire = world.watch(0);
    world.assert_reached(0, 1);
    let passed = wire.passed();
    assert!(passed.ports == [8472].into() && passed.is_readable, "{passed:?}");
    world.settle();
    world.assert_encrypted(&[(0, 1)]);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn a_port_that_somebody_has_is_told() {
    let mut world = World::new(1, true);
    let taken = world.sites[0].node.run(|| UdpSocket::bind("0.0.0.0:51820")).unwrap().unwrap();
    let plan = world.plan(0);
    let errors = world.sites[0].apply(&plan);
    assert!(errors[0].contains("UDP port 51820") && errors[0].contains("--wireguard-port"), "{errors:?}");
    drop(taken);
    world.settle();
}

#[test]
#[ignore = "runs in the virtual machine"]
fn nodes_of_one_link_reach_each_other_directly_and_the_others_through_the_encrypted_tunnel() {
    let mut world = World::on_links(&[1, 1, 2], true);
    (world.flags[0], world.path_states) = ("--tunnel=wireguard", PathStates::assuming(PathState::Works));
    world.settle();
    let wire = world.watch(0);
    world.assert_reached(0, 1);
    world.assert_reached(1, 0);
    let pods = [0, 1].map(|site: usize| world.sites[site].pod_addresses()).concat();
    wire.passed().assert_direct(&pods);
    world.assert_encrypted(&[(0, 2), (2, 0)]);

    // The one changes to the tunnel before the other does, and back.
    for (state, device) in [(PathState::Fails, "weft-wg"), (PathState::Works, "uplink")] {
        world.path_states = PathStates::assuming(state);
        for site in 0..2 {
            let plan = world.plan(site);
            assert_eq!(world.sites[site].apply(&plan), Vec::<String>::new());
            let way = sh(&world.sites[site].node, "ip route get 10.244.2.2; ip route get 10.244.1.2");
            assert!(way.contains(&format!("dev {device} ")), "{way}");
            world.assert_reached(0, 1);
            world.assert_reached(1, 0);
        }
    }
    // The other's pods are not reached by any other way while it has no key.
    world.path_states = PathStates::assuming(PathState::Fails);
    world.sites[1].end = Default::default();
    let plan = world.plan(0);
    assert_eq!(world.sites[0].apply(&plan), Vec::<String>::new());
    let wire = world.watch(0);
    for held in ["10.244.2.2", "fd00:10:2::2"] {
        let said = ping(&world.sites[0], held);
        assert!(said.contains("nreachable"), "{held}: {said}");
    }
    // The other one may still send something of its own through the tunnel.
    let passed = wire.passed();
    assert!(passed.pods.is_empty() && !passed.is_readable, "{passed:?}");
}
