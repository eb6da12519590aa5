//! Whole questions, against an API server behind which agents answer from a script.

use std::net::IpAddr;

use clap::Parser;
use serde_json::{Value, json};
use weft_policy::report::{End as PolicyEnd, Finding, Report as PolicyReport};
use weft_trace::{Cause, Chain, End, NodeTrace, Socket, Step, Tuple};

use super::{Error, Options, Outcome, Report, run};
use crate::scripted::cluster;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

const CLIENT: &str = "10.244.1.2";
const SERVER: &str = "10.244.2.3";
const SERVICE: &str = "10.96.0.7";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tuple(source: &str, source_port: u16, destination: &str, port: u16) -> Tuple {
    Tuple {
        source: ip(source),
        source_port: Some(source_port),
        destination: ip(destination),
        port: Some(port),
    }
}

fn trace(node: &str, came: Tuple, left: Tuple, steps: Vec<Step>, end: End) -> String {
    let trace = NodeTrace {
        node: node.to_owned(),
        came,
        left,
        steps,
        endpoints: Vec::new(),
        end,
        doubts: Vec::new(),
        notes: Vec::new(),
    };
    serde_json::to_string(&trace).unwrap()
}

fn chain(table: &str, name: &str, rule: Option<&str>) -> Chain {
    let [hook, table, chain] = ["forward", table, name].map(str::to_owned);
    Chain { hook, table, chain, rule: rule.map(str::to_owned) }
}

fn tunnel(next_hop: &str, remote: &str) -> End {
    End::Leaves {
        device: "weft-vxlan".to_owned(),
        kind: Some("vxlan".to_owned()),
        next_hop: ip(next_hop),
        remote: Some(ip(remote)),
    }
}

fn list(items: Value) -> String {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).to_string()
}

fn objects(endpoints: Value) -> Vec<(&'static str, String)> {
    let object = |kind: &str, name: &str, rest: Value| {
        let metadata = json!({"name": name, "namespace": "shop", "labels": {"app": name}});
        let mut object = json!({"kind": kind, "apiVersion": "v1", "metadata": metadata});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    let node = |name: &str, address: &str, range: &str| {
        object(
            "Node",
            name,
            json!({"spec": {"podCIDRs": [range]}, "status": {"addresses": [{"type": "InternalIP", "address": address}]}}),
        )
    };
    let pod = |name: &str, node: &str, address: &str| {
        object(
            "Pod",
            name,
            json!({"spec": {"nodeName": node}, "status": {"phase": "Running", "podIP": address}}),
        )
    };
    let service = object(
        "Service",
        "db",
        json!({"spec": {"clusterIP": SERVICE, "clusterIPs": [SERVICE], "selector": {"app": "db"}, "ports": [{"port": 5432, "protocol": "TCP"}]}}),
    );
    let mut slice = object("EndpointSlice", "db-1", json!({"endpoints": endpoints}));
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": "db"});
    vec![
        (
            "/api/v1/nodes",
            list(json!([
                node("node1", "172.30.0.11", "10.244.1.0/24"),
                node("node2", "172.30.0.12", "10.244.2.0/24")
            ])),
        ),
        ("/api/v1/pods", list(json!([pod("web", "node1", CLIENT), pod("db", "node2", SERVER)]))),
        ("/api/v1/services", list(json!([service]))),
        ("/apis/discovery.k8s.io/v1/endpointslices", list(json!([slice]))),
    ]
}

/// An agent's answer to a question.
fn agent(node: &str, path: &str, answer: String) -> (&'static str, String) {
    (format!("/api/v1/nodes/{node}:10246/proxy{path}").leak(), answer)
}

fn there() -> String {
    format!("/trace?entry=pod&source={CLIENT}&destination={SERVICE}&protocol=6&source_port=49152&port=5432")
}

fn on_node2() -> String {
    format!(
        "/trace?entry=link&source={CLIENT}&destination={SERVER}&protocol=6&source_port=49152&port=5432&via=172.30.0.11&tunnel=weft-vxlan"
    )
}

fn led() -> (Tuple, Tuple) {
    (tuple(CLIENT, 49152, SERVICE, 5432), tuple(CLIENT, 49152, SERVER, 5432))
}

fn first_node() -> (&'static str, String) {
    let (came, left) = led();
    let [from, to] = [came, left].map(|one| std::net::SocketAddr::new(one.destination, 5432));
    let steps = vec![
        Step::Pod { device: "eth0".to_owned(), gateway: Some(ip("10.244.1.1")), mtu: 1500 },
        Step::Enters { device: "cni0".to_owned(), port: Some("veth1".to_owned()), mtu: 1450 },
        Step::Destination { chain: chain("ip weft", "lb-1", Some("dnat")), from, to },
        Step::Routed {
            to: ip(SERVER),
            device: "weft-vxlan".to_owned(),
            gateway: Some(ip("10.244.2.0")),
            table: 254,
            mtu: 1450,
        },
        Step::Passed(chain("ip weft-policy", "forward", None)),
    ];
    agent("node1", &there(), trace("node1", came, left, steps, tunnel("10.244.2.0", "172.30.0.12")))
}

fn asked(answers: Vec<(&'static str, String)>, words: &[&str]) -> Result<Report, Error> {
    let kubeconfig = cluster(answers);
    let path = kubeconfig.path().to_str().unwrap();
    let cli = Cli::parse_from([&["trace", "--kubeconfig", path], words].concat());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&cli.options))
}

fn ready() -> Value {
    json!([{"addresses": [SERVER], "nodeName": "node2", "conditions": {"ready": true}}])
}

#[test]
fn a_packet_is_followed_from_node_to_node_and_its_answer_back() {
    let (came, left) = led();
    let mut answers = objects(ready());
    answers.push(first_node());
    let enters = Step::Enters { device: "weft-vxlan".to_owned(), port: None, mtu: 1450 };
    let pod = |device: &str| End::Pod { device: device.to_owned(), socket: Socket::Listens };
    answers.push(agent("node2", &on_node2(), trace("node2", left, left, vec![enters.clone()], pod("veth2"))));
    let answer = left.reversed();
    let query = |entry: &str, rest: &str| {
        format!(
            "/trace?entry={entry}&source={SERVER}&destination={CLIENT}&protocol=6&source_port=5432&port=49152{rest}"
        )
    };
    let back = query("pod", "&answers=true");
    answers.push(agent(
        "node2",
        &back,
        trace("node2", answer, answer, Vec::new(), tunnel("10.244.1.0", "172.30.0.11")),
    ));
    let restored = format!(
        "&via=172.30.0.12&tunnel=weft-vxlan&answers=true&source_becomes={SERVICE}:5432&destination_becomes={CLIENT}:49152"
    );
    let steps = vec![enters, Step::Restored { from: answer, to: came.reversed() }];
    answers.push(agent(
        "node1",
        &query("link", &restored),
        trace("node1", answer, came.reversed(), steps, pod("veth1")),
    ));
    let report = asked(answers, &["shop/web -> svc/shop/db"]).unwrap();
    insta::assert_snapshot!(report, @r#"
    arrives: Pod shop/web 10.244.1.2 -> Service shop/db 10.96.0.7, TCP port 5432
      node1    in the pod: route by eth0 via 10.244.1.1, MTU 1500
               comes in by veth1, a port of cni0
               led to 10.244.2.3:5432 by table ip weft, chain lb-1
               route to 10.244.2.3: weft-vxlan via 10.244.2.0, MTU 1450
               let through by the tables ip weft-policy
               leaves by the tunnel weft-vxlan to 172.30.0.12 (next hop 10.244.2.0)
      node2    comes in by weft-vxlan
               arrives at Pod shop/db 10.244.2.3 by veth2
      the answer's way back:
      node2    leaves by the tunnel weft-vxlan to 172.30.0.11 (next hop 10.244.1.0)
      node1    connection tracking restores 10.96.0.7 -> 10.244.1.2:49152
               arrives at Pod shop/web 10.244.1.2 by veth1
      MTU 1500 at eth0 in the pod, 1450 at cni0 on node1: larger packets need ICMP's "fragmentation needed" to come back
    "#);
    assert_eq!(report.outcome(), Outcome::Arrives);
    let json: Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(
        (&json["outcome"], &json["paths"][0]["there"]["nodes"][1]["node"]),
        (&json!("arrives"), &json!("node2"))
    );
}

#[test]
fn what_a_policy_denies_is_told_in_the_words_of_policy_explain() {
    let (_, left) = led();
    let mut answers = objects(ready());
    answers.push(first_node());
    let dropped = Cause::Dropped(chain("ip weft-policy", "entering", Some("drop")));
    answers.push(agent("node2", &on_node2(), trace("node2", left, left, Vec::new(), dropped.into())));
    let end = PolicyEnd {
        direction: "ingress".to_owned(),
        pod: Some("shop/db".to_owned()),
        finding: Finding::Denied,
        reason: "denied: isolated by NetworkPolicy shop/db, and no rule allows it".to_owned(),
        policies: vec!["NetworkPolicy shop/db".to_owned()],
        rule: None,
        place: None,
    };
    let policy = PolicyReport { node: "node2".to_owned(), ends: vec![end], notes: Vec::new() };
    let asked_path = format!("/policy/explain?source={CLIENT}&destination={SERVER}&protocol=tcp&port=5432");
    answers.push(agent("node2", &asked_path, serde_json::to_string(&policy).unwrap()));
    let report = asked(answers, &["shop/web", "svc/shop/db"]).unwrap();
    assert_eq!(report.outcome(), Outcome::DoesNotArrive);
    let text = report.to_string();
    let told = "  cause    denied: isolated by NetworkPolicy shop/db, and no rule allows it, ingress of Pod shop/db on node2\n  \
                fix      allow it in NetworkPolicy shop/db, or in another policy that selects the pod\n";
    assert!(text.ends_with(told), "{text}");
}

#[test]
fn a_service_without_endpoints_is_told_with_its_selector_and_its_pods() {
    let (came, _) = led();
    let mut answers = objects(json!([]));
    let rejected = Cause::Rejected(chain("ip weft", "no-endpoints", Some("reject")));
    answers.push(agent("node1", &there(), trace("node1", came, came, Vec::new(), rejected.into())));
    let report = asked(answers, &["shop/web", "svc/shop/db"]).unwrap();
    let told = "no endpoints: Service shop/db: its selector app=db matches db (running, but not ready)";
    assert!(report.to_string().contains(told), "{report}");
    assert_eq!(report.outcome(), Outcome::DoesNotArrive);
}

#[test]
fn through_wireguard_a_packet_goes_to_the_node_of_its_pod_also_where_nodes_have_blocks() {
    let (came, left) = led();
    let mut answers = objects(ready());
    // As with `--ipam blocks`: no Node has a range.
    answers[0].1 = answers[0].1.replace("podCIDRs", "none");
    let leaves = End::Leaves {
        device: "weft-wg".to_owned(),
        kind: Some("wireguard".to_owned()),
        next_hop: ip(SERVER),
        remote: None,
    };
    answers.push(agent("node1", &there(), trace("node1", came, left, Vec::new(), leaves)));
    let asked_node2 = on_node2().replace("weft-vxlan", "weft-wg");
    let stops = Cause::NoPod { address: ip(SERVER) };
    answers.push(agent("node2", &asked_node2, trace("node2", left, left, Vec::new(), stops.into())));
    let report = asked(answers, &["shop/web", "svc/shop/db"]).unwrap();
    assert!(report.to_string().contains("no pod of node2 has the address"), "{report}");
}

#[test]
fn a_node_that_does_not_answer_leaves_it_open() {
    let mut answers = objects(ready());
    answers.push(first_node());
    let report = asked(answers, &["shop/web", "svc/shop/db"]).unwrap();
    assert_eq!(report.outcome(), Outcome::Unknown);
    assert!(report.to_string().contains("the agent of Node node2 does not answer"), "{report}");
}

#[test]
fn ends_that_are_not_there_and_ports_that_a_service_does_not_have_are_named() {
    for (words, told) in [
        (["shop/gone", "shop/db:80"], "there is no Pod shop/gone"),
        (["shop/web", "svc/shop/gone:80"], "there is no Service shop/gone"),
        (["shop/web", "svc/shop/db:80"], "no port 80/tcp; it has: 5432/tcp"),
        (["node/node9", "shop/db:80"], "there is no Node node9"),
        (["198.51.100.1", "svc/shop/db"], "say so with --at NODE"),
        (["198.51.100.1", "db:80"], "only a pod resolves it"),
    ] {
        let error = asked(objects(ready()), &words).unwrap_err().to_string();
        assert!(error.contains(told), "{words:?}: {error}");
    }
}
