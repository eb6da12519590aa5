//! The loop that feeds the controllers: it follows the history, asks each controller what a change concerns,
//! and does what it decides. One object at a time and under the lock, so no decision is ever out of date.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Action, Controller};
use crate::apiserver::cluster::Cluster;
use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::history::Event;
use crate::apiserver::object::Key;
use crate::apiserver::registry::{DeleteOptions, Part, Registry, Target, Write};
use crate::apiserver::resource::{RESOURCES, named};
use crate::apiserver::store::Store;

/// The objects to look at, each with the index of the controller that must.
type Queue = BTreeSet<(usize, Key)>;

/// Runs the controllers until the server stops, beginning with all that is there.
pub(crate) async fn run(
    cluster: Arc<Cluster>,
    controllers: Vec<Box<dyn Controller>>,
    shutdown: CancellationToken,
) {
    let mut changed = cluster.changes();
    let mut cursor = 0;
    while !shutdown.is_cancelled() {
        changed.mark_unchanged();
        let queue = cluster.read(|registry| collect(&registry.store, &controllers, &mut cursor));
        if queue.is_empty() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                ended = changed.changed() => if ended.is_err() { return },
            }
        }
        for (index, key) in queue {
            cluster.write(|registry| look_at(registry, &*controllers[index], &key));
            tokio::task::yield_now().await;
        }
    }
}

/// What changed since the cursor concerns; everything when the cursor is older than the history.
fn collect(store: &Store, controllers: &[Box<dyn Controller>], cursor: &mut u64) -> Queue {
    let mut queue = Queue::new();
    let mut add = |event: &Event| {
        for (index, controller) in controllers.iter().enumerate() {
            queue.extend(controller.concerns(store, event).into_iter().map(|key| (index, key)));
        }
    };
    match store.events_since(*cursor) {
        Some(events) => events.for_each(|event| add(event)),
        None => everything(store).for_each(|event| add(&event)),
    }
    *cursor = store.version();
    queue
}

fn everything(store: &Store) -> impl Iterator<Item = Event> {
    RESOURCES.iter().flat_map(|resource| {
        store.list(resource.plural, "", None).map(|object| Event {
            version: store.version(),
            plural: resource.plural,
            old: None,
            new: Some(Arc::clone(object)),
        })
    })
}

fn look_at(registry: &mut Registry, controller: &dyn Controller, key: &Key) {
    for action in controller.decide(&registry.store, key) {
        match perform(registry, action) {
            // Somebody was faster, or the namespace is closing: the change that says so comes by as well.
            Ok(())
            | Err(ApiError::NotFound { .. } | ApiError::AlreadyExists { .. } | ApiError::Forbidden { .. }) => {
            }
            Err(error) => {
                tracing::warn!(plural = key.plural, namespace = key.namespace, name = key.name, %error, "a controller could not do its work")
            }
        }
    }
}

fn perform(registry: &mut Registry, action: Action) -> Result<()> {
    let target = |plural, object| Target::of(&Key::of(plural, object));
    match action {
        Action::Create(plural, object) => {
            let namespace = crate::apiserver::object::namespace(&object).to_owned();
            let target = Target { resource: named(plural), namespace, name: String::new() };
            registry.create(&target, object, Write::default()).map(drop)
        }
        Action::Update(plural, object) => {
            registry.update(&target(plural, &object), Part::Main, object, Write::default()).map(drop)
        }
        Action::UpdateStatus(plural, object) => {
            registry.update(&target(plural, &object), Part::Status, object, Write::default()).map(drop)
        }
        Action::Bind { pod, node } => registry.bind(&Target::of(&pod), &node),
        Action::Delete(key) => registry.delete(&Target::of(&key), &DeleteOptions::default()).map(drop),
        Action::Remove(key) => {
            let at_once = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
            registry.delete(&Target::of(&key), &at_once).map(drop)
        }
        Action::Report(message) => {
            tracing::warn!("{message}");
            Ok(())
        }
    }
}
