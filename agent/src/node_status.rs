//! Telling the cluster that this node's network works: the Node's condition `NetworkUnavailable`, set to
//! False. Where somebody set it to True (cloud controllers do), the node keeps a taint until then. It is
//! never set to True here: pods run on while the agent is down.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};
use weft_cluster::write::{FalseCondition, set_condition};

use crate::Result;
use crate::health::Status;
use crate::subsystem::{Environment, Report, Round, Subsystem};

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(5);
/// What the cluster is told.
const CONDITION: FalseCondition = FalseCondition {
    kind: "NetworkUnavailable",
    reason: "WeftIsReady",
    message: "weft-agent has set up the pod network of this node",
};

/// Tells the cluster, beside the daemon's rounds.
pub(crate) struct NodeStatus;

impl Subsystem for NodeStatus {
    fn name(&self) -> &'static str {
        "node-status"
    }

    fn start(&mut self, environment: &Environment) -> Result<()> {
        let Environment { client, node, status, .. } = environment;
        // It ends with the runtime.
        tokio::spawn(keep(client.clone(), node.clone(), status.clone()));
        Ok(())
    }

    fn reconcile(&mut self, _round: &Round<'_>, _report: &mut Report) {}
}

/// Tells it each time that the node gets ready, until the agent ends.
async fn keep(client: kube::Client, node: String, mut status: watch::Receiver<Status>) {
    while status.wait_for(|status| status.is_ready).await.is_ok() {
        let mut told = None;
        while let Err(problem) = set_condition(&client, &node, &CONDITION).await {
            if told.as_ref() != Some(&problem) {
                warn!(node, problem, "cannot set the Node's condition NetworkUnavailable to False; retrying");
            }
            told = Some(problem);
            sleep(PAUSE).await;
        }
        info!(node, "set the Node's condition NetworkUnavailable to False");
        if status.wait_for(|status| !status.is_ready).await.is_err() {
            return;
        }
    }
}
