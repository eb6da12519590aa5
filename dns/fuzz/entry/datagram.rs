//! A datagram as a fuzzer's input: whatever its bytes, both lanes answer it alike, and well. What the names
//! of the cluster lead to is written down here once more, without the zone.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use weft_dns::forward::{ForwardOptions, Forwarder};
use weft_dns::metrics::Metrics;
use weft_dns::pipeline::fast_lane;
use weft_dns::pipeline::handler::{Handler, Step};
use weft_dns::wire::decoder::decode;
use weft_dns::wire::format::Transport;
use weft_dns::zone::{Exposure, PodNames, Zone, ZoneConfig};
use weft_types::{
    ChangeSet, Endpoint, EndpointSlice, NamespacedName, Object, Service, ServiceKind, Snapshot,
};

/// The addresses of its Service `web`, which `ext` leads to; all are in the namespace `shop`.
const WEB: [&str; 2] = ["10.96.0.20", "fd00:10:96::20"];
/// The endpoints of its headless Service `db`: too many for the smallest reply.
const DB: std::ops::Range<u8> = 1..60;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LARGEST: usize = 1232;

static SERVER: LazyLock<(Arc<Zone>, Arc<Handler>)> = LazyLock::new(|| {
    let zone = "cluster.local".parse().expect("a zone");
    let (listen, pods, stub_domains) = (Vec::new(), PodNames::Insecure, Arc::default());
    let config = ZoneConfig {
        zone,
        ttl: 30,
        listen,
        pods,
        complete_search: false,
        stub_domains,
        exposure: Exposure::default(),
    };
    let zone = Arc::new(Zone::compile(&cluster(), Arc::new(config), 1));
    let metrics = Arc::new(Metrics::new(53, "cluster.local."));
    let forwarder = Arc::new(Forwarder::new(ForwardOptions::default(), metrics.clone()));
    let handler = Handler::new(Arc::new(ArcSwap::new(zone.clone())), forwarder, 1, metrics);
    (zone, Arc::new(handler))
});

fn cluster() -> Snapshot {
    let key = |name| NamespacedName::new("shop", name);
    let service = |name, kind| Object::Service(Service::new(key(name), kind, Vec::new()));
    let web = WEB.map(|address| address.parse().expect("an address")).to_vec();
    let slice = EndpointSlice {
        key: key("db-1"),
        service: key("db"),
        ports: Vec::new(),
        endpoints: DB.map(|last| Endpoint::ready(IpAddr::from([10, 244, 0, last]))).collect(),
    };
    let mut snapshot = Snapshot::default();
    for object in [
        service("web", ServiceKind::ClusterIp(web)),
        service("db", ServiceKind::Headless),
        service("ext", ServiceKind::ExternalName("web.shop.svc.cluster.local".to_owned())),
        Object::EndpointSlice(slice),
    ] {
        snapshot.apply(object, &mut ChangeSet::default());
    }
    snapshot
}

/// Answers the datagram by every way there is. Panics where something is wrong with what is said.
pub(crate) fn run(datagram: &[u8]) {
    let (zone, handler) = &*SERVER;
    let by = |transport| match handler.handle(datagram, CLIENT, transport) {
        Step::Drop => None,
        Step::Reply(reply) => Some(reply),
        Step::Pending(_) => panic!("there is nobody to wait for"),
    };
    let (udp, tcp) = (by(Transport::Udp), by(Transport::Tcp));
    let mut room = [0; LARGEST];
    if let Some(answered) = fast_lane::respond(zone, false, CLIENT, datagram, &mut room) {
        assert_eq!(Some(&room[..answered.length]), udp.as_deref(), "both lanes say the same");
    }
    // A reply to a reply would go on for ever, between two servers.
    let is_answerable = datagram.len() >= 12 && datagram[2] & 0x80 == 0;
    assert_eq!([udp.is_some(), tcp.is_some()], [is_answerable; 2]);
    let asked = decode(datagram).ok();
    for reply in [&udp, &tcp].into_iter().flatten() {
        check(datagram, asked.as_ref(), reply);
    }
    if let Some(reply) = udp {
        let limit = asked.as_ref().map_or(512, |asked| asked.max_payload().clamp(512, LARGEST as u16));
        assert!(reply.len() <= usize::from(limit), "{} bytes, where {limit} are allowed", reply.len());
    }
}

fn check(datagram: &[u8], asked: Option<&Message>, bytes: &[u8]) {
    let reply = Message::from_vec(bytes).expect("a reply is a message");
    assert_eq!(bytes[..2], datagram[..2], "the identifier");
    assert_eq!(reply.metadata.message_type, MessageType::Response);
    assert_eq!(bytes[2] & 0x78, datagram[2] & 0x78, "the operation");
    let Some(asked) = asked else {
        return assert!(reply.answers.is_empty() && reply.queries.is_empty(), "nothing was understood");
    };
    if let [question] = &reply.queries[..] {
        assert_eq!(asked.queries, reply.queries);
        assert_eq!(question.name.to_ascii(), asked.queries[0].name.to_ascii(), "letter by letter");
        assert_eq!(reply.edns.is_some(), asked.edns.is_some(), "OPT is answered with OPT");
        answers(&reply);
    }
    if reply.edns.as_ref().is_some_and(|_| asked.version() > 0) {
        // As a number: TSIG's BADSIG is the same.
        assert_eq!(u16::from(reply.metadata.response_code), u16::from(ResponseCode::BADVERS));
    }
}

/// Whether the addresses are those of the Service that was asked for, all of them unless the reply was cut.
fn answers(reply: &Message) {
    let (name, asked) = (reply.queries[0].name.to_ascii().to_lowercase(), reply.queries[0].query_type);
    let is_address = |found: &RecordType| [RecordType::A, RecordType::AAAA].contains(found);
    let known: Option<BTreeSet<IpAddr>> = match name.strip_suffix(".shop.svc.cluster.local.") {
        Some("web" | "ext") => Some(WEB.iter().map(|text| text.parse().expect("an address")).collect()),
        Some("db") => Some(DB.map(|last| IpAddr::from([10, 244, 0, last])).collect()),
        _ => None,
    };
    let said: BTreeSet<IpAddr> = reply.answers.iter().filter_map(|record| address(&record.data)).collect();
    if !is_address(&asked) || reply.metadata.response_code != ResponseCode::NoError {
        return assert!(said.is_empty(), "{name} {asked}");
    }
    let Some(known) = known else { return };
    let known: BTreeSet<IpAddr> =
        known.into_iter().filter(|address| address.is_ipv4() == (asked == RecordType::A)).collect();
    match reply.metadata.truncation {
        true => assert!(said.is_subset(&known), "{name} {asked}: {said:?}"),
        false => assert_eq!(said, known, "{name} {asked}"),
    }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}
