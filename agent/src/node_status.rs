//! Telling the cluster that this node's network works: the Node's condition `NetworkUnavailable`, set to
//! False. Where somebody set it to True (cloud controllers do), the node keeps a taint until then. It is
//! never set to True here: pods run on while the agent is down.

use std::time::Duration;

use http::{Request, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::Result;
use crate::health::Status;
use crate::subsystem::{Environment, Report, Round, Subsystem};

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(5);

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
        while let Err(error) = tell(&client, &node).await {
            let problem = error.to_string();
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

async fn tell(client: &kube::Client, node: &str) -> Result<(), kube::Error> {
    let body = patch(Timestamp::now()).to_string().into_bytes();
    let request = Request::patch(format!("/api/v1/nodes/{node}/status"))
        .header(header::CONTENT_TYPE, "application/strategic-merge-patch+json")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await.map(drop)
}

fn patch(now: Timestamp) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"status": {"conditions": [{
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "WeftIsReady",
        "message": "weft-agent has set up the pod network of this node",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_whole_seconds_as_kubernetes_has_them() {
        let condition = &patch("2026-08-01T12:00:00.123456Z".parse().unwrap())["status"]["conditions"][0];
        assert_eq!(condition["lastTransitionTime"], "2026-08-01T12:00:00Z");
        assert_eq!(
            (&condition["type"], &condition["status"]),
            (&json!("NetworkUnavailable"), &json!("False"))
        );
    }
}
