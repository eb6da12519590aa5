//! Records and options that this server has never heard of, or finds odd: they reach the client as the
//! upstream sent them, and what is odd about one is no reason to keep the others back. What cannot be framed
//! is refused.

use std::net::UdpSocket;
use std::time::Duration;

use hickory_proto::rr::RecordType;

use crate::fixture::*;
use crate::peers::*;
use crate::scripted_upstream::{Asked, ScriptedUpstream};

/// A pointer to the name in the question.
const OWNER: &[u8] = b"\xc0\x0c";
/// An OPT record up to its options: they are so long.
fn opt(options: &[u8]) -> Vec<u8> {
    [&b"\0\0\x29\x04\xd0\0\0\0\0"[..], &(options.len() as u16).to_be_bytes(), options].concat()
}

/// A record of the name asked, of the class IN, that holds for a minute.
fn record(record_type: u16, data: &[u8]) -> Vec<u8> {
    let kind = record_type.to_be_bytes();
    let length = (data.len() as u16).to_be_bytes();
    [OWNER, &kind, b"\0\x01", &60_u32.to_be_bytes(), &length, data].concat()
}

/// The reply to a query with these answers and additionals, byte for byte.
fn reply(asked: &Asked, answers: &[Vec<u8>], additionals: &[Vec<u8>]) -> Vec<u8> {
    let mut plain = asked.reply(hickory_proto::op::ResponseCode::NoError);
    plain.edns = None;
    let mut bytes = plain.to_vec().unwrap();
    bytes[6..8].copy_from_slice(&(answers.len() as u16).to_be_bytes());
    bytes[10..12].copy_from_slice(&(additionals.len() as u16).to_be_bytes());
    [&[bytes][..], answers, additionals].concat().concat()
}

/// What the server says to a query without EDNS, whole.
fn asked_of(server: &Server, name: &str, record_type: u16) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
    socket.connect(server.address).unwrap();
    socket.send(&query(name, RecordType::from(record_type)).to_vec().unwrap()).unwrap();
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).expect("an answer");
    bytes[..length].to_vec()
}

/// The code of a reply, and what follows its query.
fn told<'b>(name: &str, bytes: &'b [u8]) -> (u8, &'b [u8]) {
    (bytes[3] & 0x0f, &bytes[12 + name.len() + 1 + 4..])
}

#[test]
fn records_that_nobody_here_can_read_reach_the_client_byte_for_byte() {
    let odd: [(&str, u16, &[u8]); 9] = [
        ("APL without an item", 42, b""),
        ("HTTPS with an ALPN that is no text", 65, b"\0\x01\0\0\x01\0\x07\x02\x8a\x8a\x03h2\xff"),
        ("HTTPS with keys out of order", 65, b"\0\x01\0\0\x04\0\x04\xc0\0\x02\x01\0\x01\0\x03\x02h2"),
        ("a private type without data", 65534, b""),
        ("a private type", 65280, b"\xc0\x0c\xff\0anything"),
        ("CAA of one byte", 257, b"\0"),
        ("TXT without a string", 16, b""),
        ("an address of three bytes", 1, b"\xc0\0\x02"),
        ("a signature of nothing", 46, b"\0"),
    ];
    for (what, record_type, data) in odd {
        let (name, sent) = ("odd.example.com.", record(record_type, data));
        let upstream = ScriptedUpstream::raw({
            let sent = sent.clone();
            move |asked| vec![reply(asked, &[sent.clone(), sent.clone()], &[])]
        });
        let server = Server::start(zone(), &[upstream.address]);
        // The second time it is cached.
        for _ in 0..2 {
            let bytes = asked_of(&server, name, record_type);
            assert_eq!(
                told(name, &bytes),
                (0, &[sent.clone(), sent.clone()].concat()[..]),
                "{what}: {bytes:02x?}"
            );
        }
        assert!(!server.metrics.text().contains("coredns_proxy_healthcheck_failures_total{"), "{what}");
    }
}

#[test]
fn an_odd_record_beside_the_answer_does_not_spoil_it() {
    let upstream = ScriptedUpstream::raw(|asked| {
        vec![reply(
            asked,
            &[record(1, &[192, 0, 2, 7])],
            &[record(42, b""), record(24, b"\0"), record(250, b"")],
        )]
    });
    let server = Server::start(zone(), &[upstream.address]);
    assert_eq!(answer_section(&server.dig("www.example.com A")), ["www.example.com. A 192.0.2.7"]);
}

#[test]
fn options_that_nobody_here_can_read_are_passed_over() {
    for (what, options) in [
        ("a client subnet of family 3", &b"\0\x08\0\x05\0\x03\x18\0\x01"[..]),
        ("a client subnet of one byte", b"\0\x08\0\x01\0"),
        ("an option of nobody", b"\xff\x01\0\x02hi"),
    ] {
        let upstream = ScriptedUpstream::raw(move |asked| {
            vec![reply(asked, &[record(1, &[192, 0, 2, 7])], &[opt(options)])]
        });
        let server = Server::start(zone(), &[upstream.address]);
        let text = server.dig("www.example.com A");
        assert_eq!(answer_section(&text), ["www.example.com. A 192.0.2.7"], "{what}");
    }
}

/// RFC 3597 section 4: what a name within data points to does not come along.
#[test]
fn names_within_data_are_written_out() {
    let upstream = ScriptedUpstream::raw(|asked| {
        let target = [b"\x06target", OWNER].concat();
        let data: Vec<u8> = match u16::from(asked.message.queries[0].query_type) {
            33 => [b"\0\x01\0\x02\0\x50", &target[..]].concat(),
            17 => [&target[..], OWNER].concat(),
            35 => [b"\0\x01\0\x02\x01u\0\0", &target[..]].concat(),
            _ => target,
        };
        vec![reply(asked, &[record(asked.message.queries[0].query_type.into(), &data)], &[])]
    });
    let server = Server::start(zone(), &[upstream.address]);
    for (record_type, data) in [
        ("SRV", "1 2 80 target.www.example.com."),
        ("RP", "target.www.example.com. www.example.com."),
        ("NAPTR", "1 2 \"u\" \"\" \"\" target.www.example.com."),
        ("DNAME", "target.www.example.com."),
        ("MB", "target.www.example.com."),
        ("NS", "target.www.example.com."),
    ] {
        let text = server.dig(&format!("www.example.com {record_type}"));
        assert_eq!(answer_section(&text), [format!("www.example.com. {record_type} {data}")]);
    }
}

#[test]
fn what_cannot_be_framed_is_refused() {
    let whole = record(1, &[192, 0, 2, 7]);
    let cut = whole[..whole.len() - 1].to_vec();
    let astray = record(5, b"\xc0\xff");
    for (what, answers) in
        [("a record that ends too soon", [whole.clone(), cut]), ("a name that leads out", [whole, astray])]
    {
        let upstream = ScriptedUpstream::raw(move |asked| vec![reply(asked, &answers, &[])]);
        let server = Server::start(zone(), &[upstream.address]);
        assert!(server.dig("www.example.com A").contains("status: SERVFAIL"), "{what}");
    }
}

/// RFC 7871 section 7.1.2: family 0 and no address, which says that none is to be passed on. What else stands
/// in a client's option is nothing to a server that passes none on.
#[test]
fn a_client_may_write_into_its_options_what_it_likes() {
    let upstream = Upstream::start();
    let server = Server::start(zone(), &[upstream.address]);
    for option in
        ["+ednsopt=8:00000000", "+ednsopt=8:00031800ff", "+ednsopt=8:00", "+subnet=0", "+ednsopt=3:ffff"]
    {
        for name in ["www.example.com", "backend.shop.svc.cluster.local", "alias.shop.svc.cluster.local"] {
            let text = server.dig(&format!("{option} {name} A"));
            assert!(text.contains("status: NOERROR") && text.contains("ANSWER: "), "{option} {name}: {text}");
        }
    }
}
