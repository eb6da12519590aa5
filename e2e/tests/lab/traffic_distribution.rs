//! What the groups "Traffic Distribution" and "Topology Hints" of Kubernetes' sig-network tests ask. node1
//! and node3 stand in one zone, node2 in another.

use serde_json::json;

use crate::case::{Case, Peer, Service, echo};
use crate::lab::{Lab, Outcome};
use crate::probe::{BOTH, served};

/// A Service with a server on every node, and a client on each of the first two.
struct Spread<'a> {
    case: Case<'a>,
    service: Service,
    clients: [Peer; 2],
}

impl<'a> Spread<'a> {
    fn new(lab: &'a Lab, namespace: &str, distribution: &str) -> Result<Spread<'a>, String> {
        let case = Case::new(lab, namespace)?;
        let service = case.service("web", json!({"trafficDistribution": distribution}))?;
        case.run([1, 2, 3].map(|node| echo(&format!("on-node{node}")).on(&format!("node{node}"))))?;
        let clients = case.run(
            [1, 2].map(|node| echo(&format!("client{node}")).app("client").on(&format!("node{node}"))),
        )?;
        Ok(Spread { case, service, clients })
    }

    /// Waits until the clients of node1 and node2 are served by those.
    fn serve(&self, first: &[&str], second: &[&str]) -> Outcome {
        for (client, by) in self.clients.iter().zip([first, second]) {
            for server in self.service.at(80) {
                BOTH.into_iter().try_for_each(|via| served(&client.netns, via, server, by))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn prefer_same_zone(lab: &Lab) -> Outcome {
    zone(lab, "same-zone", "PreferSameZone")
}

pub(crate) fn prefer_close(lab: &Lab) -> Outcome {
    zone(lab, "close", "PreferClose")
}

fn zone(lab: &Lab, namespace: &str, distribution: &str) -> Outcome {
    let spread = Spread::new(lab, namespace, distribution)?;
    spread.serve(&["on-node1", "on-node3"], &["on-node2"])?;
    // Nobody is left in the second zone: its clients are served by all.
    spread.case.delete("pods", "on-node2")?;
    spread.serve(&["on-node1", "on-node3"], &["on-node1", "on-node3"])?;
    spread.case.change("web", json!({"trafficDistribution": null}))?;
    spread.case.run([echo("back").on("node2")])?;
    let all: &[&str] = &["on-node1", "on-node3", "back"];
    spread.serve(all, all)
}

pub(crate) fn prefer_same_node(lab: &Lab) -> Outcome {
    let spread = Spread::new(lab, "same-node", "PreferSameNode")?;
    spread.serve(&["on-node1"], &["on-node2"])?;
    // Without one on the node the zone is next, then all.
    spread.case.delete("pods", "on-node1")?;
    spread.serve(&["on-node3"], &["on-node2"])?;
    spread.case.delete("pods", "on-node3")?;
    spread.serve(&["on-node2"], &["on-node2"])
}
