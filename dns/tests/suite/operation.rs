//! What those rely on who run the server: limits of clients, the query log, the names of metrics.

use std::io::BufRead;
use std::net::UdpSocket;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message};
use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;
use serde_json::json;
use weft_testkit::wait::eventually;

use crate::api::{self, SERVICES, SLICES};
use crate::daemon::{Daemon, await_status};
use crate::fixture::{query, zone};
use crate::peers::{Server, Upstream, answer_section, dig};

/// How many queries beyond the limit came to that end.
fn limited(daemon: &Daemon, fate: &str) -> usize {
    let metrics = daemon.get(2, "/metrics");
    let of_fate = |line: &&str| {
        line.starts_with("weft_dns_client_limited_total{") && line.contains(&format!("fate=\"{fate}\""))
    };
    metrics.lines().find(of_fate).map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// The replies to so many equal queries, sent at once from `client`: all of them but those that the server
/// says it dropped.
fn flood(daemon: &Daemon, client: &str, name: &str, questions: u16) -> Vec<Message> {
    let before = limited(daemon, "dropped");
    let socket = UdpSocket::bind((client, 0)).unwrap();
    socket.connect(daemon.dns).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    for id in 0..questions {
        let mut message = query(name, RecordType::A);
        message.metadata.id = id;
        message.set_edns(Edns::new());
        socket.send(&message.to_vec().unwrap()).unwrap();
    }
    let (mut replies, mut reply) = (Vec::new(), [0; 1232]);
    eventually("all replies", || {
        while let Ok(length) = socket.recv(&mut reply) {
            replies.push(Message::from_vec(&reply[..length]).unwrap());
        }
        replies.len() + limited(daemon, "dropped") - before >= usize::from(questions)
    });
    replies
}

#[test]
fn a_client_that_asks_too_often_is_sent_to_tcp_or_not_answered() {
    let api = api::start();
    let daemon = Daemon::start_with(&api.address().to_string(), &["--client-rate", "10"]);
    await_status(&daemon, "+tcp backend.shop.svc.cluster.local A", "NOERROR");
    // The first is the fast lane's, the other is not; one limit stands before both.
    for (client, name) in
        [("127.0.0.7", "backend.shop.svc.cluster.local."), ("127.0.0.8", "_tcp.backend.other.example.")]
    {
        let (started, before) = (Instant::now(), limited(&daemon, "truncated"));
        let replies = flood(&daemon, client, name, 200);
        let (truncated, whole): (Vec<_>, Vec<_>) =
            replies.iter().partition(|reply| reply.metadata.truncation);
        // A second's worth at once, and what time brought while they came.
        let most = 10 + (10.0 * started.elapsed().as_secs_f64()).ceil() as usize;
        assert!((10..=most).contains(&whole.len()), "{name}: {} answers of {most}", whole.len());
        // Every other of the rest, in each thread for itself.
        let (half, threads) = ((200 - whole.len()) / 2, available_parallelism().unwrap().get());
        assert!(
            half > 0 && truncated.len().abs_diff(half) <= threads,
            "{name}: {} truncated",
            truncated.len()
        );
        assert!(truncated.iter().all(|reply| reply.answers.is_empty() && reply.edns.is_some()));
        assert_eq!(limited(&daemon, "truncated") - before, truncated.len());
    }
    let name = "backend.shop.svc.cluster.local";
    assert!(dig("127.0.0.1", daemon.dns.port(), &format!("-b 127.0.0.7 +tcp {name}")).contains("10.96.0.20"));
    assert!(dig("127.0.0.1", daemon.dns.port(), &format!("-b 127.0.0.9 {name}")).contains("10.96.0.20"));
}

#[test]
fn without_a_limit_nobody_is_sent_away() {
    let api = api::start();
    let daemon = Daemon::start(&api.address().to_string(), "0");
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
    let api = api::start();
    let mut daemon = Daemon::start(&api.address().to_string(), "0");
    await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR");
    let port = daemon.dns.port();
    daemon.signal(Signal::SIGUSR1);
    let line = await_line(&mut daemon, &["query log"]);
    assert!(line.contains("\"on\":true"), "{line}");
    for (question, texts) in [
        ("+notcp Backend.shop.svc.cluster.local A", ["\"lane\":\"Fast\"", "\"code\":\"NOERROR\"", "UDP"]),
        ("+notcp nothing.shop.svc.cluster.local A", ["\"lane\":\"Fast\"", "\"code\":\"NXDOMAIN\"", "UDP"]),
        ("+notcp cluster.local SOA", ["\"lane\":\"Full\"", "\"code\":\"NOERROR\"", "UDP"]),
        ("+tcp backend.shop.svc.cluster.local A", ["\"lane\":\"Full\"", "\"code\":\"NOERROR\"", "TCP"]),
        ("+notcp www.example.com AAAA", ["\"lane\":\"Full\"", "\"code\":\"SERVFAIL\"", "UDP"]),
    ] {
        dig("127.0.0.1", port, question);
        let line = await_line(&mut daemon, &["\"message\":\"query\""]);
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
    await_line(&mut daemon, &["query log", "\"on\":false"]);
    dig("127.0.0.1", port, "backend.shop.svc.cluster.local A");
    daemon.signal(Signal::SIGUSR1);
    let line = await_line(&mut daemon, &["\"message\":\"query"]);
    assert!(line.contains("\"on\":true"), "nothing was logged in between: {line}");
}

/// CoreDNS's names, with their types; and some of our own. Those that only trouble brings are tested where
/// there is trouble.
const COREDNS: [(&str, &str); 25] = [
    ("coredns_build_info", "gauge"),
    ("coredns_panics", "counter"),
    ("coredns_plugin_enabled", "gauge"),
    ("coredns_dns_requests", "counter"),
    ("coredns_dns_do_requests", "counter"),
    ("coredns_dns_request_duration_seconds", "histogram"),
    ("coredns_dns_request_size_bytes", "histogram"),
    ("coredns_dns_responses", "counter"),
    ("coredns_dns_response_size_bytes", "histogram"),
    ("coredns_cache_entries", "gauge"),
    ("coredns_cache_hits", "counter"),
    ("coredns_cache_requests", "counter"),
    ("coredns_cache_misses", "counter"),
    ("coredns_cache_evictions", "counter"),
    ("coredns_forward_healthcheck_broken", "counter"),
    ("coredns_forward_max_concurrent_rejects", "counter"),
    ("coredns_proxy_request_duration_seconds", "histogram"),
    ("coredns_kubernetes_dns_programming_duration_seconds", "histogram"),
    ("coredns_autopath_success", "counter"),
    ("weft_dns_event_to_answer_duration_seconds", "histogram"),
    ("weft_dns_zone_compile_duration_seconds", "histogram"),
    ("weft_dns_query_log_lost", "counter"),
    ("process_cpu_seconds", "counter"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_open_fds", "gauge"),
];

#[test]
fn metrics_have_the_names_of_coredns() {
    let (api, upstream) = (api::start(), Upstream::start());
    let daemon = Daemon::start(&api.address().to_string(), "0");
    await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR");
    let address = upstream.address;
    api::put_config_map(&api, &json!({"upstreamNameservers": format!("[\"{address}\"]")}));
    (0..2).for_each(|_| drop(await_status(&daemon, "www.example.com A", "NOERROR")));
    let metadata = json!({"name": "db", "namespace": "shop"});
    api.put(SERVICES, json!({"metadata": metadata, "spec": {"clusterIP": "None"}}));
    // Services and EndpointSlices are watched apart: the Service is to be known first.
    let metadata = json!({"name": "next", "namespace": "shop"});
    api.put(SERVICES, json!({"metadata": metadata, "spec": {"clusterIP": "10.96.0.77"}}));
    await_status(&daemon, "next.shop.svc.cluster.local A", "NOERROR");
    let trigger = "endpoints.kubernetes.io/last-change-trigger-time";
    let metadata = json!({"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"},
        "annotations": {trigger: "2026-01-01T00:00:00Z"}});
    let endpoints = json!([{"addresses": ["10.244.1.7"]}]);
    api.put(SLICES, json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints}));
    await_status(&daemon, "db.shop.svc.cluster.local A", "NOERROR");
    // Each by a lane of its own.
    for question in ["backend.shop.svc.cluster.local A", "cluster.local SOA", "www.example.com A"] {
        dig("127.0.0.1", daemon.dns.port(), &format!("+dnssec {question}"));
    }
    let text = daemon.get(2, "/metrics");
    for (name, kind) in COREDNS {
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} {kind} in {text}");
    }
    let value = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let labels = |zone: &str| format!("{{server=\"dns://:{}\",view=\"\",zone=\"{zone}\"", daemon.dns.port());
    for (zone, count) in [("cluster.local.", " 2"), (".", " 1")] {
        let name = format!("coredns_dns_do_requests_total{}}}", labels(zone));
        assert_eq!(value(&name), Some(count), "{text}");
    }
    assert_eq!(
        value(&format!("coredns_plugin_enabled{},name=\"forward\"}}", labels("."))),
        Some(" 1"),
        "{text}"
    );
    assert!(!text.contains("autopath\"}"), "it is off: {text}");
    let count = "dns_programming_duration_seconds_count{";
    let line = text.lines().find(|line| line.contains(count)).unwrap_or_else(|| panic!("{count} in {text}"));
    assert!(line.contains("service_kind=\"headless_with_selector\"") && line.ends_with(" 1"), "{line}");
    assert!(text.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")), "{text}");
}
