//! What the group "Conntrack" of Kubernetes' sig-network tests asks: a UDP client that keeps its port, and
//! with it the kernel's entry for its flow, is served by whoever serves now, for both families.

use serde_json::{Value, json};

use crate::case::{Case, echo};
use crate::lab::{Lab, Outcome, equal, poll};
use crate::probe::{Flow, Seen};

/// Where the client is.
#[derive(Clone, Copy)]
enum Client {
    Pod,
    Node,
    Outside,
}

pub(crate) fn pod_cycles_behind_a_cluster_ip(lab: &Lab) -> Outcome {
    cycle(lab, "udp-cluster-ip", json!({}), Client::Pod)
}

pub(crate) fn pod_cycles_for_a_client_on_the_host_network(lab: &Lab) -> Outcome {
    cycle(lab, "udp-from-node", json!({}), Client::Node)
}

pub(crate) fn pod_cycles_behind_a_node_port(lab: &Lab) -> Outcome {
    cycle(lab, "udp-node-port", json!({"type": "NodePort"}), Client::Outside)
}

pub(crate) fn pod_cycles_under_internal_policy_local(lab: &Lab) -> Outcome {
    cycle(lab, "udp-local", json!({"internalTrafficPolicy": "Local"}), Client::Pod)
}

/// One pod serves the flow; another one comes; the first one goes.
fn cycle(lab: &Lab, namespace: &str, spec: Value, client: Client) -> Outcome {
    let case = Case::new(lab, namespace)?;
    let service = case.service("web", spec)?;
    let [pod, _] = case.run([echo("client").app("client").on("node1"), echo("one").on("node1")])?;
    let (from, servers) = match client {
        Client::Pod => (pod.netns, service.at(80)),
        Client::Node => (lab.name.node("node1"), service.at(80)),
        Client::Outside => (lab.outside(), lab.node_at(1, service.node_port(1))),
    };
    let flows = servers.into_iter().map(|server| Flow::open(&from, server));
    let flows: Vec<Flow> = flows.collect::<Result<_, _>>()?;
    flows.iter().try_for_each(|flow| answered(flow, "one"))?;
    case.run([echo("two").on("node1")])?;
    flows.iter().try_for_each(|flow| stays(flow, "one"))?;
    case.delete("pods", "one")?;
    flows.iter().try_for_each(|flow| answered(flow, "two"))
}

pub(crate) fn unready_endpoints_get_ready(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "udp-unready")?;
    let service = case.service("web", json!({"type": "NodePort"}))?;
    let file = lab.state.path().join("udp-ready");
    let [client] = case.run([echo("client").app("client")])?;
    case.start(echo("one").ready_while(&file))?;
    case.with_condition("one", "False")?;
    let within = service.at(80).into_iter().map(|server| Flow::open(&client.netns, server));
    let without =
        lab.node_at(1, service.node_port(1)).into_iter().map(|server| Flow::open(&lab.outside(), server));
    let flows: Vec<Flow> = within.chain(without).collect::<Result<_, _>>()?;
    for flow in &flows {
        equal("an answer without endpoints", matches!(flow.ask("hostname"), Seen::Answer(_)), false)?;
    }
    std::fs::write(&file, "").map_err(|error| format!("{}: {error}", file.display()))?;
    flows.iter().try_for_each(|flow| answered(flow, "one"))
}

pub(crate) fn target_port_changes(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "udp-target")?;
    let to =
        |port: u16| json!({"ports": [{"name": "udp", "port": 80, "targetPort": port, "protocol": "UDP"}]});
    let service = case.service("web", to(8701))?;
    let [client, _] = case.run([echo("client").app("client"), echo("one")])?;
    let flows = service.at(80).into_iter().map(|server| Flow::open(&client.netns, server));
    let flows: Vec<Flow> = flows.collect::<Result<_, _>>()?;
    // The pod's own refusal: the flow leads to a port where nobody listens.
    for flow in &flows {
        poll("the pod refuses", || equal("the flow", flow.ask("hostname"), Seen::Refused))?;
    }
    case.change("web", to(8080))?;
    flows.iter().try_for_each(|flow| answered(flow, "one"))
}

pub(crate) fn close_wait_timeout(lab: &Lab) -> Outcome {
    let name = "net.netfilter.nf_conntrack_tcp_timeout_close_wait";
    lab.nodes()?.iter().try_for_each(|node| {
        poll(name, || equal(node, lab.on_node(node, &["sysctl", "-n", name])?.trim(), "3600"))
    })
}

/// As long as its server serves, a flow stays with it. A busy machine may answer late, but nobody else may.
fn stays(flow: &Flow, with: &str) -> Outcome {
    let mut seen = (0..20).map(|_| flow.ask("hostname"));
    let first = seen.find(|seen| *seen != Seen::Silence).unwrap_or(Seen::Silence);
    equal("the server", first, Seen::Answer(with.to_owned()))
}

/// Waits until the flow is answered by that server.
fn answered(flow: &Flow, by: &str) -> Outcome {
    poll(&format!("the flow to {} answered by {by}", flow.server), || {
        equal("the server", flow.ask("hostname"), Seen::Answer(by.to_owned()))
    })
}
