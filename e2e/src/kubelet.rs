//! A kubelet-like runner for one node: it registers the Node, watches the Pods bound to it over HTTP as any kubelet
//! does, and runs their containers as processes in namespaces made through CNI.

mod container;
mod env;
mod files;
mod network;
mod plan;
mod pod;
mod pods;
mod probe;
mod registration;
mod status;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;

use crate::cni::Runtime;
use crate::names::LabName;
use crate::netns;
use crate::sandbox::Sandbox;
use crate::state::LabDir;

/// What the runner of a node knows.
pub struct Kubelet {
    lab: LabName,
    dir: LabDir,
    node: String,
    address: Ipv4Addr,
    client: Client,
    lab_program: PathBuf,
    runtime: Runtime,
}

impl Kubelet {
    /// The runner of the node of that name and address.
    pub fn new(
        lab: LabName,
        dir: LabDir,
        node: String,
        address: Ipv4Addr,
        client: Client,
        lab_program: PathBuf,
    ) -> Kubelet {
        let place = Sandbox { netns: Some(netns::path(&lab.node(&node))), ..Sandbox::default() };
        let runtime = Runtime { lab_program: lab_program.clone(), place, dir: dir.node(&node) };
        Kubelet { lab, dir, node, address, client, lab_program, runtime }
    }

    /// Starts to run pods, until the process ends.
    pub fn start(self) {
        let kubelet = Arc::new(self);
        tokio::spawn(registration::keep(kubelet.clone()));
        tokio::spawn(pods::watch(kubelet));
    }
}

/// What a container, a pod or a daemon sees as the program search path.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
