//! What those rely on who run the server: limits of clients, the log of questions, the names of metrics.

use std::io::BufRead;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message};
use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;

use crate::api::Api;
use crate::daemon::{DEADLINE, Daemon, await_status, send_config_map};
use crate::fixture::{query, zone};
use crate::peers::{Server, Upstream, answer_section, dig};

/// The replies to so many equal questions, sent at once from `client`.
fn flood(daemon: &Daemon, client: &str, name: &str, questions: u16) -> Vec<Message> {
    let socket = UdpSocket::bind((client, 0)).unwrap();
    socket.connect(daemon.dns).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    for id in 0..questions {
        let mut message = query(name, RecordType::A);
        message.metadata.id = id;
        message.set_edns(Edns::new());
        socket.send(&message.to_vec().unwrap()).unwrap();
    }
    let mut reply = [0; 1232];
    std::iter::from_fn(|| {
        socket.recv(&mut reply).ok().map(|length| Message::from_vec(&reply[..length]).unwrap())
    })
    .collect()
}

#[test]
fn a_client_that_asks_too_often_is_sent_to_tcp_or_not_answered() {
    let api = Api::start();
    let daemon = Daemon::start_with(&api.address.to_string(), &["--client-rate", "10"]);
    await_status(&daemon, "+tcp backend.shop.svc.cluster.local A", "NOERROR");
    // The first is the fast lane's, the other is not; one limit stands before both.
    for (client, name) in
        [("127.0.0.7", "backend.shop.svc.cluster.local."), ("127.0.0.8", "_tcp.backend.other.example.")]
    {
        let replies = flood(&daemon, client, name, 200);
        let (truncated, whole): (Vec<_>, Vec<_>) =
            replies.iter().partition(|reply| reply.metadata.truncation);
        // Time goes on while they are sent: some more than ten may pass.
        assert!((10..60).contains(&whole.len()), "{name}: {} answers", whole.len());
        assert!((60..=95).contains(&truncated.len()), "{name}: {} truncated", truncated.len());
        assert!(truncated.iter().all(|reply| reply.answers.is_empty() && reply.edns.is_some()));
    }
    let name = "backend.shop.svc.cluster.local";
    assert!(dig("127.0.0.1", daemon.dns.port(), &format!("-b 127.0.0.7 +tcp {name}")).contains("10.96.0.20"));
    assert!(dig("127.0.0.1", daemon.dns.port(), &format!("-b 127.0.0.9 {name}")).contains("10.96.0.20"));
    let metrics = daemon.get(2, "/metrics");
    for fate in ["truncated", "dropped"] {
        let line = "weft_dns_client_limited_total{";
        let lines = metrics.lines().filter(|text| text.starts_with(line) && text.contains(fate));
        let count: u32 = lines.map(|text| text.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum();
        assert!(count >= 120, "{fate}: {count}");
    }
}

#[test]
fn without_a_limit_nobody_is_sent_away() {
    let daemon = Daemon::start(&Api::start().address.to_string(), "0");
    await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR");
    let replies = flood(&daemon, "127.0.0.7", "backend.shop.svc.cluster.local.", 100);
    assert_eq!(replies.iter().filter(|reply| !reply.metadata.truncation).count(), 100);
}

#[test]
fn who_asks_for_everything_gets_little_and_no_upstream_is_asked() {
    let upstream = Upstream::start();
    let server = Server::start(zone(), &[upstream.address]);
    for name in ["big.example.com", "www.example.com"] {
        for transport in ["+notcp", "+tcp"] {
            let text = server.dig(&format!("{transport} {name} ANY"));
            assert_eq!(answer_section(&text), [format!("{name}. HINFO \"RFC8482\" \"\"")], "{text}");
        }
    }
    assert_eq!(upstream.asked(), 0);
}

/// Reads the log until a line has all these texts.
fn await_line(daemon: &mut Daemon, texts: &[&str]) -> String {
    let mut line = String::new();
    while !texts.iter().all(|text| line.contains(text)) {
        line.clear();
        assert_ne!(daemon.log.read_line(&mut line).unwrap(), 0, "the program ended without {texts:?}");
    }
    line
}

#[test]
fn questions_are_logged_while_somebody_wants_it() {
    let api = Api::start();
    let mut daemon = Daemon::start(&api.address.to_string(), "0");
    await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR");
    let port = daemon.dns.port();
    daemon.signal(Signal::SIGUSR1);
    let line = await_line(&mut daemon, &["questions are logged"]);
    assert!(line.contains("\"on\":true"), "{line}");
    for (question, texts) in [
        ("+notcp Backend.shop.svc.cluster.local A", ["\"lane\":\"Fast\"", "\"code\":\"NOERROR\"", "UDP"]),
        ("+notcp nothing.shop.svc.cluster.local A", ["\"lane\":\"Fast\"", "\"code\":\"NXDOMAIN\"", "UDP"]),
        ("+notcp cluster.local SOA", ["\"lane\":\"Full\"", "\"code\":\"NOERROR\"", "UDP"]),
        ("+tcp backend.shop.svc.cluster.local A", ["\"lane\":\"Full\"", "\"code\":\"NOERROR\"", "TCP"]),
        ("+notcp www.example.com AAAA", ["\"lane\":\"Full\"", "\"code\":\"SERVFAIL\"", "UDP"]),
    ] {
        dig("127.0.0.1", port, question);
        let line = await_line(&mut daemon, &["\"message\":\"question\""]);
        let words: Vec<&str> = question.split(' ').collect();
        let (name, kind) = (words[1].to_ascii_lowercase(), words[2]);
        let rest = [
            format!("\"name\":\"{name}.\""),
            format!("\"record_type\":\"{kind}\""),
            "\"client\":\"127.0.0.1\"".to_owned(),
            "\"micros\":".to_owned(),
            "\"size\":".to_owned(),
        ];
        for text in rest.iter().map(String::as_str).chain(texts) {
            assert!(line.contains(text), "{text} in {line}");
        }
    }
    daemon.signal(Signal::SIGUSR1);
    await_line(&mut daemon, &["questions are logged", "\"on\":false"]);
    dig("127.0.0.1", port, "backend.shop.svc.cluster.local A");
    daemon.signal(Signal::SIGUSR1);
    let line = await_line(&mut daemon, &["\"message\":\"quest"]);
    assert!(line.contains("\"on\":true"), "nothing was logged in between: {line}");
}

/// CoreDNS's names, with their types; and some of our own. Those that only trouble brings are tested where there is trouble.
const COREDNS: [(&str, &str); 19] = [
    ("coredns_build_info", "gauge"),
    ("coredns_panics", "counter"),
    ("coredns_dns_requests", "counter"),
    ("coredns_dns_request_duration_seconds", "histogram"),
    ("coredns_dns_request_size_bytes", "histogram"),
    ("coredns_dns_responses", "counter"),
    ("coredns_dns_response_size_bytes", "histogram"),
    ("coredns_cache_entries", "gauge"),
    ("coredns_cache_hits", "counter"),
    ("coredns_cache_requests", "counter"),
    ("coredns_cache_evictions", "counter"),
    ("coredns_forward_healthcheck_broken", "counter"),
    ("coredns_forward_max_concurrent_rejects", "counter"),
    ("coredns_proxy_request_duration_seconds", "histogram"),
    ("coredns_kubernetes_dns_programming_duration_seconds", "histogram"),
    ("coredns_autopath_success", "counter"),
    ("weft_dns_event_to_answer_duration_seconds", "histogram"),
    ("weft_dns_zone_compile_duration_seconds", "histogram"),
    ("weft_dns_query_log_lost", "counter"),
];

#[test]
fn metrics_have_the_names_of_coredns() {
    let (api, upstream) = (Api::start(), Upstream::start());
    let daemon = Daemon::start(&api.address.to_string(), "0");
    await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR");
    let address = upstream.address;
    send_config_map(&api, "ADDED", &format!(r#"{{"upstreamNameservers":"[\"{address}\"]"}}"#));
    (0..2).for_each(|_| drop(await_status(&daemon, "www.example.com A", "NOERROR")));
    let service = r#"{"type":"ADDED","object":{"kind":"Service","apiVersion":"v1","metadata":{"name":"db","namespace":"shop",
        "resourceVersion":"11"},"spec":{"clusterIP":"None"}}}"#;
    let slice = r#"{"type":"ADDED","object":{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{
        "name":"db-1","namespace":"shop","resourceVersion":"12","labels":{"kubernetes.io/service-name":"db"},
        "annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"2026-01-01T00:00:00Z"}},"addressType":"IPv4",
        "endpoints":[{"addresses":["10.244.1.7"]}]}}"#;
    let deadline = Instant::now() + DEADLINE;
    while !api.send(service) || !api.send_slice(slice) {
        assert!(Instant::now() < deadline, "nobody watches");
    }
    await_status(&daemon, "db.shop.svc.cluster.local A", "NOERROR");
    let text = daemon.get(2, "/metrics");
    for (name, kind) in COREDNS {
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} {kind} in {text}");
    }
    let count = "dns_programming_duration_seconds_count{";
    let line = text.lines().find(|line| line.contains(count)).unwrap_or_else(|| panic!("{count} in {text}"));
    assert!(line.contains("service_kind=\"headless_with_selector\"") && line.ends_with(" 1"), "{line}");
    assert!(text.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")), "{text}");
}
