//! What the agent says of itself over HTTP: `/readyz` whether pods can start on this node, `/healthz` that it
//! runs, both with what is wrong, for people; `/metrics` for Prometheus. Finding that out is not done here.

use std::collections::BTreeSet;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::Result;
use crate::metrics;

/// The state of the node after the last look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// Pods can start: the CNI configuration is there, and what it relies on.
    pub(crate) is_ready: bool,
    /// All that is wrong, which may concern other nodes alone.
    pub(crate) problems: BTreeSet<String>,
    /// The pods that are closed as they wait for their policies.
    pub(crate) pending_pods: BTreeSet<String>,
    /// The load balancer addresses that this node answers for.
    pub(crate) announced: BTreeSet<String>,
}

/// Serves this and other endpoints in the background, for as long as the runtime lasts.
///
/// # Errors
/// Where the address cannot be had.
pub(crate) async fn serve(
    address: SocketAddr,
    status: watch::Receiver<Status>,
    registry: Arc<Registry>,
    others: Router,
) -> Result<()> {
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(status)
        .merge(weft_daemon::open_metrics(move || ready(metrics::text(&registry))))
        .merge(others);
    weft_daemon::serve("--healthz-bind-address", address, router).await?;
    Ok(())
}

/// It answers, so it runs: there is one thread for this and for all that it does.
async fn health(State(status): State<watch::Receiver<Status>>) -> String {
    let status = status.borrow();
    let (pods, addresses) = (&status.pending_pods, &status.announced);
    format!("ok\n{}{}{}", status.lines(), listed("pendingPods", pods), listed("announced", addresses))
}

async fn readiness(State(status): State<watch::Receiver<Status>>) -> (StatusCode, String) {
    let status = status.borrow();
    let (code, word) = match status.is_ready {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    (code, format!("{word}\n{}", status.lines()))
}

impl Status {
    /// A line for each problem.
    fn lines(&self) -> String {
        self.problems.iter().map(|problem| format!("{problem}\n")).collect()
    }
}

/// A line with all of these, where there are some.
fn listed(what: &str, names: &BTreeSet<String>) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    if names.is_empty() { String::new() } else { format!("{what}: {}\n", names.join(", ")) }
}
