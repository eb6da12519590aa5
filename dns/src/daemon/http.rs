//! The HTTP endpoints for probes, scrapers and people: `/health`, `/ready`, `/explain`, `/metrics`. They say
//! what is so; they change nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::get;

use crate::daemon::explain::{self, ExplainRequest, Resolver};
use crate::metrics::Metrics;
use crate::pipeline::handler::Handler;
use crate::zone::Zone;

/// Whether the server should be asked. Clones are of the same server.
#[derive(Clone)]
pub struct Readiness {
    zone: Arc<ArcSwap<Zone>>,
    leaving: Arc<AtomicBool>,
}

impl Readiness {
    /// Ready as soon as `zone` holds a zone of the listed cluster.
    pub fn new(zone: Arc<ArcSwap<Zone>>) -> Readiness {
        Readiness { zone, leaving: Arc::default() }
    }

    /// No longer ready: the server is about to stop.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether it knows the cluster, as it is or as it was.
    pub fn knows(&self) -> bool {
        self.zone.load().is_synced()
    }

    fn status(&self) -> (StatusCode, &'static str) {
        if self.leaving.load(Ordering::Relaxed) {
            return (StatusCode::SERVICE_UNAVAILABLE, "shutting down");
        }
        if !self.knows() {
            return (StatusCode::SERVICE_UNAVAILABLE, "the cluster has not been listed yet");
        }
        (StatusCode::OK, "OK")
    }
}

/// `/health`: always well, as long as anything answers at all.
pub fn health() -> Router {
    Router::new().route("/health", get(|| async { "OK" }))
}

/// `/ready`: 200 or 503.
pub fn ready(readiness: Readiness) -> Router {
    Router::new().route("/ready", get(move || async move { readiness.status() }))
}

/// `/explain?namespace=shop&name=db&type=A`: what a pod of that namespace gets for a name, step by step, and
/// why. With `search=a.example,b.example` for a pod's own search domains, `cluster=no` where it has no
/// others, and `ndots=2`.
pub fn explain(handler: Arc<Handler>) -> Router {
    let explain = |handler: Arc<Handler>, parameters: BTreeMap<String, String>| async move {
        match request(&parameters) {
            Ok(request) => (StatusCode::OK, explain::explain(&handler, &request).await),
            Err(problem) => (StatusCode::BAD_REQUEST, problem),
        }
    };
    Router::new().route("/explain", get(move |Query(parameters)| explain(handler, parameters)))
}

fn request(parameters: &BTreeMap<String, String>) -> Result<ExplainRequest, String> {
    let required =
        |key: &str| parameters.get(key).cloned().ok_or(format!("the parameter {key} is missing\n"));
    let record_type = parameters.get("type").map_or("A", String::as_str).to_ascii_uppercase();
    let record_type = record_type.parse().map_err(|_| format!("{record_type} is no type of records\n"))?;
    let usual = Resolver::usual(&required("namespace")?);
    let ndots = parameters.get("ndots").map_or(Ok(usual.ndots), |ndots| ndots.parse());
    let searches = parameters.get("search").map(String::as_str).unwrap_or_default().split(',');
    let resolver = Resolver {
        searches_cluster: parameters.get("cluster").is_none_or(|value| value != "no"),
        searches: searches.filter(|domain| !domain.is_empty()).map(str::to_owned).collect(),
        ndots: ndots.map_err(|_| "ndots is no number\n".to_owned())?,
        ..usual
    };
    Ok(ExplainRequest { resolver, name: required("name")?, record_type })
}

/// `/metrics`: OpenMetrics text.
pub fn metrics(metrics: Arc<Metrics>) -> Router {
    weft_daemon::open_metrics(move || std::future::ready(metrics.text()))
}
