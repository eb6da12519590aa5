//! What the group "Granular Checks" of Kubernetes' sig-network tests asks: who reaches whom, over what, for
//! both families.

use std::net::SocketAddr;

use serde_json::json;

use crate::case::{Case, Peer, echo};
use crate::lab::{Lab, Outcome, equal};
use crate::probe::{BOTH, Seen, Via, ask, served};

pub(crate) fn pods_and_nodes(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "pods-and-nodes")?;
    let pods = case.run([1, 2, 3].map(|node| echo(&format!("on-node{node}")).on(&format!("node{node}"))))?;
    for pod in &pods {
        for server in pod.ips.iter().map(|&ip| SocketAddr::new(ip, 8080)) {
            let nodes = (1..=3).map(|node| lab.name.node(&format!("node{node}")));
            for from in pods.iter().map(|pod| pod.netns.clone()).chain(nodes) {
                BOTH.into_iter().try_for_each(|via| served(&from, via, server, &[&pod.name]))?;
            }
        }
    }
    Ok(())
}

pub(crate) fn from_everywhere_to_a_service(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "to-a-service")?;
    let spec = json!({"type": "NodePort"});
    let (first, second) = (case.service("first", spec.clone())?, case.service("second", spec)?);
    let pods: [Peer; 3] =
        case.run([1, 2, 3].map(|node| echo(&format!("on-node{node}")).on(&format!("node{node}"))))?;
    let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    let [client] = case.run([echo("client").app("client").on("node2")])?;
    // From a pod, from a node, from an endpoint itself; two Services on one selector.
    for from in [&client.netns, &lab.name.node("node1"), &pods[0].netns] {
        for (service, position) in [(&first, 0), (&second, 1)] {
            let via = BOTH[position];
            let node_port = lab.node_at(2, service.node_port(position));
            for server in service.at(80).into_iter().chain(node_port) {
                served(from, via, server, &names)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn updates(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "updates")?;
    let service = case.service("web", json!({"type": "NodePort"}))?;
    let [client, _, _] = case.run([echo("client").app("client"), echo("one"), echo("two")])?;
    for server in service.at(80) {
        BOTH.into_iter().try_for_each(|via| served(&client.netns, via, server, &["one", "two"]))?;
    }
    case.delete("pods", "one")?;
    for server in service.at(80) {
        BOTH.into_iter().try_for_each(|via| served(&client.netns, via, server, &["two"]))?;
    }
    let old = service.node_port(0);
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 31999}]);
    let moved = case.change("web", json!({"ports": ports}))?;
    equal("the new node port", moved.node_port(0), 31999)?;
    for (now, before) in lab.node_at(1, 31999).into_iter().zip(lab.node_at(1, old)) {
        served(&client.netns, Via::Http, now, &["two"])?;
        crate::probe::refused(&client.netns, Via::Http, before)?;
    }
    Ok(())
}

pub(crate) fn large_requests(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "large-requests")?;
    let service = case.service("web", json!({}))?;
    let [client, _] = case.run([echo("client").app("client").on("node1"), echo("one").on("node2")])?;
    // Larger than any MTU on the way; datagrams go in fragments.
    let message = "weft".repeat(1000);
    for server in service.at(80) {
        served(&client.netns, Via::Http, server, &["one"])?;
        let over_http = ask(&client.netns, Via::Http, server, &format!("echo?msg={message}"));
        equal("over HTTP", over_http == Seen::Answer(message.clone()), true)?;
        served(&client.netns, Via::Udp, server, &["one"])?;
        crate::lab::poll("a large datagram", || {
            match ask(&client.netns, Via::Udp, server, &format!("echo {}", &message[..1900])) {
                Seen::Answer(answer) if answer == message[..1900] => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
    }
    Ok(())
}

pub(crate) fn host_network_endpoints(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "host-endpoints")?;
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8500}, {"name": "udp", "port": 80, "targetPort": 8500, "protocol": "UDP"}]);
    let service = case.service("web", json!({"ports": ports, "type": "NodePort"}))?;
    let [client, _, _] = case.run([
        echo("client").app("client").on("node1"),
        echo("one").on("node1").port(8500).host_network().udp_at(&lab.node_at(1, 8500)),
        echo("two").on("node2").port(8500).host_network().udp_at(&lab.node_at(2, 8500)),
    ])?;
    let names: &[&str] = &["node1", "node2"];
    for server in service.at(80) {
        for from in [&client.netns, &lab.name.node("node1"), &lab.name.node("node3")] {
            BOTH.into_iter().try_for_each(|via| served(from, via, server, names))?;
        }
    }
    lab.node_at(3, service.node_port(0))
        .into_iter()
        .try_for_each(|server| served(&lab.outside(), Via::Http, server, names))
}
