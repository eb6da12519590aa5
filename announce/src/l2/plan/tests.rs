//! Who may have an address.

use weft_types::{
    ChangeSet, Endpoint, EndpointSlice, Labels, NamespacedName, Object, PoolSelection, PreferredNodes,
    Requirement, ServiceKind, TrafficPolicy,
};

use super::*;

struct World {
    services: Snapshot,
    slices: Snapshot,
    nodes: Snapshot,
}

fn put(snapshot: &mut Snapshot, object: Object) {
    snapshot.apply(object, &mut ChangeSet::default());
}

fn node(name: &str, labels: &[(&str, &str)]) -> Node {
    let labels: Labels = labels.iter().copied().collect();
    Node { name: name.to_owned(), labels, ..Node::default() }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl World {
    fn new(nodes: impl IntoIterator<Item = Node>) -> World {
        let mut world =
            World { services: Snapshot::default(), slices: Snapshot::default(), nodes: Snapshot::default() };
        nodes.into_iter().for_each(|node| put(&mut world.nodes, Object::Node(node)));
        world
    }

    fn of(count: usize) -> World {
        World::new((1..=count).map(|number| node(&format!("node{number}"), &[])))
    }

    fn service(&mut self, name: &str, policy: TrafficPolicy, addresses: &[&str]) {
        let key = NamespacedName::new("shop", name);
        let mut service = Service::new(key, ServiceKind::ClusterIp(vec![address("10.96.0.9")]), Vec::new());
        service.load_balancer_ips = addresses.iter().map(|text| address(text)).collect();
        service.external_policy = policy;
        put(&mut self.services, Object::Service(service));
    }

    /// A Service's one endpoint, on that node.
    fn endpoint(&mut self, service: &str, node: &str) {
        let endpoint = Endpoint { node: Some(node.into()), ..Endpoint::ready(address("10.244.0.9")) };
        let key = NamespacedName::new("shop", service);
        let (service, ports, endpoints) = (key.clone(), Vec::new(), vec![endpoint]);
        put(&mut self.slices, Object::EndpointSlice(EndpointSlice { key, service, ports, endpoints }));
    }

    fn plan_with(&self, advertisements: Option<&[Advertisement]>) -> Plan {
        plan(&Input {
            node: "node1",
            services: &self.services,
            slices: Some(&self.slices),
            nodes: &self.nodes,
            advertisements,
        })
    }

    fn plan(&self) -> Plan {
        self.plan_with(None)
    }
}

fn names(plan: &Plan, of: &str) -> Vec<String> {
    let candidates = plan.addresses.get(&address(of));
    candidates.into_iter().flat_map(|it| &it.nodes).map(ToString::to_string).collect()
}

fn sorted(plan: &Plan, of: &str) -> Vec<String> {
    let mut names = names(plan, of);
    names.sort();
    names
}

#[test]
fn every_node_that_has_a_part_in_it_comes_to_the_same_order() {
    let mut world = World::of(3);
    world.service("web", TrafficPolicy::Cluster, &["192.0.2.10", "2001:db8::10"]);
    let one = world.plan();
    assert_eq!(one.addresses.len(), 2, "both families");
    assert_eq!(sorted(&one, "192.0.2.10"), ["node1", "node2", "node3"]);
    let other = plan(&Input {
        node: "node3",
        services: &world.services,
        slices: None,
        nodes: &world.nodes,
        advertisements: None,
    });
    assert_eq!(one, other);
}

/// Whoever changes the weights moves every address of every cluster during its upgrade, and back and forth.
#[test]
fn the_order_is_promised() {
    let mut world = World::of(4);
    world.service("web", TrafficPolicy::Cluster, &["192.0.2.10", "2001:db8::10"]);
    let plan = world.plan();
    assert_eq!(names(&plan, "192.0.2.10").join(" "), "node3 node1 node2 node4");
    assert_eq!(names(&plan, "2001:db8::10").join(" "), "node3 node1 node2 node4");
}

#[test]
fn a_node_that_goes_or_comes_moves_its_own_addresses_alone_and_all_nodes_have_their_share() {
    let addresses: Vec<String> = (0..1000).map(|it| format!("10.9.{}.{}", it / 250, it % 250)).collect();
    let holders = |count: usize| {
        let mut world = World::of(count);
        world.service(
            "web",
            TrafficPolicy::Cluster,
            &addresses.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let plan = world.plan();
        addresses.iter().map(|address| names(&plan, address)[0].clone()).collect::<Vec<_>>()
    };
    let (four, five) = (holders(4), holders(5));
    for (before, after) in four.iter().zip(&five) {
        assert!(before == after || after == "node5", "{before} to {after}");
    }
    for name in ["node1", "node2", "node3", "node4", "node5"] {
        let share = five.iter().filter(|holder| *holder == name).count();
        assert!((150..=250).contains(&share), "{name} has {share} of 1000");
    }
}

#[test]
fn advertisements_choose_addresses_nodes_and_interfaces() {
    let rack = [("rack", "a")];
    let mut world = World::new([node("node1", &rack), node("node2", &rack), node("node3", &[])]);
    world.service("web", TrafficPolicy::Cluster, &["192.0.2.10", "198.51.100.1", "2001:db8::10"]);
    let of_rack =
        |rack: &str| -> LabelSelector { [Requirement::equals("rack", rack).unwrap()].into_iter().collect() };
    let rack_a = Advertisement {
        nodes: vec![of_rack("a")],
        interfaces: vec!["eth1".into()],
        ..Advertisement::of_ranges(&["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()])
    };
    let plan = world.plan_with(Some(std::slice::from_ref(&rack_a)));
    assert_eq!(plan.addresses.len(), 2, "198.51.100.1 is somebody else's");
    assert_eq!(sorted(&plan, "192.0.2.10"), ["node1", "node2"]);
    assert_eq!(plan.addresses[&address("192.0.2.10")].interfaces, Some(["eth1".to_owned()].into()));
    let more = Advertisement { interfaces: vec!["eth2".into()], ..Advertisement::default() };
    let plan = world.plan_with(Some(&[rack_a.clone(), more]));
    assert_eq!(sorted(&plan, "192.0.2.10"), ["node1", "node2", "node3"]);
    let both = ["eth1", "eth2"].map(str::to_owned);
    assert_eq!(plan.addresses[&address("192.0.2.10")].interfaces, Some(both.into()));
    let nobody = Advertisement { nodes: vec![of_rack("z")], ..rack_a };
    let plan = world.plan_with(Some(&[nobody]));
    assert!(plan.addresses.is_empty());
    let told = plan.problems.iter().next().unwrap();
    assert!(
        told.contains("192.0.2.10") && told.contains("Service shop/web") && told.contains("nodeSelectors"),
        "{told}"
    );
}

#[test]
fn a_service_with_policy_local_is_announced_where_it_has_endpoints_and_told_of_where_no_such_node_is_selected()
 {
    let mut world = World::new([node("node1", &[("rack", "a")]), node("node2", &[])]);
    world.service("web", TrafficPolicy::Local, &["192.0.2.10"]);
    assert_eq!(world.plan(), Plan::default(), "without endpoints nobody has it, and that is no problem");
    world.endpoint("web", "node2");
    assert_eq!(names(&world.plan(), "192.0.2.10"), ["node2"]);
    let selector = [Requirement::equals("rack", "a").unwrap()].into_iter().collect();
    let of_rack = Advertisement { nodes: vec![selector], ..Advertisement::default() };
    let plan = world.plan_with(Some(&[of_rack]));
    assert!(plan.addresses.is_empty() && plan.problems.iter().next().unwrap().contains("a ready endpoint"));
}

#[test]
fn metallb_s_objects_are_read_as_they_are() {
    let rack = [("rack", "a")];
    let mut world = World::new([node("node1", &rack), node("node2", &[]), node("node3", &rack)]);
    world.service("web", TrafficPolicy::Cluster, &["192.0.2.10", "198.51.100.1", "203.0.113.1"]);
    let selector =
        |key, value| -> LabelSelector { [Requirement::equals(key, value).unwrap()].into_iter().collect() };
    let pool = |name: &str, range: &str| IpAddressPool {
        key: NamespacedName::new("metallb-system", name),
        labels: Labels::default(),
        ranges: [range.parse().unwrap()].into(),
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
    };
    let (mut pools, mut l2) = (Snapshot::default(), Snapshot::default());
    for one in [pool("lan", "192.0.2.0/24"), pool("dmz", "198.51.100.0/24"), pool("bgp", "203.0.113.0/24")] {
        put(&mut pools, Object::IpAddressPool(one));
    }
    let advertisement = |name: &str, pool: &str| L2Advertisement {
        key: NamespacedName::new("metallb-system", name),
        pools: PoolSelection { names: [pool.into()].into(), ..PoolSelection::default() },
        node_selectors: [].into(),
        interfaces: [].into(),
        service_selectors: [].into(),
        preferred_nodes: [].into(),
    };
    put(
        &mut l2,
        Object::L2Advertisement(L2Advertisement {
            preferred_nodes: [PreferredNodes { weight: 1, selector: selector("rack", "a") }].into(),
            ..advertisement("a", "lan")
        }),
    );
    put(
        &mut l2,
        Object::L2Advertisement(L2Advertisement {
            service_selectors: [selector("expose", "yes")].into(),
            ..advertisement("b", "dmz")
        }),
    );
    put(&mut l2, Object::L2Advertisement(advertisement("c", "none")));
    let plan = world.plan_with(Some(&advertisements(&l2, &pools)));
    assert_eq!(plan.addresses.len(), 1, "neither of Services that are not selected nor of pools of others");
    assert_eq!(
        names(&plan, "192.0.2.10").last().map(String::as_str),
        Some("node2"),
        "the others are preferred"
    );
}
