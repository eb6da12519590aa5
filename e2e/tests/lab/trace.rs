//! `weft trace` against a whole cluster: it says what really becomes of connections, by which rule or object,
//! and where.

use serde_json::json;

use crate::case::{Case, Peer, Service, echo};
use crate::lab::{Lab, Outcome, holds, poll};
use crate::probe::{Via, dropped, served};

const NAMESPACE: &str = "trace";
/// A routing table of ours.
const TABLE: &str = "4711";

/// A client on node1, a server on node2, and its Service.
struct Shop<'a> {
    case: Case<'a>,
    client: Peer,
    server: Peer,
    service: Service,
}

/// Whether a connection comes about, by exit code.
#[derive(Clone, Copy)]
enum Told {
    Arrives = 0,
    Stops = 1,
    Unknown = 2,
}

impl Shop<'_> {
    /// Waits until the trace has that outcome, and says all these parts.
    fn tells(&self, question: &[&str], told: Told, parts: &[&str]) -> Outcome {
        poll(&format!("trace {question:?}"), || {
            let (code, text) = self.case.lab.weft("trace", question)?;
            if code != told as i32 {
                return Err(format!("it exits with {code}:\n{text}"));
            }
            parts.iter().try_for_each(|part| holds("the trace", &text, part))
        })
    }

    fn to_server(&self, told: Told, parts: &[&str]) -> Outcome {
        self.tells(&["trace/client -> svc/trace/web"], told, parts)
    }

    /// Whether the client is really served, by the Service's addresses.
    fn really(&self, is_served: bool) -> Outcome {
        self.service.at(80).into_iter().try_for_each(|at| match is_served {
            true => served(&self.client.netns, Via::Http, at, &["one"]),
            false => dropped(&self.client.netns, Via::Http, at),
        })
    }
}

pub(crate) fn where_a_connection_ends_and_why(lab: &Lab) -> Outcome {
    let case = Case::new(lab, NAMESPACE)?;
    let service = case.service("web", json!({"type": "NodePort"}))?;
    case.service("aimless", json!({"selector": {"app": "nobody"}}))?;
    let [client, server] = case.run([echo("client").app("client").on("node1"), echo("one").on("node2")])?;
    let shop = Shop { case, client, server, service };
    let (ip, ip6) = (shop.server.ips[0].to_string(), shop.server.ips[1].to_string());

    // There and back, in both families, by the Service, by its name, to a NodePort from outside, and from a node.
    shop.really(true)?;
    let led = format!("led to {ip}:8080 by table ip weft");
    let led6 = format!("led to [{ip6}]:8080 by table ip6 weft");
    let restored = format!("connection tracking restores {} -> {}", shop.service.ips[0], shop.client.ips[0]);
    let ends = ["arrives: Pod trace/client", &led, &led6, "arrives at Pod trace/one", "  node2", &restored];
    shop.to_server(Told::Arrives, &ends)?;
    let named = format!("web is web.{NAMESPACE}.svc.cluster.local.: {}", shop.service.ips[0]);
    shop.tells(&["trace/client", "web:80"], Told::Arrives, &[&named, &led])?;
    let [outside, _] = lab.outside_ips()[..] else { return Err("outside has two addresses".to_owned()) };
    let node_port = format!("node/node3:{}", shop.service.node_port(0));
    let masqueraded = ["its source becomes 172.30.0.13", "arrives at Pod trace/one"];
    shop.tells(&[&outside.to_string(), &node_port], Told::Arrives, &masqueraded)?;
    shop.tells(&["node/node1", "trace/one:8080"], Told::Arrives, &["arrives at Pod trace/one"])?;
    shop.tells(&["trace/client", "trace/one"], Told::Arrives, &["ping"])?;

    // What is wrong with the ends.
    let nothing = "nothing listens on TCP port 9 in Pod trace/one";
    shop.tells(&["trace/client", "trace/one:9"], Told::Stops, &[nothing, "0.0.0.0:9"])?;
    let aimless =
        "no endpoints: Service trace/aimless: its selector app=nobody matches no pod of the namespace";
    shop.tells(&["trace/client", "svc/trace/aimless:80"], Told::Stops, &[aimless])?;
    shop.tells(
        &["trace/client", "gone:80"],
        Told::Stops,
        &["the name gone does not resolve in Pod trace/client"],
    )?;
    shop.tells(&["trace/client", "198.51.100.1:80"], Told::Unknown, &["what is beyond is not known"])?;

    policies(&shop)?;
    rules_and_routes(&shop)?;
    shop.really(true)?;
    shop.to_server(Told::Arrives, &[])
}

/// What a policy denies.
fn policies(shop: &Shop<'_>) -> Outcome {
    let spec =
        json!({"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": []});
    shop.case.create("networkpolicies", &json!({"metadata": {"name": "closed"}, "spec": spec}))?;
    let told =
        "isolated by NetworkPolicy trace/closed, and no rule allows it, ingress of Pod trace/one on node2";
    let denied = shop.to_server(Told::Stops, &[told, "allow it in NetworkPolicy trace/closed"]);
    let really = shop.really(false);
    shop.case.delete("networkpolicies", "closed")?;
    denied?;
    really
}

/// What other programs' rules drop on the other node, and what routes lead nowhere, there and back.
fn rules_and_routes(shop: &Shop<'_>) -> Outcome {
    let (lab, ip, client) = (shop.case.lab, shop.server.ips[0].to_string(), shop.client.ips[0].to_string());
    let table = format!(
        "table ip firewall {{ chain FORWARD {{ type filter hook forward priority 10; ip daddr {ip} tcp dport 8080 drop; }}; }}"
    );
    lab.on_node("node2", &["nft", &table])?;
    let told = "dropped on node2 by table ip firewall, chain FORWARD (hook forward): ";
    let outcome = shop.to_server(Told::Stops, &[told]);
    let really =
        shop.service.at(80).into_iter().take(1).try_for_each(|at| dropped(&shop.client.netns, Via::Http, at));
    lab.on_node("node2", &["nft", "delete table ip firewall"])?;
    outcome.and(really)?;

    let ways = [
        ("node1", &ip, format!("no route to {ip} (pods of node2) on node1")),
        ("node2", &client, format!("the answer: no route to {client} (pods of node1) on node2")),
    ];
    for (node, to, told) in ways {
        let rule = ["to", to, "lookup", TABLE, "pref", "50"];
        lab.on_node(node, &["ip", "route", "add", "unreachable", "default", "table", TABLE])?;
        lab.on_node(node, &[&["ip", "rule", "add"], &rule[..]].concat())?;
        let outcome = shop.to_server(Told::Stops, &[&told, "the agent keeps the routes to pods"]);
        lab.on_node(node, &[&["ip", "rule", "del"], &rule[..]].concat())?;
        lab.on_node(node, &["ip", "route", "flush", "table", TABLE])?;
        outcome?;
    }
    Ok(())
}
