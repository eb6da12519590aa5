//! Random histories of a cluster, with a model of the kernel: whatever happens, the transactions are such
//! that the kernel takes them, and leave it with what the planner says; a restart changes nothing.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::net::IpAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use weft_nftables::{
    Change, Data, Family, Name, Observed, ObservedTable, Table, Transaction, Tuple, Value, Verdict, diff,
};
use weft_proxy::config::Config;
use weft_proxy::dataplane::nftables::DesiredTables;
use weft_proxy::dataplane::nftables::ruleset::table_keys;
use weft_proxy::services::planner::{Planner, everything};
use weft_proxy::services::problem::Problem;
use weft_types::{
    ChangeSet, Endpoint, EndpointPort, EndpointSlice, IpNetwork, NamespacedName, Node, Object, ObjectKey,
    Protocol, Service, ServiceKind, ServicePort, SmolStr, Snapshot, TrafficPolicy,
};

/// What happens to the cluster.
#[derive(Clone, Debug)]
enum Event {
    Put(Object),
    Delete(ObjectKey),
}

fn name(service: u8) -> NamespacedName {
    NamespacedName::new("shop", format!("service-{service}"))
}

fn address(family: bool, number: u8) -> IpAddr {
    let text = if family { format!("10.0.0.{number}") } else { format!("fd00::{number:x}") };
    text.parse().unwrap()
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    // Few NodePorts, so that Services come into conflict.
    let number = prop_oneof![3 => 1u16..3, 1 => 30000u16..30002];
    (protocol, number, prop::option::of(30000u16..30003)).prop_map(|(protocol, port, node_port)| {
        ServicePort {
            name: format!("{protocol}-{port}").into(),
            protocol,
            port: port.try_into().unwrap(),
            node_port: node_port.map(|port| port.try_into().unwrap()),
        }
    })
}

fn addresses(numbers: std::ops::Range<u8>) -> impl Strategy<Value = Vec<IpAddr>> {
    vec((any::<bool>(), numbers).prop_map(|(family, number)| address(family, number)), 0..3)
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)]
}

fn service() -> impl Strategy<Value = Object> {
    let ports = vec(service_port(), 0..3);
    let addresses = (addresses(1..5), addresses(4..8), addresses(4..9));
    let affinity = prop::option::of((1u64..3).prop_map(Duration::from_secs));
    let policies = (policy(), policy());
    (1u8..4, 0i64..3, addresses, ports, policies, affinity, ranges()).prop_map(
        |(service, created, addresses, ports, policies, affinity, source_ranges)| {
            let (cluster_ips, external_ips, load_balancer_ips) = addresses;
            let (internal_policy, external_policy) = policies;
            Object::Service(Service {
                created,
                external_ips,
                load_balancer_ips,
                internal_policy,
                external_policy,
                affinity,
                source_ranges,
                ..Service::new(name(service), ServiceKind::ClusterIp(cluster_ips), ports)
            })
        },
    )
}

fn ranges() -> impl Strategy<Value = Box<[IpNetwork]>> {
    let range = (any::<bool>(), 1u8..25, 0u8..33).prop_map(|(family, number, prefix)| {
        let address = address(family, number);
        IpNetwork::new(address, if family { prefix } else { prefix + 96 }).unwrap()
    });
    vec(range, 0..4).prop_map(Into::into)
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (any::<bool>(), 10u8..16, any::<[bool; 4]>()).prop_map(
        |(family, number, [here, ready, serving, terminating])| {
            let address = address(family, number);
            let node = Some(if here { "node1" } else { "node2" }.into());
            Endpoint { address, hostname: None, node, ready, serving, terminating, hints: None }
        },
    )
}

fn slice() -> impl Strategy<Value = Object> {
    (1u8..4, 0u8..2, vec(endpoint(), 0..6)).prop_map(|(service, slice, endpoints)| {
        let ports = [Protocol::Tcp, Protocol::Udp].into_iter().flat_map(|protocol| {
            (1u16..3).map(move |port| EndpointPort {
                name: format!("{protocol}-{port}").into(),
                protocol,
                port: (8000 + port).try_into().unwrap(),
            })
        });
        let key = NamespacedName::new("shop", format!("slice-{service}-{slice}"));
        Object::EndpointSlice(EndpointSlice {
            key,
            service: name(service),
            ports: ports.collect(),
            endpoints,
        })
    })
}

fn node() -> impl Strategy<Value = Object> {
    // Some of them external addresses of Services, too.
    vec((any::<bool>(), 6u8..11), 0..3).prop_map(|addresses| {
        let addresses = addresses.into_iter().map(|(family, number)| address(family, number)).collect();
        Object::Node(Node { name: "node1".into(), addresses, ..Node::default() })
    })
}

fn event() -> impl Strategy<Value = Event> {
    let object = prop_oneof![3 => service(), 5 => slice(), 1 => node()];
    (object, prop::bool::weighted(0.25)).prop_map(|(object, delete)| match delete {
        true => Event::Delete(object.key()),
        false => Event::Put(object),
    })
}

fn config() -> Config {
    Config { node: "node1".into(), ..Config::default() }
}

/// A planner, and the tables that follow it.
struct Plans {
    planner: Planner,
    tables: DesiredTables,
}

impl Plans {
    fn new() -> Plans {
        Plans { planner: Planner::new(config().node), tables: DesiredTables::new(&config()) }
    }

    fn update(&mut self, snapshot: &Snapshot, changes: &ChangeSet) -> Transaction {
        self.planner.update(snapshot, changes, &mut self.tables);
        self.tables.take_changes()
    }

    fn tables(&self) -> Vec<Table> {
        self.tables.tables()
    }
}

fn happen(snapshot: &mut Snapshot, events: Vec<Event>) -> ChangeSet {
    let mut changes = ChangeSet::default();
    for event in events {
        match event {
            Event::Put(object) => snapshot.apply(object, &mut changes),
            Event::Delete(key) => snapshot.delete(&key, &mut changes),
        }
    }
    changes
}

/// The chains that spread connections, by what elements say of them.
fn picked(kernel: &Observed) -> [BTreeSet<String>; 2] {
    let text = |family: Family| format!("{:?}", kernel.tables[&(family.into(), "weft".into())].sets);
    Family::BOTH.map(|family| {
        let text = text(family);
        let names = text.split("Goto(\"").skip(1).filter_map(|rest| rest.split('"').next());
        names.filter(|name| *name != "no-endpoints").map(str::to_owned).collect()
    })
}

/// What each planned set holds, whatever the slots of the endpoints, which depend on what was before.
fn without_slots(planner: &Plans) -> Vec<BTreeSet<String>> {
    let tables = planner.tables();
    let sets = tables.iter().flat_map(|table| table.sets.values());
    let described = sets.map(|set| {
        let element = |(key, data): (&Tuple, &Data)| {
            let mut key = key.values(&set.declaration.key).unwrap();
            key.retain(|value| !matches!(value, Value::Integer(_)));
            format!("{key:?} {data:?}")
        };
        set.elements.iter().map(element).collect()
    });
    described.collect()
}

proptest! {
    #[test]
    fn transactions_lead_from_plan_to_plan(history in vec(vec(event(), 1..4), 1..12)) {
        let (mut snapshot, mut planner, mut kernel) =
            (Snapshot::default(), Plans::new(), Observed::default());
        kernel.apply(&diff(&planner.tables(), &kernel)).unwrap();
        for events in history {
            let changes = happen(&mut snapshot, events);
            let transaction = planner.update(&snapshot, &changes);
            kernel.apply(&transaction).unwrap();
            prop_assert_eq!(&kernel, &Observed::of(&planner.tables()));
            let fixed = 17;
            for (family, chains) in Family::BOTH.into_iter().zip(picked(&kernel)) {
                let table = &kernel.tables[&(family.into(), "weft".into())];
                let hooks = ["affinity-timeouts", "restricted"]
                    .map(|set| if table.sets[set].elements.is_empty() { 0 } else { 2 });
                prop_assert_eq!(table.chains.len(), fixed + chains.len() + hooks.iter().sum::<usize>());
            }
            let touches_fixed = transaction.changes.iter().any(|change| {
                matches!(change, Change::AddTable(_) | Change::DeleteTable(_) | Change::FlushChain(..))
            });
            prop_assert!(!touches_fixed);
        }
        let mut restarted = Plans::new();
        restarted.tables.adopt(&kernel);
        restarted.planner.start(&snapshot, &mut restarted.tables);
        prop_assert_eq!(diff(&restarted.tables(), &kernel).to_string(), "");
        prop_assert_eq!(restarted.planner.problems(), planner.planner.problems());
    }

    #[test]
    fn any_order_of_the_same_objects_gives_the_same_plan(
        objects in vec(prop_oneof![2 => service(), 1 => slice()], 1..8), order in any::<u64>(),
    ) {
        let objects: BTreeMap<ObjectKey, Object> =
            objects.into_iter().map(|object| (object.key(), object)).collect();
        let plan = |objects: Vec<Object>| {
            let (mut snapshot, mut planner) = (Snapshot::default(), Plans::new());
            for object in objects {
                let changes = happen(&mut snapshot, vec![Event::Put(object)]);
                planner.update(&snapshot, &changes);
            }
            (without_slots(&planner), planner.planner.problems().clone())
        };
        let mut shuffled: Vec<Object> = objects.values().cloned().collect();
        let count = shuffled.len() as u64;
        (0..shuffled.len()).for_each(|index| shuffled.swap(index, (order.rotate_left(index as u32 * 7) % count) as usize));
        let mut at_once = Plans::new();
        let mut snapshot = Snapshot::default();
        happen(&mut snapshot, objects.into_values().map(Event::Put).collect());
        at_once.update(&snapshot, &everything(&snapshot));
        let expected = (without_slots(&at_once), at_once.planner.problems().clone());
        prop_assert_eq!(plan(shuffled), expected);
    }
}

#[test]
fn a_changed_endpoint_changes_no_more_elements_than_it_must() {
    let (mut snapshot, mut planner) = (Snapshot::default(), Plans::new());
    let number = |number: u16| number.try_into().unwrap();
    let port =
        ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: number(80), node_port: None };
    let kind = ServiceKind::ClusterIp(vec!["10.96.0.1".parse().unwrap()]);
    let service = Object::Service(Service::new(name(1), kind, vec![port.clone()]));
    let slice = |last: &[u8]| {
        let endpoint =
            |last: &u8| Endpoint { node: Some("node2".into()), ..Endpoint::ready(address(true, *last)) };
        let ports = vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: number(8080) }];
        let key = NamespacedName::new("shop", "slice-1");
        let endpoints = last.iter().map(endpoint).collect();
        Event::Put(Object::EndpointSlice(EndpointSlice { key, service: name(1), ports, endpoints }))
    };
    let changes = happen(&mut snapshot, vec![Event::Put(service), slice(&[1, 2, 3])]);
    planner.update(&snapshot, &changes);
    let changes = happen(&mut snapshot, vec![slice(&[1, 9, 3])]);
    assert_eq!(
        planner.update(&snapshot, &changes).to_string(),
        "delete element ip weft endpoints { 10.96.0.1 . tcp . 80 . 1 : 10.0.0.2 . 8080 }\n\
         add element ip weft endpoints { 10.96.0.1 . tcp . 80 . 1 : 10.0.0.9 . 8080 }\n"
    );
    let changes = happen(&mut snapshot, vec![slice(&[9, 3])]);
    let text = planner.update(&snapshot, &changes).to_string();
    assert_eq!(
        text,
        "add chain ip weft lb-2\n\
         add rule ip weft lb-2 meta priority set none dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints\n\
         add rule ip weft lb-2 dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @endpoints\n\
         add element ip weft dispatch { 0:2 : goto lb-2 }\n\
         delete element ip weft endpoints { 10.96.0.1 . tcp . 80 . 0 : 10.0.0.1 . 8080, 10.96.0.1 . tcp . 80 . 2 : 10.0.0.3 . 8080 }\n\
         add element ip weft endpoints { 10.96.0.1 . tcp . 80 . 0 : 10.0.0.3 . 8080 }\n\
         delete element ip weft frontends { 10.96.0.1 . tcp . 80 : 0:3 }\n\
         add element ip weft frontends { 10.96.0.1 . tcp . 80 : 0:2 }\n\
         delete element ip weft dispatch { 0:3 : goto lb-3 }\n\
         delete chain ip weft lb-3\n"
    );
    // The kernel validates a whole table where an element comes that names a chain.
    let mut other = slice(&[1, 2, 3]);
    if let Event::Put(Object::EndpointSlice(slice)) = &mut other {
        (slice.key.name, slice.service) = ("slice-2".into(), name(2));
    }
    let kind = ServiceKind::ClusterIp(vec!["10.96.0.2".parse().unwrap()]);
    let service = Object::Service(Service::new(name(2), kind, vec![port]));
    let changes = happen(&mut snapshot, vec![Event::Put(service), other, slice(&[9, 3])]);
    planner.update(&snapshot, &changes);
    let changes = happen(&mut snapshot, vec![slice(&[9, 3, 4])]);
    assert_eq!(
        planner.update(&snapshot, &changes).to_string(),
        "add element ip weft endpoints { 10.96.0.1 . tcp . 80 . 2 : 10.0.0.4 . 8080 }\n\
         delete element ip weft frontends { 10.96.0.1 . tcp . 80 : 0:2 }\n\
         add element ip weft frontends { 10.96.0.1 . tcp . 80 : 0:3 }\n\
         delete element ip weft dispatch { 0:2 : goto lb-2 }\n\
         delete chain ip weft lb-2\n"
    );
    let gone = [1, 2].map(|number| Event::Delete(ObjectKey::Service(name(number))));
    let changes = happen(&mut snapshot, gone.into());
    planner.update(&snapshot, &changes);
    let empty = Plans::new();
    assert_eq!(planner.tables(), empty.tables(), "nothing stays of a Service that went");
    assert_eq!(table_keys().len(), planner.tables().len());
}

#[test]
fn a_range_of_ten_thousand_ports_is_served_and_what_goes_beyond_is_named() {
    let ports = |count: u16| {
        let port = |number: u16| ServicePort {
            name: format!("port-{number}").into(),
            protocol: Protocol::Udp,
            port: number.try_into().unwrap(),
            node_port: None,
        };
        (1..=count).map(port).collect::<Vec<_>>()
    };
    let served = |count: u16, external: u8| {
        let kind = ServiceKind::ClusterIp(vec!["10.96.0.1".parse().unwrap()]);
        let external_ips = (1..=external).map(|last| [192, 0, 2, last].into()).collect();
        let service = Service { external_ips, ..Service::new(name(1), kind, ports(count)) };
        let (mut snapshot, mut planner) = (Snapshot::default(), Plans::new());
        let changes = happen(&mut snapshot, vec![Event::Put(Object::Service(service))]);
        planner.update(&snapshot, &changes);
        let table = &planner.tables()[0];
        (
            table.sets["frontends"].elements.len(),
            planner.planner.problems().get(&name(1)).cloned().unwrap_or_default(),
        )
    };
    assert_eq!(served(10_000, 0), (10_000, vec![]));
    assert_eq!(served(10_001, 0), (10_000, vec![Problem::TooLarge { ports: 1 }]));
    // 50 frontends a port, and 100,000 in all.
    assert_eq!(served(10_000, 49), (100_000, vec![Problem::TooLarge { ports: 8_000 }]));
}

/// Earlier releases called the map `dispatch` and the chains `lb-N` and `use-affinity` otherwise.
fn as_an_earlier_release_named_it(table: &mut ObservedTable) {
    let old = |name: &Name| Name::from(name.replace("lb-", "pick-").replace("use-affinity", "stick"));
    for (name, mut chain) in take(&mut table.chains) {
        if ["services", "outside"].contains(&&*name) || old(&name) != name {
            chain.rules = vec![None; chain.rules.len()];
        }
        table.chains.insert(old(&name), chain);
    }
    let mut dispatch = table.sets.remove("dispatch").unwrap();
    for data in dispatch.elements.values_mut() {
        if let Data::Verdict(Verdict::Goto(chain)) = data {
            *chain = old(chain);
        }
    }
    table.sets.insert("choices".into(), dispatch);
}

#[test]
fn an_upgrade_renames_chains_and_maps_in_one_transaction_and_keeps_the_affinity_of_clients() {
    let mut plans = Plans::new();
    let (port, protocol) = (SmolStr::new("http"), Protocol::Tcp);
    let number = |number: u16| number.try_into().unwrap();
    let ports = vec![ServicePort { name: port.clone(), protocol, port: number(80), node_port: None }];
    let kind = ServiceKind::ClusterIp(vec![address(true, 1)]);
    let service = Service { affinity: Some(Duration::from_secs(600)), ..Service::new(name(1), kind, ports) };
    let slice = EndpointSlice {
        key: NamespacedName::new("shop", "slice-1"),
        service: name(1),
        ports: vec![EndpointPort { name: port, protocol, port: number(8080) }],
        endpoints: [10, 11].map(|last| Endpoint::ready(address(true, last))).to_vec(),
    };
    let mut snapshot = Snapshot::default();
    let objects = [Object::Service(service), Object::EndpointSlice(slice)];
    let changes = happen(&mut snapshot, objects.map(Event::Put).to_vec());
    plans.update(&snapshot, &changes);
    let wanted = Observed::of(&plans.tables());
    let mut kernel = wanted.clone();
    kernel.tables.values_mut().for_each(as_an_earlier_release_named_it);
    let transaction = diff(&plans.tables(), &kernel);
    let text = transaction.to_string();
    assert!(text.contains("delete set ip weft choices") && text.contains("goto affinity-lb-2"), "{text}");
    let is_of_a_table = |change: &Change| matches!(change, Change::AddTable(_) | Change::DeleteTable(_));
    assert!(!transaction.changes.iter().any(is_of_a_table), "the tables stay: {text}");
    assert!(!text.lines().any(|line| line.ends_with(" ip weft affinity")), "{text}");
    kernel.apply(&transaction).unwrap();
    assert_eq!(kernel, wanted);
}
