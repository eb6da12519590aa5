//! Services with thousands of endpoints: as much as a message holds is there, and a query for them costs no
//! more than fits.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType::{self, A, PTR, SRV};
use hickory_proto::rr::{Name, RData};
use weft_dns::forward::{ForwardOptions, Forwarder};
use weft_dns::metrics::Metrics;
use weft_dns::pipeline::handler::{Handler, Step};
use weft_dns::wire::format::Transport;
use weft_dns::zone::Zone;
use weft_types::{Endpoint, Protocol, ServiceKind};

use crate::fixture::*;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A zone with the headless Service `shop/big` of so many endpoints.
fn zone_of(endpoints: u16) -> Zone {
    let address = |number: u16| Ipv4Addr::from_bits(0x0af4_0000 + u32::from(number)).into();
    let endpoints = (0..endpoints).map(|number| Endpoint::ready(address(number))).collect();
    let objects = vec![
        service("shop/big", ServiceKind::Headless, vec![port("pg", Protocol::Tcp, 5432)]),
        slice("big-1", "shop/big", ("pg", 5432), endpoints),
    ];
    Zone::compile(&snapshot(objects), config(), 1)
}

fn handler(zone: Zone) -> Arc<Handler> {
    let metrics = Arc::new(Metrics::new(53, "cluster.local."));
    let forwarder = Arc::new(Forwarder::new(ForwardOptions::default(), metrics.clone()));
    Arc::new(Handler::new(Arc::new(ArcSwap::from_pointee(zone)), forwarder, 1, metrics))
}

fn reply(handler: &Arc<Handler>, question: &Message, transport: Transport) -> Vec<u8> {
    match handler.handle(&question.to_vec().unwrap(), CLIENT, transport) {
        Step::Reply(reply) => reply,
        Step::Drop | Step::Pending(_) => panic!("the zone has the answer"),
    }
}

fn asked(endpoints: u16, name: &str, record_type: RecordType, transport: Transport) -> (Message, usize) {
    let reply = reply(&handler(zone_of(endpoints)), &query(name, record_type), transport);
    (Message::from_vec(&reply).unwrap(), reply.len())
}

#[test]
fn as_many_addresses_as_a_message_holds_are_in_an_answer_over_tcp() {
    let name = "big.shop.svc.cluster.local.";
    let (all, _) = asked(4000, name, A, Transport::Tcp);
    assert_eq!((all.answers.len(), all.metadata.truncation), (4000, false));
    // 16 bytes each, and the header with the query.
    let (cut, length) = asked(5000, name, A, Transport::Tcp);
    assert_eq!((cut.answers.len(), cut.metadata.truncation), ((65_535 - 12 - 32) / 16, true));
    assert!(length > 65_535 - 16);
}

#[test]
fn targets_that_are_told_with_their_addresses_are_written_once() {
    let (reply, _) = asked(700, "_pg._tcp.big.shop.svc.cluster.local.", SRV, Transport::Tcp);
    assert_eq!((reply.answers.len(), reply.additionals.len()), (700, 700));
    assert!(!reply.metadata.truncation);
    let target = |number: usize| match &reply.answers[number].data {
        RData::SRV(srv) => srv.target.clone(),
        other => panic!("{other}"),
    };
    let mut targets: Vec<Name> = (0..700).map(target).collect();
    let mut owners: Vec<Name> = reply.additionals.iter().map(|record| record.name.clone()).collect();
    targets.sort();
    owners.sort();
    assert_eq!(targets, owners);
}

#[test]
fn a_question_costs_no_more_than_fits_into_its_answer() {
    let mut objects = Vec::new();
    for number in 0..2000 {
        let name = format!("shop/s{number}");
        objects.push(service(&name, ServiceKind::Headless, vec![]));
        objects.push(slice(&name[5..], &name, ("p", 1), vec![endpoint("10.0.0.9", None, true)]));
    }
    let (big, shared) = (handler(zone_of(5000)), handler(Zone::compile(&snapshot(objects), config(), 1)));
    for (handler, name, record_type, most) in [
        (&big, "_pg._tcp.big.shop.svc.cluster.local.", SRV, 400),
        (&big, "big.shop.svc.cluster.local.", SRV, 400),
        (&big, "big.shop.svc.cluster.local.", A, 400),
        (&shared, "9.0.0.10.in-addr.arpa.", PTR, 800),
    ] {
        let question = query(name, record_type);
        let told = Message::from_vec(&reply(handler, &question, Transport::Udp)).unwrap();
        assert!(told.metadata.truncation && !told.answers.is_empty(), "{name} {record_type}");
        let used = allocation_counter::measure(|| drop(reply(handler, &question, Transport::Udp)));
        assert!(used.count_total < most, "{name} {record_type}: {used:?}");
    }
}

#[test]
fn each_reply_to_a_cut_question_begins_at_another_endpoint() {
    let handler = handler(zone_of(5000));
    for (name, record_type) in
        [("big.shop.svc.cluster.local.", A), ("_pg._tcp.big.shop.svc.cluster.local.", SRV)]
    {
        let first = |id| {
            let mut question = query(name, record_type);
            question.metadata.id = id;
            let reply = Message::from_vec(&reply(&handler, &question, Transport::Udp)).unwrap();
            reply.answers[0].data.to_string()
        };
        assert_ne!(first(1), first(4999), "{record_type}");
        assert_eq!(first(1), first(5001), "{record_type}");
    }
}
