//! Watches: a response whose body never ends by itself. Each watcher has its own place in the history and
//! reads on from there when its client has taken what came before, so a slow one holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Door;
use super::form::{Form, now};
use super::parameters::Parameters;
use crate::apiserver::cluster::Cluster;
use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::registry::{Registry, Selection, Target};
use crate::apiserver::resource::Resource;
use crate::apiserver::watch::{Change, ChangeType, changes};

/// The most changes in one piece of the body.
const BATCH: usize = 500;
/// How long a watch lasts when the client does not say, as the real server's least.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

struct Watcher {
    cluster: Arc<Cluster>,
    resource: &'static Resource,
    selection: Selection,
    form: Form,
    /// The version up to which the client knows everything.
    cursor: u64,
    /// What is to be sent before the history.
    first: Vec<u8>,
    changed: Receiver<u64>,
    deadline: Instant,
    /// The interval of bookmarks, where the client wants them.
    bookmarks: Option<Duration>,
    shutdown: CancellationToken,
    ended: bool,
}

/// Begins a watch.
pub(super) fn serve(door: &Door, target: &Target, parameters: &Parameters, form: Form) -> Result<Response> {
    let selection = parameters.selection(target)?;
    let timeout = parameters.number("timeoutSeconds")?.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let mut watcher = Watcher {
        cluster: Arc::clone(&door.cluster),
        resource: target.resource,
        selection,
        form,
        cursor: 0,
        first: Vec::new(),
        changed: door.cluster.changes(),
        deadline: Instant::now() + timeout,
        bookmarks: parameters.flag("allowWatchBookmarks").then_some(door.bookmark_interval),
        shutdown: door.shutdown.clone(),
        ended: false,
    };
    let initial = parameters.flag("sendInitialEvents");
    match parameters.number("resourceVersion")? {
        Some(version) if version > 0 && !initial => watcher.cursor = version,
        _ => watcher.begin_with_state(initial),
    }
    let pieces = stream::unfold(watcher, Watcher::next);
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response())
}

impl Watcher {
    /// Puts all present objects first; after them, where asked for, the mark that they are complete
    /// (KEP-3157).
    fn begin_with_state(&mut self, with_mark: bool) {
        let (objects, version) = self.cluster.read(|registry: &Registry| {
            let all = registry.store.list(self.resource.plural, &self.selection.namespace, None);
            let objects: Vec<_> = all.filter(|object| self.selection.takes(object)).cloned().collect();
            (objects, registry.store.version())
        });
        self.cursor = version;
        let added: Vec<Change> = objects.into_iter().map(|object| (ChangeType::Added, object)).collect();
        self.first = self.lines(&added);
        if with_mark && self.bookmarks.is_some() {
            self.first.extend(self.bookmark(true));
        }
    }

    /// The next piece of the body, when there is one; `None` ends it.
    async fn next(mut self) -> Option<(std::result::Result<Bytes, std::convert::Infallible>, Self)> {
        loop {
            if self.ended {
                return None;
            }
            let piece = self.collect();
            if !piece.is_empty() {
                return Some((Ok(Bytes::from(piece)), self));
            }
            let quiet = self.bookmarks.map_or(self.deadline, |interval| Instant::now() + interval);
            tokio::select! {
                () = self.shutdown.cancelled() => self.ended = true,
                () = tokio::time::sleep_until(self.deadline) => {
                    self.ended = true;
                    self.first = self.bookmarks.map(|_| self.bookmark(false)).unwrap_or_default();
                    if !self.first.is_empty() {
                        return Some((Ok(Bytes::from(std::mem::take(&mut self.first))), self));
                    }
                }
                () = tokio::time::sleep_until(quiet), if quiet < self.deadline => {
                    self.first = self.bookmark(false);
                }
                changed = self.changed.changed() => self.ended = changed.is_err(),
            }
        }
    }

    /// What can be sent now.
    fn collect(&mut self) -> Vec<u8> {
        if !self.first.is_empty() {
            return std::mem::take(&mut self.first);
        }
        self.changed.mark_unchanged();
        let told = self.cluster.read(|registry| {
            changes(&registry.store, self.resource.plural, &self.selection, self.cursor, BATCH)
        });
        match told {
            Ok((told, cursor)) => {
                self.cursor = cursor;
                self.lines(&told)
            }
            Err(error) => {
                self.ended = true;
                gone(&error)
            }
        }
    }

    fn lines(&self, changes: &[Change]) -> Vec<u8> {
        let now = now();
        let mut text = Vec::new();
        for (kind, object) in changes {
            let view = match &self.form {
                Form::Object => line(kind.word(), object),
                form => line(kind.word(), &form.object(self.resource, object, now)),
            };
            text.extend(view);
        }
        text
    }

    /// Tells the client how far it has come, so that it can continue from there after a break.
    fn bookmark(&self, initial_end: bool) -> Vec<u8> {
        let mut object = json!({
            "kind": self.resource.kind, "apiVersion": self.resource.api_version,
            "metadata": {"resourceVersion": self.cursor.to_string(), "creationTimestamp": null},
        });
        if initial_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        if let Form::Table { .. } = self.form {
            object["metadata"]["name"] = json!("");
            object = self.form.object(self.resource, &object, now());
        }
        line("BOOKMARK", &object)
    }
}

fn gone(error: &ApiError) -> Vec<u8> {
    line("ERROR", &error.status())
}

fn line(kind: &str, object: &Value) -> Vec<u8> {
    let mut text = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
    text.extend(object.to_string().into_bytes());
    text.extend(b"}\n");
    text
}
