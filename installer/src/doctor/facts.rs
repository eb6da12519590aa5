//! What is known of a cluster: objects as the API server has them, and what each agent tells of its machine.
//! Without an opinion.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join;
use futures::stream::{self, StreamExt};
use serde_json::Value;
use tokio::time::timeout;
use weft_types::node_facts::NodeFacts;

use crate::Result;
use crate::cluster::{
    Cluster, DAEMON_SET, DEPLOYMENT, ENDPOINT_SLICE, IPAM_BLOCK, NAMESPACES, NETWORK_POLICY, NODE, POD,
    SERVICE, STATEFUL_SET, name,
};

/// How long an agent may take.
const PATIENCE: Duration = Duration::from_secs(6);
/// How many are asked at a time.
const AT_A_TIME: usize = 32;

/// Everything that conclusions are drawn from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) nodes: Vec<Value>,
    pub(crate) namespaces: Vec<Value>,
    pub(crate) services: Vec<Value>,
    pub(crate) slices: Vec<Value>,
    pub(crate) pods: Vec<Value>,
    pub(crate) policies: Vec<Value>,
    pub(crate) daemon_sets: Vec<Value>,
    pub(crate) deployments: Vec<Value>,
    pub(crate) stateful_sets: Vec<Value>,
    /// The blocks of addresses that nodes have, where pods get theirs of blocks.
    pub(crate) blocks: Vec<Value>,
    /// What each Node's agent tells, or why it does not.
    pub(crate) agents: BTreeMap<String, Result<NodeFacts, String>>,
    /// By how many milliseconds each machine's clock is ahead of the one of this program, as far as the way
    /// there and back lets that be known.
    pub(crate) clocks: BTreeMap<String, i64>,
}

impl Facts {
    /// Asks the API server, and by way of it the agents.
    ///
    /// # Errors
    /// Where the API server does not answer, or refuses what nothing can be said without.
    pub(crate) async fn gather(cluster: &Cluster) -> Result<Facts> {
        let nodes = cluster.list(NODE, None, "").await?;
        let names: Vec<String> = nodes.iter().map(|node| name(node).to_owned()).collect();
        let asked = stream::iter(names).map(|node| ask(cluster, node)).buffer_unordered(AT_A_TIME);
        let (objects, answers) = join(objects(cluster), asked.collect::<Vec<_>>()).await;
        let mut facts = Facts { nodes, ..objects? };
        for (node, answer, clock) in answers {
            facts.clocks.extend(clock.map(|clock| (node.clone(), clock)));
            facts.agents.insert(node, answer);
        }
        Ok(facts)
    }

    /// The machines whose agents answer, by their Nodes' names.
    pub(crate) fn machines(&self) -> impl Iterator<Item = (&str, &NodeFacts)> {
        self.agents.iter().filter_map(|(node, answer)| Some((node.as_str(), answer.as_ref().ok()?)))
    }

    /// How many pods a node has.
    pub(crate) fn pods_on(&self, node: &str) -> usize {
        self.pods.iter().filter(|pod| pod["spec"]["nodeName"] == node).count()
    }

    /// How many things were looked at.
    pub(crate) fn count(&self) -> usize {
        let objects = [&self.nodes, &self.services, &self.pods, &self.policies, &self.daemon_sets];
        objects.iter().map(|list| list.len()).sum::<usize>() + self.agents.len()
    }
}

async fn objects(cluster: &Cluster) -> Result<Facts> {
    Ok(Facts {
        namespaces: cluster.list(NAMESPACES, None, "").await?,
        services: cluster.list(SERVICE, None, "").await?,
        slices: cluster.list(ENDPOINT_SLICE, None, "").await?,
        pods: cluster.list(POD, None, "").await?,
        policies: cluster.list(NETWORK_POLICY, None, "").await?,
        daemon_sets: cluster.list(DAEMON_SET, None, "").await?,
        deployments: cluster.list(DEPLOYMENT, None, "").await?,
        stateful_sets: cluster.list(STATEFUL_SET, None, "").await?,
        // Most clusters have no such kind.
        blocks: cluster.list(IPAM_BLOCK, None, "").await.unwrap_or_default(),
        ..Facts::default()
    })
}

async fn ask(cluster: &Cluster, node: String) -> (String, Result<NodeFacts, String>, Option<i64>) {
    let start = now();
    let answer = match timeout(PATIENCE, cluster.ask_agent::<NodeFacts>(&node, "/facts")).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    let between = start + (now() - start) / 2;
    let clock = answer.as_ref().ok().and_then(|facts| Some(i64::try_from(facts.time).ok()? - between));
    (node, answer, clock)
}

/// This machine's clock, in milliseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
