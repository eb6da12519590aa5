//! What is planned for a node whose packets to others are encrypted.

use weft_types::{ChangeSet, Object};

use super::*;
use crate::options::Options;
use crate::plan::{NodePlan, plan};
use crate::routing::plan::{NextHop, NodeRoute};
use crate::routing::probe::plan::{PathState, PathStates};
use clap::Parser;

const KEY1: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
const KEY2: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const KEY3: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

/// `node1`, `node2` and so on, each with its key and endpoint where it has one.
fn nodes(ends: &[Option<(&str, &str)>]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (number, end) in (1..).zip(ends) {
        let node = Node {
            name: format!("node{number}"),
            pod_cidrs: vec![
                format!("10.244.{number}.0/24").parse().unwrap(),
                format!("fd00:10:244:{number}::/64").parse().unwrap(),
            ],
            addresses: vec![[172, 30, 0, 10 + number].into()],
            wireguard: end.map(|(key, endpoint)| {
                let (key, endpoint) = (key.to_owned(), endpoint.to_owned());
                Box::new(WireGuardEnd { key, endpoint, retired_key: String::new() })
            }),
            ..Node::default()
        };
        snapshot.apply(Object::Node(node), &mut ChangeSet::default());
    }
    snapshot
}

/// The plan of `node1`, which has the first key, with these further flags.
fn planned(snapshot: &Snapshot, flags: &[&str]) -> NodePlan {
    let flags =
        [&["weft-agent", "--backend=wireguard", "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48"], flags];
    let config = Options::parse_from(flags.concat()).config();
    let uplink = Uplink {
        mtu: Some(1500),
        wireguard: KEY1.parse().ok(),
        locals: vec![[172, 30, 0, 11].into()],
        ..Uplink::default()
    };
    plan(snapshot, "node1", &config, &uplink).unwrap()
}

fn wireguard(plan: &NodePlan) -> &WireGuard {
    plan.routing.wireguard.as_ref().unwrap()
}

fn told(plan: &NodePlan) -> String {
    plan.notices.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn hops(plan: &NodePlan) -> Vec<String> {
    plan.routing.routes.iter().map(NodeRoute::to_string).collect()
}

const END1: (&str, &str) = (KEY1, "172.30.0.11:51820");
const END2: (&str, &str) = (KEY2, "172.30.0.12:51820");
const END3: (&str, &str) = (KEY3, "172.30.0.13:51820");

#[test]
fn three_nodes_of_which_one_has_no_key_yet() {
    let plan = planned(&nodes(&[None, Some(END2), None]), &[]);
    insta::assert_snapshot!(plan);
}

#[test]
fn packets_to_a_node_without_a_key_are_held_or_leave_by_the_other_tunnel() {
    let nodes = nodes(&[Some(END1), Some(END2), None]);
    let strict = planned(&nodes, &[]);
    assert_eq!(wireguard(&strict).peers.keys().collect::<Vec<_>>(), ["node2"]);
    assert!(strict.routing.overlay.is_none() && told(&strict).contains("Node node3 has no WireGuard key"));
    assert!(
        strict
            .routing
            .routes
            .iter()
            .all(|route| matches!(route.next_hop, NextHop::WireGuard | NextHop::Unreachable))
    );
    assert!(strict.routing.routes.iter().all(|route| route.fallback.is_none()));

    let prefer = planned(&nodes, &["--encryption=prefer"]);
    let hops: Vec<NextHop> = prefer.routing.routes.iter().map(|route| route.next_hop).collect();
    assert_eq!(hops, [NextHop::WireGuard, NextHop::Tunnel, NextHop::WireGuard, NextHop::Tunnel]);
    assert!(told(&prefer).contains("leave unencrypted"));
}

#[test]
fn who_has_no_key_of_its_own_yet_encrypts_to_nobody_or_holds_all() {
    let nodes = nodes(&[None, Some(END2)]);
    let plan_without = |flags: &[&str]| {
        let flags = [&["weft-agent", "--backend=wireguard"], flags].concat();
        plan(&nodes, "node1", &Options::parse_from(flags).config(), &Uplink::default()).unwrap()
    };
    let strict = plan_without(&[]);
    assert_eq!(
        (hops(&strict)[0].as_str(), wireguard(&strict).peers.len()),
        ("10.244.2.0/24 dev weft-wg proto 119", 1)
    );
    let prefer = plan_without(&["--encryption=prefer"]);
    assert!(prefer.routing.routes.iter().all(|route| route.next_hop == NextHop::Tunnel));
    assert!(wireguard(&prefer).peers.is_empty(), "the others cannot take it for one that has a key");
}

#[test]
fn the_pods_mtu_has_room_for_both_families_of_outer_headers() {
    assert_eq!(planned(&nodes(&[Some(END1)]), &[]).bridge_mtu(), Some(1420));
    let prefer = planned(&nodes(&[Some(END1), None]), &["--encryption=prefer"]);
    assert_eq!(prefer.bridge_mtu(), Some(1420), "whichever tunnel they are behind");
}

#[test]
fn what_no_node_has_of_the_clusters_ranges_is_refused() {
    let alone = planned(&nodes(&[Some(END1)]), &[]);
    assert_eq!(
        hops(&alone),
        ["unreachable 10.244.0.0/16 proto 119", "unreachable fd00:10:244::/48 proto 119"]
    );
    assert_eq!(hops(&planned(&nodes(&[Some(END1)]), &["--encryption=prefer"])), [""; 0]);
}

#[test]
fn a_range_that_is_not_the_pods_alone_is_not_refused_and_that_is_told() {
    for (flags, owner) in [
        (&["--cluster-cidr=172.30.0.0/16"][..], "the address of Node node1"),
        (&["--cluster-cidr=10.0.0.0/8", "--service-cidr=10.96.0.0/12"], "Services"),
    ] {
        let plan = planned(&nodes(&[Some(END1)]), flags);
        assert!(told(&plan).contains(owner), "{}", told(&plan));
        assert!(!hops(&plan).iter().any(|hop| hop.contains("172.30.0.0/16") || hop.contains("10.0.0.0/8")));
    }
}

#[test]
fn hostile_annotations_give_no_peer_and_are_told_with_the_nodes_name() {
    for (key, expected) in [
        ("not a key", "the WireGuard key of Node node2"),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "it is all zeros"),
        ("AAAA", "it is not 32 bytes in base64"),
        (KEY1, "Node node2 has the WireGuard key of Node node1"),
    ] {
        let plan = planned(&nodes(&[Some(END1), Some((key, END2.1))]), &[]);
        assert!(wireguard(&plan).peers.is_empty(), "{key}");
        assert!(told(&plan).contains(expected) && told(&plan).contains("are held"), "{}", told(&plan));
    }
    let both = planned(&nodes(&[Some(END1), Some(END2), Some((KEY2, END3.1))]), &[]);
    assert_eq!(wireguard(&both).peers.keys().collect::<Vec<_>>(), ["node2"], "the first by name has it");
    assert!(told(&both).contains("Node node3 has the WireGuard key of Node node2"));
}

#[test]
fn an_endpoint_that_cannot_be_one_makes_a_peer_that_has_to_speak_first() {
    for endpoint in [
        "",
        "172.30.0.12",
        "172.30.0.12:0",
        "172.30.0.12:66000",
        "127.0.0.1:51820",
        "0.0.0.0:51820",
        "224.0.0.1:51820",
        "255.255.255.255:51820",
        "[::ffff:172.30.0.12]:51820",
        "10.244.1.9:51820",
        "10.244.2.9:51820",
        // A family of which this node has no address.
        "[fd00:30::12]:51820",
        "node2.example:51820",
    ] {
        let plan = planned(&nodes(&[Some(END1), Some((KEY2, endpoint))]), &[]);
        assert_eq!(wireguard(&plan).peers["node2"].endpoint, None, "{endpoint}");
        assert!(told(&plan).contains("Node node2 has no WireGuard endpoint"), "{endpoint}: {}", told(&plan));
    }
}

#[test]
fn the_endpoint_of_a_family_that_both_have_is_taken() {
    let plan = planned(&nodes(&[Some(END1), Some((KEY2, "[fd00:30::12]:7, 172.30.0.12:8"))]), &[]);
    assert_eq!(wireguard(&plan).peers["node2"].endpoint, "172.30.0.12:8".parse().ok());
    assert_eq!(told(&plan), "");
}

#[test]
fn the_node_says_its_key_and_its_addresses_unless_it_does_already() {
    let silent = planned(&nodes(&[Some(END1)]), &[]);
    assert_eq!(wireguard(&silent).announcement, None);
    for (end, flags) in [(None, &[][..]), (Some(END2), &[]), (Some(END1), &["--wireguard-port=7"])] {
        let plan = planned(&nodes(&[end]), flags);
        let announcement = wireguard(&plan).announcement.as_ref().unwrap();
        let port = if flags.is_empty() { 51820 } else { 7 };
        assert_eq!(
            (announcement.key.to_string(), announcement.endpoint()),
            (KEY1.into(), format!("172.30.0.11:{port}"))
        );
    }
}

#[test]
fn a_node_that_leaves_by_another_address_says_that_one() {
    let config = Options::parse_from(["weft-agent", "--backend=wireguard", "--node-ip=192.0.2.7"]).config();
    let (wireguard, locals) = (KEY1.parse().ok(), vec![[192, 0, 2, 7].into()]);
    let uplink = Uplink { wireguard, locals, ..Uplink::default() };
    let plan = plan(&nodes(&[None]), "node1", &config, &uplink).unwrap();
    let announcement = super::tests::wireguard(&plan).announcement.as_ref().unwrap();
    assert_eq!(announcement.endpoint(), "192.0.2.7:51820");
}

#[test]
fn a_key_that_the_node_must_not_have_is_known_by_its_text() {
    let retired = |text: &str| {
        let mut snapshot = nodes(&[]);
        let end = WireGuardEnd { retired_key: text.to_owned(), ..WireGuardEnd::default() };
        let node = Node { name: "node1".into(), wireguard: Some(Box::new(end)), ..Node::default() };
        snapshot.apply(Object::Node(node), &mut ChangeSet::default());
        wireguard(&planned(&snapshot, &[])).retired
    };
    assert_eq!((retired(KEY1), retired("all of them")), (KEY1.parse().ok(), None));
}

/// The plan of `node1`, which leads through the encrypted tunnel where it does not reach nodes directly, and which
/// knows that of the direct paths. It shares a link with the others of 172.30.0.0/24.
fn automatic(snapshot: &Snapshot, state: PathState, flags: &[&str]) -> NodePlan {
    let usual = ["weft-agent", "--tunnel=wireguard", "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48"];
    let config = Options::parse_from([&usual, flags].concat()).config();
    let uplink = Uplink {
        mtu: Some(1500),
        wireguard: KEY1.parse().ok(),
        locals: vec![[172, 30, 0, 11].into()],
        networks: vec!["172.30.0.11/24".parse().unwrap()],
        path_states: PathStates::assuming(state),
        ..Uplink::default()
    };
    plan(snapshot, "node1", &config, &uplink).unwrap()
}

/// Of nodes on the same link, node 2 has a key and node 3 has none; node 4, on another link, has one.
fn on_two_links() -> Snapshot {
    let mut nodes = nodes(&[Some(END1), Some(END2), None]);
    let far = Node {
        name: "node4".to_owned(),
        pod_cidrs: vec!["10.244.4.0/24".parse().unwrap()],
        addresses: vec![[172, 30, 9, 14].into()],
        wireguard: Some(Box::new(WireGuardEnd {
            key: KEY3.to_owned(),
            endpoint: "172.30.9.14:51820".to_owned(),
            retired_key: String::new(),
        })),
        ..Node::default()
    };
    nodes.apply(Object::Node(far), &mut ChangeSet::default());
    nodes
}

/// To the pods of the others of IPv4.
fn leads(plan: &NodePlan) -> Vec<(String, NextHop)> {
    let of_pods = |route: &&NodeRoute| route.destination.is_ipv4() && route.destination.prefix() == 24;
    let routes = plan.routing.routes.iter().filter(of_pods);
    routes.map(|route| (route.destination.to_string(), route.next_hop)).collect()
}

#[test]
fn only_nodes_that_are_not_reached_directly_are_behind_the_encrypted_tunnel() {
    let planned = automatic(&on_two_links(), PathState::Works, &[]);
    let direct = |last: u8| NextHop::Direct([172, 30, 0, last].into());
    let expected = [("2", direct(12)), ("3", direct(13)), ("4", NextHop::WireGuard)];
    let expected = expected.map(|(node, hop)| (format!("10.244.{node}.0/24"), hop));
    assert_eq!(leads(&planned), expected);
    assert!(planned.routing.overlay.is_none(), "nothing leaves through a tunnel that does not encrypt");
    assert_eq!(planned.bridge_mtu(), Some(1420));
    // Who changes to the direct path second still sends through the tunnel.
    let allowed = &wireguard(&planned).peers["node2"].allowed;
    assert!(allowed.contains(&"10.244.2.0/24".parse().unwrap()), "{allowed:?}");
    let probes: Vec<String> = planned.routing.probes.iter().map(|probe| probe.direct.1.to_string()).collect();
    assert_eq!(probes, ["10.244.2.1", "10.244.3.1"]);
    let text = wireguard(&planned).to_string();
    assert!(text.contains("ip address add 10.244.1.1/32 dev weft-wg scope link"), "{text}");

    assert!(planned.routing.held().contains(&"10.244.4.0/24".parse().unwrap()));

    let mut near = Snapshot::default();
    for node in nodes(&[Some(END1), Some(END2)]).nodes() {
        // By IPv6, of which the nodes have no addresses here, they would be behind the tunnel.
        let pod_cidrs = node.pod_cidrs.iter().copied().filter(IpNetwork::is_ipv4).collect();
        near.apply(Object::Node(Node { pod_cidrs, ..node.clone() }), &mut ChangeSet::default());
    }
    let near = automatic(&near, PathState::Works, &[]);
    assert_eq!(near.bridge_mtu(), Some(1500), "nothing is taken off where nothing is tunnelled");
    assert!(near.routing.held().is_empty());
}

#[test]
fn what_is_not_proved_to_be_reached_directly_is_held_while_it_cannot_be_encrypted() {
    let nodes = on_two_links();
    let hops =
        |state, flags: &[&str]| leads(&automatic(&nodes, state, flags)).into_iter().map(|(_, hop)| hop);
    for state in [PathState::Unknown, PathState::Fails, PathState::Unreachable] {
        assert!(hops(state, &[]).eq([NextHop::WireGuard; 3]), "{state:?}");
        let preferred = [NextHop::WireGuard, NextHop::Tunnel, NextHop::WireGuard];
        assert!(hops(state, &["--encryption=prefer"]).eq(preferred), "{state:?}");
    }
    // For the moment of the first try.
    let (open, refused) = (PathState::FirstContact, NextHop::Unreachable);
    assert!(hops(open, &[]).eq([refused, refused, NextHop::WireGuard]));
    assert!(hops(open, &["--encryption=prefer"]).eq([NextHop::WireGuard]));
    let unknown = automatic(&nodes, PathState::Works, &[]);
    assert!(unknown.to_string().contains("ip route add unreachable 10.244.0.0/16"), "{unknown}");
    let fails = told(&automatic(&nodes, PathState::Fails, &[]));
    assert!(fails.contains("set --backend wireguard on all nodes"), "{fails}");
    let unreachable = told(&automatic(&nodes, PathState::Unreachable, &[]));
    assert!(unreachable.contains("allow UDP port 51820 (--wireguard-port)"), "{unreachable}");
}
