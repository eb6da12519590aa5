//! Watches one kind of object at the API server: lists it, watches from there on, and starts over where that is needed.
//!
//! kube-runtime's watcher does the same, but does not tell when a broken watch is up again, and asks for ever from a
//! version whose refusal comes as HTTP status 410 instead of as an event. Here both are seen, and put into words.
//!
//! This file speaks with the API server and decides when to speak again. What the objects mean is in `resource`.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::StreamExt;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};
use weft_types::{Kind, Known};

use crate::error::chain;
use crate::field::Field;
use crate::filter::WatchFilter;
use crate::index::{Event, Stamped};
use crate::resource::{
    ApiResource, Optional, WireObject, api, name, read, read_item, resource_version, triggered,
};

/// How long one watch lasts; then the server ends it and a new one goes on from the same version.
const WATCH_SECONDS: u32 = 120;
/// A watch that stays silent past its end is dead: the server, or the way to it, went without a word.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// How long the server may take to begin an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The pause between two watches when all is well, so that a server that ends each at once is not flooded.
const PAUSE: Duration = Duration::from_millis(50);
/// The first and the longest pause after an error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long to wait before a kind that may be missing is looked for again: it can come with an upgrade of the server.
const MISSING: Duration = Duration::from_secs(300);
/// The same for one that is missing its definition, which people add when they are about to use it.
const UNDEFINED: Duration = Duration::from_secs(10);
/// The same for one that is not for us: an API server that starts refuses everything until it has read its roles.
const REFUSED: Duration = Duration::from_secs(30);
/// After so long without an error, the pauses start small again.
const QUIET: Duration = Duration::from_secs(30);

/// Why a list or a watch came to its end.
enum Stop {
    /// Nobody wants the events any more.
    Unwanted,
    /// The version is too old for the server (410 Gone): only a list helps.
    Gone,
    /// The server has no objects of this kind, or none for us, and that is no fault. Worth another look after so long.
    Missing(Duration),
    /// Something went wrong. A watch can go on from the version, if there is one.
    Failed { problem: String, version: Option<String> },
}

/// A list of objects, or one page of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, bound = "W: Deserialize<'de>")]
struct List<W> {
    metadata: ListMetadata,
    items: Field<Vec<Field<W>>>,
}

/// `metadata` of a list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMetadata {
    resource_version: Field<String>,
    #[serde(rename = "continue")]
    continue_: Field<String>,
}

impl<W> Default for List<W> {
    fn default() -> Self {
        List { metadata: ListMetadata::default(), items: Field::Absent }
    }
}

/// Watches the objects of one kind for as long as somebody receives the events.
pub(crate) async fn run<W: WireObject>(client: Client, filter: WatchFilter, events: Sender<Stamped>) {
    let outage = Outage::new(W::Kind::KIND);
    let mut watcher = Watcher { client, filter, events, outage, has_listed: false };
    let mut backoff = Backoff::new();
    let mut version = None;
    loop {
        let step = match version.take() {
            None => watcher.list::<W>().await,
            Some(version) => watcher.watch::<W>(version).await,
        };
        match step {
            Ok(reached) => version = Some(reached),
            Err(Stop::Unwanted) => return,
            Err(Stop::Gone) => {
                debug!("the watch of {} fell behind; listing again", Plural(W::Kind::KIND));
                sleep(backoff.next(Instant::now())).await;
            }
            Err(Stop::Missing(pause)) => {
                if watcher.send(Event::Listed(W::Kind::KIND, Vec::new())).await.is_err() {
                    return;
                }
                sleep(pause).await;
            }
            Err(Stop::Failed { problem, version: reached }) => {
                watcher.outage.begin(&problem);
                version = reached;
                sleep(backoff.next(Instant::now())).await;
            }
        }
    }
}

struct Watcher {
    client: Client,
    filter: WatchFilter,
    events: Sender<Stamped>,
    outage: Outage,
    has_listed: bool,
}

impl Watcher {
    /// Lists all objects, page by page. Returns the version that the list is of.
    async fn list<W: WireObject>(&mut self) -> Result<String, Stop> {
        let mut params = ListParams {
            limit: Some(W::Kind::PAGE),
            label_selector: W::Kind::label_selector(&self.filter),
            field_selector: W::Kind::field_selector(&self.filter),
            ..Default::default()
        };
        let mut readings = Vec::new();
        loop {
            let page: List<W> = self.page::<W>(&params).await?;
            let items = page.items.or_default("items").map_err(|fault| failed(fault, None))?;
            readings.extend(items.into_iter().map(|item| read_item(item, &self.filter)));
            params.continue_token =
                page.metadata.continue_.or_default("").ok().filter(|token| !token.is_empty());
            if params.continue_token.is_some() {
                continue;
            }
            let version = page.metadata.resource_version.required("metadata.resourceVersion");
            let version = version.map_err(|fault| failed(fault, None))?;
            self.outage.end();
            self.has_listed = true;
            self.send(Event::Listed(W::Kind::KIND, readings)).await?;
            return Ok(version);
        }
    }

    async fn page<W: WireObject>(&self, params: &ListParams) -> Result<List<W>, Stop> {
        let request = Request::new(self.path::<W>()).list(params).map_err(|error| failed(error, None))?;
        match timeout(ANSWER, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|error| self.stop::<W>(&error, None)),
            Err(_) => Err(failed(format_args!("no answer within {ANSWER:?}"), None)),
        }
    }

    /// Watches from a version on, until the server ends the watch. Returns the version reached.
    async fn watch<W: WireObject>(&mut self, mut version: String) -> Result<String, Stop> {
        let params = WatchParams {
            label_selector: W::Kind::label_selector(&self.filter),
            field_selector: W::Kind::field_selector(&self.filter),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..Default::default()
        };
        let request = Request::new(self.path::<W>()).watch(&params, &version);
        let request = request.map_err(|error| failed(error, None))?;
        let stream = match timeout(ANSWER, self.client.request_events::<W>(request)).await {
            Ok(stream) => stream.map_err(|error| self.stop::<W>(&error, Some(version.clone())))?,
            Err(_) => return Err(failed(format_args!("no answer within {ANSWER:?}"), Some(version))),
        };
        self.outage.end();
        let mut stream = pin!(stream);
        while let Ok(Some(event)) = timeout(SILENCE, stream.next()).await {
            let event = event.map_err(|error| match error {
                kube::Error::ReadEvents(_) => self.stop::<W>(&error, Some(version.clone())),
                // A line that is no event may have hidden a change: only a list tells.
                _ => self.stop::<W>(&error, None),
            })?;
            if let Some(reached) = self.pass_on(event, &version).await? {
                version = reached;
            }
        }
        sleep(PAUSE).await;
        Ok(version)
    }

    /// Passes one event of a watch on. Returns the version that it brings the watch to.
    async fn pass_on<W: WireObject>(
        &self,
        event: WatchEvent<W>,
        version: &str,
    ) -> Result<Option<String>, Stop> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let reached = resource_version(object.metadata()).map(str::to_owned);
                let moment = triggered(object.metadata());
                let reading = read(object, &self.filter);
                self.send(match moment {
                    Some(moment) => Event::Triggered(reading, moment),
                    None => Event::Applied(reading),
                })
                .await?;
                Ok(reached)
            }
            WatchEvent::Deleted(object) => {
                let reached = resource_version(object.metadata()).map(str::to_owned);
                // A deleted object whose name is unreadable leaves only one way to know what is gone: to list.
                let name = name(&object).map_err(|fault| failed(fault, None))?;
                self.send(Event::Deleted(W::Kind::object_key(name))).await?;
                Ok(reached)
            }
            WatchEvent::Bookmark(bookmark) => Ok(Some(bookmark.metadata.resource_version)),
            WatchEvent::Error(status) if status.code == 410 => Err(Stop::Gone),
            WatchEvent::Error(status) => Err(failed(status.message, Some(version.to_owned()))),
        }
    }

    async fn send(&self, event: Event) -> Result<(), Stop> {
        self.events.send((Instant::now(), event)).await.map_err(|_| Stop::Unwanted)
    }

    fn path<W: WireObject>(&self) -> String {
        api(W::Kind::KIND).path(W::Kind::namespace(&self.filter))
    }

    /// What an error of the API server, or of the way to it, means for the watch.
    fn stop<W: WireObject>(&self, error: &kube::Error, version: Option<String>) -> Stop {
        let kube::Error::Api(status) = error else { return failed(chain(error), version) };
        let pause = match (W::Kind::OPTIONAL, status.code) {
            (Optional::Version, 404) => Some(MISSING),
            // Where it was allowed before, the refusal will pass: what is known stays.
            (Optional::Version, 403) if !self.has_listed => Some(REFUSED),
            (Optional::Definition, 404) => Some(UNDEFINED),
            _ => None,
        };
        match (status.code, pause) {
            (_, Some(pause)) => {
                debug!(problem = %status.message, "going on without {}", Plural(W::Kind::KIND));
                Stop::Missing(pause)
            }
            (410, _) => Stop::Gone,
            (401 | 403, _) => {
                let problem =
                    format!("not allowed: {}; check the permissions of this client", status.message);
                failed(problem, version)
            }
            _ => failed(chain(error), version),
        }
    }
}

fn failed(problem: impl fmt::Display, version: Option<String>) -> Stop {
    Stop::Failed { problem: problem.to_string(), version }
}

/// The plural of a kind, for people.
struct Plural(Kind);

impl fmt::Display for Plural {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// Tells of an outage when it begins, when its reason changes and when it ends: not at each attempt.
struct Outage {
    kind: Kind,
    problem: Option<String>,
}

impl Outage {
    fn new(kind: Kind) -> Self {
        Outage { kind, problem: None }
    }

    fn begin(&mut self, problem: &str) {
        if self.problem.as_deref() != Some(problem) {
            warn!(%problem, "cannot watch {} at the API server; keeping what is known, trying again", Plural(self.kind));
            self.problem = Some(problem.to_owned());
        }
    }

    fn end(&mut self) {
        if self.problem.take().is_some() {
            info!("the API server answers again; watching {}", Plural(self.kind));
        }
    }
}

/// How long to wait after an error: longer each time, with jitter so that the nodes do not return all at once.
struct Backoff {
    delays: ExponentialBackoff,
    last: Option<Instant>,
}

impl Backoff {
    fn new() -> Self {
        Backoff { delays: Self::delays(), last: None }
    }

    fn delays() -> ExponentialBackoff {
        let (first, longest) = BACKOFF;
        ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(longest)
            .with_jitter()
            .without_max_times()
            .build()
    }

    fn next(&mut self, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now.duration_since(last) > QUIET) {
            self.delays = Self::delays();
        }
        self.last = Some(now);
        self.delays.next().unwrap_or(BACKOFF.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_start_small_again() {
        let (first, longest) = BACKOFF;
        let mut backoff = Backoff::new();
        let mut now = Instant::now();
        let delays: Vec<Duration> = (0..20)
            .map(|_| {
                let delay = backoff.next(now);
                now += delay;
                delay
            })
            .collect();
        assert!(delays[0] >= first && delays[0] <= 2 * first, "{delays:?}");
        assert!(delays[19] >= longest && delays[19] <= 2 * longest, "{delays:?}");
        assert!(backoff.next(now + QUIET + first) <= 2 * first, "an old error is no reason to wait");
    }
}
