//! What Services get, by example. What holds for any Services is in `properties`.

use std::num::NonZeroU16;

use weft_types::{
    AddressRange, IpAddressPool, LabelSelector, Protocol, Requirement, ServiceAllocation, ServicePort,
    TrafficPolicy,
};

use super::*;

mod properties;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn pool(name: &str, ranges: &[&str]) -> IpAddressPool {
    IpAddressPool {
        key: NamespacedName::new("metallb-system", name),
        labels: Labels::default(),
        ranges: ranges.iter().map(|range| range.parse::<AddressRange>().unwrap()).collect(),
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
    }
}

/// A Service of the namespace `shop`, with the port 80 and a ClusterIP of each of these families.
pub(super) fn service(name: &str, created: i64, families: &[Family]) -> Service {
    let ips = families.iter().map(|family| match family {
        Family::V4 => ip("10.96.0.7"),
        Family::V6 => ip("fd00:96::7"),
    });
    let kind = ServiceKind::ClusterIp(ips.collect());
    let balancer = LoadBalancer {
        is_wanted: true,
        uid: format!("uid-{name}").into(),
        version: "1".into(),
        ..LoadBalancer::default()
    };
    Service {
        created,
        load_balancer: Some(Box::new(balancer)),
        ..Service::new(NamespacedName::new("shop", name), kind, vec![port(80)])
    }
}

pub(super) fn port(number: u16) -> ServicePort {
    let port = NonZeroU16::new(number).unwrap();
    ServicePort { name: format!("p{number}").into(), protocol: Protocol::Tcp, port, node_port: None }
}

fn v4(name: &str, created: i64) -> Service {
    service(name, created, &[Family::V4])
}

fn asks(mut service: Service, change: impl FnOnce(&mut LoadBalancer)) -> Service {
    change(service.load_balancer.as_mut().unwrap());
    service
}

/// A cluster, which tells what it decides.
#[derive(Default)]
pub(super) struct World {
    pub(super) services: Vec<Service>,
    pub(super) pools: Pools,
    pub(super) namespaces: BTreeMap<String, Labels>,
    pub(super) class: Option<&'static str>,
    pub(super) reserved: BTreeMap<IpAddr, String>,
    pub(super) unreadable: BTreeSet<NamespacedName>,
    pub(super) allocator: Allocator,
}

impl World {
    fn new(pools: &[IpAddressPool]) -> World {
        World { pools: Pools::new(&[], pools.iter()), ..World::default() }
    }

    pub(super) fn decide(&mut self) -> Decisions {
        let services: Vec<&Service> = self.services.iter().collect();
        self.allocator.decide(&Cluster {
            services: &services,
            unreadable: &self.unreadable,
            pools: &self.pools,
            namespaces: &self.namespaces,
            class: self.class,
            reserved: &self.reserved,
        })
    }

    /// Writes what is decided into the status of the Services.
    pub(super) fn settle(&mut self) -> Decisions {
        let decisions = self.decide();
        for status in &decisions.statuses {
            let service = self.services.iter_mut().find(|service| service.key == status.service).unwrap();
            let asks = service.load_balancer.as_mut().unwrap();
            (asks.has_other_ingress, asks.left_behind) = (false, Box::default());
            service.load_balancer_ips.clone_from(&status.addresses);
        }
        decisions
    }

    /// What is decided for these Services, one after the other.
    fn serve(&mut self, services: impl IntoIterator<Item = Service>) -> Decisions {
        self.services.extend(services);
        self.settle()
    }

    fn addresses(&self, name: &str) -> String {
        let service = self.services.iter().find(|service| service.key.name == name).unwrap();
        service.load_balancer_ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        change(self.services.iter_mut().find(|service| service.key.name == name).unwrap());
    }
}

fn notes(decisions: &Decisions) -> Vec<(ProblemKind, &str)> {
    decisions.problems.iter().map(|problem| (problem.kind, problem.note.as_str())).collect()
}

#[test]
fn services_get_addresses_in_the_order_in_which_they_were_created() {
    let mut world = World::new(&[pool("lan", &["192.0.2.10-192.0.2.11"])]);
    let decisions = world.serve([v4("a", 3), v4("c", 1), v4("b", 2)]);
    assert_eq!(["c", "b", "a"].map(|name| world.addresses(name)), ["192.0.2.10", "192.0.2.11", ""]);
    let why = "it gets no address: no IPv4 address is free in the pool lan";
    assert_eq!(notes(&decisions), [(ProblemKind::AllocationFailed, why)]);
    assert_eq!((decisions.served, decisions.waiting), (2, 1));
    assert_eq!(decisions.usage["lan"], Usage { in_use: 2, total: 2 });
    // One goes, and who waited gets its address.
    world.services.retain(|service| service.key.name != "c");
    assert!(world.settle().problems.is_empty());
    assert_eq!(world.addresses("a"), "192.0.2.10");
}

#[test]
fn a_pool_that_avoids_addresses_hides_them_from_no_other_pool_of_the_same_range() {
    let careful = IpAddressPool { avoid_buggy_ips: true, ..pool("a", &["192.0.2.0-192.0.2.1"]) };
    let mut world = World::new(&[careful, pool("b", &["192.0.2.0-192.0.2.1"])]);
    assert!(world.serve([v4("one", 1), v4("two", 2)]).problems.is_empty());
    assert_eq!(["one", "two"].map(|name| world.addresses(name)), ["192.0.2.1", "192.0.2.0"]);
}

#[test]
fn at_a_start_all_that_is_held_comes_before_all_who_wait() {
    let mut world = World::new(&[pool("lan", &["192.0.2.10"])]);
    let mut late = v4("late", 9);
    late.load_balancer_ips = vec![ip("192.0.2.10")];
    let decisions = world.serve([v4("early", 1), late]);
    assert_eq!((world.addresses("early"), world.addresses("late")), (String::new(), "192.0.2.10".to_owned()));
    assert!(decisions.statuses.is_empty());
}

#[test]
fn what_is_decided_stands_before_the_status_shows_it() {
    let mut world = World::new(&[pool("lan", &["192.0.2.10-192.0.2.20"])]);
    world.services = vec![v4("b", 2)];
    let first = world.decide();
    world.services.push(v4("a", 1));
    let again = world.decide();
    assert!(again.statuses.contains(&first.statuses[0]), "{again:?}");
    // Another Service of its name starts anew, and somebody removed the address from the status of the other.
    world.services[0] = asks(v4("b", 2), |asks| asks.uid = "another".into());
    let third = world.decide();
    let addresses: Vec<_> = third.statuses.iter().map(|status| status.addresses[0].to_string()).collect();
    assert_eq!(addresses, ["192.0.2.11", "192.0.2.10"]);
}

#[test]
fn an_address_stays_when_its_pool_goes_and_that_is_told() {
    let mut world = World::new(&[pool("lan", &["192.0.2.10"])]);
    world.serve([v4("web", 1)]);
    world.pools = Pools::new(&[], [pool("other", &["198.51.100.1"])].iter());
    let decisions = world.settle();
    assert_eq!(world.addresses("web"), "192.0.2.10");
    let why = "192.0.2.10 is its address, but of no pool (any more); it keeps it as long as it lives, or until it \
               asks for another one";
    assert_eq!((notes(&decisions), decisions.served), (vec![(ProblemKind::PoolGone, why)], 1));
}

#[test]
fn a_service_moves_when_it_asks_for_another_address_that_it_can_have() {
    let mut world = World::new(&[pool("lan", &["192.0.2.10-192.0.2.19"])]);
    world.serve([v4("web", 1), v4("db", 2)]);
    let ask = |address: &'static str| {
        move |service: &mut Service| {
            service.load_balancer.as_mut().unwrap().requested_ips = [ip(address)].into();
        }
    };
    world.change("web", ask("192.0.2.11"));
    let decisions = world.settle();
    assert_eq!(world.addresses("web"), "192.0.2.10");
    let why = "it keeps 192.0.2.10: it asks for 192.0.2.11, but Service shop/db has it, too: they do not both allow \
               sharing it (annotation metallb.io/allow-shared-ip, the same for both)";
    assert_eq!(notes(&decisions), [(ProblemKind::AllocationFailed, why)]);
    world.change("web", ask("192.0.2.15"));
    assert!(world.settle().problems.is_empty());
    assert_eq!(world.addresses("web"), "192.0.2.15");
    // Who asks for a certain address comes before those who take any.
    world.serve([v4("early", 3), asks(v4("late", 4), |asks| asks.requested_ips = [ip("192.0.2.10")].into())]);
    assert_eq!(
        (world.addresses("late"), world.addresses("early")),
        ("192.0.2.10".into(), "192.0.2.12".into())
    );
}

#[test]
fn a_service_moves_to_the_pool_that_it_asks_for() {
    let mut world = World::new(&[pool("lan", &["192.0.2.10"]), pool("wan", &["198.51.100.1"])]);
    world.serve([v4("web", 1)]);
    assert_eq!(world.addresses("web"), "192.0.2.10");
    world
        .change("web", |service| service.load_balancer.as_mut().unwrap().requested_pool = Some("wan".into()));
    assert!(world.settle().problems.is_empty());
    assert_eq!(world.addresses("web"), "198.51.100.1");
    // The pool changed, and not the request.
    world.pools = Pools::new(&[], [pool("wan", &["203.0.113.0/24"])].iter());
    world.settle();
    assert_eq!(world.addresses("web"), "198.51.100.1");
}

#[test]
fn a_request_that_cannot_be_met_names_the_address_the_pool_and_the_reason() {
    let mut private = pool("private", &["203.0.113.1"]);
    private.allocation = Some(ServiceAllocation { namespaces: ["bank".into()].into(), ..Default::default() });
    let pools = [pool("lan", &["192.0.2.10-192.0.2.19"]), private];
    let request = |address: &str, pool: Option<&str>| {
        let mut world = World::new(&pools);
        world.reserved = [(ip("192.0.2.13"), "Node node1".to_owned())].into();
        let decisions = world.serve([asks(v4("web", 1), |asks| {
            asks.requested_ips = address.split(' ').filter(|it| !it.is_empty()).map(ip).collect();
            asks.requested_pool = pool.map(Into::into);
        })]);
        assert_eq!((decisions.statuses.len(), decisions.waiting), (0, 1));
        notes(&decisions)[0].1.trim_start_matches("it gets no address: ").to_owned()
    };
    for (address, pool, why) in [
        (
            "198.51.100.1",
            None,
            "it asks for 198.51.100.1, which is of no pool (there is the pools private, lan)",
        ),
        ("203.0.113.1", None, "it asks for 203.0.113.1 of the pool private, which is for other Services"),
        (
            "192.0.2.12",
            Some("private"),
            "it asks for 192.0.2.12 of the pool private, but it is of the pool lan",
        ),
        ("192.0.2.13", None, "it asks for 192.0.2.13, but Node node1 has it"),
        ("2001:db8::1", None, "it asks for 2001:db8::1, but has no ClusterIP of IPv6"),
        ("192.0.2.14 192.0.2.15", None, "it asks for 192.0.2.15 and for another address of IPv4"),
        ("", Some("wan"), "it asks for the pool wan, which there is not (there is the pools private, lan)"),
        ("", Some("private"), "it asks for the pool private, which is for other Services"),
    ] {
        assert_eq!(request(address, pool), why);
    }
    let mut world = World::new(&pools);
    let decisions =
        world.serve([asks(v4("web", 1), |asks| asks.problem = Some("spec.loadBalancerIP: bad".into()))]);
    let why = "it gets no address: what it asks for cannot be read: spec.loadBalancerIP: bad";
    assert_eq!(notes(&decisions), [(ProblemKind::AllocationFailed, why)]);
}

#[test]
fn pools_are_taken_by_priority_for_those_whom_they_are_for() {
    let selector: LabelSelector = [Requirement::equals("team", "a").unwrap()].into_iter().collect();
    let for_some = |name: &str, range: &str, allocation: ServiceAllocation| IpAddressPool {
        allocation: Some(allocation),
        ..pool(name, &[range])
    };
    let by_namespace = ServiceAllocation {
        priority: 5,
        namespace_selectors: [selector.clone()].into(),
        ..Default::default()
    };
    let by_label =
        ServiceAllocation { priority: 1, service_selectors: [selector].into(), ..Default::default() };
    let manual = IpAddressPool { auto_assign: false, ..pool("manual", &["203.0.113.1"]) };
    let mut world = World::new(&[
        pool("all", &["192.0.2.1-192.0.2.9"]),
        for_some("namespace", "192.0.2.11", by_namespace),
        for_some("label", "192.0.2.21", by_label),
        manual,
    ]);
    let team: Labels = [("team", "a")].into_iter().collect();
    let labelled = |name: &str, created| asks(v4(name, created), |asks| asks.labels = team.clone());
    world.serve([labelled("first", 1), v4("plain", 2)]);
    assert_eq!(
        (world.addresses("first"), world.addresses("plain")),
        ("192.0.2.21".into(), "192.0.2.1".into())
    );
    world.namespaces = [("shop".to_owned(), team.clone())].into();
    world.serve([labelled("second", 3), labelled("third", 4)]);
    assert_eq!(
        (world.addresses("second"), world.addresses("third")),
        ("192.0.2.11".into(), "192.0.2.2".into())
    );
    world.serve([asks(v4("asks", 5), |asks| asks.requested_pool = Some("manual".into()))]);
    assert_eq!(world.addresses("asks"), "203.0.113.1");
}

#[test]
fn services_share_an_address_by_key_and_only_where_traffic_can_be_told_apart() {
    let sharing = |name: &str, created, number, key: &str| {
        let mut service = asks(v4(name, created), |asks| asks.sharing_key = Some(key.into()));
        service.ports = vec![port(number)];
        service
    };
    let mut world = World::new(&[pool("lan", &["192.0.2.10-192.0.2.19"])]);
    world.serve([sharing("one", 1, 80, "k"), sharing("two", 2, 443, "k")]);
    world.serve([sharing("same-port", 3, 80, "k"), sharing("other-key", 4, 53, "x")]);
    let mut local = sharing("local", 5, 53, "k");
    local.external_policy = TrafficPolicy::Local;
    world.serve([local, v4("alone", 6)]);
    let names = ["one", "two", "same-port", "other-key", "local", "alone"];
    let last = names.map(|name| world.addresses(name).replace("192.0.2.", ""));
    assert_eq!(last, ["10", "10", "11", "12", "13", "14"]);
    // Those who both send to their own pods only share if these are the same.
    let mut same = sharing("same-pods", 7, 54, "k");
    same.external_policy = TrafficPolicy::Local;
    world.serve([same, sharing("udp", 8, 54, "k")]);
    assert_eq!(
        (world.addresses("same-pods"), world.addresses("udp")),
        ("192.0.2.13".into(), "192.0.2.10".into())
    );
}

#[test]
fn services_that_must_not_share_any_more_keep_their_address_and_that_is_told() {
    let mut world = World::new(&[pool("lan", &["192.0.2.10-192.0.2.19"])]);
    let mut two = v4("two", 2);
    two.load_balancer_ips = vec![ip("192.0.2.10")];
    let mut one = v4("one", 1);
    one.load_balancer_ips = vec![ip("192.0.2.10")];
    let decisions = world.serve([two, one]);
    let why = "192.0.2.10 is its address, but Service shop/one has it, too: they do not both allow sharing it \
               (annotation metallb.io/allow-shared-ip, the same for both); give one of them another address";
    assert_eq!(notes(&decisions), [(ProblemKind::AddressConflict, why)]);
    assert_eq!(decisions.problems.first().unwrap().service.name, "two");
    assert_eq!((world.addresses("one"), world.addresses("two")), ("192.0.2.10".into(), "192.0.2.10".into()));
}

#[test]
fn dual_stack_services_get_what_their_policy_says() {
    let dual = |name: &str, created, policy| {
        asks(service(name, created, &Family::BOTH), |asks| asks.families = policy)
    };
    let mut world = World::new(&[pool("v4", &["192.0.2.10-192.0.2.19"])]);
    let decisions = world.serve([
        dual("prefers", 1, FamilyPolicy::PreferDualStack),
        dual("requires", 2, FamilyPolicy::RequireDualStack),
    ]);
    assert_eq!(
        (world.addresses("prefers"), world.addresses("requires")),
        ("192.0.2.10".into(), String::new())
    );
    let why = "it gets no address: no IPv6 address is free in the pool v4";
    assert_eq!(notes(&decisions), [(ProblemKind::AllocationFailed, why)]);
    // Addresses of both families are of one pool, where one has both.
    let pools =
        [pool("v4", &["192.0.2.10-192.0.2.19"]), pool("w", &["198.51.100.1", "2001:db8::1-2001:db8::9"])];
    world.pools = Pools::new(&[], pools.iter());
    assert!(world.settle().problems.is_empty());
    assert_eq!(world.addresses("prefers"), "192.0.2.10 2001:db8::1", "what it has stays");
    assert_eq!(world.addresses("requires"), "198.51.100.1 2001:db8::2");
    world.serve([dual("third", 3, FamilyPolicy::RequireDualStack), service("six", 4, &[Family::V6])]);
    assert_eq!(world.addresses("third"), "192.0.2.11 2001:db8::3", "of two pools, as no pool has both");
    assert_eq!(world.addresses("six"), "2001:db8::4");
    // One that is of one family by now gives the other address back.
    world.change("prefers", |service| {
        service.kind = ServiceKind::ClusterIp(vec![ip("fd00:96::7")]);
        service.load_balancer.as_mut().unwrap().families = FamilyPolicy::SingleStack;
    });
    world.settle();
    assert_eq!(world.addresses("prefers"), "2001:db8::1");
    world.change("six", |service| {
        service.load_balancer.as_mut().unwrap().families = FamilyPolicy::RequireDualStack
    });
    let decisions = world.settle();
    let why = "it keeps 2001:db8::4: it requires both families, but its ClusterIPs are of one";
    assert_eq!(notes(&decisions), [(ProblemKind::AllocationFailed, why)]);
}

#[test]
fn addresses_of_nodes_and_buggy_ones_are_left_out() {
    let mut lan = pool("lan", &["192.0.2.254-192.0.3.3"]);
    lan.avoid_buggy_ips = true;
    let mut world = World::new(&[lan]);
    world.reserved = [(ip("192.0.3.1"), "Node node1".to_owned())].into();
    world.serve((1..=3).map(|number| v4(&format!("s{number}"), number)));
    assert_eq!(
        ["s1", "s2", "s3"].map(|name| world.addresses(name)),
        ["192.0.2.254", "192.0.3.2", "192.0.3.3"]
    );
    assert_eq!(world.decide().usage["lan"].total, 4);
}

#[test]
fn services_of_other_classes_and_types_are_left_alone_and_their_addresses_taken() {
    let mut world = World::new(&[pool("lan", &["192.0.2.10-192.0.2.19"])]);
    let mut foreign = asks(v4("foreign", 1), |asks| asks.class = Some("example.com/other".into()));
    foreign.load_balancer_ips = vec![ip("192.0.2.10")];
    let decisions = world.serve([foreign, v4("own", 2)]);
    assert_eq!(decisions.statuses.len(), 1);
    assert_eq!(world.addresses("own"), "192.0.2.11");
    world.class = Some("example.com/other");
    let decisions = world.decide();
    assert_eq!((decisions.statuses.len(), decisions.served), (0, 1));
    // One that is of another type gives its address back, if it is of a pool.
    world.class = None;
    world.change("own", |service| {
        let asks = service.load_balancer.as_mut().unwrap();
        (asks.is_wanted, asks.left_behind) = (false, std::mem::take(&mut service.load_balancer_ips).into());
    });
    let mut elsewhere = asks(v4("elsewhere", 3), |asks| asks.left_behind = [ip("203.0.113.9")].into());
    elsewhere.load_balancer.as_mut().unwrap().is_wanted = false;
    let decisions = world.serve([elsewhere]);
    assert_eq!(decisions.statuses.len(), 1);
    assert!(decisions.statuses[0].service.name == "own" && decisions.statuses[0].addresses.is_empty());
}

#[test]
fn what_an_unreadable_service_was_given_stays_its_own() {
    let mut world = World::new(&[pool("lan", &["192.0.2.10-192.0.2.19"])]);
    world.serve([v4("web", 1)]);
    let web = world.services.remove(0);
    world.unreadable = [web.key.clone()].into();
    world.serve([v4("db", 2)]);
    assert_eq!(world.addresses("db"), "192.0.2.11");
    (world.unreadable, world.services) = (BTreeSet::new(), vec![web]);
    assert!(world.settle().statuses.is_empty());
}

#[test]
fn other_entries_of_a_status_are_replaced() {
    let mut world = World::new(&[pool("lan", &["192.0.2.10"])]);
    let mut web = asks(v4("web", 1), |asks| asks.has_other_ingress = true);
    web.load_balancer_ips = vec![ip("192.0.2.10")];
    assert_eq!(world.serve([web]).statuses.len(), 1);
    assert!(world.settle().statuses.is_empty());
}
