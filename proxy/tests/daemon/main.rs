//! The `weft-proxy` process on a node of its own: a namespace with an API server on its loopback. Needs root
//! and nft.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft_testkit::namespace::run_in;

use crate::machine::{Machine, NODES, SERVICES, SLICES, node, programmed, service, slice};

mod ebpf;
mod firewall;
mod healing;
mod machine;
mod user_namespace;

const SERVICE_CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";

#[test]
fn changes_reach_the_kernel_and_nothing_stays_of_what_is_deleted() {
    let machine = programmed();
    machine.until_rules_have("elements = { 172.30.0.11 }");
    machine.server.put(NODES, node("172.30.0.12"));
    machine.until_rules_have("elements = { 172.30.0.12 }");
    machine.server.put(SLICES, slice(&["10.244.2.3", "10.244.2.4"]));
    machine.until_rules_have("10.96.0.80 . tcp . 80 . 0 : 10.244.2.4 . 8080");
    machine.server.delete(SLICES, "web-1");
    machine.until_rules_have("10.96.0.80 . tcp . 80 : none");
    machine.server.delete(SERVICES, "web");
    machine.until("no Service", |machine| !machine.rules().contains("10.96.0.80"));
    assert!(!machine.rules().contains("lb-"));
    assert!(!machine.log().contains("WARN") && !machine.log().contains("ERROR"), "{}", machine.log());
}

#[test]
fn nothing_is_programmed_before_services_and_endpoint_slices_are_listed() {
    let mut machine = programmed();
    let rules = machine.rules();
    machine.stop(Signal::SIGKILL);
    // A proxy that took an unlisted kind for an empty one would reject everything now.
    machine.server.stop();
    machine.start();
    machine.until("the probe's port", |machine| machine.get(10256, "/healthz").is_ok());
    let answers = |machine: &Machine, path| machine.get(10256, path).unwrap();
    assert!(answers(&machine, "/healthz").starts_with("HTTP/1.0 503"), "not ready");
    assert!(answers(&machine, "/livez").starts_with("HTTP/1.0 200"), "but alive");
    assert_eq!(machine.rules(), rules);
    let Machine { namespace, server, .. } = &mut machine;
    namespace.run(|| server.restart()).unwrap();
    machine.until("in step", |machine| machine.log().matches("in step with the cluster").count() == 2);
    assert_eq!(machine.rules(), rules);
    assert!(answers(&machine, "/healthz").starts_with("HTTP/1.0 200"));
}

#[test]
fn a_killed_proxy_leaves_its_rules_and_adopts_them_and_cleanup_removes_them() {
    let mut machine = programmed();
    let handles = |machine: &Machine| run_in(&machine.namespace, "nft", &["-a", "list", "ruleset"]);
    let rules = handles(&machine);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        machine.stop(signal);
        assert_eq!(handles(&machine), rules);
        let starts = machine.log().matches("in step with the cluster").count();
        machine.start();
        machine.until("in step again", |machine| {
            machine.log().matches("in step with the cluster").count() == starts + 1
        });
        assert_eq!(handles(&machine), rules);
    }
    machine.stop(Signal::SIGTERM);
    run_in(&machine.namespace, env!("CARGO_BIN_EXE_weft-proxy"), &["--cleanup"]);
    assert_eq!(machine.rules(), "");
}

#[test]
fn probes_and_scrapers_are_answered() {
    let machine = programmed();
    for (port, path, text) in [
        (10256, "/healthz", "\"lastUpdated\":\"20"), // by which `weft status` tells the last sync
        (10256, "/livez", "\"nodeEligible\":true"),
        (10249, "/proxyMode", "nftables"),
        (10249, "/metrics", "kubeproxy_sync_proxy_rules_duration_seconds_count 1"),
        (10249, "/metrics", "kubeproxy_sync_proxy_rules_endpoint_changes_total 1"),
        (10249, "/metrics", "no_local_endpoints_total{traffic_policy=\"internal\"} 0"),
    ] {
        let answer = machine.get(port, path).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200") && answer.contains(text), "{path}: {answer}");
    }
    // A kubelet of an IPv6 node asks so.
    assert!(machine.get_at("::1", 10256, "/healthz").unwrap().starts_with("HTTP/1.0 200"));
    assert!(machine.get_at("::1", 10249, "/metrics").is_err(), "at 127.0.0.1 only");
}

#[test]
fn a_service_that_is_not_served_in_full_is_told_of_once_in_one_line_and_one_event() {
    let machine = programmed();
    let events = |machine: &Machine| machine.server.objects("/apis/events.k8s.io/v1/namespaces/shop/events");
    let mut younger = service();
    younger["metadata"] =
        json!({"name": "younger", "namespace": "shop", "creationTimestamp": "2026-01-02T00:00:00Z"});
    younger["spec"]["clusterIP"] = "10.96.0.82".into();
    younger["spec"]["clusterIPs"] = json!(["10.96.0.82"]);
    younger["spec"]["externalIPs"] = json!(["127.0.0.1", "10.96.0.80"]);
    machine.server.put(SERVICES, younger.clone());
    machine.until("told", |machine| !events(machine).is_empty());
    younger["metadata"]["labels"] = json!({"another": "one"});
    machine.server.put(SERVICES, younger);
    machine.server.put(SLICES, slice(&["10.244.2.2"]));
    machine.until_rules_have("goto lb-1");
    let log = machine.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("Service shop/younger: ")).collect();
    assert_eq!((lines.len(), events(&machine).len()), (1, 1), "{log}");
    for part in [
        "10.96.0.80:80 (tcp)",
        "NodePort 30080 (tcp, IPv4)",
        "Service shop/web has it",
        "127.0.0.1 is not served",
    ] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
}

#[test]
fn the_networks_of_services_are_followed_while_it_runs() {
    let machine = programmed();
    let network =
        json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112"]}});
    machine.server.put(SERVICE_CIDRS, network);
    machine.until_rules_have("ip daddr 10.96.0.0/16 jump unallocated");
    machine.until_rules_have("ip6 daddr fd00:96::/112 jump unallocated");
    machine.server.delete(SERVICE_CIDRS, "kubernetes");
    machine.until("forgotten", |machine| !machine.rules().contains("unallocated"));
    assert!(machine.rules().contains("goto lb-2"));
}

#[test]
fn load_balancers_are_told_how_many_endpoints_the_node_has() {
    let machine = programmed();
    let balanced = |port: u16| {
        let mut service = service();
        service["metadata"]["name"] = "balanced".into();
        service["spec"]["clusterIP"] = "10.96.0.81".into();
        service["spec"]["clusterIPs"] = json!(["10.96.0.81"]);
        service["spec"]["ports"][0]["nodePort"] = 30081.into();
        service["spec"]["type"] = "LoadBalancer".into();
        service["spec"]["externalTrafficPolicy"] = "Local".into();
        service["spec"]["healthCheckNodePort"] = port.into();
        service
    };
    let endpoints = |nodes: &[&str]| {
        let mut slice = slice(&["10.244.1.2", "10.244.1.3", "10.244.2.2"][..nodes.len()]);
        slice["metadata"] = json!({
            "name": "balanced-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "balanced"},
        });
        (0..).zip(nodes).for_each(|(at, node)| slice["endpoints"][at as usize]["nodeName"] = (*node).into());
        slice
    };
    let answers = |port, status: &'static str, text: &'static str| {
        machine.until(text, |machine| {
            let answer = machine.get(port, "/").unwrap_or_default().to_lowercase();
            answer.starts_with(&format!("http/1.0 {status}")) && answer.contains(text)
        });
    };
    machine.server.put(SERVICES, balanced(32080));
    machine.server.put(SLICES, endpoints(&["node1", "node1", "node2"]));
    answers(32080, "200", "x-load-balancing-endpoint-weight: 2");
    answers(32080, "200", r#""localendpoints":2"#);
    // By IPv6, of the endpoints of that family: the same ones where the Service has no other.
    let by_ipv6 = |machine: &Machine| machine.get_at("::1", 32080, "/").unwrap_or_default();
    assert!(by_ipv6(&machine).contains(r#""localEndpoints":2"#));
    let mut dual = balanced(32080);
    dual["spec"]["clusterIPs"] = json!(["10.96.0.81", "fd00:96::81"]);
    machine.server.put(SERVICES, dual);
    let mut sixth = endpoints(&["node1"]);
    sixth["metadata"]["name"] = "balanced-2".into();
    sixth["addressType"] = "IPv6".into();
    sixth["endpoints"][0]["addresses"] = json!(["fd00:244:1::2"]);
    machine.server.put(SLICES, sixth);
    machine.until("told of IPv6", |machine| by_ipv6(machine).contains(r#""localEndpoints":1"#));
    answers(32080, "200", r#""localendpoints":2"#);
    machine.server.put(SLICES, endpoints(&["node2", "node2"]));
    answers(32080, "503", "x-load-balancing-endpoint-weight: 0");

    // A port that somebody else has is told once, and had when it is free.
    let taken = machine.namespace.run(|| TcpListener::bind("[::]:32081")).unwrap().unwrap();
    machine.server.put(SERVICES, balanced(32081));
    machine.until("told", |machine| {
        machine.log().contains("health checks of Service shop/balanced at port 32081")
    });
    machine.until("the old port closed", |machine| machine.get(32080, "/").is_err());
    machine.server.put(SLICES, endpoints(&["node1", "node2"]));
    drop(taken);
    answers(32081, "200", "x-load-balancing-endpoint-weight: 1");
    assert_eq!(machine.log().matches("at port 32081").count(), 1, "{}", machine.log());
    machine.server.delete(SERVICES, "balanced");
    machine.until("closed", |machine| machine.get(32081, "/").is_err());
}

#[test]
fn load_balancers_are_sent_away_from_a_node_that_leaves_while_its_proxy_lives() {
    let machine = programmed();
    let answers =
        |path, status: &str| machine.get(10256, path).unwrap().starts_with(&format!("HTTP/1.0 {status}"));
    assert!(answers("/healthz", "200"));
    let mut leaving = node("172.30.0.11");
    leaving["spec"] = json!({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]});
    machine.server.put(NODES, leaving);
    machine.until("told", |_| answers("/healthz", "503"));
    assert!(answers("/livez", "200"));
    machine.server.put(NODES, node("172.30.0.11"));
    machine.until("well again", |_| answers("/healthz", "200"));
}

#[test]
fn what_is_wrong_at_the_start_is_said_in_one_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_weft-proxy"))
        .args(["--kubeconfig", "/does/not/exist", "--healthz-bind-address", "127.0.0.1:0"])
        .args(["--metrics-bind-address", "127.0.0.1:0"])
        .env("RUST_LOG", "off")
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(errors.starts_with("weft-proxy: ") && errors.contains("/does/not/exist"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn a_configuration_file_of_kube_proxy_is_followed() {
    let mut machine = Machine::new();
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = include_str!("../manifests/kubeadm-config.yaml")
        .replace("/var/lib/kube-proxy/kubeconfig.conf", machine.server.kubeconfig().to_str().unwrap())
        .replace("hostnameOverride: \"\"", "hostnameOverride: node1")
        .replace("oomScoreAdj: null", "oomScoreAdj: -999")
        .replace("udpStreamTimeout: 0s\n  udpTimeout: 0s", "udpTimeout: 17s");
    fs::write(config.path(), text).unwrap();
    machine.start_with(&["--config", config.path().to_str().unwrap()]);
    machine.until_rules_have("ip saddr != 10.244.0.0/16 jump outside");
    machine.until_rules_have("elements = { 172.30.0.11 }");
    assert_eq!(machine.log().matches("oomScoreAdj has no effect").count(), 1, "{}", machine.log());
    assert_eq!(machine.log().matches("WARN").count(), 1, "{}", machine.log());
    assert_eq!(machine.setting("nf_conntrack_udp_timeout"), "17");
    let shown = machine.get(10249, "/configz").unwrap();
    let shown: Value = serde_json::from_str(shown.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(shown["kubeproxy.config.k8s.io"]["clusterCIDR"], "10.244.0.0/16");
}

#[test]
fn service_counters_are_metrics_where_they_are_asked_for() {
    let mut machine = programmed();
    assert!(!machine.get(10249, "/metrics").unwrap().contains("weft_service"));
    machine.stop(Signal::SIGTERM);
    let kubeconfig = machine.server.kubeconfig().to_str().unwrap().to_owned();
    machine.start_with(&["--kubeconfig", &kubeconfig, "--hostname-override=node1", "--service-counters"]);
    machine.until_rules_have("set nodeport-sent");
    run_in(&machine.namespace, "ip", &["route", "add", "10.0.0.0/8", "dev", "lo"]);
    let silent = std::time::Duration::from_millis(20);
    let connect = || TcpStream::connect_timeout(&"10.96.0.80:80".parse().unwrap(), silent);
    assert!(machine.namespace.run(connect).unwrap().is_err(), "there is no pod");
    let text = machine.get(10249, "/metrics").unwrap();
    let labels =
        r#"{namespace="shop",service="web",address="10.96.0.80",port="80",protocol="tcp",ip_family="IPv4"}"#;
    assert!(text.contains(&format!("weft_service_connections_total{labels} 1\n")), "{text}");
    assert!(text.contains(&format!("weft_service_received_bytes_total{labels} 60\n")), "{text}");
    assert!(text.contains(r#"address="",port="30080",protocol="tcp",ip_family="IPv4"} 0"#), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn close_wait_connections_are_kept_as_long_as_kube_proxy_keeps_them() {
    let mut machine = Machine::new();
    let proxy = |machine: &Machine, flags: &[&str]| {
        machine
            .namespace
            .run(|| Command::new(env!("CARGO_BIN_EXE_weft-proxy")).args(flags).output())
            .unwrap()
            .unwrap()
    };
    assert_eq!(machine.setting("nf_conntrack_tcp_timeout_close_wait"), "60", "the kernel's default");
    // The size of the table is the whole machine's, and cannot be set from here.
    let only = ["--init-only", "--conntrack-max-per-core=0"];
    assert!(proxy(&machine, &only).status.success());
    assert_eq!(machine.setting("nf_conntrack_tcp_timeout_close_wait"), "3600");
    assert!(proxy(&machine, &[only[0], only[1], "--conntrack-tcp-timeout-close-wait=50s"]).status.success());
    assert_eq!(machine.setting("nf_conntrack_tcp_timeout_close_wait"), "50", "asked for");
    let refused = proxy(&machine, &["--init-only", "--conntrack-min=2000000000"]);
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && errors.contains("nf_conntrack_max to 2000000000"), "{errors}");

    machine.start();
    machine.until("set", |machine| machine.setting("nf_conntrack_tcp_timeout_close_wait") == "3600");
    assert!(!machine.log().contains("WARN"), "{}", machine.log());
}

#[test]
fn a_malformed_service_gets_one_event_and_harms_no_other() {
    let machine = programmed();
    let mut bad = service();
    bad["metadata"]["name"] = "bad".into();
    bad["spec"]["ports"][0]["port"] = 99_999_999.into();
    machine.server.put(SERVICES, bad.clone());
    let events = |machine: &Machine| machine.server.objects("/apis/events.k8s.io/v1/namespaces/shop/events");
    machine.until("told", |machine| events(machine).len() == 1);
    let event = &events(&machine)[0];
    assert_eq!((&event["reason"], &event["regarding"]["name"]), (&json!("Malformed"), &json!("bad")));
    assert!(event["note"].as_str().unwrap().contains("spec.ports[0].port"), "{event}");
    bad["metadata"]["labels"] = json!({"another": "one"});
    machine.server.put(SERVICES, bad);
    machine.server.put(SLICES, slice(&["10.244.2.2"]));
    machine.until_rules_have("goto lb-1");
    assert_eq!(
        (events(&machine).len(), machine.log().matches("left out of Service shop/bad").count()),
        (1, 1)
    );
}

/// As Weft's CNI plugin maps ports of the node to containers: docs/cni.md.
const HOST_PORTS: &str = "add table ip weft-cni-hostports
add map ip weft-cni-hostports hostports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; \
flags interval; }
add element ip weft-cni-hostports hostports { 0.0.0.0/0 . tcp . 30080 : 10.244.2.7 . 80, \
0.0.0.0/0 . udp . 30080 : 10.244.2.7 . 80, 127.0.0.1 . tcp . 30081 : 10.244.2.7 . 81 }";

#[test]
fn a_node_port_that_hides_a_containers_host_port_is_named_by_an_event() {
    let machine = programmed();
    let mut more = service();
    more["metadata"]["name"] = "more".into();
    more["spec"] =
        json!({"type": "NodePort", "clusterIP": "10.96.0.82", "ports": [{"port": 81, "nodePort": 30081}]});
    machine.server.put(SERVICES, more);
    machine.until_rules_have("tcp . 30081 : none");
    let events = |machine: &Machine| machine.server.objects("/apis/events.k8s.io/v1/namespaces/shop/events");
    assert_eq!(events(&machine), [json!(null); 0]);
    run_in(&machine.namespace, "nft", &[HOST_PORTS]);
    machine.until("told", |machine| !events(machine).is_empty());
    let event = &events(&machine)[0];
    assert_eq!((&event["reason"], &event["regarding"]["name"]), (&json!("HostPortTaken"), &json!("web")));
    let note = "NodePort 30080 (tcp, IPv4) is also a hostPort of the container at 10.244.2.7:80: connections go \
                to this Service";
    assert_eq!(event["note"], note);
}

#[test]
fn services_in_conflict_are_told_once_and_the_metric_of_missing_local_endpoints_follows() {
    let machine = programmed();
    let mut later = service();
    later["metadata"] =
        json!({"name": "later", "namespace": "shop", "creationTimestamp": "2026-01-02T03:04:05Z"});
    later["spec"]["clusterIP"] = "10.96.0.81".into();
    later["spec"]["clusterIPs"] = json!(["10.96.0.81"]);
    let scraped = |machine: &Machine, text: &str| machine.get(10249, "/metrics").unwrap().contains(text);
    machine.server.put(SERVICES, later.clone());
    let events = |machine: &Machine| machine.server.objects("/apis/events.k8s.io/v1/namespaces/shop/events");
    machine.until("told", |machine| events(machine).len() == 1);
    let event = &events(&machine)[0];
    assert_eq!((&event["reason"], &event["regarding"]["name"]), (&json!("FrontendTaken"), &json!("later")));
    assert!(event["note"].as_str().unwrap().contains("NodePort 30080"), "{event}");
    assert_eq!(machine.log().matches("WARN").count(), 1, "{}", machine.log());
    assert!(machine.log().contains("Service shop/later: NodePort 30080"), "{}", machine.log());

    // The other one's endpoints change, which is no news about this one.
    machine.server.put(SLICES, slice(&["10.244.2.2"]));
    machine.until_rules_have("goto lb-1");
    assert_eq!(machine.log().matches("WARN").count(), 1, "{}", machine.log());
    let mut local = service();
    local["spec"]["internalTrafficPolicy"] = "Local".into();
    machine.server.put(SERVICES, local);
    let missing = "no_local_endpoints_total{traffic_policy=\"internal\"} 1";
    machine.until("counted", |machine| scraped(machine, missing));
    machine.server.put(SERVICES, service());
    machine.until("counted no more", |machine| !scraped(machine, missing));
}
