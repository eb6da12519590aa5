//! What is planned for a node, from values alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_cni_spec::Ipam;
use weft_types::{ChangeSet, Object};

use super::*;
use crate::config::Config;
use crate::routing::plan::NextHop;
use crate::routing::probe::plan::{PathState, PathStates};
use crate::routing::vxlan::plan::Settings;
use crate::routing::wireguard::plan as wireguard;
use crate::uplink::{Backend, LeaveBy, Tunnel};

fn config(cluster_cidrs: &[&str]) -> Config {
    Config {
        cluster_cidrs: cluster_cidrs.iter().map(|text| text.parse().unwrap()).collect(),
        blocks: None,
        network_name: "weft".parse().unwrap(),
        bridge: "cni0".parse().unwrap(),
        data_dir: "/var/lib/cni/networks".into(),
        boot: None,
        mtu: None,
        policy_timeout: None,
        backend: Backend::HostGw,
        tunnel: Tunnel::Vxlan,
        vxlan: Settings { vni: 1, port: 8472 },
        wireguard: wireguard(),
        leave_by: LeaveBy::Node,
        bgp_imports: Vec::new(),
        service_cidrs: Vec::new(),
    }
}

/// As without flags.
fn wireguard() -> wireguard::Settings {
    let key_file = "/var/lib/cni/networks/.wireguard-key".into();
    wireguard::Settings { port: 51820, keepalive: None, encryption: wireguard::Encryption::Strict, key_file }
}

fn uplink(mtu: u32, networks: &[&str]) -> Uplink {
    let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
    Uplink { mtu: Some(mtu), networks, ..Uplink::default() }
}

fn snapshot(nodes: &[(&str, &[&str], &[&str])]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, pod_cidrs, addresses) in nodes {
        let node = Node {
            name: (*name).to_owned(),
            pod_cidrs: pod_cidrs.iter().map(|text| text.parse().unwrap()).collect(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ..Node::default()
        };
        snapshot.apply(Object::Node(node), &mut ChangeSet::default());
    }
    snapshot
}

const NODE1: (&str, &[&str], &[&str]) = ("node1", &["10.244.1.0/24"], &["172.30.0.11"]);
const NODE2: (&str, &[&str], &[&str]) = ("node2", &["10.244.2.0/24"], &["172.30.0.12"]);

#[test]
fn three_nodes() {
    let node3: (_, &[_], &[_]) = ("node3", &["10.244.3.0/24"], &["172.30.0.13"]);
    let snapshot = snapshot(&[NODE1, NODE2, node3]);
    let plan = plan(&snapshot, "node1", &config(&["10.244.0.0/16"]), &uplink(1500, &[])).unwrap();
    insta::assert_snapshot!(plan);
}

#[test]
fn dual_stack_without_a_cluster_cidr() {
    let snapshot = snapshot(&[
        ("node1", &["10.244.1.0/24", "fd00:10:244:1::/64"], &["172.30.0.11", "fd00:30::11"]),
        ("node2", &["10.244.2.0/24", "fd00:10:244:2::/64"], &["172.30.0.12", "fd00:30::12"]),
    ]);
    insta::assert_snapshot!(plan(&snapshot, "node1", &config(&[]), &Uplink::default()).unwrap());
}

#[test]
fn everything_that_can_be_wrong_with_nodes() {
    let snapshot = snapshot(&[
        ("a-thief", &["10.244.1.128/25"], &["172.30.0.20"]),
        ("b-everything", &["0.0.0.0/0"], &["172.30.0.21"]),
        NODE1,
        NODE2,
        ("node3", &["10.244.2.0/25", "10.244.3.0/24"], &["172.30.0.13"]),
        ("node4", &["fd00:10:244:4::/64"], &["172.30.0.14"]),
        ("node5", &[], &[]),
    ]);
    insta::assert_snapshot!(
        plan(&snapshot, "node1", &config(&["10.244.0.0/16"]), &uplink(9000, &[])).unwrap()
    );
}

/// As Vagrant's machines have 10.0.2.15 on their first interface, each of them.
#[test]
fn nodes_with_one_address_are_told_to_give_the_kubelet_another() {
    let nodes = snapshot(&[NODE1, ("node2", &["10.244.2.0/24"], NODE1.2)]);
    let plan = plan(&nodes, "node1", &config(&["10.244.0.0/16"]), &uplink(1500, &[])).unwrap();
    let told = plan.notices.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(told.contains("--node-ip") && !told.contains("choose other pod or Service ranges"), "{told}");
}

#[test]
fn a_node_without_a_pod_cidr_routes_but_starts_no_pods() {
    let snapshot = snapshot(&[("node1", &[], &["172.30.0.11"]), NODE2]);
    insta::assert_snapshot!(plan(&snapshot, "node1", &config(&[]), &uplink(1500, &[])).unwrap());
}

#[test]
fn without_its_node_there_is_no_plan() {
    let error = plan(&snapshot(&[NODE2]), "node1", &config(&[]), &Uplink::default()).unwrap_err();
    assert_eq!(error, Notice::NoNode("node1".to_owned()));
}

#[test]
fn the_flag_goes_before_the_links_mtu() {
    let config = Config { mtu: Some(1400), ..config(&[]) };
    let plan = plan(&snapshot(&[NODE1]), "node1", &config, &uplink(1500, &[])).unwrap();
    assert_eq!(plan.cni_config.unwrap().plugins[0].bridge.mtu, Some(1400));
}

#[test]
fn the_plugin_is_told_how_long_pods_wait_for_their_policies() {
    let timeout = |policy_timeout| {
        let config = Config { policy_timeout, ..config(&[]) };
        let plan = plan(&snapshot(&[NODE1]), "node1", &config, &uplink(1500, &[])).unwrap();
        plan.cni_config.unwrap().plugins[0].bridge.policy_timeout
    };
    assert_eq!([None, Some(0), Some(5)].map(timeout), [None, Some(0), Some(5)]);
}

#[test]
fn every_node_is_behind_the_tunnel() {
    let config = Config { backend: Backend::Vxlan, ..config(&["10.244.0.0/16"]) };
    let snapshot = snapshot(&[
        ("node1", &["10.244.1.0/24", "fd00:10:244:1::/64"], &["172.30.0.11", "fd00:30::11"]),
        ("node2", &["10.244.2.0/24", "fd00:10:244:2::/64"], &["172.30.0.12"]),
        ("node3", &["10.244.3.0/24", "10.244.4.0/24"], &["172.30.0.13"]),
        ("node4", &["10.244.5.0/24"], &["fd00:30::14"]),
    ]);
    insta::assert_snapshot!(plan(&snapshot, "node1", &config, &uplink(1500, &["172.30.0.0/24"])).unwrap());
}

#[test]
fn only_nodes_without_a_common_link_are_behind_the_tunnel() {
    let config = Config { backend: Backend::Auto, ..config(&["10.244.0.0/16"]) };
    let near =
        Uplink { path_states: PathStates::assuming(PathState::Works), ..uplink(1500, &["172.30.0.0/24"]) };
    let away = ("node3", &["10.244.3.0/24"][..], &["192.0.2.13"][..]);
    let mixed = plan(&snapshot(&[NODE1, NODE2, away]), "node1", &config, &near).unwrap();
    let hops: Vec<NextHop> = mixed.routing.routes.iter().map(|route| route.next_hop).collect();
    assert_eq!(hops, [NextHop::Direct("172.30.0.12".parse().unwrap()), NextHop::Tunnel]);
    assert_eq!(mixed.routing.overlay.as_ref().unwrap().remotes.len(), 1);
    assert_eq!(mixed.bridge_mtu(), Some(1450));

    let flat = plan(&snapshot(&[NODE1, NODE2]), "node1", &config, &near).unwrap();
    assert_eq!(flat.bridge_mtu(), Some(1500), "nothing is taken off where nothing is tunnelled");
    assert!(flat.routing.overlay.is_some(), "others may see it differently, and send through the tunnel");
    let target: Vec<String> = flat.routing.probes.iter().map(|probe| probe.direct.1.to_string()).collect();
    assert_eq!(target, ["10.244.2.1"], "it is tried on and on");
}

#[test]
fn a_straight_way_is_used_only_once_it_is_proved() {
    let config = Config { backend: Backend::Auto, ..config(&["10.244.0.0/16"]) };
    let planned = |proof| {
        let near = Uplink { path_states: PathStates::assuming(proof), ..uplink(1500, &["172.30.0.0/24"]) };
        plan(&snapshot(&[NODE1, NODE2]), "node1", &config, &near).unwrap()
    };
    let routes = |plan: &NodePlan| plan.routing.routes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let through = [
        "10.244.2.0/24 via 10.244.2.0 dev weft-vxlan onlink proto 119",
        "10.244.2.1/32 via 172.30.0.12 proto 119",
    ];
    let (open, fails) = (planned(PathState::Unknown), planned(PathState::Fails));
    assert_eq!((routes(&open), open.bridge_mtu()), (through.map(str::to_owned).to_vec(), Some(1500)));
    assert_eq!(open.notices, [], "a Node that comes is not up yet");
    assert_eq!((routes(&fails), fails.bridge_mtu()), (through.map(str::to_owned).to_vec(), Some(1450)));
    let told = fails.notices[0].to_string();
    assert!(told.contains("(172.30.0.12)") && told.contains("reached through the tunnel"), "{told}");
    assert_eq!(routes(&planned(PathState::Works)), ["10.244.2.0/24 via 172.30.0.12 proto 119"]);
}

#[test]
fn a_node_whose_address_is_elsewhere_says_so_and_sends_from_its_own() {
    let config = Config { backend: Backend::Auto, ..config(&["10.244.0.0/16"]) };
    let own = ("node1", &["10.244.1.0/24"][..], &["203.0.113.7"][..]);
    let snapshot = snapshot(&[own, NODE2]);
    let foreign = vec!["203.0.113.7".parse().unwrap()];
    let here = Uplink {
        locals: vec!["10.0.0.5".parse().unwrap()],
        foreign: foreign.clone(),
        ..uplink(1500, &["10.0.0.5/24"])
    };
    let planned = plan(&snapshot, "node1", &config, &here).unwrap();
    let device = planned.routing.overlay.unwrap().device;
    assert_eq!(device.local.to_string(), "10.0.0.5");
    let announced =
        plan(&snapshot, "node1", &config, &uplink(1500, &[])).unwrap().routing.overlay.unwrap().device;
    assert_eq!(device.mac, announced.mac, "the Ethernet address is the one that others derive");
    let told = planned.notices[0].to_string();
    assert!(
        told.contains("203.0.113.7, which is on no interface") && told.contains("from 10.0.0.5"),
        "{told}"
    );
}

#[test]
fn several_ranges_of_a_family_are_one_set_and_each_is_masqueraded() {
    let ranges = ["10.244.1.0/24", "fd00:10:244:1::/64", "10.244.9.0/24"];
    let own = ("node1", &ranges[..], &["172.30.0.11"][..]);
    let plan = plan(&snapshot(&[own]), "node1", &config(&[]), &uplink(1500, &[])).unwrap();
    for range in ranges {
        assert!(plan.to_string().contains(&format!("saddr {range} masquerade")), "{plan}");
    }
    let ipam = plan.cni_config.unwrap().plugins[0].ipam.clone().unwrap();
    let sets = |ipam: Ipam| serde_json::to_value(ipam.ranges).unwrap();
    let subnet = |index: usize| serde_json::json!({"subnet": ranges[index]});
    assert_eq!(
        sets(ipam),
        serde_json::json!([[subnet(0), subnet(2)], [subnet(1)]]),
        "one address of each family"
    );
}

#[test]
fn no_range_may_overlap_that_of_services() {
    let config = Config { service_cidrs: vec!["10.244.0.0/20".parse().unwrap()], ..config(&[]) };
    let node3 = ("node3", &["10.244.16.0/24"][..], &["172.30.0.13"][..]);
    let plan = plan(&snapshot(&[NODE1, NODE2, node3]), "node1", &config, &uplink(1500, &[])).unwrap();
    assert_eq!(plan.cni_config, None, "no pod gets an address that may be a Service's");
    assert_eq!(plan.routing.routes.len(), 1);
    let told: Vec<String> = plan.notices.iter().map(ToString::to_string).collect();
    let expected = "10.244.1.0/24 (the pod CIDR of Node node1) overlaps 10.244.0.0/20 (the Services' range)";
    assert!(told[0].starts_with(expected), "{told:?}");
    assert_eq!(told.len(), 2);
}

#[test]
fn nothing_leads_to_a_new_node_until_its_first_try_is_over_and_pods_keep_their_addresses_meanwhile() {
    let states = PathStates::assuming(PathState::FirstContact);
    let uplink = Uplink { path_states: states, ..uplink(1500, &["172.30.0.0/24"]) };
    let config = Config { backend: Backend::Auto, ..config(&[]) };
    let plan = plan(&snapshot(&[NODE1, NODE2]), "node1", &config, &uplink).unwrap();
    let routes: Vec<String> = plan.routing.routes.iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["10.244.2.1/32 via 172.30.0.12 proto 119"], "by which it is tried");
    assert!(plan.masquerade.inside.contains(&"10.244.2.0/24".parse().unwrap()), "{:?}", plan.masquerade);
    assert_eq!((plan.routing.probes.len(), plan.routing.mtu), (1, None));
}

#[test]
fn with_bgp_the_ways_are_those_that_peers_tell_of_within_the_pods_ranges() {
    let config = Config { backend: Backend::Bgp, ..config(&["10.244.0.0/16"]) };
    let network = |text: &str| -> IpNetwork { text.parse().unwrap() };
    let node2 = IpAddr::from([172, 30, 0, 12]);
    let by_node2 = |text: &str| (network(text), BTreeSet::from([node2]));
    let told = ["10.244.2.0/24", "0.0.0.0/0", "198.51.100.0/24", "10.244.1.128/25"].map(by_node2);
    let planned = |uplink: Uplink| {
        let plan = plan(&snapshot(&[NODE1, NODE2]), "node1", &config, &uplink).unwrap();
        let routes: Vec<String> = plan.routing.routes.iter().map(ToString::to_string).collect();
        (routes, plan.notices.iter().map(ToString::to_string).collect::<String>())
    };
    let to_node2 = || vec!["10.244.2.0/24 via 172.30.0.12 proto 186".to_owned()];
    let learned = Arc::new(told.into_iter().collect());
    let settled = Uplink { is_settled: true, ..uplink(1500, &[]) };
    assert_eq!(planned(Uplink { learned, ..settled.clone() }), (to_node2(), String::new()));
    // What the kernel has from before a start serves until peers have told theirs.
    let kept = [by_node2("10.244.2.0/24")].into();
    assert_eq!(planned(Uplink { kept, ..uplink(1500, &[]) }), (to_node2(), String::new()));
    // Two routers are as good, and one tells of a next hop that the kernel does not take.
    let hops = [node2, IpAddr::from([172, 30, 0, 14]), "fd00:30::14".parse().unwrap()];
    let learned = Arc::new([(network("10.244.2.0/24"), hops.into())].into());
    let several = "10.244.2.0/24 via 172.30.0.12 nexthop via 172.30.0.14 proto 186".to_owned();
    assert_eq!(planned(Uplink { learned, ..settled.clone() }).0, [several]);
    let (routes, notices) = planned(settled);
    assert!(
        routes.is_empty() && notices.contains("no BGP peer tells of the pod CIDR 10.244.2.0/24"),
        "{notices}"
    );
}
