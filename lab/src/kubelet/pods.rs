//! Watches the Pods bound to the node and gives each one a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;

use super::{Kubelet, pod};

/// The workers by the UID of their pod. A worker stays here until its pod is gone from the API server, so
/// that a late event cannot start a second one.
struct Workers {
    kubelet: Arc<Kubelet>,
    by_uid: BTreeMap<String, watch::Sender<Option<Pod>>>,
    /// The UIDs seen since a list began.
    listed: BTreeSet<String>,
}

/// Watches for good.
pub(super) async fn watch(kubelet: Arc<Kubelet>) {
    let api: Api<Pod> = Api::all(kubelet.config.client.clone());
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", kubelet.config.node));
    let mut events = std::pin::pin!(watcher(api, mine));
    let node = kubelet.config.node.clone();
    let mut workers = Workers { kubelet, by_uid: BTreeMap::new(), listed: BTreeSet::new() };
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => workers.handle(event),
            // The watcher lists again by itself.
            Err(error) => {
                tracing::warn!(node, %error, "watching pods");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

impl Workers {
    fn handle(&mut self, event: Event<Pod>) {
        match event {
            Event::Apply(pod) => self.apply(pod),
            Event::Delete(pod) => self.forget(&uid(&pod)),
            Event::Init => self.listed.clear(),
            Event::InitApply(pod) => {
                self.listed.insert(uid(&pod));
                self.apply(pod);
            }
            Event::InitDone => {
                let gone: Vec<String> =
                    self.by_uid.keys().filter(|uid| !self.listed.contains(*uid)).cloned().collect();
                gone.iter().for_each(|uid| self.forget(uid));
            }
        }
    }

    fn apply(&mut self, pod: Pod) {
        match self.by_uid.get(&uid(&pod)) {
            Some(worker) => {
                worker.send_replace(Some(pod));
            }
            None => {
                let (sender, seen) = watch::channel(Some(pod.clone()));
                self.by_uid.insert(uid(&pod), sender);
                tokio::spawn(pod::run(self.kubelet.clone(), pod, seen));
            }
        }
    }

    fn forget(&mut self, uid: &str) {
        if let Some(worker) = self.by_uid.remove(uid) {
            worker.send_replace(None);
        }
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}
