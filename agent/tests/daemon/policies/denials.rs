//! What becomes known of packets that policies deny.

use std::net::UdpSocket;

use weft_netlink::nflog::Monitor;
use weft_testkit::world::{PATIENCE, is_refused};

use super::*;

/// The value of a metric; 0 where there is none.
fn figure(machine: &Machine, name: &str) -> u64 {
    let text = machine.ask("/metrics").1;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

const INGRESS: &str = r#"weft_agent_policy_denied_packets_total{direction="ingress"}"#;
const BY_WEB: &str =
    r#"weft_agent_policy_denied_by_total{policy="NetworkPolicy shop/web",direction="ingress"}"#;

fn send(from: &Namespace, to: IpAddr, count: usize) {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = from.run(|| UdpSocket::bind((any, 0))).unwrap().unwrap();
    (0..count).for_each(|_| assert_eq!(socket.send_to(b"x", (to, 53)).unwrap(), 1));
}

#[test]
fn denied_packets_are_told_of_with_both_pods_and_the_policy_and_all_are_counted() {
    let cluster = Cluster::with_policy_and_flags(&["--policy-log"]);
    let Cluster { machine, pods: [_, client], outside } = &cluster;
    let web = addresses(1)[0];
    send(client, web, 1);
    let line = "denied: isolated by NetworkPolicy shop/web, and no rule allows it direction=ingress \
                source=10.244.2.2 source_pod=\"shop/client\" destination=10.244.1.2 destination_pod=\"shop/web\" \
                protocol=\"udp\" port=53 policies=\"NetworkPolicy shop/web\"";
    machine.until("a line with names", |machine| machine.log().contains(line));
    send(outside, addresses(1)[1], 1);
    machine.until("a line of a stranger", |machine| {
        let log = machine.log();
        log.contains("source=fd00:30::1 destination=fd00:244:1::2 destination_pod=\"shop/web\"")
    });
    machine.until("both counted", |machine| figure(machine, INGRESS) == 2 && figure(machine, BY_WEB) == 2);

    // More than the log takes, and more than is told of by policy.
    send(client, web, 2000);
    machine.until("all counted", |machine| figure(machine, INGRESS) == 2002);
    let by_policy = figure(machine, BY_WEB);
    assert!((200..2002).contains(&by_policy), "{by_policy}");
    machine.until("how many more there were", |machine| {
        machine.log().contains("network policies denied more packets than are told of packets=")
    });
    let lines = machine.log().matches("denied: isolated by").count();
    assert!(lines < 100, "{lines} lines");

    // Counts outlive the tables, and policies that are gone have none.
    machine.sh("nft flush ruleset");
    machine.until("the rules put back", |machine| machine.sh("nft list tables").contains("ip weft-policy"));
    machine.server.delete(POLICIES, "web");
    cluster.until_planned(0);
    let mut other = policy();
    other["metadata"]["name"] = json!("other");
    machine.server.put(POLICIES, other);
    cluster.until_planned(2);
    send(client, web, 1);
    machine.until("the next one counted", |machine| figure(machine, INGRESS) == 2003);
    assert!(!machine.ask("/metrics").1.contains(BY_WEB));
}

#[test]
fn a_rule_that_denies_is_named_and_what_leaves_a_pod_counts_as_egress() {
    let mut cluster = Cluster::new();
    cluster.machine.flags = &["--policy-log=count", "--policy-log-group=12"];
    cluster.machine.start();
    cluster.until_ready();
    let Cluster { machine, pods: [_, client], .. } = &cluster;
    machine.server.put("/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies", json!({
        "metadata": {"name": "guard"},
        "spec": {
            "tier": "Admin", "priority": 1,
            "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "client"}}}},
            "egress": [{"action": "Deny", "to": [{"namespaces": {}}]}],
        },
    }));
    cluster.until_planned(2);
    let to = addresses(1)[0];
    assert!(!tcp(client, to, 80));
    let by_guard =
        r#"weft_agent_policy_denied_by_total{policy="ClusterNetworkPolicy guard",direction="egress"}"#;
    machine.until("it counted", |machine| figure(machine, by_guard) > 0);
    machine.until("it counted", |machine| {
        figure(machine, r#"weft_agent_policy_denied_packets_total{direction="egress"}"#) > 0
    });
    assert!(!machine.log().contains("denied by ClusterNetworkPolicy"), "only counted: {}", machine.log());
}

#[test]
fn without_the_flag_all_is_counted_and_a_group_with_another_reader_is_a_problem_that_is_told() {
    let mut cluster = Cluster::with_policy();
    let web = addresses(1)[0];
    send(&cluster.pods[1], web, 3);
    cluster.machine.until("all counted", |machine| figure(machine, INGRESS) == 3);
    assert!(!cluster.machine.ask("/metrics").1.contains("policy_denied_by_total"));

    cluster.machine.kill();
    let reader = cluster.machine.namespace.run(|| Monitor::open(7)).unwrap().unwrap();
    cluster.machine.flags = &["--policy-log"];
    cluster.machine.start();
    cluster.until_ready();
    let problem =
        "group 7 of nflog has another reader; end it, or choose another group by --policy-log-group";
    cluster.machine.until("a word of the reader", |machine| machine.ask("/healthz").1.contains(problem));
    drop(reader);
    cluster.machine.until("the end of it", |machine| !machine.ask("/healthz").1.contains(problem));
    send(&cluster.pods[1], web, 1);
    cluster.machine.until("it counted by policy", |machine| figure(machine, BY_WEB) == 1);
}

/// By default nothing comes back.
#[test]
fn who_is_denied_is_told_at_once_where_that_is_wanted() {
    let cluster = Cluster::with_policy_and_flags(&["--policy-deny=reject"]);
    let [_, client] = &cluster.pods;
    for to in addresses(1) {
        let at = |port| SocketAddr::new(to, port);
        for (from, port) in [(client, 81), (&cluster.outside, 80)] {
            let refused = Connection::open_within(from, at(port), PATIENCE);
            assert!(is_refused(refused), "TCP to {to} port {port}");
        }
        assert!(is_refused(udp_within(client, at(80), PATIENCE)), "UDP to {to}");
        assert!(tcp(client, to, 80), "{to}");
    }
    let cluster = Cluster::with_policy();
    for to in addresses(1) {
        let dropped = Connection::open_within(&cluster.pods[1], SocketAddr::new(to, 81), SILENCE);
        assert_eq!(dropped.map(drop).unwrap_err().kind(), std::io::ErrorKind::TimedOut, "{to}");
    }
}
