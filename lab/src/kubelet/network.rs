//! A pod's network: its namespace, and its connection through CNI.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerPort, PodSpec};

use super::Kubelet;
use super::pod_id::PodId;
use crate::backoff::Backoff;
use crate::cni::{Attachment, PortMapping, invocation};
use crate::error::{Error, Result};
use crate::{netns, process, underlay};

/// The network that a pod's containers share.
#[derive(Clone, Debug)]
pub(super) struct PodNetwork {
    /// The name of its namespace: its own, or the node's.
    pub(super) namespace: String,
    /// Its addresses, the first of which is `status.podIP`.
    pub(super) addresses: Vec<IpAddr>,
    /// Its connection; none on the node's network.
    attachment: Option<Attachment>,
}

impl Kubelet {
    /// The node's own network, for pods with hostNetwork.
    pub(super) fn host_network(&self) -> PodNetwork {
        let addresses = self.config.addresses.clone();
        PodNetwork { namespace: self.config.lab.node(&self.config.node), addresses, attachment: None }
    }

    /// Makes a namespace and connects it. What an error leaves is undone.
    pub(super) async fn connect(&self, pod: &PodId, spec: &PodSpec, attempt: u32) -> Result<PodNetwork> {
        let namespace = self.config.lab.pod(&pod.uid);
        let attachment = Attachment {
            container_id: invocation::container_id(&pod.uid, &self.config.boot, attempt),
            netns: netns::path(&namespace),
            ifname: "eth0".to_owned(),
            pod_namespace: pod.namespace.clone(),
            pod_name: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            port_mappings: port_mappings(spec),
        };
        let name = namespace.clone();
        blocking(move || {
            // Of an earlier try, whose DEL failed.
            netns::delete(&name)?;
            netns::create(&name)?;
            underlay::loopback_up(&name)
        })
        .await?;
        match self.attach(&attachment).await {
            Ok(addresses) => Ok(PodNetwork { namespace, addresses, attachment: Some(attachment) }),
            Err(error) => {
                // containerd, too, answers a failed ADD with a DEL.
                if let Err(error) = self.detach(&namespace, &attachment).await {
                    tracing::warn!(pod = pod.name, %error, "cannot undo");
                }
                Err(error)
            }
        }
    }

    async fn attach(&self, attachment: &Attachment) -> Result<Vec<IpAddr>> {
        let result = self.runtime.add(attachment).await?;
        invocation::addresses(&result).map_err(|message| Error::Cni {
            plugin: "the last plugin's result".to_owned(),
            command: "ADD",
            message,
        })
    }

    /// Disconnects a pod and removes its namespace with all processes that are left in it.
    pub(super) async fn disconnect(&self, network: &PodNetwork) -> Result<()> {
        match &network.attachment {
            Some(attachment) => self.detach(&network.namespace, attachment).await,
            None => Ok(()),
        }
    }

    async fn detach(&self, namespace: &str, attachment: &Attachment) -> Result<()> {
        for process in process::in_namespaces(&[&attachment.netns]) {
            process.signal(nix::sys::signal::Signal::SIGKILL);
        }
        self.runtime.del(attachment).await?;
        let name = namespace.to_owned();
        blocking(move || netns::delete(&name)).await
    }
}

/// Disconnects what an earlier boot left: sandboxes whose namespaces are gone.
pub(super) async fn remove(kubelet: Arc<Kubelet>, left_over: Vec<Attachment>) {
    for mut attachment in left_over {
        // As containerd does: the namespace that may have this name by now is another one.
        attachment.netns = PathBuf::new();
        // DEL may fail until the node has a network configuration again.
        let mut backoff = Backoff::default();
        while let Err(error) = kubelet.runtime.del(&attachment).await {
            tracing::warn!(pod = attachment.pod_name, %error, "cannot remove what an earlier boot left; trying again");
            tokio::time::sleep(backoff.after(Duration::ZERO)).await;
        }
    }
}

/// The node's ports that the pod's containers ask for.
fn port_mappings(spec: &PodSpec) -> Vec<PortMapping> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let mapping = |port: &ContainerPort| {
        Some(PortMapping {
            host_port: u16::try_from(port.host_port?).ok().filter(|&number| number > 0)?,
            container_port: u16::try_from(port.container_port).ok()?,
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
    };
    ports.filter_map(mapping).collect()
}

/// Runs what waits for the kernel where it holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
