//! The API server away for hours, in a time of the test's own: names are answered all along, the server is
//! asked again now and then, and what it says when it is back is answered soon.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hickory_proto::rr::RecordType;
use hyper::body::{Bytes, Frame};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_cluster::{Client, Watch, WatchFilter};
use weft_dns::daemon::snapshot_file::SnapshotFile;
use weft_dns::daemon::zone_updates::{initial_zone, keep_updated};
use weft_dns::metrics::Metrics;
use weft_dns::zone::Zone;
use weft_types::Kind;

use crate::fixture::*;

const KINDS: [Kind; 3] = [Kind::Service, Kind::EndpointSlice, Kind::Namespace];
const HOUR: Duration = Duration::from_secs(3600);
const HOURS: u32 = 6;

/// How the API server is.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    /// It has the Service `shop/backend` with that address, as of that version; older ones it knows no more.
    Well { address: &'static str, version: u32 },
    /// It says 503 to everything.
    Refusing,
    /// It takes requests and says nothing.
    Silent,
}

/// An API server without sockets: nothing but time makes anybody wait.
struct Api {
    mood: Mutex<Mood>,
    requests: AtomicUsize,
}

impl Api {
    fn start(mood: Mood) -> (Arc<Api>, Client) {
        let api = Arc::new(Api { mood: Mutex::new(mood), requests: AtomicUsize::new(0) });
        let asked = api.clone();
        let answer = move |request: Request| async move { asked.answer(request.into_parts().0.uri).await };
        (api, Client::new(Router::new().fallback(answer), "default"))
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.requests.store(0, Ordering::SeqCst);
    }

    async fn answer(&self, uri: Uri) -> Response {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let (mood, query) = (*self.mood.lock().unwrap(), uri.query().unwrap_or_default());
        let Mood::Well { address, version } = mood else {
            if mood == Mood::Silent {
                std::future::pending::<()>().await;
            }
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        if query.contains("sendInitialEvents") {
            return StatusCode::UNPROCESSABLE_ENTITY.into_response();
        }
        if !query.contains("watch=") {
            return list(uri.path(), address, version).into_response();
        }
        match query.contains(&format!("resourceVersion={version}")) {
            // It goes on and says nothing, and its end is never seen.
            true => Response::new(Body::new(Never)),
            false => {
                let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","message":"too old","code":410}"#;
                (StatusCode::GONE, status).into_response()
            }
        }
    }
}

fn list(path: &str, address: &str, version: u32) -> String {
    let item = match path {
        "/api/v1/services" => format!(
            r#"{{"metadata":{{"name":"backend","namespace":"shop"}},"spec":{{"type":"ClusterIP","clusterIP":"{address}","clusterIPs":["{address}"]}}}}"#
        ),
        "/api/v1/namespaces" => r#"{"metadata":{"name":"shop"}}"#.to_owned(),
        _ => String::new(),
    };
    format!(
        r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"{version}"}},"items":[{item}]}}"#
    )
}

/// A body that never comes.
struct Never;

impl hyper::body::Body for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// What a client gets for the Service.
fn answered(zone: &ArcSwap<Zone>) -> Vec<String> {
    lines(&ask(&zone.load(), "backend.shop.svc.cluster.local.", RecordType::A).answers)
}

fn with(address: &str) -> [String; 1] {
    [format!("backend.shop.svc.cluster.local. A {address}")]
}

/// Lets hours pass in which nothing changes for clients. How many requests the API server got for each kind.
async fn hours(api: &Api, zone: &ArcSwap<Zone>, expected: &[String]) -> usize {
    for _ in 0..HOURS {
        sleep(HOUR).await;
        assert_eq!(answered(zone), expected);
        assert!(zone.load().is_synced(), "it is ready");
    }
    api.requests.load(Ordering::SeqCst) / KINDS.len()
}

/// Does the work beside a server that follows the API server, from this zone on.
async fn beside(
    client: Client,
    zone: &Arc<ArcSwap<Zone>>,
    snapshot_file: Option<SnapshotFile>,
    work: impl Future<Output = ()>,
) {
    let metrics = Arc::new(Metrics::new(53, "cluster.local."));
    let watch = Watch::start(client, &WatchFilter::default(), &KINDS);
    let (_in_charge, in_charge) = tokio::sync::watch::channel(true);
    let (_settings, settings) = tokio::sync::watch::channel(config());
    tokio::select! {
        () = keep_updated(watch, zone.clone(), snapshot_file, metrics, CancellationToken::new(), (settings, in_charge)) => {}
        () = work => {}
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_answered_while_the_api_server_is_away_for_hours() {
    let (api, client) = Api::start(Mood::Well { address: "10.96.0.1", version: 1 });
    let zone = Arc::new(ArcSwap::from_pointee(initial_zone(config(), None)));
    let work = async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(answered(&zone), with("10.96.0.1"));
        // A refusal is followed by a pause of 5 to 10 s; a silent server is given 30 s, and a short one.
        for (mood, [longest, shortest], before, after, version) in [
            (Mood::Refusing, [10, 5], "10.96.0.1", "10.96.0.2", 2),
            (Mood::Silent, [31, 30], "10.96.0.2", "10.96.0.3", 3),
        ] {
            api.be(mood);
            let requests = hours(&api, &zone, &with(before)).await as u64;
            let times = u64::from(HOURS) * HOUR.as_secs();
            // The watch that was open ends later; the first pauses are shorter.
            let expected = times / longest - 20..=times / shortest + 20;
            assert!(expected.contains(&requests), "{requests} requests for each kind, not {expected:?}");
            api.be(Mood::Well { address: after, version });
            sleep(Duration::from_secs(45)).await;
            assert_eq!(answered(&zone), with(after));
        }
    };
    beside(client, &zone, None, work).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_known_is_answered_from_disk_for_hours() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.yaml");
    std::fs::copy(CLUSTER, &file).unwrap();
    let snapshot_file = SnapshotFile::new(file.clone());
    let (api, client) = Api::start(Mood::Refusing);
    let zone = Arc::new(ArcSwap::from_pointee(initial_zone(config(), Some(&snapshot_file))));
    let work = async {
        hours(&api, &zone, &with("10.96.0.20")).await;
        api.be(Mood::Well { address: "10.96.0.9", version: 7 });
        sleep(Duration::from_secs(45)).await;
        assert_eq!(answered(&zone), with("10.96.0.9"));
        let kept = std::fs::read_to_string(&file).unwrap();
        assert!(kept.contains("10.96.0.9"), "the next start has it: {kept}");
    };
    beside(client, &zone, Some(snapshot_file), work).await;
}
