//! Remembered answers of upstreams by both lanes: the fast one says what the full one would, byte for byte,
//! or nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::runtime::{Builder, Runtime};
use weft_dns::forward::{ForwardOptions, Forwarder, Settings};
use weft_dns::metrics::Metrics;
use weft_dns::pipeline::fast_lane;
use weft_dns::pipeline::handler::{Handler, Step};
use weft_dns::wire::format::Transport;
use weft_dns::zone::Zone;

use crate::fixture::*;
use crate::peers::*;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// All that answers, without sockets for clients.
struct Lanes {
    zone: Arc<Zone>,
    handler: Arc<Handler>,
    runtime: Runtime,
}

impl Lanes {
    fn start(upstream: &Upstream) -> Lanes {
        let (zone, metrics) = (Arc::new(zone()), Arc::new(Metrics::new(53, "cluster.local.")));
        let forwarder = Arc::new(Forwarder::new(ForwardOptions::default(), metrics.clone()));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let settings = Settings { upstreams: vec![upstream.address], ..Settings::default() };
        runtime.block_on(async { forwarder.configure(settings) });
        let swap = Arc::new(ArcSwap::new(zone.clone()));
        let handler = Arc::new(Handler::new(swap, forwarder, MOST_WAITING, metrics));
        Lanes { zone, handler, runtime }
    }

    fn full(&self, bytes: &[u8]) -> Vec<u8> {
        let _inside = self.runtime.enter();
        match self.handler.handle(bytes, CLIENT, Transport::Udp) {
            Step::Reply(reply) => reply,
            Step::Pending(waiting) => self.runtime.block_on(waiting.finish()),
            Step::Drop => panic!("nothing is said"),
        }
    }

    fn fast(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.fast_at(Instant::now(), bytes)
    }

    fn fast_at(&self, now: Instant, bytes: &[u8]) -> Option<Vec<u8>> {
        let (mut reply, blocks) = ([0; 1232], self.handler.blocks());
        let answered =
            fast_lane::respond_or_cached(&self.zone, (&**blocks, now), true, CLIENT, bytes, &mut reply)?;
        Some(reply[..answered.length].to_vec())
    }

    /// Compares what they say, and returns whether the fast one speaks.
    fn compare(&self, bytes: &[u8]) -> bool {
        // Between the two a second may end, and with it a second of what is told.
        let around = [self.fast(bytes), Some(self.full(bytes)), self.fast(bytes)];
        assert!(around[0].is_none() || around[1] == around[0] || around[1] == around[2], "{around:02x?}");
        around[0].is_some()
    }
}

/// A query with those flags, in the third and the fourth byte.
fn question(name: &str, record_type: RecordType, flags: [u8; 2], edns: Option<(u16, bool)>) -> Vec<u8> {
    let mut message = query(name, record_type);
    if let Some((payload, dnssec_ok)) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(payload).set_dnssec_ok(dnssec_ok);
        message.set_edns(edns);
    }
    let mut bytes = message.to_vec().unwrap();
    [bytes[2], bytes[3]] = flags;
    bytes
}

#[test]
fn both_lanes_say_what_is_remembered_alike() {
    let upstream = Upstream::start();
    let lanes = Lanes::start(&upstream);
    for name in ["www.example.com.", "rich.example.com.", "nothing.example.com."] {
        for (dnssec_ok, checking) in [(false, 0), (true, 0), (false, 0x10), (true, 0x10)] {
            let first = question(name, RecordType::A, [1, checking], Some((1232, dnssec_ok)));
            assert_eq!(lanes.fast(&first), None, "{name}: nobody was asked yet");
            lanes.full(&first);
            for edns in [None, Some((512, dnssec_ok)), Some((4096, dnssec_ok))] {
                if edns.is_none() && dnssec_ok {
                    continue;
                }
                // With and without RD and AD; some bits mean nothing in a query.
                for flags in [[1, 0], [0, 0], [1, 0x20], [0, 0x20], [7, 0xef]] {
                    let bytes = question(name, RecordType::A, [flags[0], flags[1] & !0x10 | checking], edns);
                    assert!(lanes.compare(&bytes), "{name} {flags:02x?} {edns:?} is left to the full lane");
                }
            }
        }
    }
    assert_eq!(upstream.asked(), 12, "of all that was asked only the first ones");
    let hits = "coredns_cache_hits_total{server=\"dns://:53\",view=\"\",type=\"success\",zones=\".\"} 300";
    let text = lanes.handler.metrics().text();
    assert!(text.contains(hits), "{text}");
}

#[test]
fn each_reply_begins_at_another_of_the_addresses_that_are_remembered() {
    let upstream = Upstream::start();
    let lanes = Lanes::start(&upstream);
    let asked = |id: u16| {
        let mut bytes = question("rich.example.com.", RecordType::A, [1, 0], Some((1232, false)));
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        bytes
    };
    let addresses = |reply: Vec<u8>| -> Vec<String> {
        Message::from_vec(&reply).unwrap().answers.iter().map(|record| record.data.to_string()).collect()
    };
    let (even, odd) = (
        ["target.example.com.", "192.0.2.90", "192.0.2.91"],
        ["target.example.com.", "192.0.2.91", "192.0.2.90"],
    );
    assert_eq!(addresses(lanes.full(&asked(1))), odd, "just had from the upstream");
    for id in [0, 2, 65_534] {
        assert!(lanes.compare(&asked(id)) && lanes.compare(&asked(id + 1)), "both lanes say the same");
        assert_eq!([addresses(lanes.full(&asked(id))), addresses(lanes.full(&asked(id + 1)))], [even, odd]);
    }
    assert_eq!(upstream.asked(), 1);
}

#[test]
fn what_is_no_plain_question_is_left_to_the_full_lane() {
    let upstream = Upstream::start();
    let lanes = Lanes::start(&upstream);
    for name in ["www.example.com.", "big.example.com.", "printer.test."] {
        lanes.full(&question(name, RecordType::A, [1, 0], None));
    }
    for (name, record_type) in [
        ("WWW.example.com.", RecordType::A),
        ("www.example.com.", RecordType::AAAA),
        ("www.example.com.", RecordType::HINFO),
        ("www.example.com.", RecordType::ANY),
        ("big.example.com.", RecordType::A),
        ("printer.test.", RecordType::A),
    ] {
        assert!(!lanes.compare(&question(name, record_type, [1, 0], None)), "{name} {record_type}");
    }
}

#[test]
fn what_is_remembered_is_said_for_the_rest_of_its_time() {
    let upstream = Upstream::start();
    let lanes = Lanes::start(&upstream);
    let bytes = question("rich.example.com.", RecordType::A, [1, 0], None);
    lanes.full(&bytes);
    let now = Instant::now();
    let told = |later: u64| {
        let reply = lanes.fast_at(now + Duration::from_secs(later), &bytes)?;
        Message::from_vec(&reply).unwrap().answers.iter().map(|record| u64::from(record.ttl)).min()
    };
    let ttl = told(0).expect("it is remembered");
    assert_eq!(told(10), Some(ttl - 10));
    assert_eq!(told(ttl + 1), None, "past its time");
}

#[test]
fn what_is_remembered_is_said_without_allocating() {
    let upstream = Upstream::start();
    let lanes = Lanes::start(&upstream);
    let bytes = question("rich.example.com.", RecordType::A, [1, 0], Some((1232, false)));
    lanes.full(&bytes);
    lanes.fast(&bytes).expect("it is remembered");
    let (mut reply, blocks) = ([0; 1232], lanes.handler.blocks());
    let by = (&**blocks, Instant::now());
    let used = allocation_counter::measure(|| {
        fast_lane::respond_or_cached(&lanes.zone, by, true, CLIENT, &bytes, &mut reply).unwrap();
    });
    assert_eq!(used.count_total, 0);
    let message = Message::from_vec(&lanes.fast(&bytes).unwrap()).unwrap();
    assert_eq!((message.metadata.response_code, message.answers.len()), (ResponseCode::NoError, 3));
}
