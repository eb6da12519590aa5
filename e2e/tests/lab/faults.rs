//! What breaks outside of Weft: the network between the nodes, the API server, a node's power. What can go on
//! goes on, and afterwards everybody knows what happened meanwhile.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde_json::json;

use crate::case::{Case, echo};
use crate::connection::Connection;
use crate::lab::{Lab, Outcome, equal, poll};
use crate::probe::{Seen, Via, ask, dropped, served};

/// A port of the node that one pod has.
const HOST_PORT: u16 = 24331;

/// The cable of a node, pulled until this is dropped.
pub(crate) struct Cut<'a> {
    lab: &'a Lab,
    node: &'a str,
}

impl<'a> Cut<'a> {
    pub(crate) fn new(lab: &'a Lab, node: &'a str) -> Result<Cut<'a>, String> {
        lab.run_outside(&["ip", "link", "set", node, "down"])?;
        Ok(Cut { lab, node })
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.lab.run_outside(&["ip", "link", "set", self.node, "up"]) {
            eprintln!("lab tests: {error}");
        }
    }
}

/// The API server, out of all nodes' reach until this is dropped. The lab's kubelets do not notice: pods come
/// and go.
pub(crate) struct Away<'a> {
    lab: &'a Lab,
}

const AWAY: &str = "table inet away {
    chain input { type filter hook input priority 0; tcp dport 6443 drop; }
    chain output { type filter hook output priority 0; tcp sport 6443 drop; }
}";

impl<'a> Away<'a> {
    pub(crate) fn new(lab: &'a Lab) -> Result<Away<'a>, String> {
        lab.run_outside(&["nft", AWAY])?;
        Ok(Away { lab })
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.lab.run_outside(&["nft", "delete", "table", "inet", "away"]) {
            eprintln!("lab tests: {error}");
        }
    }
}

pub(crate) fn the_underlay_is_cut_and_healed(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "cut")?;
    let service = case.service("web", json!({}))?;
    let near = case.service("near", json!({"internalTrafficPolicy": "Local"}))?;
    let [first, third, _, three] = case.run([
        echo("first").app("client").on("node1"),
        echo("third").app("client").on("node3"),
        echo("one").on("node1"),
        echo("three").on("node3"),
    ])?;
    let across: Vec<SocketAddr> = three.ips.iter().map(|&ip| SocketAddr::new(ip, 8080)).collect();
    let everywhere = || -> Outcome {
        for client in [&first, &third] {
            service
                .at(80)
                .into_iter()
                .try_for_each(|server| served(&client.netns, Via::Http, server, &["one", "three"]))?;
        }
        Ok(())
    };
    everywhere()?;
    let mut open: Vec<Connection> =
        across.iter().map(|&server| Connection::open(&first.netns, server)).collect::<Result<_, _>>()?;
    let cut = Cut::new(lab, "node3")?;
    for (server, local) in across.iter().zip(near.at(80)) {
        dropped(&first.netns, Via::Http, *server)?;
        served(&third.netns, Via::Http, local, &["three"])?;
    }
    let later = case.service("later", json!({}))?;
    drop(cut);
    for connection in &mut open {
        equal("the server of the connection", connection.ask()?, "three".to_owned())?;
    }
    everywhere()?;
    // What was made meanwhile is known on the node that was cut off.
    later.at(80).into_iter().try_for_each(|server| served(&third.netns, Via::Http, server, &["one", "three"]))
}

pub(crate) fn the_api_server_is_away(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "api-away")?;
    let service = case.service("web", json!({}))?;
    let [client, _] = case.run([echo("client").app("client").on("node1"), echo("one").on("node1")])?;
    let by = |names: &[&str]| {
        service.at(80).into_iter().try_for_each(|server| served(&client.netns, Via::Http, server, names))
    };
    by(&["one"])?;
    let away = Away::new(lab)?;
    // Pods are made without the API server's help, and reach each other.
    let [two] = case.run([echo("two").on("node2")])?;
    for ip in two.ips {
        served(&client.netns, Via::Http, SocketAddr::new(ip, 8080), &["two"])?;
    }
    by(&["one"])?;
    case.delete("pods", "one")?;
    gone(&case, "one")?;
    drop(away);
    by(&["two"])
}

/// What a node's own tools, other programs or people take away from under running pods.
pub(crate) fn what_is_under_running_pods_is_deleted(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "undone")?;
    let service = case.service("web", json!({"selector": {"app": "web"}}))?;
    let [mapped, _, client] = case.run([
        echo("mapped").app("web").on("node1").ports(json!([{"containerPort": 8080, "hostPort": HOST_PORT}])),
        echo("neighbour").app("web").on("node1"),
        echo("client").app("client").on("node2"),
    ])?;
    let serves = || -> Outcome {
        let names = ["mapped", "neighbour"];
        for from in [&client.netns, &mapped.netns] {
            service.at(80).into_iter().try_for_each(|server| served(from, Via::Http, server, &names))?;
        }
        let own = mapped.ips.iter().map(|&ip| SocketAddr::new(ip, 8080));
        own.chain(lab.node_at(1, HOST_PORT))
            .try_for_each(|server| served(&client.netns, Via::Http, server, &["mapped"]))
    };
    serves()?;
    let ports = "$(ip -br link show master cni0 | cut -d@ -f1)";
    for damage in [
        "ip addr flush dev cni0",
        "ip link set cni0 down",
        &format!("for port in {ports}; do ip link set $port nomaster; done"),
        "nft flush ruleset",
        "ip link del cni0",
    ] {
        lab.on_node("node1", &["sh", "-c", &format!("{damage}; ip neigh flush all")])?;
        serves().map_err(|error| format!("after {damage}: {error}"))?;
    }
    Ok(())
}

fn gone(case: &Case, pod: &str) -> Outcome {
    poll(&format!("pod {pod} gone"), || match case.get("pods", pod) {
        Err(_) => Ok(()),
        Ok(pod) => Err(pod["status"].to_string()),
    })
}

pub(crate) fn a_node_is_lost_and_back_with_another_address(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "lost-node")?;
    let service = case.service("web", json!({"type": "NodePort", "externalTrafficPolicy": "Local"}))?;
    let [client, _] = case.run([echo("client").app("client").on("node1"), echo("three").on("node3")])?;
    let others = [&client.netns, &lab.name.node("node2")];
    let serves = |from: &str| {
        service.at(80).into_iter().try_for_each(|server| served(from, Via::Http, server, &["three"]))
    };
    others.iter().try_for_each(|from| serves(from))?;
    lab.run(&["stop", "node3"])?;
    for server in service.at(80) {
        let seen = ask(&client.netns, Via::Http, server, "hostname");
        equal("an answer from the lost node", matches!(seen, Seen::Answer(_)), false)?;
    }
    lab.run(&["start", "node3", "--number", "33"])?;
    others.iter().try_for_each(|from| serves(from))?;
    for server in lab.node_at(33, service.node_port(0)) {
        served(&lab.outside(), Via::Http, server, &["three"])?;
    }
    no_address_leaked(lab, "node3", &BTreeSet::new())?;
    for range in ["10.244.", "fd00:10:244:"] {
        only_by_the_new_address(lab, range)?;
    }
    // Back to what the other scenarios know.
    lab.run(&["stop", "node3"])?;
    lab.run(&["start", "node3"])?;
    serves(&client.netns)
}

/// No route of another node leads to node3's former address.
fn only_by_the_new_address(lab: &Lab, range: &str) -> Outcome {
    let (family, old) = if range.contains(':') { ("-6", "fd00:30::13 ") } else { ("-4", "172.30.0.13 ") };
    for node in ["node1", "node2"] {
        let routes = lab.on_node(node, &["ip", family, "route"])?;
        let stale: Vec<&str> =
            routes.lines().filter(|route| route.starts_with(range) && route.contains(old)).collect();
        equal("routes by the old address", stale, Vec::new())?;
    }
    Ok(())
}

/// Waits until the addresses that are reserved on a node are those of its pods.
pub(crate) fn no_address_leaked(lab: &Lab, node: &str, others: &BTreeSet<IpAddr>) -> Outcome {
    let folder = lab.dir.node(node).cni_data().join("weft");
    poll(&format!("only addresses of pods are reserved on {node}"), || {
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let reserved: BTreeSet<IpAddr> = names.filter_map(|name| name.parse().ok()).collect();
        equal("reserved addresses", reserved, others | &lab.pod_ips_on(node)?)
    })
}
