//! Prints what snapshots cost in resident memory: Services with their EndpointSlices, Pods and Namespaces.
//!
//! `cargo run --release -p weft-types --example memory [SERVICES [ENDPOINTS]]`

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use weft_types::{
    ChangeSet, Endpoint, EndpointPort, EndpointSlice, Labels, Namespace, NamespacedName, Object, Pod,
    Protocol, Service, ServiceKind, ServicePort, SmolStr, Snapshot,
};

fn address(network: u8, number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(network) << 24 | number).into()
}

fn key(kind: &str, number: u32) -> NamespacedName {
    NamespacedName::new(format!("ns-{}", number % 50), format!("{kind}-{number}"))
}

fn service(number: u32, endpoints: u32) -> [Object; 2] {
    let key = key("service", number);
    let (name, port) = (SmolStr::new("http"), NonZeroU16::MIN);
    let ports = vec![ServicePort { name: name.clone(), protocol: Protocol::Tcp, port, node_port: None }];
    let endpoint = |place| Endpoint {
        node: Some(format!("node-{place}").into()),
        ..Endpoint::ready(address(10, number * endpoints + place))
    };
    let slice = EndpointSlice {
        key: NamespacedName::new(key.namespace.clone(), format!("{}-x7k2p", key.name)),
        service: key.clone(),
        ports: vec![EndpointPort { name, protocol: Protocol::Tcp, port }],
        endpoints: (0..endpoints).map(endpoint).collect(),
    };
    let kind = ServiceKind::ClusterIp(vec![address(172, number)]);
    [Object::Service(Service::new(key, kind, ports)), Object::EndpointSlice(slice)]
}

fn pod(number: u32, labels: Labels) -> Object {
    let addresses = [address(10, number)].into_iter().collect();
    Pod { key: key("pod", number), addresses, searches: true, labels, details: None }.into()
}

/// The process's resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Prints by how much the process grows when a snapshot takes these objects in. They are made one by one.
fn measure(what: &str, snapshot: &mut Snapshot, objects: impl Iterator<Item = Object>) {
    let before = resident();
    for object in objects {
        snapshot.apply(object, &mut ChangeSet::default());
    }
    println!("{what}: {} KiB", resident() - before);
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let mut number = |default| numbers.next().and_then(Result::ok).unwrap_or(default);
    let (services, endpoints) = (number(10_000), number(2));
    let mut snapshot = Snapshot::default();
    let objects = (0..services).flat_map(|number| service(number, endpoints));
    measure(&format!("{services} Services x {endpoints} endpoints"), &mut snapshot, objects);
    let pods = (0..services).map(|number| pod(number, Labels::default()));
    measure(&format!("{services} Pods"), &mut snapshot, pods);
    let namespaces = (0..services).map(|number| Namespace::new(format!("namespace-{number}")).into());
    measure(&format!("{services} Namespaces"), &mut snapshot, namespaces);
    assert_eq!(snapshot.services().count(), services as usize);
    let labelled = (0..services).map(|number| {
        let app = format!("service-{number}");
        pod(number, [("app", &*app), ("pod-template-hash", "7d9c8b6f5")].into_iter().collect())
    });
    measure(&format!("two labels for each of {services} Pods"), &mut snapshot, labelled);
}
