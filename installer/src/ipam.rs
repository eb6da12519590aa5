//! `weft ipam status`: which node has which blocks of addresses, how much of them is used, and which addresses
//! are kept for nobody. The blocks are objects of the cluster, and each node's agent says what is reserved.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::Value;
use weft_types::IpNetwork;

use crate::Result;
use crate::cluster::{Cluster, Connection, IPAM_BLOCK, NODE, POD, name};

/// What can be asked about addresses of pods.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show the blocks of addresses of every node, how much of them is used, and addresses that are kept for
    /// no pod. Exits with 1 where something is wrong.
    Status(Options),
}

/// Which cluster.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// The blocks of a cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IpamStatus {
    rows: Vec<Row>,
    problems: Vec<String>,
    count: Count,
}

/// Of all blocks whose node's agent answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    usable: u64,
    used: u64,
    leaked: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    node: String,
    block: String,
    used: String,
    leaked: String,
}

/// Looks at the cluster.
///
/// # Errors
/// Where the cluster is not to be reached, or has no blocks.
pub async fn status(options: &Options) -> Result<IpamStatus> {
    let cluster = Cluster::connect(&options.connection).await?;
    let blocks = cluster.list(IPAM_BLOCK, None, "").await?;
    let nodes = cluster.list(NODE, None, "").await?;
    look(&cluster, &blocks, &nodes).await
}

/// The same of these blocks and Nodes.
///
/// # Errors
/// Where the cluster is not to be reached.
pub(crate) async fn look(cluster: &Cluster, blocks: &[Value], nodes: &[Value]) -> Result<IpamStatus> {
    let pods = cluster.list(POD, None, "").await?;
    let mut agents = BTreeMap::new();
    for node in nodes {
        if let Ok(answer) = cluster.ask_agent(name(node), "/ipam").await {
            agents.insert(name(node).to_owned(), answer);
        }
    }
    Ok(summary(blocks, nodes, &pods, &agents))
}

impl IpamStatus {
    /// Whether every block is some Node's whose agent answers, and nothing is kept for nobody.
    pub fn is_well(&self) -> bool {
        self.problems.is_empty()
    }

    /// What is wrong, in words.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// All blocks in one line.
    pub(crate) fn line(&self) -> String {
        let nodes: BTreeSet<&str> = self.rows.iter().map(|row| row.node.as_str()).collect();
        let Count { usable, used, leaked } = self.count;
        let free = usable.saturating_sub(used);
        format!(
            "{} of {} nodes; {used} of {usable} addresses in use, {free} free, {leaked} kept for no pod",
            self.rows.len(),
            nodes.len()
        )
    }
}

fn summary(
    blocks: &[Value],
    nodes: &[Value],
    pods: &[Value],
    agents: &BTreeMap<String, Value>,
) -> IpamStatus {
    let nodes: BTreeSet<&str> = nodes.iter().map(name).collect();
    let addresses = pods.iter().flat_map(|pod| pod["status"]["podIPs"].as_array().into_iter().flatten());
    let alive: BTreeSet<IpAddr> =
        addresses.filter_map(|address| address["ip"].as_str()?.parse().ok()).collect();
    let mut blocks: Vec<(String, IpNetwork)> = blocks
        .iter()
        .filter_map(|block| {
            let spec = &block["spec"];
            Some((spec["node"].as_str()?.to_owned(), spec["cidr"].as_str()?.parse().ok()?))
        })
        .collect();
    blocks.sort();
    let mut status = IpamStatus::default();
    for (node, block) in &blocks {
        let agent = agents.get(node);
        status.rows.push(row(node, block, agent, &alive, &mut status.count));
        if !nodes.contains(node.as_str()) {
            status.problems.push(format!(
                "the block {block} is of Node {node}, which is gone: an agent gives it up after --block-grace seconds"
            ));
        }
    }
    for node in nodes {
        let problem = match agents.get(node) {
            None => {
                Some(format!("the agent of Node {node} does not answer: its use of addresses is not known"))
            }
            Some(agent) => agent["missing"].as_str().map(|missing| format!("Node {node}: {missing}")),
        };
        status.problems.extend(problem);
        let leaked: Vec<String> = agents
            .get(node)
            .into_iter()
            .flat_map(held)
            .filter(|held| !alive.contains(held))
            .map(|held| held.to_string())
            .collect();
        if !leaked.is_empty() {
            status.problems.push(format!(
                "Node {node} keeps addresses that no Pod has: {}; they are freed once the runtime has no such container \
                 for --collect-after seconds (a pod that just starts or ends is here too)",
                leaked.join(", ")
            ));
        }
    }
    status
}

fn held(agent: &Value) -> impl Iterator<Item = IpAddr> {
    let held = agent["held"].as_array().into_iter().flatten();
    held.filter_map(|address| address.as_str()?.parse().ok())
}

fn row(
    node: &str,
    block: &IpNetwork,
    agent: Option<&Value>,
    alive: &BTreeSet<IpAddr>,
    count: &mut Count,
) -> Row {
    let known = agent.and_then(|agent| {
        let mut blocks = agent["blocks"].as_array()?.iter();
        blocks.find(|known| known["cidr"] == block.to_string().as_str())
    });
    let (used, leaked) = match agent {
        None => ("?".to_owned(), "?".to_owned()),
        Some(agent) => {
            let held: Vec<IpAddr> = held(agent).filter(|address| block.contains(*address)).collect();
            let usable = known.and_then(|known| known["usable"].as_u64());
            let of = usable.map_or_else(|| " (not given out)".to_owned(), |usable| format!("/{usable}"));
            let leaked = held.iter().filter(|address| !alive.contains(address)).count();
            count.usable += usable.unwrap_or_default();
            count.used += held.len() as u64;
            count.leaked += leaked as u64;
            (format!("{}{of}", held.len()), leaked.to_string())
        }
    };
    Row { node: node.to_owned(), block: block.to_string(), used, leaked }
}

impl fmt::Display for IpamStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(["NODE", "BLOCK", "USED", "LEAKED"]);
        for Row { node, block, used, leaked } in &self.rows {
            table.add_row([node, block, used, leaked]);
        }
        for line in table.to_string().lines() {
            writeln!(f, "{}", line.trim())?;
        }
        self.problems.iter().try_for_each(|problem| writeln!(f, "{problem}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn block(cidr: &str, node: &str) -> Value {
        json!({"metadata": {"name": cidr}, "spec": {"cidr": cidr, "node": node}})
    }

    #[test]
    fn blocks_use_and_leaks_by_node() {
        let nodes = ["node1", "node2"].map(|name| json!({"metadata": {"name": name}}));
        let blocks =
            [block("10.0.0.64/26", "node2"), block("10.0.0.0/26", "node1"), block("10.0.0.128/26", "old")];
        let pods = [json!({"status": {"podIPs": [{"ip": "10.0.0.2"}]}})];
        let agent =
            json!({"blocks": [{"cidr": "10.0.0.0/26", "usable": 61}], "held": ["10.0.0.2", "10.0.0.3"]});
        let agents = BTreeMap::from([("node1".to_owned(), agent)]);
        let status = summary(&blocks, &nodes, &pods, &agents);
        assert!(!status.is_well());
        let line = "3 of 3 nodes; 2 of 61 addresses in use, 59 free, 1 kept for no pod";
        assert_eq!(status.line(), line);
        insta::assert_snapshot!(status, @r"
        NODE   BLOCK          USED  LEAKED
        node1  10.0.0.0/26    2/61  1
        node2  10.0.0.64/26   ?     ?
        old    10.0.0.128/26  ?     ?
        the block 10.0.0.128/26 is of Node old, which is gone: an agent gives it up after --block-grace seconds
        Node node1 keeps addresses that no Pod has: 10.0.0.3; they are freed once the runtime has no such container for --collect-after seconds (a pod that just starts or ends is here too)
        the agent of Node node2 does not answer: its use of addresses is not known
        ");
    }

    #[test]
    fn nothing_is_wrong_where_every_address_is_a_pods() {
        let nodes = [json!({"metadata": {"name": "node1"}})];
        let pods = [json!({"status": {"podIPs": [{"ip": "10.0.0.2"}]}})];
        let agent =
            json!({"blocks": [{"cidr": "10.0.0.0/26", "usable": 61}], "held": ["10.0.0.2"], "missing": null});
        let status =
            summary(&[block("10.0.0.0/26", "node1")], &nodes, &pods, &[("node1".to_owned(), agent)].into());
        assert!(status.is_well(), "{status}");
    }
}
