//! The life of one pod on this node: network, files, containers, status, and the way back.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Kubelet;
use super::container::{Container, RestartPolicy};
use super::env::PodFacts;
use super::network::PodNetwork;
use super::pod_id::PodId;
use super::status::{Report, pod_status};
use super::{files, plan};
use crate::backoff::Backoff;
use crate::error::Result;
use crate::sandbox::Sandbox;
use crate::state::{make_dir, write_file};

/// The grace period where nobody set one, in seconds.
const DEFAULT_GRACE: u64 = 30;

/// What is seen of the pod at the API server; None when it is gone there.
type Seen = watch::Receiver<Option<Pod>>;

struct Worker {
    kubelet: Arc<Kubelet>,
    id: PodId,
    pod: Pod,
    spec: PodSpec,
    api: Api<Pod>,
    /// The status as it was last published.
    status: PodStatus,
}

/// Runs a pod from its first sight to its end.
pub(super) async fn run(kubelet: Arc<Kubelet>, pod: Pod, mut seen: Seen) {
    let id = PodId::of(&pod);
    let api = Api::namespaced(kubelet.config.client.clone(), &id.namespace);
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let mut worker = Worker { kubelet, id, pod, spec, api, status };
    if let Some(network) = worker.connect(&mut seen).await {
        worker.run_containers(&network, &mut seen).await;
        worker.disconnect(&network).await;
    }
    worker.confirm_deletion(&seen).await;
}

/// Whether the pod is to end.
fn is_ending(pod: &Option<Pod>) -> bool {
    pod.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
}

/// How long the pod's processes may take to end.
fn grace(pod: &Option<Pod>) -> Duration {
    let seconds = pod.as_ref().map_or(Some(0), |pod| pod.metadata.deletion_grace_period_seconds);
    Duration::from_secs(seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(DEFAULT_GRACE))
}

impl Worker {
    /// Sets the network up, however often it takes. None when the pod was deleted first.
    async fn connect(&mut self, seen: &mut Seen) -> Option<PodNetwork> {
        if self.spec.host_network == Some(true) {
            return (!is_ending(&seen.borrow())).then(|| self.kubelet.host_network());
        }
        let mut backoff = Backoff::default();
        for attempt in 0.. {
            if is_ending(&seen.borrow()) {
                return None;
            }
            match self.kubelet.connect(&self.id, &self.spec, attempt).await {
                Ok(network) => return Some(network),
                Err(error) => {
                    tracing::warn!(pod = %self.id.name, %error, "cannot connect the pod; trying again");
                    let reports = self.waiting("ContainerCreating", &error.to_string());
                    self.publish(&reports, None).await;
                }
            }
            let wait = backoff.after(Duration::ZERO);
            let _ = tokio::time::timeout(wait, seen.wait_for(is_ending)).await;
        }
        None
    }

    fn waiting(&self, reason: &'static str, message: &str) -> Vec<Report> {
        let image = |image: &Option<String>| image.clone().unwrap_or_default();
        self.spec
            .containers
            .iter()
            .map(|container| {
                Report::waiting(&container.name, &image(&container.image), reason, message.to_owned())
            })
            .collect()
    }

    /// Runs the containers until the pod is to end, then ends them.
    async fn run_containers(&mut self, network: &PodNetwork, seen: &mut Seen) {
        let containers = match self.containers(network) {
            Ok(containers) => containers,
            Err(reason) => {
                let reports = self.waiting("CreateContainerError", &reason);
                self.publish(&reports, Some(network)).await;
                // The spec of a pod does not change: there is nothing to wait for but its end.
                let _ = seen.wait_for(is_ending).await;
                return;
            }
        };
        let (reports, mut latest) = watch::channel(self.waiting("ContainerCreating", ""));
        let (stop, stopping) = watch::channel(None);
        let mut running = JoinSet::new();
        for (position, container) in containers.into_iter().enumerate() {
            running.spawn(container.run(position, reports.clone(), stopping.clone()));
        }
        loop {
            let now = latest.borrow_and_update().clone();
            self.publish(&now, Some(network)).await;
            tokio::select! {
                // Never an error: `reports` lives as long as this loop.
                _ = latest.changed() => {}
                _ = seen.wait_for(is_ending) => break,
            }
        }
        stop.send_replace(Some(grace(&seen.borrow())));
        while running.join_next().await.is_some() {}
        let ended = latest.borrow().clone();
        if seen.borrow().is_some() {
            self.publish(&ended, Some(network)).await;
        }
    }

    fn containers(&self, network: &PodNetwork) -> std::result::Result<Vec<Container>, String> {
        if self.spec.init_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
            return Err("initContainers are not supported in the lab".to_owned());
        }
        let address = network.addresses.first().copied().ok_or("the pod has no address")?;
        let place = self.place(network).map_err(|error| error.to_string())?;
        let facts = PodFacts {
            addresses: network.addresses.clone(),
            node: self.kubelet.config.node.clone(),
            node_addresses: self.kubelet.config.addresses.clone(),
        };
        let dir = self.kubelet.config.dir.pod(&self.id.uid);
        let container = |container| {
            let plan = plan::container(&self.pod, container, &facts)?;
            Ok(Container {
                log: dir.log(&plan.name),
                plan,
                place: place.clone(),
                lab_program: self.kubelet.config.lab_program.clone(),
                restart: RestartPolicy::parse(self.spec.restart_policy.as_deref()),
                namespace: network.namespace.clone(),
                address,
            })
        };
        self.spec.containers.iter().map(container).collect()
    }

    /// Writes the pod's files and tells where its processes live.
    fn place(&self, network: &PodNetwork) -> Result<Sandbox> {
        let dir = self.kubelet.config.dir.pod(&self.id.uid);
        make_dir(dir.root())?;
        let hostname = match self.spec.host_network {
            Some(true) => self.kubelet.config.node.clone(),
            _ => files::hostname(&self.id.name, &self.spec),
        };
        let hosts = files::hosts(&self.id.namespace, &hostname, &self.spec, &network.addresses);
        write_file(&dir.hosts(), &hosts)?;
        let families = self.kubelet.config.families;
        write_file(&dir.resolv_conf(), &files::resolv_conf(&self.id.namespace, &self.spec, families))?;
        let cgroup = self.kubelet.config.place.cgroup.clone();
        let place = Sandbox { cgroup, ..dir.place(&network.namespace, &hostname) };
        dir.write_place(&place)?;
        Ok(place)
    }

    /// Publishes the status, if it is not the published one. Tries again until the API server takes it.
    async fn publish(&mut self, reports: &[Report], network: Option<&PodNetwork>) {
        let addresses = network.map(|network| network.addresses.as_slice()).unwrap_or_default();
        let node = &self.kubelet.config.addresses;
        let status = pod_status(reports, addresses, node, &self.status, Timestamp::now());
        if status == self.status {
            return;
        }
        let patch = Patch::Merge(json!({"metadata": {"uid": self.id.uid}, "status": status}));
        let mut backoff = Backoff::default();
        loop {
            match self.api.patch_status(&self.id.name, &PatchParams::default(), &patch).await {
                Ok(_) => break,
                // The pod is gone, or another one of its name is there.
                Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409 | 422) => break,
                Err(error) => tracing::warn!(pod = %self.id.name, %error, "cannot update the pod's status"),
            }
            tokio::time::sleep(backoff.after(Duration::ZERO)).await;
        }
        self.status = status;
    }

    /// Takes the network down, however often it takes, and removes the pod's files.
    async fn disconnect(&self, network: &PodNetwork) {
        let mut backoff = Backoff::default();
        while let Err(error) = self.kubelet.disconnect(network).await {
            tracing::warn!(pod = %self.id.name, %error, "cannot disconnect the pod; trying again");
            tokio::time::sleep(backoff.after(Duration::ZERO)).await;
        }
        let dir = self.kubelet.config.dir.pod(&self.id.uid);
        if let Err(error) = std::fs::remove_dir_all(dir.root()) {
            tracing::warn!(pod = %self.id.name, %error, "cannot remove the pod's files");
        }
    }

    /// Tells the API server that nothing of the pod is left here: only then is it deleted there.
    async fn confirm_deletion(&self, seen: &Seen) {
        if seen.borrow().is_none() {
            return;
        }
        let uid = Some(self.id.uid.clone());
        let preconditions = Preconditions { uid, resource_version: None };
        let now = DeleteParams::default().grace_period(0).preconditions(preconditions);
        let mut backoff = Backoff::default();
        loop {
            match self.api.delete(&self.id.name, &now).await {
                Ok(_) => return,
                Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => return,
                Err(error) => {
                    tracing::warn!(pod = %self.id.name, %error, "cannot confirm the pod's deletion")
                }
            }
            tokio::time::sleep(backoff.after(Duration::ZERO)).await;
        }
    }
}
