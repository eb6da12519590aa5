//! What the agent says of itself over HTTP: `/readyz` whether pods can start on this node, `/healthz` that it runs,
//! both with what is wrong, for people; `/metrics` for Prometheus. Finding that out is not done here.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use crate::metrics::Metrics;
use crate::{Error, Result};

/// The format of the figures (OpenMetrics 1.0).
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The state of the node after the last look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// Pods can start: the CNI configuration is there, and what it relies on.
    pub(crate) is_ready: bool,
    /// All that is wrong, which may concern other nodes alone.
    pub(crate) problems: BTreeSet<String>,
}

/// Serves in the background, for as long as the runtime lasts.
///
/// # Errors
/// Where the address cannot be had.
pub(crate) async fn serve(
    address: SocketAddr,
    status: watch::Receiver<Status>,
    metrics: Metrics,
) -> Result<()> {
    let listener = TcpListener::bind(address).await.map_err(|problem| Error::Listen { address, problem })?;
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(status)
        .route("/metrics", get(async move || ([(CONTENT_TYPE, OPENMETRICS)], metrics.text())));
    info!(%address, "serving /healthz, /readyz and /metrics");
    // It ends only with an error of the listener, after which nobody could be told.
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(())
}

/// It answers, so it runs: there is one thread for this and for all that it does.
async fn health(State(status): State<watch::Receiver<Status>>) -> String {
    format!("ok\n{}", status.borrow().lines())
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
