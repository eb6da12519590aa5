//! MetalLB's objects, and what a node makes of them.

use std::time::Duration;

use weft_announce::hosts::Hosts;
use weft_types::{
    ChangeSet, LoadBalancer, NamespacedName, Object, PeerSettings, PoolSelection, Requirement, ServiceKind,
    TrafficPolicy,
};

use super::*;
use crate::bgp::plan::passwords::{Known, wanted};

fn key(name: &str) -> NamespacedName {
    NamespacedName::new("metallb-system", name)
}

fn bgp_peer(name: &str, address: &str) -> BgpPeer {
    let settings = PeerSettings {
        my_asn: 64512,
        local_asn: None,
        peer_asn: PeerAsn::Number(65000),
        endpoint: PeerEndpoint::Address(address.parse().unwrap()),
        port: 179.try_into().unwrap(),
        source_address: None,
        hold_time: Some(Duration::from_secs(30)),
        keepalive_time: None,
        connect_time: None,
        router_id: None,
        node_selectors: Box::default(),
        password: PeerPassword::None,
        bfd_profile: None,
        graceful_restart: true,
        ebgp_multi_hop: false,
        vrf: None,
        dual_stack: true,
    };
    BgpPeer { key: key(name), settings: Box::new(settings) }
}

fn advertisement(name: &str) -> BgpAdvertisement {
    BgpAdvertisement {
        key: key(name),
        pools: PoolSelection::default(),
        aggregation_length: 32,
        aggregation_length_v6: 128,
        local_pref: None,
        communities: Box::default(),
        node_selectors: Box::default(),
        peers: Box::default(),
        service_selectors: Box::default(),
    }
}

fn pool(name: &str, range: &str) -> Object {
    Object::IpAddressPool(IpAddressPool {
        key: key(name),
        labels: Labels::default(),
        ranges: [range.parse().unwrap()].into(),
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
    })
}

fn service(name: &str, address: &str, label: &str) -> Object {
    let kind = ServiceKind::ClusterIp(vec!["10.96.0.7".parse().unwrap()]);
    let mut service = Service::new(NamespacedName::new("shop", name), kind, Vec::new());
    service.load_balancer_ips = vec![address.parse().unwrap()];
    service.external_policy = TrafficPolicy::Cluster;
    let labels = [("app", label)].into_iter().collect();
    service.load_balancer = Some(Box::new(LoadBalancer { labels, ..LoadBalancer::default() }));
    Object::Service(service)
}

fn selecting(key: &str, value: &str) -> Box<[LabelSelector]> {
    [[Requirement::equals(key, value).unwrap()].into_iter().collect()].into()
}

fn node() -> Node {
    Node {
        name: "node1".to_owned(),
        addresses: vec!["172.30.0.11".parse().unwrap()],
        labels: [("rack", "a")].into_iter().collect(),
        ..Node::default()
    }
}

fn snapshot(objects: impl IntoIterator<Item = Object>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for object in objects {
        snapshot.apply(object, &mut ChangeSet::default());
    }
    snapshot
}

fn planned(own: &Node, objects: impl IntoIterator<Item = Object>) -> (Vec<Told>, BTreeSet<String>) {
    let Peers { told, problems, .. } = peers_of(own, objects);
    (told, problems)
}

fn peers_of(own: &Node, objects: impl IntoIterator<Item = Object>) -> Peers {
    planned_with(own, objects, &Passwords::new())
}

/// Where that is known of Secrets.
fn planned_with(own: &Node, objects: impl IntoIterator<Item = Object>, passwords: &Passwords) -> Peers {
    let usual = [
        pool("lan", "192.0.2.0/24"),
        pool("other", "198.51.100.0/24"),
        service("web", "192.0.2.10", "web"),
        service("db", "192.0.2.200", "db"),
        service("far", "198.51.100.1", "web"),
        service("cloud", "203.0.113.9", "web"),
    ];
    let all = snapshot(usual.into_iter().chain(objects));
    let hosts =
        snapshot([Object::Node(own.clone()), Object::Node(Node { name: "node2".to_owned(), ..node() })]);
    let here = Hosts::new(&hosts, None).addresses(&own.name, &all);
    let objects = Objects {
        peers: &all,
        advertisements: &all,
        communities: &all,
        pools: &all,
        profiles: Some(&all),
        passwords,
        services: &all,
        here: &here,
    };
    peers(own, objects, &Uplink::default())
}

fn prefixes((_, told): &Told) -> Vec<String> {
    told.keys().map(ToString::to_string).collect()
}

#[test]
fn addresses_of_pools_are_announced_to_all_peers_where_nothing_else_is_said() {
    let objects =
        [Object::BgpPeer(bgp_peer("tor", "172.30.0.1")), Object::BgpAdvertisement(advertisement("all"))];
    let (told, problems) = planned(&node(), objects.clone());
    assert_eq!(prefixes(&told[0]), ["192.0.2.10/32", "192.0.2.200/32", "198.51.100.1/32"], "not the cloud's");
    assert!(problems.is_empty(), "{problems:?}");
    let peer = &told[0].0;
    assert_eq!((peer.name.as_str(), peer.hold_time, peer.restart_time), ("tor", 30, Some(RESTART_TIME)));
    let (told, _) = planned(&Node { leaving: true, ..node() }, objects);
    assert_eq!(prefixes(&told[0]), Vec::<String>::new());
    let (told, _) = planned(&node(), [Object::BgpPeer(bgp_peer("tor", "172.30.0.1"))]);
    assert_eq!(prefixes(&told[0]), Vec::<String>::new(), "without an advertisement nothing is announced");
}

#[test]
fn an_advertisement_goes_by_pools_services_nodes_and_peers() {
    let peers = [bgp_peer("one", "172.30.0.1"), bgp_peer("two", "172.30.0.2")].map(Object::BgpPeer);
    let told = |change: &dyn Fn(&mut BgpAdvertisement)| {
        let mut one = advertisement("one");
        change(&mut one);
        let (told, _) = planned(&node(), peers.clone().into_iter().chain([Object::BgpAdvertisement(one)]));
        [prefixes(&told[0]), prefixes(&told[1])].map(|list| list.join(" "))
    };
    assert_eq!(told(&|it| it.pools.names = ["other".into()].into()), ["198.51.100.1/32", "198.51.100.1/32"]);
    assert_eq!(
        told(&|it| it.service_selectors = selecting("app", "db")),
        ["192.0.2.200/32", "192.0.2.200/32"]
    );
    assert_eq!(told(&|it| it.node_selectors = selecting("rack", "b")), ["", ""]);
    let to_two = told(&|it| {
        it.peers = ["two".into()].into();
        it.aggregation_length = 24;
    });
    assert_eq!(to_two, ["", "192.0.2.0/24 198.51.100.0/24"]);
}

#[test]
fn a_peer_is_one_of_the_nodes_that_are_selected() {
    let on_rack = |rack: &str| {
        let mut peer = bgp_peer("tor", "172.30.0.1");
        peer.settings.node_selectors = selecting("rack", rack);
        peer
    };
    let elsewhere = on_rack("b");
    assert!(planned(&node(), [Object::BgpPeer(elsewhere)]).0.is_empty());
    let here = on_rack("a");
    assert_eq!(planned(&node(), [Object::BgpPeer(here)]).0.len(), 1);
}

#[test]
fn a_peer_with_a_profile_is_watched_by_bfd_with_its_times() {
    let profile = BfdProfile {
        key: key("fast"),
        receive_interval: Duration::from_millis(200),
        transmit_interval: Duration::from_millis(300),
        detect_multiplier: 5,
        echo_interval: Duration::from_millis(50),
        echo_mode: false,
        passive: true,
        minimum_ttl: 254,
    };
    let peer = |name, address, multihop| {
        let mut peer = bgp_peer(name, address);
        peer.settings.bfd_profile = Some("fast".into());
        peer.settings.ebgp_multi_hop = multihop;
        Object::BgpPeer(peer)
    };
    let objects = [
        peer("near", "172.30.0.1", false),
        peer("far", "172.31.0.1", true),
        Object::BgpPeer(bgp_peer("unwatched", "172.30.0.3")),
        Object::BfdProfile(profile),
    ];
    let Peers { told, watched, problems, .. } = peers_of(&node(), objects);
    assert!(problems.is_empty(), "{problems:?}");
    let of = |name: &str| told.iter().find(|(peer, _)| peer.name == name).unwrap().0.is_watched;
    assert_eq!([of("near"), of("far"), of("unwatched")], [true, true, false]);
    let times =
        |watch: &Watch| (watch.timing.transmit.as_millis(), watch.timing.multiplier, watch.is_multihop);
    assert_eq!(watched.values().map(times).collect::<Vec<_>>(), [(300, 5, false), (300, 5, true)]);
    let Peers { told, problems, .. } = peers_of(&node(), [peer("near", "172.30.0.1", false)]);
    assert!(!told[0].0.is_watched && problems.iter().next().unwrap().contains("spec.bfdProfile fast"));
}

#[test]
fn communities_are_values_or_names_and_those_of_several_advertisements_add_up() {
    let community = weft_types::Community {
        key: key("names"),
        aliases: [("blue".into(), CommunityValue::Standard(65000, 7))].into(),
    };
    let mut one = advertisement("one");
    one.communities = ["blue".into(), "large:65000:1:2".into(), "green".into()].into();
    let mut two = advertisement("two");
    two.communities = ["65000:9".into()].into();
    two.local_pref = Some(200);
    let objects = [
        Object::BgpPeer(bgp_peer("tor", "172.30.0.1")),
        Object::BgpAdvertisement(one),
        Object::BgpAdvertisement(two),
        Object::Community(community),
    ];
    let (told, problems) = planned(&node(), objects);
    let attributes = told[0].1.values().next().unwrap();
    let texts: Vec<String> = attributes.communities.iter().map(ToString::to_string).collect();
    assert_eq!((texts, attributes.large_communities.len()), (vec!["65000:7".into(), "65000:9".into()], 1));
    assert_eq!(attributes.local_pref, Some(200));
    let problem = problems.into_iter().next().unwrap();
    assert!(
        problem.contains("BGPAdvertisement metallb-system/one") && problem.contains("green"),
        "{problem}"
    );
}

#[test]
fn what_a_peer_asks_for_and_does_not_get_is_told() {
    for (change, words, sessions) in [
        (&(|it: &mut PeerSettings| it.vrf = Some("red".into())) as &dyn Fn(&mut PeerSettings), "spec.vrf", 0),
        (&|it| it.endpoint = PeerEndpoint::Interface("eth0".into()), "spec.interface", 0),
        (&|it| it.bfd_profile = Some("fast".into()), "spec.bfdProfile fast", 1),
    ] {
        let mut one = bgp_peer("tor", "172.30.0.1");
        change(&mut one.settings);
        let (told, problems) = planned(&node(), [Object::BgpPeer(one)]);
        let problems: Vec<String> = problems.into_iter().collect();
        assert_eq!(told.len(), sessions, "{words}");
        assert!(
            problems[0].contains(words) && problems[0].contains("BGPPeer metallb-system/tor"),
            "{problems:?}"
        );
    }
}

#[test]
fn a_peer_whose_password_is_in_a_secret_has_a_session_once_that_is_known() {
    let mut one = bgp_peer("tor", "172.30.0.1");
    one.settings.password = PeerPassword::Secret("key".into());
    let plan = |known: Option<Known>| {
        let passwords: Passwords = known.into_iter().map(|known| (key("key"), known)).collect();
        planned_with(&node(), [Object::BgpPeer(one.clone())], &passwords)
    };
    let password = Password("swordfish".to_owned());
    let (told, problem) = (|peers: &Peers| peers.told.len(), "there is no Secret".to_owned());
    let unread = plan(None);
    assert_eq!((told(&unread), unread.problems.len()), (0, 0), "it is being read");
    let missing = plan(Some(Known { password: None, problem: Some(problem.clone()) }));
    let text = "BGPPeer metallb-system/tor: spec.passwordSecret: there is no Secret".to_owned();
    assert_eq!((told(&missing), &missing.problems), (0, &[text].into()));
    assert_eq!(missing.without_password, [(key("tor"), problem.clone())].into());
    let read = plan(Some(Known { password: Some(password.clone()), problem: None }));
    assert_eq!((&read.told[0].0.password, read.problems.len()), (&Some(password.clone()), 0));
    let lost = plan(Some(Known { password: Some(password), problem: Some(problem) }));
    assert_eq!((told(&lost), lost.problems.len()), (1, 1), "its session goes on, and somebody should know");
    let mut snapshot = Snapshot::default();
    snapshot.apply(Object::BgpPeer(one), &mut ChangeSet::default());
    assert_eq!(wanted(&node(), &snapshot), [key("key")].into());
}
