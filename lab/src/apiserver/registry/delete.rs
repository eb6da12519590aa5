//! Deleting an object: at once, after its grace period, or when its finalizers are gone.

use std::sync::Arc;

use serde_json::{Value, json};

use super::namespaces::check_delete;
use super::update::is_released;
use super::{List, ListOptions, Preconditions, Registry, Target};
use crate::apiserver::error::Result;
use crate::apiserver::object;

/// The finalizer of an object that waits for its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// What becomes of the objects that name the deleted one as their owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are deleted after it.
    #[default]
    Background,
    /// They are deleted before it.
    Foreground,
    /// They stay, without the owner.
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    /// Seconds that a running pod is given; its own `terminationGracePeriodSeconds` when left out.
    pub(crate) grace: Option<i64>,
    /// What happens to dependents.
    pub(crate) propagation: Propagation,
    /// What the client believes about the object.
    pub(crate) preconditions: Preconditions,
    /// Only say what would happen.
    pub(crate) dry_run: bool,
}

/// What a delete did.
#[derive(Clone, Debug)]
pub(crate) enum Deleted {
    /// The object is gone; its last state.
    Gone(Arc<Value>),
    /// The object is marked, and goes when its kubelet or its finalizers let go of it.
    Marked(Arc<Value>),
}

impl Registry {
    /// Deletes one object.
    pub(crate) fn delete(&mut self, target: &Target, options: &DeleteOptions) -> Result<Deleted> {
        let old = Arc::clone(self.get(target)?);
        check_delete(target)?;
        options.preconditions.check(target, &old)?;
        if options.dry_run {
            return Ok(Deleted::Gone(old));
        }
        let mut object = Value::clone(&old);
        self.prepare_dependents(&mut object, options.propagation);
        self.mark(&mut object, options.grace);
        let key = target.key();
        if is_released(&object) {
            return Ok(Deleted::Gone(self.remove(&key).unwrap_or(old)));
        }
        Ok(Deleted::Marked(if object == *old { old } else { self.commit(key, object, false) }))
    }

    /// Deletes every object of a selection; answers what they were.
    pub(crate) fn delete_collection(
        &mut self,
        target: &Target,
        selection: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<List> {
        let list = self.list(target, selection)?;
        for item in &list.items {
            let one = Target {
                resource: target.resource,
                namespace: object::namespace(item).to_owned(),
                name: object::name(item).to_owned(),
            };
            self.delete(&one, options)?;
        }
        Ok(list)
    }

    fn prepare_dependents(&mut self, object: &mut Value, propagation: Propagation) {
        let uid = object::uid(object).to_owned();
        let dependents = self.store.dependents(&uid);
        match propagation {
            Propagation::Background => {}
            Propagation::Foreground => {
                if !dependents.is_empty() && !object::has_finalizer(object, FOREGROUND) {
                    let finalizers =
                        object::metadata(object).entry("finalizers").or_insert_with(|| json!([]));
                    finalizers.as_array_mut().into_iter().for_each(|list| list.push(json!(FOREGROUND)));
                }
            }
            Propagation::Orphan => {
                for key in dependents {
                    self.disown(&key, &uid);
                }
            }
        }
    }

    fn disown(&mut self, key: &object::Key, owner_uid: &str) {
        let Some(found) = self.store.get(key) else { return };
        let mut object = Value::clone(found);
        if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
            owners.retain(|owner| owner["uid"] != owner_uid);
        }
        self.commit(key.clone(), object, false);
    }

    /// Sets the deletion time, or shortens the grace that was given before. A pod that runs nowhere gets
    /// none.
    fn mark(&self, object: &mut Value, grace: Option<i64>) {
        let grace = grace_of(object, grace).max(0);
        let before = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
        if object::is_terminating(object) && before.is_some_and(|before| before <= grace) {
            return;
        }
        let time = self.store.later(grace);
        let metadata = object::metadata(object);
        metadata.insert("deletionTimestamp".to_owned(), json!(time));
        metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        if object["kind"] == "Namespace" {
            object["status"]["phase"] = json!("Terminating");
        }
    }
}

fn grace_of(object: &Value, asked: Option<i64>) -> i64 {
    let runs_somewhere = object["kind"] == "Pod" && object["spec"]["nodeName"].is_string();
    let has_ended = ["Succeeded", "Failed"].contains(&object::text(&object["status"]["phase"]));
    if !runs_somewhere || has_ended {
        return 0;
    }
    asked.or(object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30)
}
