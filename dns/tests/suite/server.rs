//! The server on loopback, asked by the real `dig`: what DNS demands of any server, whatever its names.

use std::net::UdpSocket;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use weft_dns::zone::Zone;
use weft_types::ServiceKind;

use crate::fixture::*;
use crate::peers::*;

/// A zone whose Service `shop/many` has as many endpoints.
fn crowd(endpoints: u8) -> Zone {
    let endpoints = (0..endpoints).map(|last| endpoint(&format!("10.244.7.{last}"), None, true)).collect();
    let objects = vec![
        service("shop/many", ServiceKind::Headless, vec![]),
        slice("many-1", "shop/many", ("p", 1), endpoints),
    ];
    Zone::compile(&snapshot(objects), config(), 1)
}

fn size(dig: &str) -> usize {
    let rest = dig.split("MSG SIZE  rcvd: ").nth(1).unwrap_or_else(|| panic!("no answer: {dig}"));
    rest.lines().next().unwrap().trim().parse().unwrap()
}

#[test]
fn udp_and_tcp_say_the_same() {
    let server = Server::start(zone(), &[]);
    for question in [
        "backend.shop.svc.cluster.local A",
        "db.shop.svc.cluster.local AAAA",
        "-x 10.96.0.20",
        "_pg._tcp.db.shop.svc.cluster.local SRV",
        "dns-version.cluster.local TXT",
        "alias.shop.svc.cluster.local A",
    ] {
        let (udp, tcp) = (server.dig(&format!("+notcp {question}")), server.dig(&format!("+tcp {question}")));
        assert!(udp.contains("status: NOERROR") && tcp.contains("status: NOERROR"), "{udp}{tcp}");
        assert!(!answer_section(&udp).is_empty(), "{udp}");
        assert_eq!(answer_section(&udp), answer_section(&tcp));
    }
}

#[test]
fn negatives_carry_the_soa_and_are_authoritative() {
    let server = Server::start(zone(), &[]);
    for (name, status) in
        [("nothing.shop.svc", "NXDOMAIN"), ("shop.svc", "NOERROR"), ("_tcp.backend.shop.svc", "NOERROR")]
    {
        for record_type in ["A", "AAAA"] {
            let text = server.dig(&format!("{name}.cluster.local {record_type}"));
            assert!(text.contains(&format!("status: {status}")), "{text}");
            assert!(text.contains("flags: qr aa rd;") && text.contains("ANSWER: 0, AUTHORITY: 1"), "{text}");
            assert!(text.contains("ns.dns.cluster.local. hostmaster.cluster.local. 1700000000"), "{text}");
        }
    }
}

#[test]
fn the_spelling_of_the_question_is_kept() {
    let text = Server::start(zone(), &[]).dig("BackEnd.Shop.SVC.cluster.LOCAL A");
    assert_eq!(answer_section(&text), ["BackEnd.Shop.SVC.cluster.LOCAL. A 10.96.0.20"]);
}

#[test]
fn opt_is_answered_with_opt_and_only_then() {
    let server = Server::start(zone(), &[]);
    let text = server.dig("backend.shop.svc.cluster.local A");
    assert!(text.contains("; EDNS: version: 0, flags:; udp: 1232"), "{text}");
    assert!(server.dig("+dnssec backend.shop.svc.cluster.local A").contains("flags: do; udp: 1232"));
    assert!(!server.dig("+noedns backend.shop.svc.cluster.local A").contains("OPT PSEUDOSECTION"));
    assert!(
        server.dig("+edns=1 +noednsnegotiation backend.shop.svc.cluster.local A").contains("status: BADVERS")
    );
}

/// RFC 6891 section 6.1.2: an option that a server does not know is passed over, by both lanes and over TCP.
#[test]
fn options_of_clients_are_passed_over() {
    let server = Server::start(zone(), &[]);
    for option in [
        "+cookie",
        "+nsid",
        "+subnet=192.0.2.0/24",
        "+keepalive",
        "+padding=64",
        "+expire",
        "+ednsopt=65001:abcd",
    ] {
        for question in ["+notcp backend.shop.svc", "+notcp alias.shop.svc", "+tcp backend.shop.svc"] {
            let text = server.dig(&format!("{option} {question}.cluster.local A"));
            assert!(text.contains("status: NOERROR") && text.contains("10.96.0.20"), "{option}: {text}");
            let edns = text.split("; EDNS: version: 0, flags:; udp: 1232\n").nth(1);
            assert!(edns.is_some_and(|rest| rest.starts_with(";; QUESTION")), "{option}: {text}");
        }
    }
}

#[test]
fn what_does_not_fit_is_cut_and_marked() {
    let server = Server::start(crowd(200), &[]);
    let name = "many.shop.svc.cluster.local A";
    for (flags, limit) in
        [("+noedns", 512), ("+bufsize=100", 512), ("+bufsize=800", 800), ("+bufsize=4096", 1232)]
    {
        let text = server.dig(&format!("+ignore {flags} {name}"));
        assert!(text.contains("flags: qr aa tc rd;"), "{flags}: {text}");
        assert!(
            size(&text) <= limit && size(&text) + 64 > limit,
            "{flags}: full, but not over {limit}: {text}"
        );
        assert_eq!(text.contains("OPT PSEUDOSECTION"), flags != "+noedns", "{text}");
    }
    let text = server.dig(name);
    assert_eq!(answer_section(&text).len(), 200, "dig comes again over TCP");
}

#[test]
fn an_answer_that_fits_without_its_additionals_is_not_cut() {
    let endpoints = (0..7).map(|last| endpoint(&format!("10.244.7.{last}"), None, true)).collect();
    let objects =
        vec![service("shop/a", ServiceKind::Headless, vec![]), slice("a-1", "shop/a", ("p", 1), endpoints)];
    let server = Server::start(Zone::compile(&snapshot(objects), config(), 1), &[]);
    let text = server.dig("+ignore +noedns _p._tcp.a.shop.svc.cluster.local SRV");
    assert!(
        text.contains("flags: qr aa rd;") && text.contains("ANSWER: 7, AUTHORITY: 0, ADDITIONAL: 4"),
        "{text}"
    );
}

#[test]
fn what_is_not_served_is_refused() {
    let server = Server::start(zone(), &[]);
    for question in [
        "CH TXT version.bind",
        "www.example.com A",
        "-x 9.9.9.9",
        "+tcp +noall +comments cluster.local IXFR=1",
    ] {
        assert!(server.dig(question).contains("status: REFUSED"), "{question}");
    }
    assert!(server.dig("+tcp cluster.local AXFR").contains("Transfer failed"));
    assert!(server.dig("+opcode=notify cluster.local SOA").contains("status: NOTIMP"));
}

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    let own = ["192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128", "2001:db8::2/128"];
    in_new_namespace(&own, || {
        for (all, addresses) in [
            ("0.0.0.0:0", ["127.9.9.9", "192.0.2.1", "192.0.2.2"]),
            ("[::]:0", ["::1", "2001:db8::1", "2001:db8::2"]),
        ] {
            let server = Server::start_on(all, zone(), &[], MOST_WAITING);
            // Of the fast lane, and of the full one.
            for (address, asked) in addresses.iter().flat_map(|address| [(address, "A"), (address, "SRV")]) {
                let question = format!("+notcp backend.shop.svc.cluster.local {asked}");
                let text = dig(address, server.address.port(), &question);
                assert!(text.contains("status: NOERROR") && !text.contains("unexpected source"), "{text}");
            }
        }
    });
}

#[test]
fn garbage_is_survived_and_never_answered_with_garbage() {
    let server = Server::start(zone(), &[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
    let question = query("backend.shop.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    for length in 0..question.len() {
        socket.send(&question[..length]).unwrap();
    }
    socket.send(&[0xff; 4096]).unwrap();
    socket.send(&question).unwrap();
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        match reply.metadata.response_code {
            ResponseCode::NoError => break assert_eq!(reply.answers.len(), 1),
            code => assert_eq!(code, ResponseCode::FormErr),
        }
    }
}

#[test]
fn every_answer_is_counted() {
    let server = Server::start(zone(), &[]);
    server.dig("+notcp backend.shop.svc.cluster.local A");
    server.dig("+tcp nothing.shop.svc.cluster.local AAAA");
    let text = server.metrics.text();
    for line in [
        "coredns_dns_requests_total{server=\"dns://:53\",view=\"\",proto=\"udp\",family=\"1\",type=\"A\"} 1",
        "coredns_dns_responses_total{server=\"dns://:53\",view=\"\",zone=\"cluster.local.\",rcode=\"NXDOMAIN\",plugin=\"kubernetes\"} 1",
        "coredns_dns_request_duration_seconds_count{server=\"dns://:53\",view=\"\",zone=\"cluster.local.\"} 2",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
