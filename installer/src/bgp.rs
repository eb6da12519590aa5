//! `weft bgp status`: the BGP sessions of all nodes, and their routes, as routers show them. The agents are
//! asked through the API server, so that it works from anywhere.

use std::fmt;

use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use weft_announce::bgp::status::{PeerStatus, RouteStatus, Status};

use crate::Result;
use crate::cluster::{Cluster, Connection, NODE, name};
use crate::preflight::Output;

/// What can be asked about BGP.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show the BGP sessions of all nodes and why they are not up, and with --routes what was announced and
    /// learned by each. Exits with 1 where a session is not up, or an agent does not answer.
    Status(Options),
}

/// Which sessions, and how much of them.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Only those of this node.
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Also the routes of each session.
    #[arg(long)]
    pub routes: bool,
    /// How to print them.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// The sessions of all nodes.
#[derive(Debug, Serialize)]
pub struct Report {
    nodes: Vec<Status>,
    /// Agents that did not answer, and what they or the API server said.
    silent: Vec<String>,
    #[serde(skip)]
    with_routes: bool,
}

/// Asks the agents. Must be called within a runtime.
///
/// # Errors
/// Where the API server cannot be asked. An agent that does not answer is part of the report.
pub async fn status(options: &Options) -> Result<Report> {
    let cluster = Cluster::connect(&options.connection).await?;
    let nodes = match &options.node {
        Some(node) => vec![node.clone()],
        None => cluster.list(NODE, None, "").await?.iter().map(|node| name(node).to_owned()).collect(),
    };
    let mut report = Report { nodes: Vec::new(), silent: Vec::new(), with_routes: options.routes };
    for node in nodes {
        match cluster.ask_agent::<Status>(&node, "/bgp").await {
            Ok(status) => report.nodes.push(Status { node, ..status }),
            Err(problem) => report.silent.push(format!("the agent of Node {node} says nothing: {problem}")),
        }
    }
    Ok(report)
}

impl Report {
    /// Whether all sessions are up.
    pub fn is_well(&self) -> bool {
        let is_up = |peer: &PeerStatus| peer.state == "Established";
        let is_fine = |node: &Status| node.problems.is_empty() && node.peers.iter().all(is_up);
        self.silent.is_empty() && self.nodes.iter().all(is_fine)
    }

    /// As one JSON object.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(["NODE", "PEER", "ADDRESS", "AS", "STATE", "SINCE", "SENT", "TAKEN", "REFUSED"]);
        for (node, peer) in self.sessions() {
            table.add_row([
                node.node.clone(),
                peer.name.clone(),
                peer.address.to_string(),
                peer.remote.trim_start_matches("AS ").to_owned(),
                peer.state.clone(),
                duration(peer.seconds),
                peer.announced.len().to_string(),
                peer.received.len().to_string(),
                peer.refused.to_string(),
            ]);
        }
        let is_empty = self.sessions().next().is_none();
        if is_empty {
            writeln!(f, "no BGP peers: name them with --bgp-peer, or let nodes be peers with --backend bgp")?;
        } else {
            // Lines are not padded to the right: they go into bug reports.
            for line in table.to_string().lines() {
                writeln!(f, "{}", line.trim())?;
            }
        }
        for (node, peer) in self.sessions() {
            if let Some(problem) = &peer.problem {
                writeln!(f, "{} to {}: {problem}", node.node, peer.name)?;
            }
        }
        for node in &self.nodes {
            node.problems.iter().try_for_each(|problem| writeln!(f, "{}: {problem}", node.node))?;
        }
        self.silent.iter().try_for_each(|problem| writeln!(f, "{problem}"))?;
        if self.with_routes { f.write_str(&self.routes()) } else { Ok(()) }
    }
}

impl Report {
    fn sessions(&self) -> impl Iterator<Item = (&Status, &PeerStatus)> {
        self.nodes.iter().flat_map(|node| node.peers.iter().map(move |peer| (node, peer)))
    }

    fn routes(&self) -> String {
        let mut text = String::new();
        for (node, peer) in self.sessions() {
            for (word, routes) in [("announces to", &peer.announced), ("learned from", &peer.received)] {
                if !routes.is_empty() {
                    let lines: String = routes.iter().map(|it| format!("  {}\n", route(it))).collect();
                    text += &format!("\n{} {word} {}:\n{lines}", node.node, peer.name);
                }
            }
        }
        text
    }
}

/// `192.0.2.10/32 via 10.0.0.1, path 65000, local preference 100, communities 65000:100`
fn route(route: &RouteStatus) -> String {
    let mut parts = vec![format!("{} via {}", route.prefix, route.next_hop)];
    parts.extend((!route.path.is_empty()).then(|| format!("path {}", route.path)));
    parts.extend(route.local_pref.map(|number| format!("local preference {number}")));
    parts.extend(route.med.map(|number| format!("MED {number}")));
    let communities = route.communities.join(" ");
    parts.extend((!communities.is_empty()).then(|| format!("communities {communities}")));
    parts.extend(route.stale.then(|| "kept while the peer restarts".to_owned()));
    parts.join(", ")
}

/// The largest unit alone: `3d`, `5h`, `12m`, `40s`.
fn duration(seconds: u64) -> String {
    match seconds {
        86_400.. => format!("{}d", seconds / 86_400),
        3600.. => format!("{}h", seconds / 3600),
        60.. => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::scripted::cluster;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn shown(kubeconfig: &tempfile::NamedTempFile, flags: &[&str]) -> Report {
        let path = kubeconfig.path().to_str().unwrap();
        let Command::Status(options) =
            Cli::parse_from([&["weft", "status", "--kubeconfig", path], flags].concat()).command;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(status(&options)).unwrap()
    }

    fn peer(state: &str, problem: Option<&str>) -> serde_json::Value {
        let route = json!({"prefix": "192.0.2.10/32", "nextHop": "10.0.0.1", "path": "64512",
            "communities": ["65000:100"]});
        json!({"name": "10.0.0.2", "address": "10.0.0.2", "asn": 64512, "routerId": "10.0.0.1",
            "remote": "AS 65000", "state": state, "seconds": 130, "downs": 0, "problem": problem,
            "session": null, "announced": [route], "received": [], "refused": 3})
    }

    #[test]
    fn sessions_are_shown_with_what_is_wrong_and_their_routes() {
        let node = |name: &str| json!({"metadata": {"name": name}});
        let nodes = json!({"kind": "List", "apiVersion": "v1", "metadata": {},
            "items": [node("node1"), node("node2"), node("node3")]});
        let up = json!({"peers": [peer("Established", None)], "problems": []});
        let down = json!({"peers": [peer("Active", Some("nobody listens at its port 179"))], "problems": []});
        let kubeconfig = cluster(vec![
            ("/api/v1/nodes", nodes.to_string()),
            ("/api/v1/nodes/node1:10246/proxy/bgp", up.to_string()),
            ("/api/v1/nodes/node2:10246/proxy/bgp", down.to_string()),
        ]);
        let report = shown(&kubeconfig, &["--routes"]);
        assert!(!report.is_well());
        let text = report.to_string();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["node1", "10.0.0.2", "10.0.0.2", "65000", "Established", "2m", "1", "0", "3"]);
        assert_eq!(lines[2][..5], ["node2", "10.0.0.2", "10.0.0.2", "65000", "Active"]);
        assert!(text.contains("\nnode2 to 10.0.0.2: nobody listens at its port 179\n"), "{text}");
        assert!(text.contains("\nthe agent of Node node3 says nothing: "), "{text}");
        let route =
            "node1 announces to 10.0.0.2:\n  192.0.2.10/32 via 10.0.0.1, path 64512, communities 65000:100\n";
        assert!(text.contains(route), "{text}");
        let report = shown(&kubeconfig, &["--node", "node1"]);
        assert!(report.is_well() && !report.to_string().contains("announces"));
    }
}
