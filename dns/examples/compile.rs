//! Prints how long zones take: compiled whole, and after a change of one Service; and how long a query takes
//! the fast lane, without the sockets.
//!
//! `cargo run --release -p weft-dns --example compile [SERVICES [ENDPOINTS]]`

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use weft_dns::pipeline::fast_lane::respond;
use weft_dns::zone::{Exposure, PodNames, Zone, ZoneConfig};
use weft_types::{
    ChangeSet, Endpoint, EndpointPort, EndpointSlice, NamespacedName, Object, Protocol, Service, ServiceKind,
    ServicePort, SmolStr, Snapshot,
};

/// How many queries are timed.
const QUESTIONS: u32 = 100_000;

fn address(network: u8, number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(network) << 24 | number).into()
}

fn objects(number: u32, endpoints: u32) -> [Object; 2] {
    let key = NamespacedName::new(format!("ns-{}", number % 50), format!("service-{number}"));
    let (name, port) = (SmolStr::new("http"), NonZeroU16::MIN);
    let ports = vec![ServicePort { name: name.clone(), protocol: Protocol::Tcp, port, node_port: None }];
    let endpoint = |place| Endpoint::ready(address(10, number * endpoints + place));
    let slice = EndpointSlice {
        key: key.clone(),
        service: key.clone(),
        ports: vec![EndpointPort { name, protocol: Protocol::Tcp, port }],
        endpoints: (0..endpoints).map(endpoint).collect(),
    };
    let kind = ServiceKind::ClusterIp(vec![address(172, number)]);
    [Object::Service(Service::new(key, kind, ports)), Object::EndpointSlice(slice)]
}

/// A query for the A records of a name.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = b"\0\0\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(b"\0\0\x01\0\x01");
    bytes
}

/// Asks for many Services, each by a name with that prefix, and prints how long one takes.
fn ask(zone: &Zone, services: u32, prefix: &str) {
    // Scattered, so that neighbours in memory are no neighbours in time.
    let name = |turn: u32| {
        let number = turn * 7919 % services;
        format!("{prefix}service-{number}.ns-{}.svc.cluster.local", number % 50)
    };
    let questions: Vec<Vec<u8>> = (0..QUESTIONS).map(|turn| question(&name(turn))).collect();
    let (client, mut reply, started) = (address(10, 1), [0; 1232], Instant::now());
    let answered = questions.iter().filter_map(|bytes| respond(zone, true, client, bytes, &mut reply));
    let codes: HashSet<_> = answered.map(|answered| answered.code).collect();
    println!("{codes:?}: {:?} a question", started.elapsed() / QUESTIONS);
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let mut number = |default| numbers.next().and_then(Result::ok).unwrap_or(default);
    let (services, endpoints) = (number(10_000), number(2));
    let (mut snapshot, mut changes) = (Snapshot::default(), ChangeSet::default());
    for object in (0..services).flat_map(|number| objects(number, endpoints)) {
        snapshot.apply(object, &mut changes);
    }
    let zone = ZoneConfig {
        zone: "cluster.local".parse().expect("a zone"),
        ttl: 30,
        pods: PodNames::default(),
        complete_search: false,
        listen: Vec::new(),
        stub_domains: Arc::default(),
        exposure: Exposure::default(),
    };
    let started = Instant::now();
    let whole = Zone::compile(&snapshot, Arc::new(zone), 1);
    println!("{services} Services x {endpoints} endpoints, whole: {:?}", started.elapsed());

    ask(&whole, services, "");
    ask(&whole, services, "no-");

    let mut changes = ChangeSet::default();
    let [_, slice] = objects(services / 2, endpoints + 1);
    snapshot.apply(slice, &mut changes);
    let started = Instant::now();
    let changed = whole.recompile(&snapshot, &changes, 2);
    println!("after a change of {} Service: {:?}", changes.services.len(), started.elapsed());
    let started = Instant::now();
    drop(whole);
    println!("dropping the zone before: {:?}; {} Services", started.elapsed(), changed.service_count());
}
