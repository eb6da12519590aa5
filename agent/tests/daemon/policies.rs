//! Network policies with real packets: two pods of the node, and a machine outside of the cluster.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_testkit::namespace::sh;
use weft_testkit::world::{Connection, World, pod_address, udp_within};
use weft_types::Family;

use crate::{Machine, NODES, node};

const PODS: &str = "/api/v1/pods";
const NAMESPACES: &str = "/api/v1/namespaces";
pub(crate) const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
const CLUSTER_POLICIES: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";
/// What passes does so at once; what is dropped is silent for ever.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);

/// A node that the agent runs on, with servers on two ports of both its pods.
pub(crate) struct Cluster {
    pub(crate) machine: Machine,
    pub(crate) pods: [Namespace; 2],
    pub(crate) outside: Namespace,
}

mod bad_input;
mod denials;
mod ended;
mod sctp;

impl Cluster {
    /// The pod `web` has the first address, and `client` the second one.
    pub(crate) fn new() -> Cluster {
        let world = World::new();
        world.serve(80);
        world.serve(81);
        let World { node: namespace, pods, outside } = world;
        let machine = Machine::with(namespace, None);
        // Connections are tracked, as with the rules of Services: what is not tracked before the first policy
        // is not known.
        let rule = "type filter hook forward priority 0; ct state new accept";
        machine.sh(&format!("nft 'add table inet services {{ chain tracked {{ {rule}; }}; }}'"));
        machine.install_plugin();
        machine.server.put(NODES, node(1));
        machine.server.put(NAMESPACES, json!({"metadata": {"name": "shop"}}));
        let cluster = Cluster { machine, pods, outside };
        cluster.put_pod("web", "web", 1);
        cluster.put_pod("client", "client", 2);
        cluster
    }

    pub(crate) fn put_pod(&self, name: &str, app: &str, number: usize) {
        self.machine.server.put(PODS, pod(name, app, &addresses(number)));
    }

    pub(crate) fn started() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.machine.start();
        cluster.until_ready();
        cluster
    }

    /// A cluster in which `web` is reached from `client` on port 80 alone.
    pub(crate) fn with_policy() -> Cluster {
        Cluster::with_policy_and_flags(&[])
    }

    pub(crate) fn with_policy_and_flags(flags: &'static [&'static str]) -> Cluster {
        let mut cluster = Cluster::new();
        cluster.machine.flags = flags;
        cluster.machine.start();
        cluster.until_ready();
        cluster.machine.server.put(POLICIES, policy());
        cluster.until_planned(2);
        cluster
    }

    fn until_answers(&self) {
        let answers = || TcpStream::connect("127.0.0.1:10251").is_ok();
        self.machine.until("an answer", |machine| machine.namespace.run(answers).unwrap());
    }

    pub(crate) fn until_ready(&self) {
        self.until_answers();
        self.machine.until("readiness", |machine| machine.ask("/readyz").0 == "200");
    }

    /// Waits until the plan has so many addresses that policies select.
    pub(crate) fn until_planned(&self, addresses: usize) {
        let figure = format!("weft_agent_policy_isolated_addresses {addresses}\n");
        self.machine.until(&figure, |machine| machine.ask("/metrics").1.contains(&figure));
    }

    /// The same, and until what that denies of running connections is ended.
    pub(crate) fn until_judged(&self, addresses: usize) {
        self.until_planned(addresses);
        let figure = "weft_agent_policy_cut_running 0\n";
        self.machine.until(figure, |machine| machine.ask("/metrics").1.contains(figure));
    }

    fn tables(&self) -> String {
        self.machine.sh("nft list tables")
    }

    fn generation(&self) -> u32 {
        let client = self.machine.namespace.run(weft_nftables::Client::open).unwrap();
        client.unwrap().generation().unwrap().unwrap()
    }
}

pub(crate) fn addresses(number: usize) -> Vec<IpAddr> {
    [Family::V4, Family::V6].map(|family| pod_address(family, number)).to_vec()
}

fn pod(name: &str, app: &str, addresses: &[IpAddr]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address.to_string()})).collect();
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": {"app": app}},
        "spec": {"nodeName": "node1"},
        "status": {"phase": "Running", "podIPs": ips},
    })
}

pub(crate) fn policy() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                "ports": [{"protocol": "TCP", "port": 80}],
            }],
        },
    })
}

pub(crate) fn tcp(from: &Namespace, to: IpAddr, port: u16) -> bool {
    Connection::open_within(from, SocketAddr::new(to, port), SILENCE).is_ok()
}

fn udp(from: &Namespace, to: IpAddr, port: u16) -> bool {
    udp_within(from, SocketAddr::new(to, port), SILENCE).is_ok()
}

fn ping(from: &Namespace, to: IpAddr) -> bool {
    let line = format!("ping -c 1 -W 1 {to} >/dev/null && echo yes || true");
    sh(from, &line) == "yes\n"
}

#[test]
fn a_policy_lets_through_what_it_allows_and_nothing_else() {
    let cluster = Cluster::started();
    let Cluster { machine, pods: [web, client], outside } = &cluster;
    assert!(!cluster.tables().contains("weft-policy"), "without a policy there is no rule");
    assert!(machine.server.queries(PODS, false).is_empty(), "and nobody watches pods");
    for to in addresses(1) {
        assert!(tcp(client, to, 81) && udp(client, to, 80) && ping(client, to) && tcp(outside, to, 80));
    }

    machine.server.put(POLICIES, policy());
    cluster.until_planned(2);
    assert_eq!(
        machine.sh(&format!("cat {}", machine.path("networks/.policy-namespaces").display())),
        "shop\n"
    );
    for (to, back) in addresses(1).into_iter().zip(addresses(2)) {
        assert!(tcp(client, to, 80), "{to}");
        assert!(!tcp(client, to, 81) && !udp(client, to, 80) && !ping(client, to), "{to}");
        assert!(!tcp(outside, to, 80), "{to}");
        assert!(tcp(&machine.namespace, to, 81), "kubelet probes {to}");
        assert!(tcp(web, back, 81) && udp(web, back, 80) && ping(web, back), "answers come back to {to}");
    }

    cluster.put_pod("client", "stranger", 2);
    machine.until("the label's effect", |_| !tcp(client, addresses(1)[0], 80));
    cluster.put_pod("client", "client", 2);
    machine.until("the label's effect", |_| tcp(client, addresses(1)[0], 80));

    machine.server.delete(POLICIES, "web");
    machine.until("the end of the tables", |_| !cluster.tables().contains("weft-policy"));
    assert!(!machine.path("networks/.policy-namespaces").exists());
    for to in addresses(1) {
        assert!(tcp(client, to, 81) && udp(client, to, 80) && ping(client, to) && tcp(outside, to, 80));
    }
}

/// The kernel refuses what a set has no room for.
#[test]
fn more_peers_than_the_sets_had_room_for_are_let_in_like_those_before() {
    let cluster = Cluster::with_policy();
    let [_, client] = &cluster.pods;
    let count = || cluster.machine.sh("nft list map ip weft-policy peers").matches(" : 0:").count();
    assert_eq!(count(), 1);
    for number in 0..600_u16 {
        let [high, low] = number.to_be_bytes();
        let address = IpAddr::from([10, 99, high, low]);
        cluster.machine.server.put(PODS, pod(&format!("client-{number}"), "client", &[address]));
    }
    cluster.machine.until("all peers", |_| count() == 601);
    cluster.machine.until("no problem", |machine| !machine.ask("/healthz").1.contains("not up to date"));
    for to in addresses(1) {
        assert!(tcp(client, to, 80) && !tcp(client, to, 81), "{to}");
        assert!(!tcp(&cluster.outside, to, 80), "{to}");
    }
}

#[test]
fn a_range_of_ports_lets_through_what_is_within_it() {
    let cluster = Cluster::started();
    let [_, client] = &cluster.pods;
    let with_range = |first: u16, last: u16| {
        let mut policy = policy();
        policy["spec"]["ingress"][0]["ports"] = json!([{"port": first, "endPort": last}]);
        policy
    };
    for to in addresses(1) {
        cluster.machine.server.put(POLICIES, with_range(60, 80));
        cluster.until_planned(2);
        cluster.machine.until("the range", |_| tcp(client, to, 80) && !tcp(client, to, 81));
        assert!(!udp(client, to, 80) && !tcp(&cluster.outside, to, 80), "{to}");
        cluster.machine.server.put(POLICIES, with_range(81, 99));
        cluster.machine.until("the other range", |_| !tcp(client, to, 80) && tcp(client, to, 81));
    }
    let rules = cluster.machine.sh("nft list ruleset");
    assert_eq!(rules.matches(". tcp . 81-99 : return").count(), 2, "once a family: {rules}");
}

#[test]
fn an_agent_that_comes_back_writes_no_rule_anew() {
    let mut cluster = Cluster::with_policy();
    let (rules, generation) = (cluster.machine.sh("nft -s -a list ruleset"), cluster.generation());
    cluster.machine.kill();
    assert!(!tcp(&cluster.pods[1], addresses(1)[0], 81), "policies hold without an agent");
    cluster.machine.start();
    cluster.until_ready();
    cluster.until_planned(2);
    assert!(cluster.machine.sh("nft -s -a list ruleset") == rules, "something was written anew");
    assert_eq!(cluster.generation(), generation);
}

#[test]
fn rules_that_another_program_deletes_are_put_back_at_once() {
    let cluster = Cluster::with_policy();
    let rules = cluster.machine.sh("nft list table ip weft-policy; nft list table ip6 weft-policy");
    let text = |machine: &Machine| {
        machine.sh("(nft list table ip weft-policy; nft list table ip6 weft-policy) 2>/dev/null || true")
    };
    for damage in [
        "nft flush ruleset",
        "nft delete table ip6 weft-policy",
        "nft flush set ip weft-policy ingress",
        "nft flush map ip weft-policy peers",
        "nft flush chain ip weft-policy leaving",
        "nft add element ip weft-policy ingress { 10.244.9.9 }",
    ] {
        cluster.machine.sh(damage);
        cluster.machine.until(&format!("all as before {damage}"), |machine| text(machine) == rules);
    }
    assert!(!tcp(&cluster.pods[1], addresses(1)[0], 81));
}

#[test]
fn a_policy_that_cannot_be_read_closes_and_is_told_of_with_its_field() {
    let cluster = Cluster::started();
    let mut bad = policy();
    bad["spec"]["ingress"][0]["ports"][0]["port"] = json!(80_000);
    cluster.machine.server.put(POLICIES, bad);
    cluster.until_planned(2);
    assert!(!tcp(&cluster.pods[1], addresses(1)[0], 80));
    let word = "NetworkPolicy shop/web: left out, while the rest is used: spec.ingress[0].ports[0].port";
    cluster.machine.until("a word", |machine| machine.ask("/healthz").1.contains(word));
    let events = "/apis/events.k8s.io/v1/namespaces/shop/events";
    cluster.machine.until("an event", |machine| !machine.server.queries(events, false).is_empty());
    cluster.machine.server.put(POLICIES, policy());
    cluster.machine.until("the end of it", |machine| !machine.ask("/healthz").1.contains("shop/web"));
    assert!(tcp(&cluster.pods[1], addresses(1)[0], 80));
}

#[test]
fn cleanup_takes_the_rules_away() {
    let mut cluster = Cluster::with_policy();
    cluster.machine.kill();
    let program = env!("CARGO_BIN_EXE_weft-agent");
    let data = cluster.machine.path("networks");
    cluster.machine.sh(&format!(
        "{program} --cleanup --hostname-override node1 --cni-conf-dir {} --cni-data-dir {}",
        cluster.machine.path("net.d").display(),
        data.display(),
    ));
    assert!(!cluster.tables().contains("weft-policy") && !data.join(".policy-namespaces").exists());
}

/// As by a ClusterRole of an earlier version.
#[test]
fn policies_that_the_agent_may_not_list_are_not_taken_for_none() {
    let mut cluster = Cluster::with_policy();
    cluster.machine.server.forbid(CLUSTER_POLICIES, true);
    cluster.machine.kill();
    cluster.machine.start();
    let word = "the verbs list and watch of the resource clusternetworkpolicies in the API group \"policy.networking.k8s.io\"";
    cluster.until_answers();
    cluster.machine.until("a word", |machine| {
        let (code, body) = machine.ask("/readyz");
        code == "503" && body.contains(word)
    });
    assert!(!tcp(&cluster.pods[1], addresses(1)[0], 81), "what was so before stands");
    cluster.machine.server.forbid(CLUSTER_POLICIES, false);
    cluster.until_ready();
    cluster.until_planned(2);
}

/// As the plugin does: before the API server knows the address.
#[test]
fn a_pod_that_waits_is_closed_until_it_has_its_rows_and_is_listed_meanwhile() {
    let mut cluster = Cluster::with_policy();
    let web = addresses(1)[0];
    let wait = format!("nft add element ip weft-policy pending {{ {web} comment \"shop/new/uid-new\" }}");
    cluster.machine.server.delete(PODS, "web");
    cluster.machine.until("the pod's end", |machine| {
        !machine.sh("nft list set ip weft-policy ingress").contains("10.244.1.2")
    });
    cluster.machine.sh(&wait);
    let waits = |machine: &Machine| machine.ask("/healthz").1.contains("pendingPods: shop/new\n");
    cluster.machine.until("a word of the pod", waits);
    assert!(!tcp(&cluster.pods[1], web, 80) && !tcp(&cluster.pods[0], addresses(2)[0], 80));
    // An agent that comes back, and a flush, open nobody.
    cluster.machine.kill();
    cluster.machine.start();
    cluster.until_ready();
    cluster.machine.until("a word of the pod", waits);
    cluster.machine.sh("nft flush ruleset");
    cluster.machine.until("the pod in the set", |machine| {
        machine.sh("nft list table ip weft-policy 2>/dev/null || true").contains("shop/new/uid-new")
    });
    // The pod of its name that went before is not it.
    let mut new = pod("new", "web", &[]);
    new["metadata"]["uid"] = json!("uid-old");
    cluster.machine.server.put(PODS, new);
    cluster.machine.until("a word of the pod", waits);
    cluster.machine.server.put(PODS, pod("new", "web", &[]));
    cluster.machine.until("the answer", |machine| !machine.ask("/healthz").1.contains("pendingPods"));
    assert!(tcp(&cluster.pods[1], web, 80) && !tcp(&cluster.pods[1], web, 81));
}

/// Its status has no address yet.
#[test]
fn an_agent_that_ends_right_after_it_let_a_pod_out_still_knows_its_addresses() {
    let mut cluster = Cluster::with_policy();
    let web = addresses(1)[0];
    cluster.machine.server.delete(PODS, "web");
    let is_isolated =
        |machine: &Machine| machine.sh("nft list set ip weft-policy ingress").contains("10.244.1.2");
    cluster.machine.until("the pod's end", |machine| !is_isolated(machine));
    cluster.machine.reserve("10.244.1.2", "c1");
    cluster
        .machine
        .sh(&format!("nft add element ip weft-policy pending {{ {web} comment \"shop/web/uid-web\" }}"));
    cluster.machine.server.put(PODS, pod("web", "web", &[]));
    cluster.machine.until("the answer", |machine| {
        is_isolated(machine) && !machine.sh("nft list set ip weft-policy pending").contains("10.244.1.2")
    });
    let generation = cluster.generation();
    cluster.machine.kill();
    cluster.machine.start();
    cluster.until_ready();
    cluster.until_planned(1);
    assert_eq!(cluster.generation(), generation, "nothing was written anew");
    assert!(tcp(&cluster.pods[1], web, 80) && !tcp(&cluster.pods[1], web, 81));

    // Once the API server says so, nobody else needs to.
    let file = cluster.machine.path("networks/.policy-pods");
    assert!(file.exists());
    cluster.machine.server.put(PODS, pod("web", "web", &addresses(1)));
    cluster.machine.until("the end of the file", |_| !file.exists());

    // An address that is another container's by now is not the pod's any more.
    fs::write(&file, format!("{web} c0 shop/client/uid-client\n")).unwrap();
    cluster.machine.kill();
    cluster.machine.start();
    cluster.until_ready();
    cluster.until_planned(2);
    assert!(!tcp(&cluster.pods[1], web, 81));
}

/// As by a file of before that names namespaces with policies.
#[test]
fn a_pod_that_waits_though_there_is_no_policy_is_let_out() {
    let cluster = Cluster::started();
    let web = addresses(1)[0];
    for _ in 0..2 {
        cluster.machine.sh(&format!(
            "nft 'add table ip weft-policy; add set ip weft-policy pending {{ type ipv4_addr; }}; \
             add chain ip weft-policy leaving {{ type filter hook forward priority filter; }}; \
             add rule ip weft-policy leaving ip saddr @pending drop; \
             add rule ip weft-policy leaving ip daddr @pending drop; \
             add element ip weft-policy pending {{ {web} comment \"shop/web/uid-web\" }}'"
        ));
        cluster.machine.until("the end of the table", |_| !cluster.tables().contains("weft-policy"));
        assert!(tcp(&cluster.pods[1], web, 80));
    }
}

/// What the agent says of a connection is what becomes of it.
#[test]
fn a_connection_is_explained_as_the_kernel_treats_it_with_the_policy_that_decides() {
    let cluster = Cluster::with_policy();
    let Cluster { machine, pods: [_, client], outside } = &cluster;
    let explain = |from: IpAddr, to: IpAddr, protocol: &str, port: u16| {
        let path = format!("/policy/explain?source={from}&destination={to}&protocol={protocol}&port={port}");
        let (code, text) = machine.ask(&path);
        assert_eq!(code, "200", "{text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let outsiders: [IpAddr; 2] = ["172.30.0.1", "fd00:30::1"].map(|text| text.parse().unwrap());
    for (family, to) in addresses(1).into_iter().enumerate() {
        for (namespace, from) in [(client, addresses(2)[family]), (outside, outsiders[family])] {
            for port in [80, 81] {
                let report = explain(from, to, "tcp", port);
                let end = report["ends"].as_array().unwrap().last().unwrap();
                let finding = if tcp(namespace, to, port) { "allowed" } else { "denied" };
                assert_eq!((&end["finding"], &end["pod"]), (&json!(finding), &json!("shop/web")), "{report}");
                assert_eq!(end["policies"], json!(["NetworkPolicy shop/web"]), "{report}");
                assert_eq!(report["notes"], json!([]), "{report}");
            }
        }
    }
    // As of datagrams, which an answer of before would let through.
    let mut of_datagrams = policy();
    of_datagrams["spec"]["ingress"][0]["ports"] =
        json!([{"protocol": "UDP", "port": 81}, {"protocol": "SCTP", "port": 82}]);
    machine.server.put(POLICIES, of_datagrams);
    let (web, from) = (addresses(1)[0], addresses(2)[0]);
    machine.until("the other policy", |_| !tcp(client, web, 80));
    for (protocol, port, finding) in [
        ("udp", 81, "allowed"),
        ("udp", 80, "denied"),
        ("sctp", 82, "allowed"),
        ("sctp", 81, "denied"),
        ("tcp", 81, "denied"),
    ] {
        let report = explain(from, web, protocol, port);
        assert_eq!(report["ends"].as_array().unwrap().last().unwrap()["finding"], finding, "{report}");
        assert!(protocol != "udp" || udp(client, web, port) == (finding == "allowed"), "{report}");
    }
    machine.server.delete(POLICIES, "web");
    machine.until("the end of the tables", |_| !cluster.tables().contains("weft-policy"));
    let report = explain(addresses(2)[0], addresses(1)[0], "tcp", 81);
    assert_eq!(report["notes"], json!(["there is no network policy, as far as this node knows"]));
}
