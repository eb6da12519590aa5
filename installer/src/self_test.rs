//! `weft self-test`: whether pods of every node reach a Service by its name. A pod on each node serves, and is ready
//! only once it has got an answer from the Service, so that the DaemonSet's own count is the result. What such a pod
//! does is in [`pod`].

pub mod pod;

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::cluster::{Cluster, Connection, DAEMON_SET, NAMESPACES, POD, name, objects};
use crate::rollout::{self, Progress};
use crate::{Result, wait};

const TEMPLATE: &str = include_str!("self-test.yaml");
/// The namespace that the self-test makes and deletes.
const NAMESPACE: &str = "weft-self-test";
/// How long its removal may take.
const REMOVAL: Duration = Duration::from_secs(60);

/// Runs the self-test alone.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// What its pods run.
    #[command(flatten)]
    pub test: SelfTest,
    /// How many seconds to wait for its pods.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

/// What the self-test's pods run.
#[derive(Args, Clone, Debug)]
pub struct SelfTest {
    /// The image that holds the weft command.
    #[arg(long, default_value = crate::manifests::IMAGE)]
    pub image: String,
    /// Where the weft command is in the image.
    #[arg(long, value_name = "PATH", default_value = "/weft")]
    pub program: String,
    /// The DNS zone of the cluster.
    #[arg(long, default_value = "cluster.local", value_name = "ZONE")]
    pub cluster_domain: String,
}

impl Default for SelfTest {
    fn default() -> SelfTest {
        let text = str::to_owned;
        SelfTest {
            image: text(crate::manifests::IMAGE),
            program: text("/weft"),
            cluster_domain: text("cluster.local"),
        }
    }
}

/// Connects and runs.
///
/// # Errors
/// As [`run`].
pub async fn command(options: &Options) -> Result<()> {
    let cluster = Cluster::connect(&options.connection).await?;
    run(&cluster, &options.test, Duration::from_secs(options.timeout)).await
}

/// Runs the self-test and removes it again, whatever came of it.
///
/// # Errors
/// [`crate::Error::Timeout`] with the nodes whose pods got no answer.
pub(crate) async fn run(cluster: &Cluster, test: &SelfTest, patience: Duration) -> Result<()> {
    let objects = objects(&render(test))?;
    let tested = attempt(cluster, &objects, patience).await;
    // All the others are in the namespace, which is the first.
    let removed = match objects.first() {
        Some(namespace) => remove(cluster, namespace).await,
        None => Ok(()),
    };
    tested.and(removed)?;
    eprintln!("self-test passed: pods of every node reach a Service by its name");
    Ok(())
}

/// Waits until it is gone: in a namespace that is about to go nothing can be made.
async fn remove(cluster: &Cluster, namespace: &Value) -> Result<()> {
    cluster.delete(namespace).await?;
    let gone = || async {
        let held = cluster.get(NAMESPACES, "", NAMESPACE).await?;
        Ok(Progress { is_done: held.is_none(), text: format!("removing the namespace {NAMESPACE}") })
    };
    wait::until("the self-test's namespace did not go", REMOVAL, gone).await
}

async fn attempt(cluster: &Cluster, objects: &[Value], patience: Duration) -> Result<()> {
    for object in objects {
        cluster.apply(object).await?;
    }
    wait::until("the self-test did not pass", patience, || progress(cluster)).await
}

async fn progress(cluster: &Cluster) -> Result<Progress> {
    let set = cluster.get(DAEMON_SET, NAMESPACE, NAMESPACE).await?.unwrap_or_default();
    let pods = cluster.list(POD, Some(NAMESPACE), "").await?;
    Ok(judge(&set, &pods))
}

/// The DaemonSet's count, and the nodes whose pods are not there yet.
fn judge(set: &Value, pods: &[Value]) -> Progress {
    let Progress { is_done, text } = rollout::daemon_set(set);
    let waiting = pods.iter().filter(|pod| !rollout::is_ready(pod));
    let mut waiting: Vec<&str> =
        waiting.map(|pod| pod["spec"]["nodeName"].as_str().unwrap_or_else(|| name(pod))).collect();
    waiting.sort_unstable();
    match waiting.is_empty() {
        true => Progress { is_done, text },
        false => {
            Progress { is_done: false, text: format!("{text}, no answer yet on {}", waiting.join(", ")) }
        }
    }
}

fn render(test: &SelfTest) -> String {
    TEMPLATE
        .replace("{{image}}", &test.image)
        .replace("{{program}}", &test.program)
        .replace("{{cluster_domain}}", &test.cluster_domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_without_an_answer_are_named() {
        let set = json!({"metadata": {"name": "weft-self-test"}, "status": {
            "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberReady": 1}});
        let pod = |node: &str, ready: &str| json!({"spec": {"nodeName": node}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let seen = judge(&set, &[pod("node1", "True"), pod("node2", "False")]);
        assert_eq!(seen.text, "weft-self-test 1/2, no answer yet on node2");
        assert!(!seen.is_done);
    }

    #[test]
    fn everything_is_in_the_namespace_that_goes_afterwards() {
        let objects = objects(&render(&SelfTest::default())).unwrap();
        assert_eq!((&objects[0]["kind"], name(&objects[0])), (&json!("Namespace"), NAMESPACE));
        assert!(objects[1..].iter().all(|object| object["metadata"]["namespace"] == NAMESPACE));
    }
}
