//! The HTTP endpoints for probes and scrapers: `/healthz`, `/livez`, `/metrics`, `/proxyMode`, `/configz`.
//! They say what is so; they change nothing.

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::json;

use crate::counters::Counters;
use crate::dataplane::Programs;
use crate::health::Health;
use crate::metrics::{Metrics, Probe};

/// `/healthz` and `/livez`: 200, or 503 while the kernel has been out of step for long. `/healthz`, by which
/// load balancers choose nodes, is 503 also before the first rules are there, and where the node is about to
/// be deleted; a proxy is alive all the same. Both say so in kube-proxy's JSON, with what is wrong besides:
/// other programs' chains that stop connections to Services are named, but turn no load balancer away, since
/// what they stop is not known for certain.
pub fn healthz(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    let answer = move |probe| {
        let (last, leaving) = (health.last_in_step(), health.is_leaving());
        let problem = if !health.is_well(Instant::now()) {
            Some("the kernel is out of step with the cluster")
        } else if probe == Probe::Healthz && last.is_none() {
            Some("the cluster has not been read yet")
        } else if probe == Probe::Healthz && leaving {
            Some("the node is about to be deleted")
        } else {
            None
        };
        let code = if problem.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        metrics.probed(probe, code.as_u16());
        let told = json!({
            "lastUpdated": last.map(|last| format!("{last:.0}")),
            "currentTime": format!("{:.0}", Timestamp::now()),
            "nodeEligible": !leaving,
            "problem": problem,
            "conflicts": health.conflicts(),
            "ebpf": health.programs().map(|Programs { led, problem }| json!({"led": led, "problem": problem})),
        });
        async move { (code, Json(told)) }
    };
    let livez = answer.clone();
    Router::new()
        .route("/healthz", get(move || answer(Probe::Healthz)))
        .route("/livez", get(move || livez(Probe::Livez)))
}

/// `/metrics`: OpenMetrics text, with the counters of Services where there are some. `/proxyMode`: which of
/// kube-proxy's modes that is. `/configz`: that JSON.
pub fn metrics(
    metrics: Arc<Metrics>,
    services: Option<Counters>,
    mode: &'static str,
    configz: String,
) -> Router {
    let text = move || {
        let (metrics, services) = (metrics.clone(), services.clone());
        async move {
            let services = match services {
                Some(services) => services.read().await,
                None => Vec::new(),
            };
            metrics.text(&services)
        }
    };
    let configz = move || async move { ([(CONTENT_TYPE, "application/json")], configz) };
    weft_daemon::open_metrics(text)
        .route("/proxyMode", get(move || async move { mode }))
        .route("/configz", get(configz))
}
