//! `weft status`: what of Weft runs on which node, from objects as the API server has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::Value;

use crate::cluster::{Cluster, Connection, DAEMON_SET, DEPLOYMENT, IPAM_BLOCK, NODE, POD, SERVICE, name};
use crate::cluster::{DNS_SERVICE, NAMESPACE};
use crate::finding::{Finding, Id};
use crate::ipam::{self, IpamStatus};
use crate::{Result, rollout};

use self::between::Figures;
use self::load_balancers::LoadBalancers;

mod between;
mod load_balancers;

/// The label that all of Weft's pods have, and the one that tells them apart.
const OURS: &str = "app.kubernetes.io/name=weft";
pub(crate) const COMPONENT: &str = weft_types::well_known::label::APP_COMPONENT;
/// The DaemonSets of an installation.
const PARTS: [&str; 3] = ["weft-agent", "weft-proxy", "weft-dns-node"];
/// Where the proxy says when it was last in step with the cluster.
const PROXY_HEALTH: (u16, &str) = (weft_types::well_known::port::PROXY_HEALTH, "/healthz");

/// Where the agent says what is wrong, and which pods wait for their policies: lines for people.
const AGENT_HEALTH: (u16, &str) = (weft_types::well_known::port::AGENT, "/healthz");
/// Where it says what it counts.
const METRICS: &str = "/metrics";
/// How the line with those pods begins.
const PENDING_PODS: &str = "pendingPods: ";
/// How the line with the load balancer addresses begins that the node answers for.
const ANNOUNCED: &str = "announced: ";

/// Which cluster.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// What of Weft runs where.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Status {
    rows: Vec<Row>,
    dns: String,
    /// Who has load balancer addresses, where agents give some.
    load_balancers: Option<String>,
    /// How the blocks of addresses are used, where pods get theirs of blocks.
    blocks: Option<String>,
    /// What leads beyond the nodes.
    between: Vec<String>,
    /// What does not belong together, and what is in the way of connections to Services; each with the
    /// remedy.
    warnings: Vec<Finding>,
    /// What the agents say, which may pass by itself or be meant so.
    notes: Vec<String>,
    is_well: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    node: String,
    ready: &'static str,
    pod_cidrs: String,
    agent: String,
    proxy: String,
    /// The node's own DNS server, where each node is to have one.
    node_dns: Option<String>,
    version: String,
    last_sync: String,
}

/// Everything that the status is made of.
#[derive(Debug, Default)]
struct Seen {
    nodes: Vec<Value>,
    pods: Vec<Value>,
    deployment: Option<Value>,
    service: Option<Value>,
    /// What has a DNS server run on every node.
    node_dns: Option<Value>,
    /// The blocks of addresses that nodes have, where pods get theirs of blocks.
    blocks: Vec<Value>,
    /// The DaemonSets of agent and proxy.
    daemon_sets: Vec<Value>,
    /// What the proxies of nodes say of themselves.
    health: BTreeMap<String, Value>,
    /// What the agents of nodes say of themselves.
    agents: BTreeMap<String, String>,
    /// What they count.
    figures: BTreeMap<String, Figures>,
    /// How the blocks are used.
    ipam: Option<IpamStatus>,
    /// When all this was seen, in seconds since 1970.
    now: u64,
    /// Load balancer addresses, where agents give some.
    load_balancers: Option<LoadBalancers>,
}

/// Looks at the cluster.
///
/// # Errors
/// Where the cluster is not to be reached.
pub async fn run(options: &Options) -> Result<Status> {
    let cluster = Cluster::connect(&options.connection).await?;
    let mut seen = Seen {
        nodes: cluster.list(NODE, None, "").await?,
        pods: cluster.list(POD, Some(NAMESPACE), OURS).await?,
        deployment: cluster.get(DEPLOYMENT, NAMESPACE, "weft-dns").await?,
        service: cluster.get(SERVICE, NAMESPACE, DNS_SERVICE).await?,
        node_dns: cluster.get(DAEMON_SET, NAMESPACE, "weft-dns-node").await?,
        // Most clusters have no such kind.
        blocks: cluster.list(IPAM_BLOCK, None, "").await.unwrap_or_default(),
        daemon_sets: cluster.list(DAEMON_SET, Some(NAMESPACE), OURS).await?,
        health: BTreeMap::new(),
        agents: BTreeMap::new(),
        figures: BTreeMap::new(),
        ipam: None,
        now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        load_balancers: load_balancers::look(&cluster).await?,
    };
    if !seen.blocks.is_empty() {
        seen.ipam = Some(ipam::look(&cluster, &seen.blocks, &seen.nodes).await?);
    }
    for node in &seen.nodes {
        let (port, path) = AGENT_HEALTH;
        if let Ok(text) = cluster.text(&format!("/api/v1/nodes/{}:{port}/proxy{path}", name(node))).await {
            seen.agents.insert(name(node).to_owned(), text);
            let figures = cluster.text(&format!("/api/v1/nodes/{}:{port}/proxy{METRICS}", name(node))).await;
            seen.figures.insert(name(node).to_owned(), Figures::parse(&figures.unwrap_or_default()));
        }
        if let Some(health) = cluster.ask_node(name(node), PROXY_HEALTH.0, PROXY_HEALTH.1).await {
            seen.health.insert(name(node).to_owned(), health);
        }
    }
    Ok(status(&seen))
}

impl Status {
    /// Whether every node, agent, proxy and DNS server is ready, and nothing is known to be in their way.
    pub fn is_well(&self) -> bool {
        self.is_well
    }
}

fn status(seen: &Seen) -> Status {
    let rows: Vec<Row> = seen.nodes.iter().map(|node| row(seen, node)).collect();
    let dns = dns(seen);
    let are_ready = |row: &Row| {
        let mut pods = [&row.agent, &row.proxy].into_iter().chain(&row.node_dns);
        row.ready == "yes" && pods.all(|pod| pod.starts_with("ready"))
    };
    let has_dns = seen.deployment.as_ref().is_some_and(|held| rollout::deployment(held).is_done);
    let warnings: Vec<Finding> = different_images(&seen.daemon_sets, seen.deployment.as_ref())
        .into_iter()
        .chain(not_uninstalled(&seen.daemon_sets))
        .chain(seen.nodes.iter().flat_map(|node| blocking_chains(seen, node)))
        .collect();
    let is_whole = has_dns && seen.service.is_some() && warnings.is_empty();
    let notes = seen.agents.iter().flat_map(|(node, text)| notes(node, text));
    let notes = notes.chain(seen.ipam.iter().flat_map(|ipam| ipam.problems().iter().cloned())).collect();
    let agents = seen.daemon_sets.iter().find(|set| name(set) == "weft-agent");
    let load_balancers = seen.load_balancers.as_ref().map(|seen| seen.line(agents));
    let is_well = !rows.is_empty() && rows.iter().all(are_ready) && is_whole;
    let blocks = seen.ipam.as_ref().map(IpamStatus::line);
    let between = between::lines(&seen.figures, seen.now);
    Status { is_well, rows, dns, load_balancers, blocks, between, warnings, notes }
}

/// What a node's agent says, behind the line that it runs.
fn notes<'a>(node: &'a str, text: &'a str) -> impl Iterator<Item = String> + 'a {
    let lines = text.lines().skip(1).filter(|line| !line.is_empty());
    lines.map(move |line| match (line.strip_prefix(PENDING_PODS), line.strip_prefix(ANNOUNCED)) {
        (Some(pods), _) => format!(
            "Node {node}: pods that wait for their network policies, and are closed until then: {pods}"
        ),
        (_, Some(addresses)) => {
            format!("Node {node} answers ARP and NDP for the load balancer addresses {addresses}")
        }
        _ => format!("Node {node}: {line}"),
    })
}

/// One release is tested as a whole; a part of another one is what an installation with other values left
/// behind.
pub(crate) fn different_images<'a>(
    daemon_sets: &'a [Value],
    deployment: Option<&'a Value>,
) -> Option<Finding> {
    let parts: Vec<&Value> = daemon_sets.iter().chain(deployment).collect();
    let images: BTreeSet<&str> = parts.iter().copied().filter_map(image).collect();
    let each = parts.iter().map(|part| format!("{} runs {}", name(part), image(part).unwrap_or("no image")));
    (images.len() > 1).then(|| {
        Finding::warning(Id::VersionsDiffer, "versions differ", each.collect::<Vec<_>>().join(", "))
            .fix("Run weft install again with the flags that this cluster is to have")
    })
}

/// What an uninstallation that did not come to its end left.
pub(crate) fn not_uninstalled(daemon_sets: &[Value]) -> Option<Finding> {
    let left: Vec<&str> = daemon_sets.iter().map(name).filter(|name| !PARTS.contains(name)).collect();
    (!left.is_empty()).then(|| {
        Finding::warning(Id::InstallationLeft, "left over", format!("DaemonSet {}", left.join(", "))).fix(
            format!(
                "Run weft uninstall again, or delete it (kubectl -n {NAMESPACE} delete daemonset {})",
                left.join(" ")
            ),
        )
    })
}

/// The image of what makes pods; none where it has no container.
fn image(workload: &Value) -> Option<&str> {
    workload["spec"]["template"]["spec"]["containers"][0]["image"].as_str()
}

fn row(seen: &Seen, node: &Value) -> Row {
    let of = |component: &str| {
        let is_it = |pod: &&Value| {
            pod["spec"]["nodeName"] == name(node) && pod["metadata"]["labels"][COMPONENT] == component
        };
        // In an upgrade the next one may stand beside the one before, which ends.
        let rank = |pod: &&Value| (rollout::is_ready(pod) && !is_ending(pod), !is_ending(pod));
        seen.pods.iter().filter(is_it).max_by_key(rank)
    };
    let agent = of("agent");
    let blocks = seen.blocks.iter().map(|block| &block["spec"]).filter(|spec| spec["node"] == name(node));
    let cidrs: Vec<&Value> = match seen.blocks.is_empty() {
        true => node["spec"]["podCIDRs"].as_array().into_iter().flatten().collect(),
        false => blocks.map(|spec| &spec["cidr"]).collect(),
    };
    let cidrs = cidrs.into_iter().filter_map(Value::as_str);
    let last_sync = seen.health.get(name(node)).and_then(|health| health["lastUpdated"].as_str());
    Row {
        node: name(node).to_owned(),
        ready: if rollout::is_ready(node) { "yes" } else { "no" },
        pod_cidrs: cidrs.collect::<Vec<_>>().join(","),
        agent: pod(agent),
        proxy: pod(of("proxy")),
        node_dns: seen.node_dns.as_ref().map(|_| pod(of("node-dns"))),
        version: agent.or_else(|| of("proxy")).map_or("-", version).to_owned(),
        last_sync: last_sync.unwrap_or("-").to_owned(),
    }
}

/// The chains of other programs that a node's proxy finds in the way.
fn blocking_chains(seen: &Seen, node: &Value) -> Vec<Finding> {
    // Proxies of earlier releases call them obstacles.
    let told = |health: &Value| health.get("conflicts").or_else(|| health.get("obstacles")).cloned();
    let told = seen.health.get(name(node)).and_then(told);
    let told = told.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    told.filter_map(|text| dropped(name(node), text)).collect()
}

/// A chain that the proxy of a node finds in the way, with the remedy behind the first semicolon. What network
/// policies deny is meant so.
pub(crate) fn dropped(node: &str, text: &str) -> Option<Finding> {
    if ["ip", "ip6"].iter().any(|family| text.contains(&format!(" of table {family} weft-policy "))) {
        return None;
    }
    let (what, fix) = text.split_once("; ").unwrap_or((text, ""));
    Some(Finding::error(Id::ForwardDropped, format!("Node {node}"), what).fix(fix))
}

/// How a pod is: ready, or why not; and how often it was started again.
fn pod(pod: Option<&Value>) -> String {
    let Some(pod) = pod else { return "missing".to_owned() };
    let containers = |list: &str| pod["status"][list].as_array().into_iter().flatten();
    // An init container runs anew whenever the pod's sandbox does: that is no fault of a daemon.
    let restarts: u64 =
        containers("containerStatuses").filter_map(|container| container["restartCount"].as_u64()).sum();
    let mut waiting = containers("initContainerStatuses")
        .chain(containers("containerStatuses"))
        .filter_map(|container| container["state"]["waiting"]["reason"].as_str());
    let word = match (is_ending(pod), rollout::is_ready(pod), waiting.next()) {
        (true, ..) => "terminating".to_owned(),
        (_, true, _) => "ready".to_owned(),
        (_, false, Some(reason)) => reason.to_owned(),
        (_, false, None) => "not ready".to_owned(),
    };
    match restarts {
        0 => word,
        1 => format!("{word} (1 restart)"),
        many => format!("{word} ({many} restarts)"),
    }
}

/// Whether a pod was told to end.
fn is_ending(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

/// The tag of the image: what stands behind the last colon of its last part, so that a registry's port is
/// none.
fn version(pod: &Value) -> &str {
    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').map_or("latest", |(_, tag)| tag)
}

fn dns(seen: &Seen) -> String {
    let Some(deployment) = &seen.deployment else { return "missing".to_owned() };
    let is_dns = |pod: &&Value| {
        pod["metadata"]["labels"][COMPONENT] == "dns" && rollout::is_ready(pod) && !is_ending(pod)
    };
    let nodes = seen.pods.iter().filter(is_dns).filter_map(|pod| pod["spec"]["nodeName"].as_str());
    let nodes = match nodes.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => none,
        nodes => format!(" ({nodes})"),
    };
    let address = seen.service.as_ref().and_then(|service| service["spec"]["clusterIP"].as_str());
    let progress = rollout::deployment(deployment).text;
    format!("{progress} ready{nodes} at {}", address.unwrap_or("no address: the Service kube-dns is missing"))
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING);
        let has_node_dns = self.rows.iter().any(|row| row.node_dns.is_some());
        let node_dns = has_node_dns.then_some("NODE DNS");
        let head = ["NODE", "READY", "POD CIDRS", "AGENT", "PROXY"].into_iter().chain(node_dns);
        table.set_header(head.chain(["VERSION", "LAST SYNC"]));
        for row in &self.rows {
            let Row { node, ready, pod_cidrs, agent, proxy, node_dns, version, last_sync } = row;
            let cells =
                [node.as_str(), *ready, pod_cidrs, agent, proxy].into_iter().chain(node_dns.as_deref());
            table.add_row(cells.chain([version.as_str(), last_sync]));
        }
        for line in table.to_string().lines() {
            writeln!(f, "{}", line.trim())?;
        }
        writeln!(f, "\nDNS: {}", self.dns)?;
        if let Some(line) = &self.load_balancers {
            writeln!(f, "Load balancers: {line}")?;
        }
        if let Some(line) = &self.blocks {
            writeln!(f, "Blocks: {line}")?;
        }
        self.between.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        for finding in &self.warnings {
            let fix = if finding.fix.is_empty() { String::new() } else { format!(". {}", finding.fix) };
            writeln!(f, "\n{finding}{fix}")?;
        }
        self.notes.iter().try_for_each(|line| writeln!(f, "\n{line}"))
    }
}

#[cfg(test)]
mod tests;
