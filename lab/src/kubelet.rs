//! A kubelet-like runner for one node: it registers the Node, watches the Pods bound to it over HTTP as any
//! kubelet does, and runs their containers as processes in namespaces made through CNI.

mod container;
mod env;
mod files;
mod network;
mod plan;
mod pod;
mod pod_id;
mod pods;
mod probe;
mod registration;
mod status;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;

use crate::addressing::IpFamily;
use crate::cni::Runtime;
use crate::names::LabName;
use crate::sandbox::Sandbox;
use crate::state::LabDir;

/// What the runner of a node is told.
#[derive(Clone)]
pub struct KubeletConfig {
    /// The lab's name.
    pub lab: LabName,
    /// The lab's folder.
    pub dir: LabDir,
    /// The node's name.
    pub node: String,
    /// The node's addresses, that of the primary family first.
    pub addresses: Vec<IpAddr>,
    /// The families of the lab.
    pub families: IpFamily,
    /// A client for the API server.
    pub client: Client,
    /// The lab's own program.
    pub lab_program: PathBuf,
    /// Where plugins run.
    pub place: Sandbox,
    /// The node's boot.
    pub boot: String,
}

/// The runner of a node.
pub struct Kubelet {
    config: KubeletConfig,
    runtime: Runtime,
}

impl Kubelet {
    /// The runner of that node.
    pub fn new(config: KubeletConfig) -> Kubelet {
        let (lab_program, place) = (config.lab_program.clone(), config.place.clone());
        let runtime = Runtime { lab_program, place, dir: config.dir.node(&config.node) };
        Kubelet { config, runtime }
    }

    /// Starts to run pods, until the process ends.
    pub fn start(self) {
        let kubelet = Arc::new(self);
        let left_over = kubelet.runtime.attachments();
        tokio::spawn(network::remove(kubelet.clone(), left_over));
        tokio::spawn(registration::keep(kubelet.clone()));
        tokio::spawn(pods::watch(kubelet));
    }
}

/// What a container, a pod or a daemon sees as the program search path.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
