//! Watches one kind of object at the API server: asks for all of them and for what changes from there on, and
//! starts over where that is needed.
//!
//! One request tells both where the server can (`sendInitialEvents`, KEP-3157): the objects come one by one,
//! and are passed on as they come, so that neither side ever holds a list of them. Where it cannot, they are
//! listed page by page, and watched from there on.
//!
//! kube-runtime's watcher does the same, but does not tell when a broken watch is up again, asks for ever
//! from a version whose refusal comes as HTTP status 410 instead of as an event, and knows no protobuf. Here
//! the first two are seen, and put into words.
//!
//! This file speaks with the API server and decides when to speak again. What the bytes mean is in `wire`,
//! what the objects mean in `resource`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::Request;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};
use weft_types::Kind;

use crate::error::chain;
use crate::index::{Event, Stamped};
use crate::resource::{Api, Optional, api};
use crate::wire::{Answer, Broken, Codec, Frames, Refusal, Status, Told, ask};

/// How long one watch lasts; then the server ends it and a new one goes on from the same version.
const WATCH_SECONDS: u32 = 120;
/// A watch that stays silent past its end is dead: the server, or the way to it, went without a word.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// How long the server may take to begin an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the server may be silent amid the initial events. One that does not know what it was asked for
/// falls silent after the last object.
const PAUSE_AMID: Duration = Duration::from_secs(5);
/// The pause between two watches when all is well, so that a server that ends each at once is not flooded.
const PAUSE: Duration = Duration::from_millis(50);
/// The first and the longest pause after an error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long to wait before a kind that may be missing is looked for again: it can come with an upgrade of the
/// server.
const MISSING: Duration = Duration::from_secs(300);
/// The same for one that is missing its definition, which people add when they are about to use it.
const UNDEFINED: Duration = Duration::from_secs(10);
/// The same for one that is not for us: an API server that starts refuses everything until it has read its
/// roles.
const REFUSED: Duration = Duration::from_secs(30);
/// After so long without an error, the pauses start small again.
const QUIET: Duration = Duration::from_secs(30);

/// Which kinds this client may not read, and why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(Arc<Mutex<BTreeMap<Kind, String>>>);

impl Refusals {
    fn set(&self, kind: Kind, problem: Option<String>) {
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => refusals.insert(kind, problem),
            None => refusals.remove(&kind),
        };
    }

    pub(crate) fn get(&self, kind: Kind) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&kind).cloned()
    }
}

/// Why a list or a watch came to its end.
enum Stop {
    /// Nobody wants the events any more.
    Unwanted,
    /// The version is too old for the server (410 Gone): only a list helps.
    Gone,
    /// The server sends no initial events: only pages help.
    NoInitialEvents(String),
    /// The server has no objects of this kind, or none for us, and that is no fault. Worth another look after
    /// so long.
    Missing(Duration),
    /// Something went wrong. A watch can go on from the version, if there is one.
    Failed { problem: String, version: Option<String> },
}

/// How all objects are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// As the initial events of a watch.
    Stream,
    /// In pages this once: a stream broke off, which something between here and the server may do to every
    /// one.
    PagesOnce,
    /// In pages: the server has nothing else.
    Pages,
}

/// Watches the objects of one kind for as long as somebody receives the events.
pub(crate) async fn run(client: Client, codec: Codec, events: Sender<Stamped>, refusals: Refusals) {
    let kind = codec.kind;
    let outage = Outage::new(kind);
    let start = Start::Stream;
    let mut watcher = Watcher { client, codec, events, refusals, outage, start, has_listed: false };
    let mut backoff = Backoff::new();
    let mut version = None;
    loop {
        let step = match (version.take(), watcher.start) {
            (Some(version), _) => watcher.watch(version).await,
            (None, Start::Stream) => watcher.stream().await,
            (None, Start::PagesOnce | Start::Pages) => watcher.list().await,
        };
        match step {
            Ok(reached) => version = Some(reached),
            Err(Stop::Unwanted) => return,
            Err(Stop::Gone) => {
                debug!("the watch of {} fell behind; asking for all again", Plural(kind));
                sleep(backoff.next(Instant::now())).await;
            }
            Err(Stop::NoInitialEvents(problem)) => {
                debug!(%problem, "the API server has no streaming lists; listing {} in pages", Plural(kind));
                watcher.start = Start::Pages;
            }
            Err(Stop::Missing(pause)) => {
                if watcher.nothing_is_there().await.is_err() {
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
    codec: Codec,
    events: Sender<Stamped>,
    refusals: Refusals,
    outage: Outage,
    start: Start,
    has_listed: bool,
}

impl Watcher {
    /// Lists all objects, page by page. Returns the version that the list is of.
    async fn list(&mut self) -> Result<String, Stop> {
        let mut params = ListParams {
            limit: Some(self.codec.page),
            label_selector: self.codec.label_selector.clone(),
            field_selector: self.codec.field_selector.clone(),
            ..Default::default()
        };
        self.send(Event::Listing(self.codec.kind)).await?;
        loop {
            let request = Request::new(&self.codec.path).list(&params);
            let request = request.map_err(|error| failed(error, None))?;
            let answer = async {
                let answer = ask(&self.client, request, self.codec.accept()).await?;
                Ok((answer.encoding, answer.whole().await?))
            };
            let (encoding, body) = match timeout(ANSWER, answer).await {
                Ok(answer) => answer.map_err(|refusal| self.stop(refusal, None))?,
                Err(_) => return Err(failed(format_args!("no answer within {ANSWER:?}"), None)),
            };
            let page = self.codec.list(encoding, &body).map_err(|problem| failed(problem, None))?;
            for reading in page.readings {
                self.send(Event::Applied(reading)).await?;
            }
            params.continue_token = page.token;
            if params.continue_token.is_some() {
                continue;
            }
            let version = page.version.ok_or_else(|| failed("metadata.resourceVersion: is missing", None))?;
            if self.start == Start::PagesOnce {
                self.start = Start::Stream;
            }
            self.listed().await?;
            return Ok(version);
        }
    }

    /// All objects were told.
    async fn listed(&mut self) -> Result<(), Stop> {
        self.works();
        self.has_listed = true;
        self.send(Event::Listed(self.codec.kind)).await
    }

    /// There are no objects.
    async fn nothing_is_there(&mut self) -> Result<(), Stop> {
        self.send(Event::Listing(self.codec.kind)).await?;
        self.send(Event::Listed(self.codec.kind)).await
    }

    /// Watches from nothing on: all objects come first, then what changes. Returns the version reached.
    async fn stream(&mut self) -> Result<String, Stop> {
        let mut frames = match self.begin("").await {
            Ok(frames) => frames,
            // Invalid (422) where the server knows `sendInitialEvents` and does not have it enabled, or knows
            // no `resourceVersionMatch` for a watch. Others may say it otherwise; that a list is refused too
            // will be seen by listing.
            Err(Refusal::Server { code, message }) if is_about_the_request(code) => {
                return Err(Stop::NoInitialEvents(message));
            }
            Err(refusal) => return Err(self.stop(refusal, None)),
        };
        // Whatever ends the stream before its time, the next attempt does without.
        self.start = Start::PagesOnce;
        self.send(Event::Listing(self.codec.kind)).await?;
        let version = loop {
            let Ok(told) = timeout(PAUSE_AMID, self.next(&mut frames, None)).await else {
                let problem =
                    format!("no event within {PAUSE_AMID:?}, and no bookmark after the last object");
                return Err(Stop::NoInitialEvents(problem));
            };
            match told? {
                Some(Told::Applied { reading, .. }) => self.send(Event::Applied(reading)).await?,
                Some(Told::Deleted { key, .. }) => self.send(Event::Deleted(key)).await?,
                Some(Told::Bookmark { version: Some(version), ends_initial_events: true }) => break version,
                Some(Told::Bookmark { .. }) => {
                    return Err(Stop::NoInitialEvents(
                        "a bookmark before the initial events ended".to_owned(),
                    ));
                }
                Some(Told::Error(status)) => return Err(over(&status, None)),
                None => return Err(failed("the watch ended amid its initial events", None)),
            }
        };
        self.start = Start::Stream;
        self.listed().await?;
        self.follow(&mut frames, version).await
    }

    /// Watches from a version on, until the server ends the watch. Returns the version reached.
    async fn watch(&mut self, version: String) -> Result<String, Stop> {
        let frames = self.begin(&version).await;
        let mut frames = frames.map_err(|refusal| self.stop(refusal, Some(version.clone())))?;
        self.works();
        self.follow(&mut frames, version).await
    }

    /// Begins a watch from a version on, or with all objects where there is none.
    async fn begin(&self, version: &str) -> Result<Frames, Refusal> {
        let params = WatchParams {
            label_selector: self.codec.label_selector.clone(),
            field_selector: self.codec.field_selector.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            send_initial_events: version.is_empty(),
        };
        let request = Request::new(&self.codec.path).watch(&params, version);
        let request = request.map_err(|error| Refusal::Connection(chain(&error)))?;
        match timeout(ANSWER, ask(&self.client, request, self.codec.accept())).await {
            Ok(answer) => answer.map(Answer::frames),
            Err(_) => Err(Refusal::Connection(format!("no answer within {ANSWER:?}"))),
        }
    }

    /// Passes on what a watch tells until it ends. Returns the version reached.
    async fn follow(&mut self, frames: &mut Frames, mut version: String) -> Result<String, Stop> {
        while let Ok(told) = timeout(SILENCE, self.next(frames, Some(&version))).await {
            let (event, reached) = match told? {
                Some(Told::Applied { reading, version, moment: None, .. }) => {
                    (Event::Applied(reading), version)
                }
                Some(Told::Applied { reading, version, moment: Some(moment), .. }) => {
                    (Event::Triggered(reading, moment), version)
                }
                Some(Told::Deleted { key, version }) => (Event::Deleted(key), version),
                Some(Told::Bookmark { version: reached, .. }) => {
                    version = reached.unwrap_or(version);
                    continue;
                }
                Some(Told::Error(status)) => return Err(over(&status, Some(version))),
                None => break,
            };
            self.send(event).await?;
            version = reached.unwrap_or(version);
        }
        sleep(PAUSE).await;
        Ok(version)
    }

    /// The next event of a watch; nothing at its end.
    async fn next(&self, frames: &mut Frames, version: Option<&String>) -> Result<Option<Told>, Stop> {
        let encoding = frames.encoding();
        let frame = frames.next().await.map_err(|broken| {
            let version = version.filter(|_| matches!(broken, Broken::Connection(_)));
            failed(broken, version.cloned())
        })?;
        let Some(told) = frame.map(|frame| self.codec.event(encoding, frame)) else { return Ok(None) };
        match told {
            Ok(told) => Ok(Some(told)),
            // The end came in the midst of it.
            Err(_) if frames.has_ended() => Ok(None),
            // A frame that is no event may have hidden a change: only a list tells.
            Err(problem) => Err(failed(problem, None)),
        }
    }

    async fn send(&self, event: Event) -> Result<(), Stop> {
        self.events.send((Instant::now(), event)).await.map_err(|_| Stop::Unwanted)
    }

    /// The server answered as it should.
    fn works(&mut self) {
        self.outage.end();
        self.refusals.set(self.codec.kind, None);
    }

    /// What a refusal of the API server, or a fault of the way to it, means for the watch.
    fn stop(&self, refusal: Refusal, version: Option<String>) -> Stop {
        let (code, message) = match refusal {
            Refusal::Server { code, message } => (code, message),
            Refusal::Connection(problem) => return failed(problem, version),
        };
        let pause = match (self.codec.optional, code) {
            (Optional::Version, 404) => Some(MISSING),
            // Where it was allowed before, the refusal will pass: what is known stays.
            (Optional::Version, 403) if !self.has_listed => Some(REFUSED),
            (Optional::Definition, 404) => Some(UNDEFINED),
            _ => None,
        };
        match (code, pause) {
            (_, Some(pause)) => {
                debug!(problem = %message, "going on without {}", Plural(self.codec.kind));
                Stop::Missing(pause)
            }
            (410, _) => Stop::Gone,
            (401 | 403, _) => {
                let Api { version: of, plural } = api(self.codec.kind);
                let group = of.split_once('/').map_or("", |(group, _)| group);
                let problem = format!(
                    "not allowed: {message}; this client needs a ClusterRole that allows the verbs list and \
                     watch of the resource {plural} in the API group \"{group}\""
                );
                self.refusals.set(self.codec.kind, Some(problem.clone()));
                failed(problem, version)
            }
            _ => failed(message, version),
        }
    }
}

/// Whether a refusal is about what was asked for, and not about who asks, for which kind, or when.
fn is_about_the_request(code: u16) -> bool {
    matches!(code, 400..=499) && !matches!(code, 401 | 403 | 404 | 408 | 429)
}

/// What it means that the server ends a watch by an error.
fn over(status: &Status, version: Option<String>) -> Stop {
    match status.code() {
        Some(410) => Stop::Gone,
        _ => failed(status.message().unwrap_or("an error without a reason"), version),
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

/// How long to wait after an error: longer each time, with jitter so that the nodes do not return all at
/// once.
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
