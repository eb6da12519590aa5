//! `/facts`: what this machine has that matters to the pod network, for `weft doctor`. It is read when somebody
//! asks, beside everything else, and nothing is changed. What is good and what is not is not decided here.

mod kernel;
mod proxy;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{Mutex, watch};
use weft_ipam::usable;
use weft_types::node_facts::{CniFacts, NodeFacts, RangeFacts, ResolverFacts};

use crate::attachments::PluginPaths;
use crate::cni_config::file;
use crate::cni_config::plan::FILE;
use crate::health::Status;

/// How long an answer is given again, so that nobody can keep the agent busy by asking.
const LASTS: Duration = Duration::from_secs(1);
/// What kubelets give pods that ask as their node does; as the agent's pod is one, this is the node's.
const RESOLVER: &str = "/etc/resolv.conf";

/// What is known from the start.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where the runtime reads CNI configurations.
    pub(crate) conf_dir: PathBuf,
    /// Where everything of the pods' network is.
    pub(crate) paths: PluginPaths,
    /// Whether network policies are enforced.
    pub(crate) enforces_policies: bool,
}

/// The last answer, and when it was made.
type Latest = Arc<Mutex<Option<(Instant, String)>>>;

/// The endpoint.
pub(crate) fn endpoint(settings: Settings, status: watch::Receiver<Status>) -> Router {
    let latest = Latest::default();
    Router::new().route("/facts", get(move || serve(latest.clone(), settings.clone(), status.clone())))
}

/// One look at a time: whoever asks meanwhile gets what it comes to.
async fn serve(latest: Latest, settings: Settings, status: watch::Receiver<Status>) -> Response {
    let mut latest = latest.lock().await;
    let text = match latest.take().filter(|(at, _)| at.elapsed() < LASTS) {
        Some((at, text)) => {
            *latest = Some((at, text.clone()));
            text
        }
        None => {
            let status = status.borrow().clone();
            let proxy = proxy::ask().await;
            let looked = tokio::task::spawn_blocking(move || look(&settings, &status)).await;
            let facts = match looked {
                Ok(Ok(facts)) => NodeFacts { proxy, ..facts },
                Ok(Err(error)) => return refused(&error),
                Err(error) => return refused(&error),
            };
            let text = serde_json::to_string(&facts).unwrap_or_default();
            *latest = Some((Instant::now(), text.clone()));
            text
        }
    };
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn refused(error: &dyn std::fmt::Display) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

fn look(settings: &Settings, status: &Status) -> crate::Result<NodeFacts> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(NodeFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: read("/proc/sys/kernel/osrelease"),
        time: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        is_ready: status.is_ready,
        problems: status.problems.iter().cloned().collect(),
        pending_pods: status.pending_pods.iter().cloned().collect(),
        enforces_policies: settings.enforces_policies,
        cni: CniFacts {
            folder: settings.conf_dir.display().to_string(),
            own: FILE.to_owned(),
            files: file::names(&settings.conf_dir),
        },
        ranges: ranges(&settings.paths),
        resolver: ResolverFacts::parse(&read(RESOLVER)),
        ..kernel::look(&settings.paths)?
    })
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn ranges(paths: &PluginPaths) -> Vec<RangeFacts> {
    let list = fs::read(&paths.conflist).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let held = paths.addresses();
    let ranges = paths.ranges(&list.unwrap_or_default()).into_iter();
    let facts = ranges.map(|range| RangeFacts {
        range,
        most: u64::try_from(usable(&range)).unwrap_or(u64::MAX),
        used: held.iter().filter(|address| range.contains(**address)).count() as u64,
    });
    facts.collect()
}
