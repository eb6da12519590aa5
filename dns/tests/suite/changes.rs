//! Queries while the cluster changes all the time: each answer is of one state of it, no older than the one
//! before, and what is there before and after a change is there all along.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RData;
use hickory_proto::rr::RecordType::{self, A, AAAA, PTR, SRV};
use weft_dns::zone::Zone;
use weft_types::{ChangeSet, ObjectKey, Protocol, ServiceKind, Snapshot};

use crate::fixture::*;
use crate::peers::{Server, read_framed, write_framed};

/// How many endpoints the headless Service has in every state.
const ENDPOINTS: u8 = 3;
/// So many states every client must have seen.
const STATES: usize = 100;

/// What clients ask, and how many records are in every answer.
const QUESTIONS: [(&str, RecordType, usize); 7] = [
    ("web.shop.svc.cluster.local.", A, 1),
    ("web.shop.svc.cluster.local.", AAAA, 1),
    // The alias, and where it leads.
    ("alias.shop.svc.cluster.local.", A, 2),
    ("db.shop.svc.cluster.local.", A, ENDPOINTS as usize),
    ("_pg._tcp.db.shop.svc.cluster.local.", SRV, ENDPOINTS as usize),
    ("first.db.shop.svc.cluster.local.", A, 1),
    ("1.0.97.10.in-addr.arpa.", PTR, 1),
];

/// The address number `host` of that state of the cluster.
fn v4(host: u8, state: u16) -> IpAddr {
    let [high, low] = state.to_be_bytes();
    Ipv4Addr::new(10, host, high, low).into()
}

fn v6(state: u16) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, state).into()
}

/// Brings the cluster into a state: the Services stay, with other addresses, and another one comes or goes.
fn change(snapshot: &mut Snapshot, state: u16) -> ChangeSet {
    let mut changes = ChangeSet::default();
    let hostname = |host| (host == 1).then_some("first");
    let endpoints = (1..=ENDPOINTS).map(|host| endpoint(&v4(host, state).to_string(), hostname(host), true));
    let kind = ServiceKind::ExternalName("web.shop.svc.cluster.local".to_owned());
    for object in [
        service("shop/web", ServiceKind::ClusterIp(vec![v4(96, state), v6(state)]), vec![]),
        service("shop/db", ServiceKind::Headless, vec![port("pg", Protocol::Tcp, 5432)]),
        slice("db-1", "shop/db", ("pg", 5432), endpoints.collect()),
        service("shop/alias", kind, vec![]),
        service("shop/fixed", ServiceKind::ClusterIp(vec![ip("10.97.0.1")]), vec![]),
    ] {
        snapshot.apply(object, &mut changes);
    }
    match state % 2 {
        0 => snapshot.apply(service("other/guest", ServiceKind::Headless, vec![]), &mut changes),
        _ => snapshot.delete(&ObjectKey::Service("other/guest".parse().unwrap()), &mut changes),
    }
    changes
}

/// The state that a record is of; none where it is the same in all.
fn state_of(data: &RData) -> Option<u16> {
    match data {
        RData::A(address) => Some(u16::from_be_bytes([address.0.octets()[2], address.0.octets()[3]])),
        RData::AAAA(address) => Some(address.0.segments()[7]),
        _ => None,
    }
}

/// Which state a whole answer is of. Panics where it is of several, or something is missing.
fn judged(reply: &Message, records: usize) -> Option<u16> {
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{reply}");
    assert_eq!(reply.answers.len(), records, "{reply}");
    let all = reply.answers.iter().chain(&reply.additionals);
    let mut states: Vec<u16> = all.filter_map(|record| state_of(&record.data)).collect();
    states.dedup();
    assert!(states.len() <= 1, "{reply}");
    // Targets without a hostname are named after addresses.
    for record in &reply.answers {
        if let (RData::SRV(srv), Some(state)) = (&record.data, states.first()) {
            let target = srv.target.to_string();
            let of_state = |host| target.starts_with(&(v4(host, *state).to_string().replace('.', "-") + "."));
            assert!(target.starts_with("first.") || (1..=ENDPOINTS).any(of_state), "{reply}");
        }
    }
    states.first().copied()
}

/// What a client sees until it is told to stop.
struct Client<'a> {
    seen: &'a AtomicUsize,
    stop: &'a AtomicBool,
}

impl Client<'_> {
    fn run(&self, mut exchange: impl FnMut(&[u8]) -> Vec<u8>) {
        let (mut last, mut seen) = (0, 0);
        for (name, record_type, records) in QUESTIONS.iter().cycle() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let mut message = query(name, *record_type);
            message.set_edns(Edns::new());
            let reply = Message::from_vec(&exchange(&message.to_vec().unwrap())).unwrap();
            if let Some(state) = judged(&reply, *records) {
                assert!(state >= last, "{name} {record_type}: {state} after {last}");
                seen += usize::from(state > last);
                last = state;
            }
            self.seen.store(seen, Ordering::Relaxed);
        }
    }
}

fn udp(server: SocketAddr) -> impl FnMut(&[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    move |question| {
        socket.send(question).unwrap();
        let mut reply = vec![0; 1232];
        let length = socket.recv(&mut reply).unwrap();
        reply.truncate(length);
        reply
    }
}

fn tcp(server: SocketAddr) -> impl FnMut(&[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    move |question| {
        write_framed(&mut stream, question);
        read_framed(&mut stream)
    }
}

/// Tells clients to stop when it is dropped, be it in a panic.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn every_answer_is_of_one_state_of_the_cluster() {
    let mut snapshot = snapshot(vec![]);
    change(&mut snapshot, 1);
    let server = Server::start(Zone::compile(&snapshot, config(), 1), &[]);
    let (seen, stop) = ([const { AtomicUsize::new(0) }; 4], AtomicBool::new(false));
    thread::scope(|clients| {
        let _end = Ending(&stop);
        let asking: Vec<_> = seen
            .iter()
            .zip(0..)
            .map(|(seen, number)| {
                let client = Client { seen, stop: &stop };
                clients.spawn(move || match number % 2 {
                    0 => client.run(udp(server.address)),
                    _ => client.run(tcp(server.address)),
                })
            })
            .collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        for state in 2.. {
            let changes = change(&mut snapshot, state);
            let next = server.zone.load_full().recompile(&snapshot, &changes, state.into());
            server.zone.store(Arc::new(next));
            let done = seen.iter().all(|seen| seen.load(Ordering::Relaxed) >= STATES);
            // A client that ends early has failed.
            if done || asking.iter().any(|client| client.is_finished()) {
                break;
            }
            assert!(Instant::now() < deadline && state < u16::MAX, "{seen:?}");
            thread::sleep(Duration::from_micros(200));
        }
    });
}

#[test]
fn of_two_entries_for_one_endpoint_the_ready_one_counts_in_whatever_order() {
    let (not_ready, ready) = (endpoint("10.244.1.1", None, false), endpoint("10.244.1.1", None, true));
    for entries in [[&not_ready, &ready], [&ready, &not_ready]] {
        let [one, other] = entries.map(|entry| vec![entry.clone()]);
        let zone = Zone::compile(
            &snapshot(vec![
                service("shop/db", ServiceKind::Headless, vec![]),
                slice("db-1", "shop/db", ("pg", 5432), one),
                slice("db-2", "shop/db", ("pg", 5432), other),
            ]),
            config(),
            1,
        );
        assert_eq!(
            answers(&zone, "db.shop.svc.cluster.local.", A),
            ["db.shop.svc.cluster.local. A 10.244.1.1"]
        );
    }
}
