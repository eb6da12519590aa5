//! What the group "LoadBalancers" of Kubernetes' sig-network tests asks. The lab's underlay stands for the
//! balancer's network: it routes the address to a node.

use std::net::SocketAddr;

use serde_json::json;

use crate::case::{Case, echo, number};
use crate::lab::{Lab, Outcome, equal, holds, poll};
use crate::probe::{BOTH, Seen, Via, ask, dropped, refused, seen_as, served};

/// The balancer's addresses of both families for a scenario, at a port, routed to a node.
pub(crate) fn routed(lab: &Lab, host: u8, node: u8, port: u16) -> Result<Vec<SocketAddr>, String> {
    let ips = [format!("198.51.100.{host}"), format!("2001:db8:51::{host}")];
    let mut servers = Vec::new();
    for (ip, via) in ips.iter().zip(lab.node_at(node, port)) {
        let family = if via.is_ipv4() { "-4" } else { "-6" };
        lab.run_outside(&["ip", family, "route", "replace", ip, "via", &via.ip().to_string()])?;
        servers.push(SocketAddr::new(ip.parse().map_err(|error| format!("{error}"))?, port));
    }
    Ok(servers)
}

pub(crate) fn ingress(servers: &[SocketAddr]) -> serde_json::Value {
    servers.iter().map(|server| json!({"ip": server.ip().to_string()})).collect()
}

pub(crate) fn type_and_ports_change(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "lb-changes")?;
    case.service("web", json!({}))?;
    let [client, _] = case.run([echo("client").app("client").on("node3"), echo("one").on("node1")])?;
    let service = case.change("web", json!({"type": "LoadBalancer"}))?;
    let servers = routed(lab, 10, 2, 80)?;
    case.balance("web", ingress(&servers))?;
    for &server in &servers {
        BOTH.into_iter().try_for_each(|via| served(&lab.outside(), via, server, &["one"]))?;
        served(&client.netns, Via::Http, server, &["one"])?;
    }
    for server in lab.node_at(2, service.node_port(0)) {
        served(&lab.outside(), Via::Http, server, &["one"])?;
    }
    let ports = json!([{"name": "http", "port": 81, "targetPort": 8080}]);
    case.change("web", json!({"ports": ports}))?;
    for &server in &servers {
        served(&lab.outside(), Via::Http, SocketAddr::new(server.ip(), 81), &["one"])?;
    }
    case.balance("web", json!(null))?;
    case.change("web", json!({"type": "ClusterIP"}))?
        .at(81)
        .into_iter()
        .try_for_each(|server| served(&client.netns, Via::Http, server, &["one"]))
}

pub(crate) fn without_node_port(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "lb-no-port")?;
    let service =
        case.service("web", json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false}))?;
    equal("node port", service.node_port(0), 0)?;
    case.run([echo("one").on("node1")])?;
    let servers = routed(lab, 20, 2, 80)?;
    case.balance("web", ingress(&servers))?;
    servers.iter().try_for_each(|&server| served(&lab.outside(), Via::Http, server, &["one"]))
}

pub(crate) fn only_nodes_with_endpoints(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "lb-local")?;
    case.service("web", json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}))?;
    case.run([echo("one").on("node1")])?;
    let (near, far) = (routed(lab, 30, 1, 80)?, routed(lab, 31, 2, 80)?);
    case.balance("web", ingress(&[near.clone(), far.clone()].concat()))?;
    for (&server, outside) in near.iter().zip(lab.outside_ips()) {
        served(&lab.outside(), Via::Http, server, &["one"])?;
        seen_as(&lab.outside(), Via::Http, server, outside)?;
    }
    far.iter().try_for_each(|&server| dropped(&lab.outside(), Via::Http, server))
}

pub(crate) fn proxied_addresses_are_left_alone(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "lb-proxy-mode")?;
    case.service("web", json!({"type": "LoadBalancer"}))?;
    let [client, _] = case.run([echo("client").app("client"), echo("one")])?;
    let vip = routed(lab, 40, 1, 80)?;
    let proxied = routed(lab, 41, 1, 80)?;
    let mut entries = json!([]);
    for (mode, servers) in [("VIP", &vip), ("Proxy", &proxied)] {
        for server in servers {
            let entry = json!({"ip": server.ip().to_string(), "ipMode": mode});
            entries.as_array_mut().into_iter().for_each(|list| list.push(entry.clone()));
        }
    }
    case.balance("web", entries)?;
    for (&vip, &proxied) in vip.iter().zip(&proxied) {
        served(&client.netns, Via::Http, vip, &["one"])?;
        // It goes out to the balancer, which is not there.
        if let Seen::Answer(name) = ask(&client.netns, Via::Http, proxied, "hostname") {
            return Err(format!("{proxied} was answered by {name}"));
        }
    }
    Ok(())
}

pub(crate) fn health_check_node_port(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "lb-health")?;
    let service = case.service("web", json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}))?;
    case.run([echo("one").on("node1").lingering(20)])?;
    let port = number(&service.object["spec"]["healthCheckNodePort"]);
    let healthy = |node: u8, some: bool| {
        lab.node_at(node, port).into_iter().try_for_each(|server| {
            poll(&format!("local endpoints at {server}: {some}"), || {
                match ask(&lab.outside(), Via::Http, server, "healthz") {
                    Seen::Answer(text) if some => holds("healthz", &text, "\"localEndpoints\":"),
                    Seen::Other(text) if !some => holds("healthz", &text, " 503 "),
                    other => Err(format!("{other:?}")),
                }
            })
        })
    };
    healthy(1, true)?;
    healthy(2, false)?;
    // Endpoints that only terminate do not count, though they still serve.
    case.delete("pods", "one")?;
    healthy(1, false)?;
    let at_node = lab.node_at(1, service.node_port(0));
    at_node.iter().try_for_each(|&server| served(&lab.outside(), Via::Http, server, &["one"]))?;
    case.change("web", json!({"externalTrafficPolicy": "Cluster"}))?;
    lab.node_at(1, port).into_iter().try_for_each(|server| refused(&lab.outside(), Via::Http, server))
}

pub(crate) fn source_ranges(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "lb-ranges")?;
    let ours: Vec<String> = lab.outside_ips().iter().map(ToString::to_string).collect();
    let ours = json!([format!("{}/32", ours[0]), format!(" {}/128 ", ours[1])]);
    let service = case.service("web", json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ours}))?;
    case.run([echo("one").on("node1")])?;
    let servers = routed(lab, 50, 2, 80)?;
    case.balance("web", ingress(&servers))?;
    let all = |allowed: bool| {
        servers.iter().try_for_each(|&server| match allowed {
            true => served(&lab.outside(), Via::Http, server, &["one"]),
            false => dropped(&lab.outside(), Via::Http, server),
        })
    };
    all(true)?;
    case.change("web", json!({"loadBalancerSourceRanges": ["192.0.2.0/24", "2001:db8:99::/64"]}))?;
    all(false)?;
    // They say nothing about node ports.
    for server in lab.node_at(2, service.node_port(0)) {
        served(&lab.outside(), Via::Http, server, &["one"])?;
    }
    case.change("web", json!({"loadBalancerSourceRanges": null}))?;
    all(true)
}

/// Each pod is replaced in turn, as a Deployment does it: the new one is ready before the old one is told to
/// go.
pub(crate) fn no_disruption_in_a_rolling_update(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "lb-rolling")?;
    case.service("web", json!({"type": "LoadBalancer"}))?;
    let pod = |round: u8, node: u8| {
        echo(&format!("round{round}-node{node}")).on(&format!("node{node}")).lingering(20)
    };
    case.run([pod(0, 1), pod(0, 2)])?;
    let servers = routed(lab, 60, 3, 80)?;
    case.balance("web", ingress(&servers))?;
    for &server in &servers {
        served(&lab.outside(), Via::Http, server, &["round0-node1", "round0-node2"])?;
    }
    let all_answered = || {
        for &server in servers.iter().cycle().take(40) {
            match ask(&lab.outside(), Via::Http, server, "hostname") {
                Seen::Answer(_) => {}
                other => return Err(format!("{server} in the middle of the update: {other:?}")),
            }
        }
        Ok(())
    };
    for (round, node) in [(1, 1), (1, 2), (2, 1)] {
        case.start(pod(round, node))?;
        all_answered()?;
        case.ready(&format!("round{round}-node{node}"))?;
        case.delete("pods", &format!("round{}-node{node}", round - 1))?;
        all_answered()?;
    }
    // In the end only the new ones answer.
    servers
        .iter()
        .try_for_each(|&server| served(&lab.outside(), Via::Http, server, &["round2-node1", "round1-node2"]))
}
