//! What stops packets on their way, in each place where something can.

use std::net::UdpSocket;

use serde_json::{Value, json};
use weft_lab::addressing::IpFamily;
use weft_lab::netns;

use super::Named::Trace;
use super::nodes::stands_still;
use super::{Fault, Mend, Stage, WHOLE, by_command};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "nobody listens on the port",
        named: Trace("broken/client broken/one:9", "nothing listens on TCP port 9 in Pod broken/one"),
        breaks: |_| Ok(Box::new(|| Ok(()))),
    },
    Fault {
        what: "no such name",
        named: Trace("broken/client gone:80", "the name gone does not resolve in Pod broken/client"),
        breaks: |_| Ok(Box::new(|| Ok(()))),
    },
    Fault {
        what: "an upstream of DNS is dead",
        named: Trace(
            "broken/client www.silent.example:80",
            "the name www.silent.example does not resolve in Pod broken/client: upstream ",
        ),
        breaks: silent_upstream,
    },
    Fault {
        what: "the pod is gone",
        named: Trace("broken/client {nobody}:80", "no pod of node2 has the address {nobody}"),
        breaks: |_| Ok(Box::new(|| Ok(()))),
    },
    Fault {
        what: "a policy denies ingress",
        named: Trace(
            WHOLE,
            "denied: isolated by NetworkPolicy broken/closed, and no rule allows it, ingress of Pod broken/one on node2",
        ),
        breaks: |stage| policy(stage, "server", json!({"policyTypes": ["Ingress"]})),
    },
    Fault {
        what: "a policy denies egress",
        named: Trace(
            WHOLE,
            "denied: isolated by NetworkPolicy broken/closed, and no rule allows it, egress of Pod broken/client on node1",
        ),
        breaks: |stage| {
            // DNS may be asked, so that this is all that is wrong.
            let dns = json!([{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}]);
            policy(stage, "client", json!({"policyTypes": ["Egress"], "egress": dns}))
        },
    },
    Fault {
        what: "a policy allows the Service's port instead of the pod's",
        named: Trace(
            WHOLE,
            "denied: isolated by NetworkPolicy broken/closed, and no rule allows it, ingress of Pod broken/one on node2",
        ),
        breaks: |stage| {
            let rules = json!([{"ports": [{"port": 80}]}]);
            policy(stage, "server", json!({"policyTypes": ["Ingress"], "ingress": rules}))
        },
    },
    Fault {
        what: "a NodePort with `externalTrafficPolicy: Local`, at a node without endpoints",
        named: Trace(
            "172.30.0.1 node/node3:{port}",
            "no endpoints: Service broken/web has externalTrafficPolicy Local, and none of its ready endpoints is on node3",
        ),
        breaks: |_| Ok(Box::new(|| Ok(()))),
    },
    Fault {
        what: "a proxy stands still, and its rules are flushed",
        named: Trace(WHOLE, "nothing on node1 leads "),
        breaks: rules_flushed,
    },
    Fault {
        what: "a chain FORWARD with the policy DROP on the server's node",
        named: Trace(WHOLE, "FORWARD policy DROP in table ip filter on node2 (hook forward)"),
        breaks: |stage| firewall(stage, "node2", "filter", "FORWARD", "forward priority 0; policy drop", ""),
    },
    Fault {
        what: "a rule at the hook forward drops",
        named: Trace(WHOLE, "dropped on node2 by table ip firewall, chain gate (hook forward): "),
        breaks: |stage| firewall(stage, "node2", "firewall", "gate", "forward priority 10", TO_SERVER),
    },
    Fault {
        what: "a rule at the hook forward rejects",
        named: Trace(WHOLE, "rejected on node2 by table ip firewall, chain gate (hook forward): "),
        breaks: |stage| {
            let rule = "ip daddr {server} tcp dport 8080 reject with icmp admin-prohibited";
            firewall(stage, "node2", "firewall", "gate", "forward priority 10", rule)
        },
    },
    Fault {
        what: "a rule at the hook prerouting drops",
        named: Trace(WHOLE, "dropped on node2 by table ip firewall, chain gate (hook prerouting): "),
        breaks: |stage| firewall(stage, "node2", "firewall", "gate", "prerouting priority -300", TO_SERVER),
    },
    Fault {
        what: "a rule at the hook postrouting drops",
        named: Trace(WHOLE, "dropped on node2 by table ip firewall, chain gate (hook postrouting): "),
        breaks: |stage| firewall(stage, "node2", "firewall", "gate", "postrouting priority 10", TO_SERVER),
    },
    Fault {
        what: "a rule at the hook input keeps pods from a node",
        named: Trace(
            "broken/client node/node2:10256",
            "dropped on node2 by table ip firewall, chain gate (hook input): ",
        ),
        breaks: |stage| {
            let rule = "iifname eth0 tcp dport 10256 drop";
            firewall(stage, "node2", "firewall", "gate", "input priority 0", rule)
        },
    },
    Fault {
        what: "a rule at the hook output keeps a node from pods",
        named: Trace(
            "node/node1 broken/one:8080",
            "dropped on node1 by table ip firewall, chain gate (hook output): ",
        ),
        breaks: |stage| firewall(stage, "node1", "firewall", "gate", "output priority 0", TO_SERVER),
    },
    Fault {
        what: "pings alone are dropped",
        named: Trace(
            "broken/client broken/one",
            "dropped on node2 by table ip firewall, chain gate (hook forward): ",
        ),
        breaks: |stage| {
            let rule = "ip daddr {server} meta l4proto icmp drop";
            firewall(stage, "node2", "firewall", "gate", "forward priority 10", rule)
        },
    },
    Fault {
        what: "answers alone are dropped",
        named: Trace(WHOLE, "the answer: dropped on node2 by table ip firewall, chain gate (hook forward): "),
        breaks: |stage| {
            let rule = "ip saddr {server} ip daddr {client} drop";
            firewall(stage, "node2", "firewall", "gate", "forward priority 10", rule)
        },
    },
    Fault {
        what: "no route to another node's pods",
        named: Trace(WHOLE, "no route to {server} (pods of node2) on node1"),
        breaks: |stage| {
            by_command(stage, "node1", &aside("{server}", "unreachable default"), &back("{server}"))
        },
    },
    Fault {
        what: "no route for the answers",
        named: Trace(WHOLE, "the answer: no route to {client} (pods of node1) on node2"),
        breaks: |stage| {
            by_command(stage, "node2", &aside("{client}", "unreachable default"), &back("{client}"))
        },
    },
    Fault {
        what: "a blackhole route",
        named: Trace(WHOLE, "a route of node1 refuses {server}"),
        breaks: |stage| {
            by_command(stage, "node1", &aside("{server}", "blackhole default"), &back("{server}"))
        },
    },
    Fault {
        what: "the pod has no default route",
        named: Trace(WHOLE, "no route to "),
        breaks: without_default_route,
    },
    Fault {
        what: "an interface does not forward",
        named: Trace(WHOLE, "node2 does not forward: net/ipv4/conf/eth0/forwarding is 0"),
        breaks: |stage| {
            let set = |value: u8| format!("echo {value} >/proc/sys/net/ipv4/conf/eth0/forwarding");
            by_command(stage, "node2", &set(0), &set(1))
        },
    },
    Fault {
        what: "rp_filter is on, and no route leads back",
        named: Trace(WHOLE, "rp_filter loose on eth0 of node2 drops what comes from {client}"),
        breaks: |stage| {
            // The agent makes a strict one loose.
            let set = |value: u8| format!("echo {value} >/proc/sys/net/ipv4/conf/eth0/rp_filter");
            let make = format!("{}; {}", set(2), aside("{client}", "unreachable default"));
            by_command(stage, "node2", &make, &format!("{}; {}", back("{client}"), set(0)))
        },
    },
    Fault {
        what: "what leaves the cluster is not masqueraded (SNAT missing)",
        named: Trace(
            "broken/client 198.51.100.1:80",
            "it leaves the cluster on node1 by eth0 with the pod's own address {client}",
        ),
        breaks: |stage| {
            let rule = "ip saddr {client} snat to {client}";
            let hook = "nat hook postrouting priority 90";
            by_command(stage, "node1", &table("firewall", "gate", hook, rule), "nft delete table ip firewall")
        },
    },
];

/// What drops packets to the server.
const TO_SERVER: &str = "ip daddr {server} tcp dport 8080 drop";
/// A routing table of ours.
const TABLE: &str = "4711";

/// A table with a chain of that type and hook, and a rule in it, if any.
fn table(table: &str, chain: &str, hook: &str, rule: &str) -> String {
    let rule = if rule.is_empty() { String::new() } else { format!("{rule};") };
    format!("nft 'table ip {table} {{ chain {chain} {{ type {hook}; {rule} }}; }}'")
}

/// Filters at a hook.
fn firewall<'a>(
    stage: &'a Stage<'a>,
    node: &'static str,
    name: &str,
    chain: &str,
    hook: &str,
    rule: &str,
) -> Result<Mend<'a>, String> {
    let make = table(name, chain, &format!("filter hook {hook}"), rule);
    by_command(stage, node, &make, &format!("nft delete table ip {name}"))
}

/// Has what goes to an address take a route of ours.
fn aside(to: &str, route: &str) -> String {
    format!("ip route add {route} table {TABLE}; ip rule add to {to} lookup {TABLE} pref 50")
}

fn back(to: &str) -> String {
    format!("ip rule del to {to} lookup {TABLE} pref 50; ip route flush table {TABLE}")
}

fn policy<'a>(stage: &'a Stage<'a>, app: &str, mut spec: Value) -> Result<Mend<'a>, String> {
    spec["podSelector"] = json!({"matchLabels": {"app": app}});
    stage.case.create("networkpolicies", &json!({"metadata": {"name": "closed"}, "spec": spec}))?;
    Ok(Box::new(|| stage.case.delete("networkpolicies", "closed")))
}

/// It takes questions, and says nothing.
fn silent_upstream<'a>(stage: &'a Stage<'a>) -> Result<Mend<'a>, String> {
    let gateway = IpFamily::Dual.gateways()[0];
    let bound = netns::run(&stage.lab.outside(), move || Ok(UdpSocket::bind((gateway, 0))));
    let socket = bound.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let address = socket.local_addr().map_err(|error| error.to_string())?;
    let stub = json!({"silent.example": [address.to_string()]}).to_string();
    let maps = "/api/v1/namespaces/kube-system/configmaps";
    let map = json!({"metadata": {"name": "kube-dns"}, "data": {"stubDomains": stub}});
    stage.case.api.create(maps, &map)?;
    Ok(Box::new(move || {
        drop(socket);
        stage.case.api.delete(&format!("{maps}/kube-dns")).map(drop)
    }))
}

fn rules_flushed<'a>(stage: &'a Stage<'a>) -> Result<Mend<'a>, String> {
    let goes_on = stands_still(stage, "node1", "weft-proxy")?;
    let flushed = stage.lab.on_node("node1", &["nft", "delete table ip weft; delete table ip6 weft"]);
    match flushed {
        Ok(_) => Ok(goes_on),
        Err(error) => {
            goes_on()?;
            Err(error)
        }
    }
}

fn without_default_route<'a>(stage: &'a Stage<'a>) -> Result<Mend<'a>, String> {
    let pod = stage.client.netns.as_str();
    let run = move |line: &str| {
        let mut command = std::process::Command::new("ip");
        command.args(["-n", pod]).args(line.split_whitespace());
        crate::lab::succeed(command)
    };
    let route = run("route show default")?;
    run("route del default")?;
    Ok(Box::new(move || run(&format!("route replace {route}")).map(drop)))
}
