//! Properties over random clusters and random queries, and over garbage.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use clap::ValueEnum;
use hickory_proto::op::{Edns, Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{Name, RData, RecordType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use weft_cluster::WatchFilter;
use weft_dns::daemon::snapshot_file::text::text;
use weft_dns::forward::{ForwardOptions, Forwarder};
use weft_dns::metrics::Metrics;
use weft_dns::pipeline::fast_lane;
use weft_dns::pipeline::handler::{Handler, Step};
use weft_dns::wire::format::Transport;
use weft_dns::wire::name::to_name;
use weft_dns::zone::{PodNames, Zone, ZoneConfig};
use weft_types::{ChangeSet, Endpoint, Namespace, NamespacedName, Object, ObjectKey, Protocol, ServiceKind};

use crate::fixture::*;

/// Who asks: a pod, where [`objects`] has one with this address.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

const NAMES: [&str; 4] = ["a", "db", "svc", "x-1"];

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..20_u8).prop_map(|last| Ipv4Addr::new(10, 0, 0, last).into()),
        (0..20_u16).prop_map(|last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into()),
    ]
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    (address(), proptest::option::of(select(&NAMES)), any::<bool>())
        .prop_map(|(address, hostname, ready)| endpoint(&address.to_string(), hostname, ready))
}

fn kind() -> impl Strategy<Value = ServiceKind> {
    let inside = (select(&NAMES), select(&NAMES)).prop_map(|(a, b)| format!("{a}.{b}.svc.cluster.local"));
    let target = prop_oneof![
        inside,
        Just("example.com".to_owned()),
        Just("10.0.0.1".to_owned()),
        Just("..".to_owned())
    ];
    prop_oneof![
        vec(address(), 0..3).prop_map(ServiceKind::ClusterIp),
        Just(ServiceKind::Headless),
        target.prop_map(ServiceKind::ExternalName),
    ]
}

fn any_service() -> impl Strategy<Value = Object> {
    let protocols = select(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let port = (select(&["", "http", "pg"]), protocols, 1..9_u16)
        .prop_map(|(name, protocol, number)| crate::fixture::port(name, protocol, number));
    (select(&NAMES), select(&NAMES), kind(), vec(port, 0..3))
        .prop_map(|(namespace, name, kind, ports)| service(&format!("{namespace}/{name}"), kind, ports))
}

fn any_slice() -> impl Strategy<Value = Object> {
    let port = (select(&["", "http", "pg"]), 1..9_u16);
    (select(&["s1", "s2"]), select(&NAMES), select(&NAMES), port, vec(any_endpoint(), 0..6)).prop_map(
        |(name, namespace, service, port, endpoints)| {
            slice(name, &format!("{namespace}/{service}"), port, endpoints)
        },
    )
}

fn objects() -> impl Strategy<Value = Vec<Object>> {
    let namespace = select(&NAMES).prop_map(|name| Object::Namespace(Namespace::new(name)));
    let pod =
        (select(&NAMES), select(&NAMES), vec(address(), 0..3)).prop_map(|(namespace, name, addresses)| {
            Object::Pod(pod(&format!("{namespace}/{name}"), &addresses))
        });
    vec(prop_oneof![4 => any_service(), 4 => any_slice(), 4 => namespace, 1 => pod], 0..12)
}

fn any_config() -> impl Strategy<Value = Arc<ZoneConfig>> {
    let pods = select(PodNames::value_variants());
    (pods, any::<bool>())
        .prop_map(|(pods, complete_search)| Arc::new(ZoneConfig { complete_search, ..settings(pods) }))
}

/// Names that are likely to be, or nearly to be, in the zone.
fn question() -> impl Strategy<Value = String> {
    let label = prop_oneof![
        select(&NAMES).prop_map(str::to_owned),
        select(&[
            "svc",
            "pod",
            "dns",
            "ns",
            "_tcp",
            "_udp",
            "_http",
            "_pg",
            "dns-version",
            "10-0-0-1",
            "fd00--1",
            "10"
        ])
        .prop_map(str::to_owned),
        "[a-zA-Z0-9_][a-zA-Z0-9-]{0,10}[a-z0-9]",
    ];
    let suffix = select(&[
        "cluster.local.",
        "svc.cluster.local.",
        "pod.cluster.local.",
        "10.in-addr.arpa.",
        "Cluster.LOCAL.",
    ]);
    (vec(label, 0..6), suffix)
        .prop_map(|(labels, suffix)| labels.into_iter().map(|label| label + ".").collect::<String>() + suffix)
}

/// Every name that the zone lists, and the root of each.
fn listed(zone: &Zone) -> Vec<Name> {
    let below = |labels: &[&[u8]]| to_name(&[labels, &[&b"\x07cluster\x05local"[..]]].concat()).unwrap();
    let mut names: Vec<Name> = zone.namespaces().map(|namespace| below(&[namespace, b"\x03svc"])).collect();
    for branch in zone.services() {
        names.push(below(&[branch.key(), b"\x03svc"]));
        names.extend(branch.names_below().map(|labels| below(&[&labels, branch.key(), b"\x03svc"])));
    }
    names
}

fn code(zone: &Zone, name: &str, record_type: RecordType) -> ResponseCode {
    ask(zone, name, record_type).metadata.response_code
}

#[test]
fn what_is_kept_on_disk_makes_the_same_zone() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, text(&cluster())).unwrap();
    let read = weft_cluster::manifest::load(&WatchFilter::default(), &[file.path().to_owned()]).unwrap();
    let (before, after) = (zone(), Zone::compile(&read, config(), 1_700_000_000));
    assert_eq!(listed(&before).len(), listed(&after).len());
    let mut namespaces = [&before, &after].map(|zone| zone.namespaces().collect::<Vec<_>>());
    namespaces.iter_mut().for_each(|names| names.sort_unstable());
    assert_eq!(namespaces[0], namespaces[1]);
    assert!(before.addresses().eq(after.addresses()));
    for name in listed(&before) {
        for record_type in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::CNAME] {
            let name = name.to_ascii();
            assert_eq!(ask(&before, &name, record_type), ask(&after, &name, record_type));
        }
    }
}

proptest! {
    #[test]
    fn a_name_exists_for_all_types_or_for_none(objects in objects(), config in any_config(), name in question()) {
        let zone = Zone::compile(&snapshot(objects), config, 1);
        let first = ask(&zone, &name, RecordType::CNAME);
        if first.answers.iter().any(|record| record.record_type() == RecordType::CNAME) {
            return Ok(()); // An alias's code is that of its target.
        }
        for record_type in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::TXT, RecordType::PTR, RecordType::ANY] {
            prop_assert_eq!(code(&zone, &name, record_type), first.metadata.response_code, "{} {}", name, record_type);
        }
    }

    #[test]
    fn nothing_exists_below_what_does_not(objects in objects(), config in any_config(), name in question()) {
        let zone = Zone::compile(&snapshot(objects), config, 1);
        let above = Name::from_ascii(&name).unwrap().base_name();
        if above.num_labels() >= 2 && code(&zone, &above.to_ascii(), RecordType::TXT) == ResponseCode::NXDomain {
            prop_assert_eq!(code(&zone, &name, RecordType::TXT), ResponseCode::NXDomain, "RFC 8020: {}", name);
        }
    }

    #[test]
    fn every_name_that_is_listed_answers(objects in objects()) {
        let zone = Zone::compile(&snapshot(objects), config(), 1);
        for name in listed(&zone) {
            let itself = ask(&zone, &name.to_ascii(), RecordType::CNAME);
            prop_assert_eq!(itself.metadata.response_code, ResponseCode::NoError, "{}", name);
            if itself.answers.is_empty() {
                prop_assert_eq!(code(&zone, &name.to_ascii(), RecordType::SRV), ResponseCode::NoError, "{}", name);
            }
        }
    }

    #[test]
    fn every_pointer_and_every_target_leads_to_an_address(objects in objects()) {
        let zone = Zone::compile(&snapshot(objects), config(), 1);
        let pointers = zone.addresses().map(|address| Name::from(address).to_ascii()).map(|name| ask(&zone, &name, RecordType::PTR));
        let services = listed(&zone).into_iter().map(|name| ask(&zone, &name.to_ascii(), RecordType::SRV));
        for record in pointers.chain(services).flat_map(|reply| reply.answers) {
            let target = match &record.data {
                RData::PTR(target) => target.0.clone(),
                RData::SRV(service) => service.target.clone(),
                RData::CNAME(_) => continue, // The answer of an external name is its target's.
                other => panic!("{other} was not asked for"),
            };
            let families = [RecordType::A, RecordType::AAAA].map(|asked| ask(&zone, &target.to_ascii(), asked).answers.len());
            let addressless = matches!(record.data, RData::SRV(_)) && !target.to_ascii().starts_with("10-");
            prop_assert!(families.iter().sum::<usize>() > 0 || addressless, "{} -> {}", record.name, target);
        }
    }

    #[test]
    fn a_change_leads_to_the_zone_compiled_whole(before in objects(), after in objects(), gone in vec((select(&NAMES), select(&NAMES)), 0..4)) {
        let (mut cluster, config) = (snapshot(before), Arc::new(settings(PodNames::Verified)));
        let old = Zone::compile(&cluster, config.clone(), 1);
        let mut changes = ChangeSet::default();
        after.into_iter().for_each(|object| cluster.apply(object, &mut changes));
        for (namespace, name) in gone {
            let key: NamespacedName = format!("{namespace}/{name}").parse().unwrap();
            cluster.delete(&ObjectKey::Service(key.clone()), &mut changes);
            cluster.delete(&ObjectKey::Pod(key), &mut changes);
        }
        let (new, whole) = (old.recompile(&cluster, &changes, 2), Zone::compile(&cluster, config, 2));
        let mut names = [listed(&new), listed(&whole), listed(&old)].concat();
        names.extend(old.addresses().chain(whole.addresses()).map(Name::from));
        let of_pod = |last| NAMES.map(|namespace| format!("10-0-0-{last}.{namespace}.pod.cluster.local."));
        names.extend((0..20).flat_map(of_pod).map(|name| Name::from_ascii(name).unwrap()));
        for name in names {
            for record_type in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::PTR, RecordType::CNAME] {
                prop_assert_eq!(ask(&new, &name.to_ascii(), record_type), ask(&whole, &name.to_ascii(), record_type));
            }
        }
    }
}

/// The zone of the small cluster, and a handler without upstreams over it.
static HANDLER: LazyLock<(Arc<Zone>, Arc<Handler>)> = LazyLock::new(|| {
    let zone = Arc::new(zone());
    (zone.clone(), handler_of(zone))
});

fn handler_of(zone: Arc<Zone>) -> Arc<Handler> {
    let zone = Arc::new(ArcSwap::new(zone));
    let metrics = Arc::new(Metrics::new(53, "cluster.local."));
    let forwarder = Arc::new(Forwarder::new(ForwardOptions::default(), metrics.clone()));
    Arc::new(Handler::new(zone, forwarder, 1, metrics))
}

/// Both lanes say the same, or the fast one says nothing. Returns whether it spoke.
fn compare_lanes(handler: &Arc<Handler>, zone: &Zone, bytes: &[u8]) -> Result<bool, TestCaseError> {
    let mut reply = [0; 1232];
    let Some(answered) = fast_lane::respond(zone, false, CLIENT, bytes, &mut reply) else { return Ok(false) };
    let Step::Reply(full) = handler.handle(bytes, CLIENT, Transport::Udp) else {
        return Err(TestCaseError::fail("only the fast lane answers"));
    };
    prop_assert_eq!(&reply[..answered.length], &full[..]);
    Ok(true)
}

/// Whatever came, the reply is none, or a message that answers it within the client's limit.
fn check_reply(handler: &Arc<Handler>, bytes: &[u8], transport: Transport) -> Result<(), TestCaseError> {
    match handler.handle(bytes, CLIENT, transport) {
        Step::Drop => {}
        Step::Pending(_) => prop_assert!(false, "there is no upstream to wait for"),
        Step::Reply(reply) => {
            let message = Message::from_vec(&reply).unwrap();
            prop_assert_eq!(&reply[..2], &bytes[..2], "the id");
            prop_assert_eq!(message.metadata.message_type, MessageType::Response);
            prop_assert_eq!(message.to_vec().unwrap().len(), reply.len(), "no byte too many");
            if transport == Transport::Udp {
                let limit =
                    Message::from_vec(bytes).map_or(512, |asked| asked.max_payload().clamp(512, 1232));
                prop_assert!(reply.len() <= usize::from(limit), "{} > {}", reply.len(), limit);
            }
        }
    }
    Ok(())
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Udp), Just(Transport::Tcp)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..600), transport in transport()) {
        check_reply(&HANDLER.1, &bytes, transport)?;
    }

    #[test]
    fn a_mutated_question_never_panics(
        name in question(),
        record_type in any::<u16>(),
        edns in any::<bool>(),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        transport in transport(),
    ) {
        let mut message = query(&name, RecordType::from(record_type));
        if edns {
            message.set_edns(Edns::new());
        }
        let mut bytes = message.to_vec().unwrap();
        for (place, byte) in mutations {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check_reply(&HANDLER.1, &bytes, transport)?;
        compare_lanes(&HANDLER.1, &HANDLER.0, &bytes)?;
    }

    #[test]
    fn both_lanes_say_the_same(
        objects in objects(),
        config in any_config(),
        name in question(),
        record_type in prop_oneof![select(&[1_u16, 28, 33, 5, 6, 16, 255]), any::<u16>()],
        flags in any::<[u8; 2]>(),
        id in any::<u16>(),
        edns in proptest::option::of((any::<u16>(), any::<bool>(), any::<bool>())),
    ) {
        let mut message = query(&name, RecordType::from(record_type));
        message.metadata.id = id;
        if let Some((payload, dnssec_ok, cookie)) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload).set_dnssec_ok(dnssec_ok);
            if cookie {
                edns.options_mut().insert(EdnsOption::Unknown(10, vec![7; 8]));
            }
            message.set_edns(edns);
        }
        let mut bytes = message.to_vec().unwrap();
        bytes[2] |= flags[0] & 0x07;
        bytes[3] = flags[1];
        let zone = Arc::new(Zone::compile(&snapshot(objects), config, 7));
        compare_lanes(&handler_of(zone.clone()), &zone, &bytes)?;
    }
}

#[test]
fn the_fast_lane_answers_what_is_usual() {
    let zone = Arc::new(zone());
    let (handler, mut reply) = (handler_of(zone.clone()), [0; 1232]);
    let names = [
        "backend.shop.svc.",
        "db.shop.svc.",
        "db-0.db.shop.svc.",
        "10-1-2-3.shop.pod.",
        "shop.svc.",
        "nothing.shop.svc.",
        "www.example.com.shop.svc.",
        "www.example.com.svc.",
        "www.example.com.",
        "",
    ];
    for name in names {
        for record_type in [RecordType::A, RecordType::AAAA, RecordType::HTTPS] {
            let mut message = query(&format!("{name}cluster.local."), record_type);
            message.set_edns(Edns::new());
            let mut bytes = message.to_vec().unwrap();
            for id in 0..5 {
                bytes[1] = id; // At which record the reply begins.
                assert!(compare_lanes(&handler, &zone, &bytes).unwrap(), "{name} {record_type}");
            }
            let used = allocation_counter::measure(|| {
                fast_lane::respond(&zone, false, CLIENT, &bytes, &mut reply);
            });
            assert_eq!(used.count_total, 0, "{name} {record_type} allocates");
        }
    }
}
