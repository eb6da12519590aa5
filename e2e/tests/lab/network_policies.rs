//! NetworkPolicies and ClusterNetworkPolicies, as pods feel them: truth tables over nine pods, and what
//! policies mean for Services, nodes and names.

mod addresses;
mod bridge;
mod cases;
mod conformance;
pub(crate) mod gap;
mod generated;
mod node_peers;
mod objects;
mod specs;
mod table;
mod tiers;
mod under_faults;
mod world;

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

pub(crate) use self::addresses::{an_address_that_is_used_again, pods_that_ended_have_no_say};
pub(crate) use self::bridge::pods_of_one_bridge;
use self::cases::Runner;
pub(crate) use self::node_peers::{egress_to_nodes, egress_to_the_own_node_and_to_others};
use self::table::Table;
pub(crate) use self::under_faults::what_is_denied_stays_denied;
use self::world::World;
use crate::case::{Case, Peer, Service, echo};
use crate::lab::{Lab, Outcome, holds, poll};
use crate::load_balancers::{ingress, routed};
use crate::probe::{BOTH, Via, dropped, served};
use crate::soak;

/// Asks for every generated case, instead of those where every feature comes once in each direction. `make
/// soak` runs them all.
const ALL: &str = "WEFT_POLICY_CASES";
/// After so many cases that fail, the rest would tell nothing more.
const MOST_FAILURES: usize = 3;

/// The specs by name, the tiers, and what is generated; one after the other, as they share their pods.
pub(crate) fn over_nine_pods(lab: &Lab) -> Outcome {
    let world = World::new(lab)?;
    let (own, other) = (world.ips("x/a"), world.ips("y/b"));
    let all = soak::seconds().is_some() || std::env::var(ALL).is_ok_and(|value| value == "all");
    let cases =
        [specs::cases(&other), tiers::cases(), conformance::cases(), generated::cases(&own, &other, all)];
    let mut runner = Runner { world: &world, table: Table::open() };
    world.settles(&Table::open(), &Table::open())?;
    let mut failures = Vec::new();
    for case in cases.iter().flatten() {
        failures.extend(runner.run(case).err());
        if failures.len() == MOST_FAILURES {
            break;
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Servers on node1, a client and a stranger on node2, and a Service of the servers.
struct Shop<'a> {
    case: Case<'a>,
    server: Peer,
    client: Peer,
    stranger: Peer,
    service: Service,
}

impl<'a> Shop<'a> {
    fn open(lab: &'a Lab, namespace: &str) -> Result<Shop<'a>, String> {
        let case = Case::new(lab, namespace)?;
        let service =
            case.service("server", json!({"type": "NodePort", "externalTrafficPolicy": "Local"}))?;
        let elsewhere = |name: &str| echo(name).app(name).on("node2");
        let pods = [echo("server").on("node1"), elsewhere("client"), elsewhere("stranger")];
        let [server, client, stranger] = case.run(pods)?;
        Ok(Shop { case, server, client, stranger, service })
    }

    /// A policy of the servers, or another spec of it.
    fn ingress(&self, rules: Value) -> Outcome {
        let spec = json!({"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": rules});
        match self.case.get("networkpolicies", "server") {
            Ok(_) => self.case.patch("networkpolicies", "server", &json!({"spec": spec})).map(drop),
            Err(_) => {
                let policy = json!({"metadata": {"name": "server"}, "spec": spec});
                self.case.create("networkpolicies", &policy).map(drop)
            }
        }
    }

    /// The server's own addresses and port.
    fn direct(&self) -> Vec<SocketAddr> {
        self.server.ips.iter().map(|&ip| SocketAddr::new(ip, 8080)).collect()
    }
}

/// A peer that is one address.
fn block(ip: IpAddr) -> Value {
    json!({"ipBlock": {"cidr": format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })}})
}

fn all_served(from: &str, servers: &[SocketAddr]) -> Outcome {
    servers
        .iter()
        .try_for_each(|&server| BOTH.into_iter().try_for_each(|via| served(from, via, server, &["server"])))
}

fn all_dropped(from: &str, servers: &[SocketAddr]) -> Outcome {
    servers.iter().try_for_each(|&server| BOTH.into_iter().try_for_each(|via| dropped(from, via, server)))
}

/// The pod and the port that answer count, not the Service's; and the client that asks, not what is between.
pub(crate) fn services_are_judged_by_the_real_peer(lab: &Lab) -> Outcome {
    let shop = Shop::open(lab, "policy-services")?;
    let cluster_ips = shop.service.at(80);
    let node_port = lab.node_at(1, shop.service.node_port(0));
    all_served(&shop.stranger.netns, &cluster_ips)?;

    let client = json!([{"podSelector": {"matchLabels": {"app": "client"}}}]);
    let ports = |port: u16| json!([{"port": port}, {"port": port, "protocol": "UDP"}]);
    shop.ingress(json!([{"from": client, "ports": ports(8080)}]))?;
    all_dropped(&shop.stranger.netns, &cluster_ips)?;
    all_served(&shop.client.netns, &cluster_ips)?;
    // A pod reaches itself, by way of its Service too.
    all_served(&shop.server.netns, &cluster_ips)?;

    shop.ingress(json!([{"from": client, "ports": ports(80)}]))?;
    all_dropped(&shop.client.netns, &cluster_ips)?;

    for &server in &node_port {
        dropped(&lab.outside(), Via::Http, server)?;
    }
    let outside: Vec<Value> = lab.outside_ips().into_iter().map(block).collect();
    shop.ingress(json!([{"from": outside}]))?;
    node_port.iter().try_for_each(|&server| served(&lab.outside(), Via::Http, server, &["server"]))?;
    all_dropped(&shop.client.netns, &cluster_ips)
}

/// Probes come from the pod's own node. Another node, and pods on its network, need a rule of their own.
pub(crate) fn the_own_node_is_always_allowed(lab: &Lab) -> Outcome {
    let shop = Shop::open(lab, "policy-nodes")?;
    let [_] = shop.case.run([echo("client-on-host").app("client").port(8702).host_network().on("node2")])?;
    let direct = shop.direct();
    let (own, other) = (lab.name.node("node1"), lab.name.node("node2"));
    shop.ingress(json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]))?;
    all_dropped(&shop.stranger.netns, &direct)?;
    all_served(&shop.client.netns, &direct)?;
    all_served(&own, &direct)?;
    // No selector finds the pod on that node's network, though it has the client's labels.
    all_dropped(&other, &direct)?;
    let node: Vec<Value> = lab.node_at(2, 0).iter().map(|node| block(node.ip())).collect();
    shop.ingress(json!([{"from": node}]))?;
    all_served(&other, &direct)?;
    all_dropped(&shop.client.netns, &direct)
}

/// A rule without ports is about all traffic, one with ports is not about what has none.
pub(crate) fn pings_follow_rules_without_ports(lab: &Lab) -> Outcome {
    let shop = Shop::open(lab, "policy-pings")?;
    let client = json!([{"podSelector": {"matchLabels": {"app": "client"}}}]);
    let pings = |from: &Peer, expected: bool| {
        shop.server.ips.iter().try_for_each(|&ip| {
            let what = format!("{} of {ip} by {}", if expected { "an answer" } else { "silence" }, from.name);
            poll(&what, || match ping(&shop, &from.name, ip)? == expected {
                true => Ok(()),
                false => Err("it is not so".to_owned()),
            })
        })
    };
    pings(&shop.stranger, true)?;
    shop.ingress(json!([{"from": client}]))?;
    pings(&shop.stranger, false)?;
    pings(&shop.client, true)?;
    shop.ingress(json!([{"from": client, "ports": [{"port": 8080}, {"port": 8080, "protocol": "UDP"}]}]))?;
    pings(&shop.client, false)?;
    all_served(&shop.client.netns, &shop.direct())
}

/// Whether a ping is answered.
fn ping(shop: &Shop, pod: &str, ip: IpAddr) -> Result<bool, String> {
    let line = ["exec", "-n", &shop.case.namespace, pod, "--", "ping", "-c1", "-W1", &ip.to_string()];
    Ok(shop.case.lab.try_run(&line)?.status.success())
}

/// Where another node forwards, the client's address is gone, and the policy sees that node. The pod's own
/// node shows it the client.
pub(crate) fn clients_of_node_ports_by_traffic_policy(lab: &Lab) -> Outcome {
    let shop = Shop::open(lab, "policy-traffic")?;
    let service = shop.case.change("server", json!({"externalTrafficPolicy": "Cluster"}))?;
    let via = |node: u8| lab.node_at(node, service.node_port(0));
    let outside = lab.outside();
    let served =
        |node: u8| via(node).into_iter().try_for_each(|at| served(&outside, Via::Http, at, &["server"]));
    let dropped = |node: u8| via(node).into_iter().try_for_each(|at| dropped(&outside, Via::Http, at));
    [1, 2].into_iter().try_for_each(served)?;
    shop.ingress(json!([{"from": lab.outside_ips().into_iter().map(block).collect::<Vec<_>>()}]))?;
    dropped(2)?;
    served(1)?;
    shop.ingress(
        json!([{"from": lab.node_at(2, 0).iter().map(|node| block(node.ip())).collect::<Vec<_>>()}]),
    )?;
    dropped(1)?;
    served(2)
}

/// Clients of a load balancer's address, which is routed to the server's node and to another one.
pub(crate) fn clients_of_a_load_balancer_by_traffic_policy(lab: &Lab) -> Outcome {
    let shop = Shop::open(lab, "policy-balanced")?;
    shop.case.change("server", json!({"type": "LoadBalancer"}))?;
    let (near, far) = (routed(lab, 70, 1, 80)?, routed(lab, 71, 2, 80)?);
    shop.case.balance("server", ingress(&[near.clone(), far.clone()].concat()))?;
    let outside = json!([{"from": lab.outside_ips().into_iter().map(block).collect::<Vec<_>>()}]);
    let node = json!([{"from": lab.node_at(2, 0).iter().map(|node| block(node.ip())).collect::<Vec<_>>()}]);
    let client = json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]);
    let (beyond, pod, stranger) = (&lab.outside(), &shop.client.netns, &shop.stranger.netns);
    all_served(beyond, &near)?;

    // Local: everybody is who they are.
    shop.ingress(client.clone())?;
    all_dropped(beyond, &near)?;
    for servers in [&near, &far] {
        all_served(pod, servers)?;
        all_dropped(stranger, servers)?;
    }
    shop.ingress(outside.clone())?;
    all_served(beyond, &near)?;
    all_dropped(pod, &near)?;

    // Cluster: who comes by another node than the server's is that node.
    shop.case.change("server", json!({"externalTrafficPolicy": "Cluster"}))?;
    all_served(beyond, &near)?;
    all_dropped(beyond, &far)?;
    shop.ingress(client)?;
    all_dropped(pod, &near)?;
    all_served(pod, &shop.direct())?;
    shop.ingress(node)?;
    all_dropped(beyond, &near)?;
    all_served(beyond, &far)?;
    all_served(pod, &near)?;
    all_dropped(pod, &shop.direct())
}

/// A pod that may leave for names alone resolves them, and reaches nothing.
pub(crate) fn egress_for_names_alone(lab: &Lab) -> Outcome {
    let shop = Shop::open(lab, "policy-names")?;
    let spec = json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"],
        "egress": [{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}]});
    shop.case.create("networkpolicies", &json!({"metadata": {"name": "names"}, "spec": spec}))?;
    all_dropped(&shop.client.netns, &shop.direct())?;
    all_dropped(&shop.client.netns, &shop.service.at(80))?;
    // Often enough to meet every DNS server.
    for _ in 0..10 {
        let line = ["exec", "-n", "policy-names", "client", "--", "getent", "ahostsv4", "server"];
        holds("the name", &lab.run(&line)?, &shop.service.ips[0].to_string())?;
    }
    all_served(&shop.stranger.netns, &shop.direct())
}
