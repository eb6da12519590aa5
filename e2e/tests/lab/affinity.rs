//! What the groups "Services" and "Granular Checks" of Kubernetes' sig-network tests ask of session affinity,
//! for both families: a client stays with its server, as long as that serves and the Service wants it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::case::{Case, Peer, Service, echo};
use crate::lab::{Lab, Outcome, equal, poll};
use crate::load_balancers::{ingress, routed};
use crate::probe::{BOTH, Seen, Via, ask, served};

const SERVERS: [&str; 3] = ["on-node1", "on-node2", "on-node3"];
/// How many requests in a row show that a client stays: to hit one of three by luck is less than one in a
/// billion.
const IN_A_ROW: usize = 20;

/// A Service with a server on every node, and a client that is none.
fn spread<'a>(lab: &'a Lab, namespace: &str, spec: Value) -> Result<(Case<'a>, Service, Peer), String> {
    let case = Case::new(lab, namespace)?;
    let service = case.service("web", spec)?;
    case.run([1, 2, 3].map(|node| echo(&format!("on-node{node}")).on(&format!("node{node}"))))?;
    let [client] = case.run([echo("client").app("client").on("node2")])?;
    Ok((case, service, client))
}

/// Waits until a client stays with one server. Gives its name.
fn stays(from: &str, via: Via, server: SocketAddr) -> Result<String, String> {
    poll(&format!("{via:?} {server} from {from} stays with one server"), || {
        let Seen::Answer(first) = ask(from, via, server, "hostname") else {
            return Err("no answer".to_owned());
        };
        for _ in 0..IN_A_ROW {
            equal("the server", ask(from, via, server, "hostname"), Seen::Answer(first.clone()))?;
        }
        Ok(first)
    })
}

fn sticky() -> Value {
    json!({"sessionAffinity": "ClientIP"})
}

pub(crate) fn for_a_cluster_ip(lab: &Lab) -> Outcome {
    let (case, service, client) = spread(lab, "affinity", sticky())?;
    for (server, via) in service.at(80).into_iter().flat_map(|server| BOTH.map(|via| (server, via))) {
        stays(&client.netns, via, server)?;
    }
    // Its server goes: the client moves on, and stays there.
    let server = service.at(80)[0];
    let first = stays(&client.netns, Via::Http, server)?;
    case.delete("pods", &first)?;
    poll("another server", || match stays(&client.netns, Via::Http, server)? {
        other if other != first => Ok(()),
        same => Err(same),
    })
}

pub(crate) fn switched_for_a_cluster_ip(lab: &Lab) -> Outcome {
    let (case, service, client) = spread(lab, "affinity-switch", json!({}))?;
    switch(&case, &client.netns, &service.at(80))
}

pub(crate) fn switched_for_a_node_port(lab: &Lab) -> Outcome {
    let (case, service, _) = spread(lab, "affinity-node-port", json!({"type": "NodePort"}))?;
    switch(&case, &lab.outside(), &lab.node_at(1, service.node_port(0)))
}

/// Off, on and off again.
fn switch(case: &Case, from: &str, servers: &[SocketAddr]) -> Outcome {
    let spreads = || servers.iter().try_for_each(|&server| served(from, Via::Http, server, &SERVERS));
    spreads()?;
    case.change("web", sticky())?;
    for &server in servers {
        stays(from, Via::Http, server)?;
    }
    case.change("web", json!({"sessionAffinity": "None", "sessionAffinityConfig": null}))?;
    spreads()
}

fn sticky_for_two_seconds() -> Value {
    json!({"type": "NodePort", "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 2}}})
}

pub(crate) fn ends_with_its_timeout(lab: &Lab) -> Outcome {
    let (_case, service, client) = spread(lab, "affinity-timeout", sticky_for_two_seconds())?;
    service.at(80).into_iter().try_for_each(|server| moves_on_after_a_pause(&client.netns, server))
}

pub(crate) fn ends_with_its_timeout_at_a_node_port(lab: &Lab) -> Outcome {
    let (_case, service, _) = spread(lab, "affinity-node-port-timeout", sticky_for_two_seconds())?;
    let servers = lab.node_at(1, service.node_port(0));
    servers.into_iter().try_for_each(|server| moves_on_after_a_pause(&lab.outside(), server))
}

fn moves_on_after_a_pause(from: &str, server: SocketAddr) -> Outcome {
    let first = stays(from, Via::Http, server)?;
    poll("another server after a pause", || {
        std::thread::sleep(Duration::from_millis(2500));
        match ask(from, Via::Http, server, "hostname") {
            Seen::Answer(name) if name != first => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

pub(crate) fn for_a_load_balancer(lab: &Lab) -> Outcome {
    let (case, _, _) =
        spread(lab, "affinity-balancer", json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP"}))?;
    let servers = routed(lab, 61, 2, 80)?;
    case.balance("web", ingress(&servers))?;
    for (&server, via) in servers.iter().flat_map(|server| BOTH.map(|via| (server, via))) {
        stays(&lab.outside(), via, server)?;
    }
    Ok(())
}
