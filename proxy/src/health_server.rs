//! Listens at the health check ports of Services, as these come and go. What is answered there is decided in
//! `health_check.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{debug, warn};
use weft_types::{Family, NamespacedName};

use crate::error::Error;
use crate::health::Health;
use crate::services::health_check::{Check, Checks, answer};

/// How long to wait before a port that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How many endpoints this node has, so that load balancers may send it as many clients.
const WEIGHT: &str = "X-Load-Balancing-Endpoint-Weight";

/// The way to the task that listens, which ends with it.
#[derive(Debug)]
pub struct HealthServer(watch::Sender<Checks>);

impl HealthServer {
    /// Starts the task. Must be called within a tokio runtime.
    pub fn start(health: Arc<Health>) -> HealthServer {
        let (sender, receiver) = watch::channel(Checks::new());
        let server =
            Listeners { health, checks: receiver.clone(), open: BTreeMap::new(), told: BTreeSet::new() };
        tokio::spawn(server.follow(receiver));
        HealthServer(sender)
    }

    /// These are all the health checks there are now, and the rules for them are in the kernel. Only those of
    /// Services that have their port are answered.
    pub fn serve(&self, checks: &Checks, has_port: impl Fn(&NamespacedName) -> bool) {
        let answered = || checks.iter().filter(|(service, _)| has_port(service));
        self.0.send_if_modified(|served| {
            let modified = served.len() != answered().count()
                || answered().any(|(service, check)| served.get(service) != Some(check));
            if modified {
                *served = answered().map(|(service, check)| (service.clone(), *check)).collect();
            }
            modified
        });
    }
}

/// The ports that are open.
struct Listeners {
    health: Arc<Health>,
    checks: watch::Receiver<Checks>,
    open: BTreeMap<NamespacedName, (NonZeroU16, JoinHandle<()>)>,
    /// The failures that the log knows of.
    told: BTreeSet<(NamespacedName, NonZeroU16)>,
}

impl Listeners {
    async fn follow(mut self, mut changed: watch::Receiver<Checks>) {
        loop {
            let wanted = changed.borrow_and_update().clone();
            self.close(&wanted).await;
            let all_open = self.open(&wanted).await;
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = sleep(RETRY), if !all_open => {}
            }
        }
    }

    /// Closes what is no longer wanted; a port may go on to another Service.
    async fn close(&mut self, wanted: &Checks) {
        let is_wanted = |service: &NamespacedName, port: NonZeroU16| {
            wanted.get(service).is_some_and(|check| check.port == port)
        };
        self.told.retain(|(service, port)| is_wanted(service, *port));
        let (stay, gone) =
            take(&mut self.open).into_iter().partition(|(service, (port, _))| is_wanted(service, *port));
        self.open = stay;
        for (_, listener) in BTreeMap::into_values(gone) {
            listener.abort();
            // That it was aborted is no news.
            let _ = listener.await;
        }
    }

    /// Opens what is missing. Returns whether all could be had.
    async fn open(&mut self, wanted: &Checks) -> bool {
        let missing = wanted.iter().filter(|(service, _)| !self.open.contains_key(service));
        let mut failed = BTreeSet::new();
        for (service, port) in
            missing.map(|(service, check)| (service.clone(), check.port)).collect::<Vec<_>>()
        {
            match weft_daemon::listen((Ipv4Addr::UNSPECIFIED, port.get()).into()).await {
                Ok(listener) => {
                    debug!(%service, port, "answering health checks");
                    let serving = self.listen(service.clone(), listener);
                    self.open.insert(service, (port, serving));
                }
                Err(source) => {
                    let failure = (service.clone(), port);
                    if !self.told.contains(&failure) {
                        warn!("{}; trying again", Error::HealthCheckPort { service, port, source });
                    }
                    failed.insert(failure);
                }
            }
        }
        let all_open = failed.is_empty();
        self.told = failed;
        all_open
    }

    fn listen(&self, service: NamespacedName, listener: TcpListener) -> JoinHandle<()> {
        let (health, checks) = (self.health.clone(), self.checks.clone());
        let respond = move |ConnectInfo(asker): ConnectInfo<SocketAddr>| {
            let check = checks.borrow().get(&service).copied();
            let family = Family::of(asker.ip().to_canonical());
            let response = response(&service, check, family, &health);
            async move { response }
        };
        tokio::spawn(async move {
            // Serving never ends by itself.
            let router = Router::new().fallback(respond);
            let _ = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await;
        })
    }
}

fn response(service: &NamespacedName, check: Option<Check>, family: Family, health: &Health) -> Response {
    let answer = answer(service, check, family, health.is_well(Instant::now()));
    let code = if answer.is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // A connection that stayed would go on asking after the port went to another Service.
    let headers = [
        (CONTENT_TYPE.as_str(), "application/json".to_owned()),
        ("X-Content-Type-Options", "nosniff".to_owned()),
        (WEIGHT, answer.weight.to_string()),
        (CONNECTION.as_str(), "close".to_owned()),
    ];
    (code, headers, answer.body).into_response()
}
