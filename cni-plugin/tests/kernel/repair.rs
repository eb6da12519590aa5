//! What somebody deleted of a running pod's network is put back by `weft-cni repair`.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::node::{Node, address, serve, talk};
use crate::outside::{NODE, OUTSIDE, at, outside};

const SUBNETS: [&str; 2] = ["10.244.1.0/24", "fd00:1::/64"];

fn config(node: &Node) -> Value {
    let mut config = node.config(&SUBNETS);
    config["ipMasq"] = true.into();
    config
}

fn with_port(config: &Value) -> Value {
    let mut config = config.clone();
    let mapping = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"});
    config["runtimeConfig"] = json!({"portMappings": [mapping]});
    config
}

/// Calls the plugin as the agent does. What it says that it did.
pub(crate) fn repair(node: &Node, config: &Value) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-cni"));
    command.arg("repair").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = node.namespace.run(|| command.spawn()).unwrap().unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["problems"], json!([]), "{report}");
    let done = report["done"].as_array().unwrap();
    done.iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

fn sh(node: &Node, line: &str) -> String {
    node.run("sh", &["-c", line])
}

#[test]
fn whatever_is_taken_from_running_pods_is_put_back() {
    let node = Node::new();
    let machine = outside(&node);
    let config = config(&node);
    let (one, two) = (node.pod("c1"), node.pod("c2"));
    let (first, second) = (node.add(&one, &with_port(&config)), node.add(&two, &config));
    for place in [0, 1] {
        serve(one.namespace(), SocketAddr::new(address(&first, place), 80));
        serve(two.namespace(), SocketAddr::new(address(&second, place), 80));
        serve(machine.namespace(), at(OUTSIDE[place], 8080));
    }
    let port = first["interfaces"][1]["name"].as_str().unwrap();
    assert_eq!(repair(&node, &config), Vec::<String>::new(), "nothing is done without need");
    let damages = [
        "ip addr flush dev cni0".to_owned(),
        "ip link set cni0 down".to_owned(),
        format!("ip link set {port} nomaster"),
        format!("bridge link set dev {port} isolated on hairpin on"),
        format!("ip link set {port} down"),
        "nft flush ruleset".to_owned(),
        "nft delete table ip weft-cni-hostports".to_owned(),
        "nft flush set ip6 weft-cni-masquerade leaving".to_owned(),
        "ip link del cni0".to_owned(),
        "ip link del cni0 && nft flush ruleset".to_owned(),
    ];
    let shape = "ip -br addr show dev cni0 | tr ' ' '\\n' | sort; bridge -d link show | grep -o 'veth[^@ ]*\\|isolated o[nf]*\\|hairpin o[nf]*\\|master [^ ]*'; for table in ip:masquerade ip6:masquerade ip:hostports ip6:hostports; do nft list table ${table%:*} weft-cni-${table#*:}; done; \
                 cat /proc/sys/net/ipv4/conf/cni0/route_localnet /proc/sys/net/ipv6/conf/cni0/accept_ra; ip -br link show dev cni0 | grep -o '0a:58[^ ]*'";
    let whole = sh(&node, shape);
    for damage in damages {
        sh(&node, &damage);
        sh(&node, "ip neigh flush all");
        let done = repair(&node, &config);
        assert!(!done.is_empty(), "{damage}: nothing was done");
        assert_eq!(sh(&node, shape), whole, "after {damage}: {done:?}");
        for place in [0, 1] {
            let reached = |what: &str, seen: std::io::Result<std::net::IpAddr>| {
                seen.unwrap_or_else(|error| panic!("after {damage}, {what} {place}: {error}"))
            };
            reached("host port", talk(machine.namespace(), at(NODE[place], 8080)));
            let seen = reached("outside", talk(two.namespace(), at(OUTSIDE[place], 8080)));
            assert_eq!(seen, at(NODE[place], 0).ip(), "after {damage}: masqueraded");
            let neighbour = SocketAddr::new(address(&second, place), 80);
            assert_eq!(reached("neighbour", talk(one.namespace(), neighbour)), address(&first, place));
        }
        assert_eq!(repair(&node, &config), Vec::<String>::new(), "after {damage}: once is enough");
    }
}

#[test]
fn of_pods_that_are_gone_nothing_is_put_back() {
    let node = Node::new();
    let config = config(&node);
    let (mut one, mut two) = (node.pod("c1"), node.pod("c2"));
    node.add(&one, &with_port(&config));
    node.del(&one, &with_port(&config));
    sh(&node, "ip link del cni0");
    assert_eq!(repair(&node, &config), Vec::<String>::new());
    assert_eq!(sh(&node, "nft list ruleset"), "");

    // Without DEL, as after a crash of the runtime: the links go with the namespaces.
    one.vanish();
    let one = node.pod("c3");
    node.add(&one, &with_port(&config));
    node.add(&two, &config);
    let mut one = one;
    let records = || sh(&node, &format!("ls {}/data/.asked/weft", node.folder.path().display()));
    assert_eq!(records().lines().count(), 1);
    one.vanish();
    two.vanish();
    while !node.veths().is_empty() {
        std::thread::yield_now();
    }
    sh(&node, "nft flush ruleset");
    assert_eq!(repair(&node, &config), Vec::<String>::new());
    assert_eq!(records(), "", "nobody's record stays");
}

#[test]
fn what_others_did_to_the_bridge_stays() {
    let node = Node::new();
    let config = node.config(&SUBNETS);
    let pod = node.pod("c1");
    node.add(&pod, &config);
    sh(&node, "ip addr add 192.0.2.7/32 dev cni0 && ip link add theirs type veth peer name theirs-far");
    sh(&node, "ip link add br7 type bridge && ip link set theirs master br7 && nft add table ip theirs");
    sh(&node, "ip addr del fd00:1::1/64 dev cni0");
    assert_eq!(repair(&node, &config).len(), 1);
    let listed = sh(&node, "ip addr show dev cni0; bridge link show; nft list tables");
    for word in ["192.0.2.7/32", "fd00:1::1/64", "master br7", "table ip theirs"] {
        assert!(listed.contains(word), "{word} in {listed}");
    }
}

/// As the agent writes it where the Node got another pod CIDR.
#[test]
fn the_first_pod_of_a_new_range_cuts_nobody_of_the_old_one_off() {
    let node = Node::new();
    let machine = outside(&node);
    let old = node.pod("c1");
    let first = node.add(&old, &node.config(&SUBNETS));
    let mut config = node.config(&["10.244.9.0/24", "fd00:9::/64"]);
    config["retired"] = json!(SUBNETS);
    let new = node.pod("c2");
    let second = node.add(&new, &config);
    for place in [0, 1] {
        serve(new.namespace(), SocketAddr::new(address(&second, place), 80));
        serve(machine.namespace(), at(OUTSIDE[place], 8080));
        let seen = talk(old.namespace(), SocketAddr::new(address(&second, place), 80)).unwrap();
        assert_eq!(seen, address(&first, place));
    }
    sh(&node, "ip addr flush dev cni0");
    assert_eq!(
        repair(&node, &config).len(),
        2,
        "the bridge's addresses of both ranges, and its link-local one"
    );
    for place in [0, 1] {
        let server = SocketAddr::new(address(&second, place), 80);
        assert_eq!(talk(old.namespace(), server).unwrap(), address(&first, place));
    }
}
