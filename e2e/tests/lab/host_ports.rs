//! What the group "HostPort" of Kubernetes' sig-network tests asks.

use std::net::SocketAddr;

use serde_json::json;

use crate::case::{Case, echo};
use crate::lab::{Lab, Outcome, poll};
use crate::probe::{Seen, Via, ask, served};

/// The port of the node that all pods share.
const PORT: u16 = 24323;

pub(crate) fn other_addresses_and_protocols(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "host-ports")?;
    let at = lab.node_at(1, PORT);
    let pod = |name: &str, host: SocketAddr, protocol: &str| {
        let port = json!({"containerPort": 8080, "hostPort": PORT, "hostIP": host.ip().to_string(), "protocol": protocol});
        echo(name).on("node1").ports(json!([port]))
    };
    case.run([
        pod("over-v4", at[0], "TCP"),
        pod("over-v6", at[1], "TCP"),
        pod("udp-v4", at[0], "UDP"),
        pod("udp-v6", at[1], "UDP"),
    ])?;
    let [client] = case.run([echo("client").on("node2")])?;
    for (via, names) in [(Via::Http, ["over-v4", "over-v6"]), (Via::Udp, ["udp-v4", "udp-v6"])] {
        for (server, name) in at.iter().zip(names) {
            served(&lab.outside(), via, *server, &[name])?;
            served(&client.netns, via, *server, &[name])?;
        }
    }
    case.delete("pods", "over-v4")?;
    poll("the port of a pod that is gone", || match ask(&client.netns, Via::Http, at[0], "hostname") {
        Seen::Answer(name) => Err(format!("answered by {name}")),
        _ => Ok(()),
    })?;
    served(&lab.outside(), Via::Http, at[1], &["over-v6"])
}

/// A hostPort in the range of NodePorts takes nothing from the Service that has the same number as its
/// NodePort.
pub(crate) fn node_ports_come_first(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "host-port-and-node-port")?;
    let service = case.service("web", json!({"type": "NodePort", "selector": {"app": "server"}}))?;
    let port = service.node_port(0);
    let [client, ..] = case.run([
        echo("client").app("client").on("node2"),
        echo("server").app("server").on("node2"),
        echo("mapped").app("mapped").on("node1").ports(json!([{"containerPort": 8080, "hostPort": port}])),
    ])?;
    for server in lab.node_at(1, port) {
        for from in [&lab.outside(), &client.netns, &lab.name.node("node1")] {
            served(from, Via::Http, server, &["server"])?;
        }
    }
    Ok(())
}
