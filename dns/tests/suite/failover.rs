//! Upstreams that fail, lie, dawdle or lead in a loop: what clients see of it is as little as can be.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use weft_testkit::wait::eventually;

use crate::fixture::*;
use crate::peers::*;
use crate::scripted_upstream::{Asked, ScriptedUpstream};

const DEADLINE: Duration = Duration::from_secs(20);

fn good(asked: &Asked) -> Option<hickory_proto::op::Message> {
    Some(asked.address(7, 60))
}

fn is_answered(text: &str) -> bool {
    text.contains("status: NOERROR") && text.contains("192.0.2.7")
}

#[test]
fn a_second_upstream_is_asked_while_the_first_takes_long() {
    let (silent, alive) = (ScriptedUpstream::start(|_| None), ScriptedUpstream::start(good));
    let server = Server::start(zone(), &[silent.address, alive.address]);
    assert!(is_answered(&server.dig("www.example.com A")));
    assert!(!silent.asked().is_empty());
    assert_eq!(alive.asked().len(), 1);
    assert!(
        server.metrics.text().contains(r#"weft_dns_upstream_hedges_total{server="dns://:53",view=""} 1"#)
    );
}

#[test]
fn an_upstream_that_does_not_answer_is_asked_last_until_it_does() {
    let well = Arc::new(AtomicBool::new(false));
    let moody = ScriptedUpstream::start({
        let well = well.clone();
        move |asked| well.load(Ordering::SeqCst).then(|| asked.address(8, 60))
    });
    let steady = ScriptedUpstream::start(good);
    let server = Server::start(zone(), &[moody.address, steady.address]);
    let mut number = 0;
    let mut ask = || {
        number += 1;
        server.dig(&format!("www{number}.example.com A"))
    };
    eventually("nobody asks the one that does not answer", || {
        let asked = moody.asked().len();
        std::thread::sleep(Duration::from_secs(1)); // longer than a try may take
        assert!(is_answered(&ask()));
        moody.asked().len() == asked
    });
    well.store(true, Ordering::SeqCst);
    eventually("it answers probes and is asked again", || ask().contains("192.0.2.8"));
    assert!(server.metrics.text().contains("coredns_proxy_healthcheck_failures_total{"));
}

#[test]
fn what_one_upstream_fails_at_the_other_is_asked_for() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        let (failing, alive) =
            (ScriptedUpstream::start(move |asked| Some(asked.reply(code))), ScriptedUpstream::start(good));
        let server = Server::start(zone(), &[failing.address, alive.address]);
        assert!(is_answered(&server.dig("www.example.com A")), "{code}");
    }
}

#[test]
fn a_failure_of_all_is_told_and_remembered_for_a_while() {
    let failing = || ScriptedUpstream::start(|asked| Some(asked.reply(ResponseCode::ServFail)));
    let (first, second) = (failing(), failing());
    let server = Server::start(zone(), &[first.address, second.address]);
    for _ in 0..3 {
        assert!(server.dig("www.example.com A").contains("status: SERVFAIL"));
    }
    // The second time in lower case: some fail at capitals.
    assert_eq!((first.asked().len(), second.asked().len()), (2, 2));
}

/// To a client without EDNS the low bits of such a code would say that there is nothing.
#[test]
fn a_failure_that_takes_edns_to_be_told_is_still_one_without() {
    let upstream = ScriptedUpstream::start(|asked| {
        let mut reply = asked.reply(ResponseCode::BADVERS);
        reply.edns.get_or_insert_default().set_rcode_high(ResponseCode::BADVERS.high());
        Some(reply)
    });
    let server = Server::start(zone(), &[upstream.address]);
    for flags in ["+noedns", "+edns"] {
        let text = server.dig(&format!("{flags} www.example.com A"));
        assert!(text.contains("status: SERVFAIL"), "{text}");
    }
}

#[test]
fn when_all_are_down_they_are_tried_anyway() {
    let well = Arc::new(AtomicBool::new(false));
    let upstream = ScriptedUpstream::start({
        let well = well.clone();
        move |asked| well.load(Ordering::SeqCst).then(|| asked.address(7, 60))
    });
    let server = Server::start(zone(), &[upstream.address]);
    assert!(server.dig("www1.example.com A").contains("status: SERVFAIL"));
    well.store(true, Ordering::SeqCst);
    assert!(is_answered(&server.dig("www2.example.com A")));
}

#[test]
fn names_are_spelled_at_random_and_answers_as_the_client_did() {
    let upstream = ScriptedUpstream::start(good);
    let server = Server::start(zone(), &[upstream.address]);
    for number in 0..8 {
        let text = server.dig(&format!("WWW{number}.Example.com A"));
        assert_eq!(answer_section(&text), [format!("WWW{number}.Example.com. A 192.0.2.7")]);
    }
    let names: Vec<String> = upstream.asked().iter().map(Asked::name).collect();
    assert!(names.iter().any(|name| name.to_lowercase() != *name), "{names:?}");
    assert!(names.iter().any(|name| !name.starts_with("WWW")), "{names:?}");
    let mut ids: Vec<u16> = upstream.asked().iter().map(|asked| asked.message.metadata.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() > 4, "{ids:?}");
}

/// As some middle boxes do.
fn in_lower_case(asked: &Asked) -> Option<hickory_proto::op::Message> {
    let mut lower = asked.clone();
    let name = &mut lower.message.queries[0].name;
    *name = name.to_lowercase();
    good(&lower)
}

#[test]
fn an_upstream_that_does_not_keep_the_spelling_is_believed_over_tcp_first() {
    let upstream = ScriptedUpstream::start(in_lower_case);
    let server = Server::start(zone(), &[upstream.address]);
    for number in 0..20 {
        assert!(is_answered(&server.dig(&format!("abcdefghijklm{number}.example.com A"))));
    }
    let over_tcp = upstream.asked().iter().filter(|asked| asked.tcp).count();
    assert_eq!(over_tcp, 1, "once it is known, names are asked as they are");
}

#[test]
fn an_upstream_that_knows_neither_spelling_nor_tcp_is_still_good_enough() {
    let upstream = ScriptedUpstream::without_tcp(in_lower_case);
    let server = Server::start(zone(), &[upstream.address]);
    for number in 0..4 {
        let text = server.dig(&format!("abcdefghijklm{number}.example.com A"));
        assert!(is_answered(&text), "{text}");
    }
}

#[test]
fn forged_answers_are_passed_over() {
    let upstream = ScriptedUpstream::raw(|asked| {
        let right = asked.address(7, 60);
        let mut other_id = asked.address(66, 60);
        other_id.metadata.id ^= 1;
        let mut other_name = asked.address(66, 60);
        other_name.queries[0].name = "www.evil.example.".parse().unwrap();
        let mut question = asked.address(66, 60);
        question.metadata.message_type = hickory_proto::op::MessageType::Query;
        let mut other_type = asked.address(66, 60);
        other_type.queries[0].query_type = RecordType::AAAA;
        let all = [other_id, other_name, question, other_type, right];
        let mut datagrams: Vec<Vec<u8>> = all.iter().map(|reply| reply.to_vec().unwrap()).collect();
        datagrams.insert(0, b"garbage".to_vec());
        datagrams
    });
    let server = Server::start(zone(), &[upstream.address]);
    assert_eq!(answer_section(&server.dig("www.example.com A")), ["www.example.com. A 192.0.2.7"]);
}

#[test]
fn an_upstream_without_edns_is_asked_without() {
    let upstream = ScriptedUpstream::start(|asked| match asked.message.edns {
        None => good(asked),
        Some(_) => {
            let mut reply = asked.reply(ResponseCode::FormErr);
            reply.edns = None;
            Some(reply)
        }
    });
    let server = Server::start(zone(), &[upstream.address]);
    assert!(is_answered(&server.dig("www.example.com A")));
}

#[test]
fn equal_questions_at_the_same_time_are_asked_once() {
    let all_wait = Arc::new(AtomicBool::new(false));
    let upstream = ScriptedUpstream::start({
        let all_wait = all_wait.clone();
        move |asked| {
            let deadline = Instant::now() + Duration::from_millis(800);
            while !all_wait.load(Ordering::SeqCst) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            good(asked)
        }
    });
    let server = Server::start(zone(), &[upstream.address]);
    let clients: Vec<UdpSocket> = (0..50).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let question = query("www.example.com.", RecordType::A).to_vec().unwrap();
    for client in &clients {
        client.connect(server.address).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.send(&question).unwrap();
    }
    let coalesced = r#"weft_dns_questions_coalesced_total{server="dns://:53",view=""} 49"#;
    eventually("49 questions wait for one answer", || server.metrics.text().contains(coalesced));
    all_wait.store(true, Ordering::SeqCst);
    for client in &clients {
        let mut reply = [0; 512];
        assert!(client.recv(&mut reply).unwrap() > 40);
    }
    assert_eq!(upstream.asked().len(), 1);
}

/// Passes datagrams on, there and back.
fn relay(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (address, passed) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    std::thread::spawn({
        let passed = passed.clone();
        move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                passed.fetch_add(1, Ordering::SeqCst);
                let onwards = UdpSocket::bind("127.0.0.1:0").unwrap();
                onwards.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                onwards.send_to(&buffer[..length], to).unwrap();
                let back = socket.try_clone().unwrap();
                std::thread::spawn(move || {
                    let mut reply = [0; 4096];
                    if let Ok(length) = onwards.recv(&mut reply) {
                        let _ = back.send_to(&reply[..length], client);
                    }
                });
            }
        }
    });
    (address, passed)
}

#[test]
fn questions_do_not_go_in_circles() {
    // The port is free again, by TCP too, and nobody else is given it at once.
    let free = std::iter::repeat_with(|| UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
        .find(|address| TcpListener::bind(address).is_ok())
        .unwrap();
    let (circle, passed) = relay(free);
    let good = ScriptedUpstream::start(good);
    let server = Server::start_on(&free.to_string(), zone(), &[circle, good.address], MOST_WAITING);
    eventually("a probe is sent at the start", || passed.load(Ordering::SeqCst) > 0);
    let mut number = 0;
    eventually("nothing is asked in a circle", || {
        let before = passed.load(Ordering::SeqCst);
        number += 1;
        assert!(is_answered(&server.dig(&format!("www{number}.example.com A"))));
        passed.load(Ordering::SeqCst) == before
    });
    assert!(server.dig("backend.shop.svc.cluster.local A").contains("10.96.0.20"));
}

/// Debian's unbound on a loopback port, which knows one name.
struct Unbound {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Unbound {
    fn start() -> Unbound {
        let directory = tempfile::tempdir().unwrap();
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = directory.path().join("unbound.conf");
        let text = format!(
            "server:\n interface: 127.0.0.1\n port: {}\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n \
             pidfile: \"\"\n use-syslog: no\n directory: \"{}\"\n module-config: \"iterator\"\n \
             local-zone: \"example.com.\" static\n local-data: \"www.example.com. 60 A 192.0.2.7\"\n\
             remote-control:\n control-enable: no\n",
            address.port(),
            directory.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("/usr/sbin/unbound").arg("-c").arg(&config).stderr(Stdio::null()).spawn();
        let child = child.expect("unbound, of the Debian package of that name, must be installed");
        Unbound { child, address, _directory: directory }
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_resolver_that_people_run_is_a_good_upstream() {
    let unbound = Unbound::start();
    let server = Server::start(zone(), &[unbound.address]);
    eventually("unbound answers", || is_answered(&server.dig("www.example.com A")));
    for number in 0..8 {
        let text = server.dig(&format!("nothing{number}.example.com A"));
        assert!(text.contains("status: NXDOMAIN"), "{text}");
    }
    assert!(!server.metrics.text().contains("rcode=\"SERVFAIL\",to"), "the spelling is kept");
}
