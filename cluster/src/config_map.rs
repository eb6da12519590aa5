//! One ConfigMap, followed by its name: what it holds now, and after each change. What the data mean is the daemon's
//! business.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::StreamExt;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::error::chain;
use crate::field::Field;
use crate::wire::{ListMetadata, Metadata};

/// How long one watch lasts; a watch that stays silent past its end is dead.
const WATCH_SECONDS: u32 = 120;
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// How long the server may take to begin an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The pause between two watches when all is well, and the longest after errors.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// `data` of a ConfigMap.
pub type Data = BTreeMap<String, String>;

/// A running watch of one ConfigMap. Ends when it is dropped.
#[derive(Debug)]
pub struct ConfigMapWatch {
    data: Receiver<Option<Data>>,
    /// The task that follows the object. Dropping the set ends it.
    _follower: JoinSet<()>,
}

impl ConfigMapWatch {
    /// Starts to follow `namespace/name`. Must be called within a tokio runtime with time and I/O.
    ///
    /// Does not wait for the API server and cannot fail: while the server is away or refuses, the watch says why in
    /// the log, once for each reason, and tries again with growing pauses.
    pub fn start(client: Client, namespace: &str, name: &str) -> Self {
        let (sender, data) = mpsc::channel(1);
        let object = Object {
            client,
            path: format!("/api/v1/namespaces/{namespace}/configmaps"),
            name: name.to_owned(),
            shown: format!("{namespace}/{name}"),
        };
        let mut follower = JoinSet::new();
        follower.spawn(async move { object.follow(sender).await });
        ConfigMapWatch { data, _follower: follower }
    }

    /// Waits for what the ConfigMap holds, and for the next change from then on. None while it does not exist.
    pub async fn next(&mut self) -> Option<Data> {
        match self.data.recv().await {
            Some(data) => data,
            // The follower is gone, so nothing will ever change.
            None => std::future::pending().await,
        }
    }
}

/// A ConfigMap as it travels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigMap {
    metadata: Field<Metadata>,
    data: Option<Data>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct List {
    metadata: ListMetadata,
    items: Vec<ConfigMap>,
}

struct Object {
    client: Client,
    path: String,
    name: String,
    shown: String,
}

/// Why a watch ended too early. Nothing where nobody listens any more.
type Stop = Option<String>;

impl Object {
    async fn follow(&self, data: Sender<Option<Data>>) {
        let pauses = ExponentialBuilder::new().with_min_delay(PAUSE).with_max_delay(LONGEST_PAUSE);
        let pauses = pauses.with_jitter().without_max_times();
        let (mut pause, mut outage) = (pauses.build(), None);
        loop {
            match self.round(&data, &mut outage).await {
                Ok(()) => {
                    pause = pauses.build();
                    sleep(PAUSE).await;
                }
                Err(None) => return,
                Err(Some(problem)) => {
                    if outage.as_ref() != Some(&problem) {
                        warn!(%problem, "cannot follow the ConfigMap {}; keeping what is known, trying again", self.shown);
                        outage = Some(problem);
                    }
                    sleep(pause.next().unwrap_or(LONGEST_PAUSE)).await;
                }
            }
        }
    }

    /// Lists the object and watches it from there on, until the server ends the watch.
    async fn round(&self, data: &Sender<Option<Data>>, outage: &mut Option<String>) -> Result<(), Stop> {
        let params = ListParams::default().fields(&format!("metadata.name={}", self.name));
        let request = Request::new(&self.path).list(&params).map_err(problem)?;
        let list = answer(self.client.request::<List>(request)).await?;
        if outage.take().is_some() {
            info!("the API server answers again; following the ConfigMap {}", self.shown);
        }
        let held = list.items.into_iter().next().map(|object| object.data.unwrap_or_default());
        data.send(held).await.map_err(|_| None)?;
        let version = list.metadata.resource_version.required("metadata.resourceVersion").map_err(problem)?;
        self.watch(data, &version).await
    }

    async fn watch(&self, data: &Sender<Option<Data>>, version: &str) -> Result<(), Stop> {
        let params =
            WatchParams::default().fields(&format!("metadata.name={}", self.name)).timeout(WATCH_SECONDS);
        let request = Request::new(&self.path).watch(&params, version).map_err(problem)?;
        let mut stream = pin!(answer(self.client.request_events::<ConfigMap>(request)).await?);
        while let Ok(Some(event)) = timeout(SILENCE, stream.next()).await {
            let held = match event.map_err(problem)? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    Some(object.data.unwrap_or_default())
                }
                WatchEvent::Deleted(_) => None,
                WatchEvent::Bookmark(_) => continue,
                // Too old a version is no trouble: the next round lists.
                WatchEvent::Error(status) if status.code == 410 => return Ok(()),
                WatchEvent::Error(status) => return Err(Some(status.message)),
            };
            data.send(held).await.map_err(|_| None)?;
        }
        Ok(())
    }
}

async fn answer<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Stop> {
    match timeout(ANSWER, request).await {
        Ok(answer) => answer.map_err(|error| Some(chain(&error))),
        Err(_) => Err(Some(format!("no answer within {ANSWER:?}"))),
    }
}

fn problem(error: impl std::fmt::Display) -> Stop {
    Some(error.to_string())
}
