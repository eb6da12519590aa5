//! HTTP for probes, scrapers and people. What is answered there is each daemon's own.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::info;

use crate::Error;

/// The type that Prometheus expects of figures (OpenMetrics 1.0).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `/metrics`: what `text` gives, which is OpenMetrics text.
pub fn open_metrics<T: Future<Output = String> + Send>(
    text: impl Fn() -> T + Clone + Send + Sync + 'static,
) -> Router {
    let answer = move || async move { ([(CONTENT_TYPE, OPEN_METRICS)], text().await) };
    Router::new().route("/metrics", get(answer))
}

/// Binds `address`, which `flag` named, and serves `router` there until that task is aborted.
///
/// # Errors
/// Which address cannot be had, and what to do.
pub async fn serve(
    flag: &'static str,
    address: SocketAddr,
    router: Router,
) -> Result<JoinHandle<io::Result<()>>, Error> {
    let failed = |source| Error::Serve { flag, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    info!(address = %bound, flag, "serving HTTP");
    // It ends only with an error of the listener, after which nobody could be told.
    Ok(tokio::spawn(async move { axum::serve(listener, router).await }))
}
