//! What the agent says of itself over HTTP: `/healthz` tells a kubelet whether pods can start on this node, and a
//! person what is wrong. Finding that out is not done here.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use crate::{Error, Result};

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
pub(crate) async fn serve(address: SocketAddr, status: watch::Receiver<Status>) -> Result<()> {
    let listener = TcpListener::bind(address).await.map_err(|problem| Error::Listen { address, problem })?;
    let router = Router::new().route("/healthz", get(answer)).with_state(status);
    info!(%address, "serving /healthz");
    // It ends only with an error of the listener, after which nobody could be told.
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(())
}

async fn answer(State(status): State<watch::Receiver<Status>>) -> (StatusCode, String) {
    let status = status.borrow();
    let (code, word) = match status.is_ready {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let problems: String = status.problems.iter().map(|problem| format!("{problem}\n")).collect();
    (code, format!("{word}\n{problems}"))
}
