//! `weft uninstall`: everything of Weft out of a cluster and off its nodes, in an order that keeps running pods going
//! for as long as that can be.
//!
//! 1. The agent and the proxy go, so that nobody puts back what is taken away. What they set up stays: pods notice nothing.
//! 2. DNS goes, while its pods can still be torn down by the plugin.
//! 3. On each node a cleanup pod has agent and proxy remove their own (see `--cleanup` there), and then the plugins,
//!    unless pods still have addresses of theirs.
//! 4. Roles and accounts go.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::cluster::{Cluster, Connection, DAEMON_SET, POD, SERVICE, objects, shown};
use crate::install::{DNS_SERVICE, NAMESPACE};
use crate::manifests::{self, IMAGE, Values};
use crate::rollout::{self, Progress};
use crate::{Result, wait};

const CLEANUP: &str = include_str!("cleanup.yaml");
/// The label by which the Service kube-dns is known as Weft's own.
const DNS_MARK: (&str, &str) = ("kubernetes.io/name", "WeftDNS");

/// What to uninstall from where.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// The image for the cleanup. Without it, that of the installed agent.
    #[arg(long)]
    pub image: Option<String>,
    /// How many seconds to wait for each step.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
}

/// Uninstalls. What is gone already is no error, so that it can be repeated.
///
/// # Errors
/// What the API server refuses, or a step that takes too long; those before it are done.
pub async fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::connect(&options.connection).await?;
    let patience = Duration::from_secs(options.timeout);
    let installed = cluster.get(DAEMON_SET, NAMESPACE, "weft-agent").await?;
    let image = image(options, installed.as_ref());
    let all = objects(&manifests::render(&Values { node_local_dns: true, ..Values::default() }))?;
    let (workloads, others): (Vec<Value>, Vec<Value>) = all
        .into_iter()
        .partition(|object| ["DaemonSet", "Deployment"].map(Value::from).contains(&object["kind"]));
    for (kind, components) in [("DaemonSet", "agent,proxy,node-dns"), ("Deployment", "dns")] {
        for workload in workloads.iter().filter(|workload| workload["kind"] == kind) {
            delete(&cluster, workload).await?;
        }
        ended(&cluster, components, patience).await?;
    }
    clean_nodes(&cluster, &image, patience).await?;
    let service = cluster.get(SERVICE, NAMESPACE, DNS_SERVICE).await?;
    let is_ours = service.is_some_and(|service| service["metadata"]["labels"][DNS_MARK.0] == DNS_MARK.1);
    for object in others.iter().filter(|object| is_ours || object["kind"] != "Service").rev() {
        delete(&cluster, object).await?;
    }
    Ok(())
}

fn image(options: &Options, installed: Option<&Value>) -> String {
    let held = installed.and_then(|set| set["spec"]["template"]["spec"]["containers"][0]["image"].as_str());
    options.image.as_deref().or(held).unwrap_or(IMAGE).to_owned()
}

async fn delete(cluster: &Cluster, object: &Value) -> Result<()> {
    if cluster.delete(object).await? {
        eprintln!("deleted {}", shown(object));
    }
    Ok(())
}

/// Waits until no pod of these components is left.
async fn ended(cluster: &Cluster, components: &str, patience: Duration) -> Result<()> {
    let labels = format!("app.kubernetes.io/name=weft,app.kubernetes.io/component in ({components})");
    let look = || async {
        let left = cluster.list(POD, Some(NAMESPACE), &labels).await?.len();
        Ok(Progress { is_done: left == 0, text: format!("pods of {components}: {left} left") })
    };
    wait::until("the pods did not end", patience, look).await
}

/// Has every node cleaned by a pod, and takes the pods away again. Where it does not come to an end they stay, for a
/// look at their logs.
async fn clean_nodes(cluster: &Cluster, image: &str, patience: Duration) -> Result<()> {
    let sets = objects(&CLEANUP.replace("{{image}}", image))?;
    for set in &sets {
        cluster.apply(set).await?;
    }
    let progress = || async {
        let set = cluster.get(DAEMON_SET, NAMESPACE, "weft-cleanup").await?.unwrap_or_default();
        Ok(rollout::daemon_set(&set))
    };
    wait::until("the nodes were not cleaned", patience, progress).await?;
    for set in &sets {
        delete(cluster, set).await?;
    }
    ended(cluster, "cleanup", patience).await
}
