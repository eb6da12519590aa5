//! DNS over TCP as RFC 7766 has it, and what clients who mean harm can hold on to.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Metadata, ResponseCode};
use hickory_proto::rr::RecordType;
use socket2::{Domain, Socket, Type};
use weft_dns::server::Limits;
use weft_testkit::wait::eventually;

use crate::fixture::*;
use crate::peers::*;

/// Clients of the tests wait no longer.
const DEADLINE: Duration = Duration::from_secs(10);
const BACKEND: &str = "backend.shop.svc.cluster.local.";

/// Limits that a test can reach.
fn tight() -> Limits {
    Limits { timeout: Duration::from_millis(400), ..Limits::default() }
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// A connection from another address of loopback.
fn connect_from(client: Ipv4Addr, server: &Server) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::V4(client), 0).into()).unwrap();
    socket.connect(&server.address.into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.into()
}

fn question(name: &str, id: u16) -> Vec<u8> {
    let mut message = query(name, RecordType::A);
    message.metadata.id = id;
    message.to_vec().unwrap()
}

fn ask(stream: &mut TcpStream, name: &str, id: u16) {
    write_framed(stream, &question(name, id));
}

fn next(stream: &mut TcpStream) -> Metadata {
    Message::from_vec(&read_framed(stream)).unwrap().metadata
}

/// Whether the server closed it without another word.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn is_served(stream: &mut TcpStream) -> bool {
    ask(stream, BACKEND, 7);
    next(stream).id == 7
}

#[test]
fn a_connection_carries_several_questions() {
    let server = Server::start(zone(), &[]);
    let mut stream = connect(&server);
    (0..100).for_each(|id| ask(&mut stream, BACKEND, id));
    (0..100).for_each(|id| assert_eq!(next(&mut stream).id, id));
}

#[test]
fn a_slow_question_does_not_hold_up_the_next() {
    let upstream = Upstream::start();
    let server = Server::start(zone(), &[upstream.address]);
    let mut stream = connect(&server);
    ask(&mut stream, "silent.example.com.", 1);
    ask(&mut stream, BACKEND, 2);
    let replies = [(); 2].map(|()| next(&mut stream));
    assert_eq!((replies[0].id, replies[0].response_code), (2, ResponseCode::NoError));
    assert_eq!((replies[1].id, replies[1].response_code), (1, ResponseCode::ServFail));
}

#[test]
fn who_asks_no_more_still_gets_every_answer() {
    let upstream = Upstream::start();
    let server = Server::start(zone(), &[upstream.address]);
    let mut stream = connect(&server);
    ask(&mut stream, "silent.example.com.", 1);
    ask(&mut stream, BACKEND, 2);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!([(); 2].map(|()| next(&mut stream).id), [2, 1]);
    assert!(is_closed(&mut stream), "then it is over");
}

#[test]
fn more_slow_questions_than_may_wait_are_not_read() {
    let upstream = Upstream::start();
    let limits = Limits { in_flight: 2, ..Limits::default() };
    let server = Server::start_limited(zone(), &[upstream.address], limits);
    let mut stream = connect(&server);
    (1..=3).for_each(|id| ask(&mut stream, &format!("silent.x{id}.example.com."), id));
    ask(&mut stream, BACKEND, 4);
    let order = [(); 4].map(|()| next(&mut stream).id);
    assert!([1, 2].contains(&order[0]), "one has to be answered first: {order:?}");
}

#[test]
fn who_sends_too_slowly_is_left() {
    let server = Server::start_limited(zone(), &[], tight());
    let (mut silent, mut begun, mut dripping) = (connect(&server), connect(&server), connect(&server));
    begun.write_all(&[0]).unwrap();
    let started = Instant::now();
    // Each byte comes in time; the query does not.
    for byte in [0, 64].into_iter().chain(std::iter::repeat_n(0, 63)) {
        assert!(is_served(&mut connect(&server)), "others are not held up");
        if dripping.write_all(&[byte]).is_err() {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "it is let go on");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!([&mut silent, &mut begun, &mut dripping].into_iter().all(is_closed));
}

#[test]
fn who_reads_no_answer_is_left_and_costs_little_memory() {
    let endpoints = (0..200).map(|last| endpoint(&format!("10.244.7.{last}"), None, true)).collect();
    let objects = vec![
        service("shop/many", weft_types::ServiceKind::Headless, vec![]),
        slice("many-1", "shop/many", ("p", 1), endpoints),
    ];
    let zone = weft_dns::zone::Zone::compile(&snapshot(objects), config(), 1);
    let server = Server::start_limited(zone, &[], tight());
    let mut deaf = connect(&server);
    let bytes = question("many.shop.svc.cluster.local.", 1);
    let framed = [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat();
    let batch = framed.repeat(1000);
    let taken = (0..10_000).take_while(|_| deaf.write_all(&batch).is_ok()).count();
    // 3.2 KB each: what the kernel's buffers hold, and no more.
    assert!(taken < 100, "{taken},000 answers are kept for a client that reads none");
    assert!(is_served(&mut connect(&server)));
}

#[test]
fn one_client_cannot_take_all_connections() {
    let limits = Limits { connections: 4, of_one_client: 2, ..Limits::default() };
    let server = Server::start_limited(zone(), &[], limits);
    let [mut first, mut second, mut third] = [(); 3].map(|()| connect(&server));
    assert!(is_served(&mut first) && is_served(&mut second));
    assert!(is_closed(&mut third), "one too many");
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let mut others = [(); 2].map(|()| connect_from(other, &server));
    assert!(others.iter_mut().all(is_served), "another client is served");

    // All are taken. Who comes now waits for a place.
    let mut waiting = connect_from(Ipv4Addr::new(127, 0, 0, 3), &server);
    ask(&mut waiting, BACKEND, 9);
    waiting.set_nonblocking(true).unwrap();
    assert_eq!(waiting.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    waiting.set_nonblocking(false).unwrap();
    drop((first, others));
    assert_eq!(next(&mut waiting).id, 9);
    eventually("the client's place is free again", || {
        !is_closed(&mut { connect(&server) }.also(|stream| ask(stream, BACKEND, 1)))
    });
}

/// Does something to a value in passing.
trait Also: Sized {
    fn also(mut self, work: impl FnOnce(&mut Self)) -> Self {
        work(&mut self);
        self
    }
}
impl Also for TcpStream {}

#[test]
fn broken_frames_end_the_connection_and_no_other() {
    let server = Server::start(zone(), &[]);
    let bytes = question(BACKEND, 1);
    let long = [&[0xff, 0xff][..], &[0x5a; 65535]].concat();
    let answer = [&[0, bytes.len() as u8][..], &bytes[..2], &[0x80], &bytes[3..]].concat();
    for (what, frame) in [
        ("no message", vec![0, 0]),
        ("less than a header", vec![0, 5, 1, 2, 3, 4, 5]),
        ("less than it says, then the end", [&[0, 200][..], &bytes].concat()),
        ("an answer", answer),
    ] {
        let mut stream = connect(&server);
        stream.write_all(&frame).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(is_closed(&mut stream), "{what}");
    }
    // The longest that a frame can be is read, and refused.
    let mut stream = connect(&server);
    stream.write_all(&long).unwrap();
    let reply = next(&mut stream);
    assert_eq!((reply.id, reply.response_code), (0x5a5a, ResponseCode::NotImp));
    assert!(is_served(&mut stream), "the framing is whole");
}
