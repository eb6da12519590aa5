//! A small cluster with every kind of Service, and a way to ask its zone. No test lives here.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use weft_cluster::{WatchFilter, manifest};
use weft_dns::pipeline::cname_chain::follow_cnames;
use weft_dns::pipeline::encode::encode_zone;
use weft_dns::pipeline::parse::{Parsed, parse};
use weft_dns::wire::format::Transport;
use weft_dns::zone::{Exposure, PodNames, Zone, ZoneConfig};
use weft_types::{
    ChangeSet, Endpoint, EndpointPort, EndpointSlice, Labels, NamespacedName, Object, Pod, Protocol, Service,
    ServiceKind, ServicePort, Snapshot,
};

/// Where the cluster of the tests is written down.
pub(crate) const CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/cluster.yaml");

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn port(name: &str, protocol: Protocol, port: u16) -> ServicePort {
    ServicePort { name: name.into(), protocol, port: NonZeroU16::new(port).unwrap(), node_port: None }
}

pub(crate) fn service(name: &str, kind: ServiceKind, ports: Vec<ServicePort>) -> Object {
    Object::Service(Service::new(name.parse().unwrap(), kind, ports))
}

pub(crate) fn endpoint(address: &str, hostname: Option<&str>, ready: bool) -> Endpoint {
    let hostname = hostname.map(Box::from);
    Endpoint { hostname, ready, serving: ready, ..Endpoint::ready(ip(address)) }
}

pub(crate) fn slice(name: &str, service: &str, port: (&str, u16), endpoints: Vec<Endpoint>) -> Object {
    let key: NamespacedName = service.parse().unwrap();
    let number = NonZeroU16::new(port.1).unwrap();
    Object::EndpointSlice(EndpointSlice {
        key: NamespacedName::new(key.namespace.clone(), name),
        service: key,
        ports: vec![EndpointPort { name: port.0.into(), protocol: Protocol::Tcp, port: number }],
        endpoints,
    })
}

/// A pod with these addresses, whose resolver has the cluster's search list.
pub(crate) fn pod(name: &str, addresses: &[IpAddr]) -> Pod {
    Pod {
        key: name.parse().unwrap(),
        addresses: addresses.into(),
        searches: true,
        labels: Labels::default(),
        details: None,
    }
}

pub(crate) fn snapshot(objects: Vec<Object>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    objects.into_iter().for_each(|object| snapshot.apply(object, &mut ChangeSet::default()));
    snapshot
}

/// Services of all kinds in the namespaces `default`, `shop` and `kube-system`; `empty` has none.
pub(crate) fn cluster() -> Snapshot {
    manifest::load(&WatchFilter::default(), &[CLUSTER.into()]).unwrap()
}

/// The settings of the test zone: `cluster.local`, 30 s.
pub(crate) fn config() -> Arc<ZoneConfig> {
    Arc::new(settings(PodNames::Insecure))
}

/// The same, with those names of pods.
pub(crate) fn settings(pods: PodNames) -> ZoneConfig {
    ZoneConfig {
        zone: "cluster.local".parse().unwrap(),
        ttl: 30,
        pods,
        complete_search: false,
        listen: vec![ip("10.244.0.2")],
        stub_domains: Arc::default(),
        exposure: Exposure::default(),
    }
}

/// The zone of [`cluster`].
pub(crate) fn zone() -> Zone {
    Zone::compile(&cluster(), config(), 1_700_000_000)
}

/// A query as a client sends it, without EDNS.
pub(crate) fn query(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

/// What the zone says to a message, as a client reads it.
pub(crate) fn ask_message(zone: &Zone, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    let bytes = match parse(&bytes, Transport::Udp) {
        Parsed::Question(question) => {
            let chain = follow_cnames(zone, &question.name, question.query.query_type);
            encode_zone(zone, &question, &chain, true)
        }
        Parsed::Rejected(bytes) => bytes,
        Parsed::Ignored => panic!("{message:?} is no garbage"),
    };
    Message::from_vec(&bytes).unwrap()
}

/// The zone's answer to a query, as a client reads it.
pub(crate) fn ask(zone: &Zone, name: &str, record_type: RecordType) -> Message {
    ask_message(zone, &query(name, record_type))
}

/// Records as master-file lines without TTL and class, in order.
pub(crate) fn lines(records: &[Record]) -> Vec<String> {
    let line = |record: &Record| format!("{} {} {}", record.name, record.record_type(), record.data);
    let mut lines: Vec<String> = records.iter().map(line).collect();
    lines.sort();
    lines
}

/// The answer section of a query about `name.svc.cluster.local`, as [`lines`]; panics where there is none.
pub(crate) fn answers(zone: &Zone, name: &str, record_type: RecordType) -> Vec<String> {
    let reply = ask(zone, name, record_type);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{name} {record_type}");
    assert!(!reply.answers.is_empty(), "{name} {record_type} has no data");
    assert!(reply.answers.iter().all(|record| record.ttl == 30), "every record has the zone's TTL");
    assert!(reply.metadata.authoritative && reply.authorities.is_empty(), "{name} {record_type}");
    lines(&reply.answers)
}

/// Whether the name does not exist (NXDOMAIN) or merely has no such record; panics where it has.
pub(crate) fn is_missing(zone: &Zone, name: &str, record_type: RecordType) -> bool {
    let reply = ask(zone, name, record_type);
    assert!(reply.answers.is_empty(), "{name} {record_type} has data: {:?}", lines(&reply.answers));
    let soa =
        "cluster.local. SOA ns.dns.cluster.local. hostmaster.cluster.local. 1700000000 7200 1800 86400 30";
    assert_eq!(lines(&reply.authorities), [soa], "{name} {record_type}");
    reply.metadata.response_code == ResponseCode::NXDomain
}
