//! The nodes of a lab as machines: each one's namespace, what runs in it, and switching it off and on again.
//! A node that is switched off loses everything at once, as by a power cut; what is on its disk stays.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::runtime::{Builder, Runtime};

use crate::daemons::Supervisor;
use crate::error::{Error, Result};
use crate::kubelet::{Kubelet, KubeletConfig};
use crate::names::{LabName, node_name};
use crate::requirements::{PLUGINS, Programs};
use crate::sandbox::{Bind, Sandbox};
use crate::shape::Shape;
use crate::state::{LabDir, NodeDir, write_file};
use crate::{cgroup, kubeconfig, netns, process, underlay};

/// How long a killed process may take to go.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where the kernel tells the boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What all nodes of a lab have in common.
#[derive(Clone)]
pub struct Site {
    /// The lab's name.
    pub name: LabName,
    /// Its folder.
    pub dir: LabDir,
    /// What it is made of.
    pub shape: Shape,
    /// The lab's own program.
    pub lab_program: PathBuf,
    /// Weft's programs.
    pub programs: Programs,
    /// The API server's port on the host's 127.0.0.1.
    pub api_port: u16,
}

/// The nodes that are switched on. Each has threads of its own, which end with it.
pub struct Nodes {
    site: Site,
    on: BTreeMap<String, Runtime>,
}

impl Nodes {
    /// So many nodes, switched on. Must not be called from asynchronous code: it waits for the kernel.
    pub fn on(site: Site, count: u8) -> Result<Nodes> {
        let mut nodes = Nodes { site, on: BTreeMap::new() };
        (1..=count).try_for_each(|number| nodes.switch_on(&node_name(number), number))?;
        Ok(nodes)
    }

    /// Switches a node on, with the addresses that go with that number.
    pub fn switch_on(&mut self, node: &str, number: u8) -> Result<()> {
        if self.on.contains_key(node) {
            return Err(invalid(node, "is switched on"));
        }
        let addresses = self.site.shape.ip_family.node(number);
        underlay::add_node(&self.site.name, node, &addresses, self.site.shape.ip_family)?;
        let failed = |source| Error::Spawn { program: format!("the threads of {node}"), source };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(failed)?;
        {
            let _inside = runtime.enter();
            self.site.boot(node, addresses)?;
        }
        self.on.insert(node.to_owned(), runtime);
        Ok(())
    }

    /// Switches a node off: its threads, its processes and those of its pods, its namespaces.
    pub fn switch_off(&mut self, node: &str) -> Result<()> {
        let runtime = self.on.remove(node).ok_or_else(|| invalid(node, "is not switched on"))?;
        // First what would start others again.
        runtime.shutdown_background();
        let mut namespaces = self.site.pod_namespaces(node);
        namespaces.push(self.site.name.node(node));
        let files: Vec<PathBuf> = namespaces.iter().map(|name| netns::path(name)).collect();
        for process in process::in_namespaces(&files) {
            process.signal(Signal::SIGKILL);
            process.wait(PATIENCE);
        }
        underlay::remove_node(&self.site.name, node)?;
        namespaces.iter().try_for_each(|name| netns::delete(name))
    }
}

fn invalid(node: &str, reason: &str) -> Error {
    Error::Invalid { what: "node", value: node.to_owned(), reason: reason.to_owned() }
}

impl Site {
    /// Starts what runs on a node, on the runtime that was entered.
    fn boot(&self, node: &str, addresses: Vec<IpAddr>) -> Result<()> {
        let dir = self.dir.node(node);
        self.furnish(&dir)?;
        let place = Sandbox {
            netns: Some(netns::path(&self.name.node(node))),
            binds: vec![Bind { source: dir.boot_id(), target: BOOT_ID.into() }],
            cgroup: cgroup::create(&self.name.node(node)),
            ..Sandbox::default()
        };
        Kubelet::new(KubeletConfig {
            lab: self.name.clone(),
            dir: self.dir.clone(),
            node: node.to_owned(),
            addresses: addresses.clone(),
            families: self.shape.ip_family,
            client: kubeconfig::client(self.api_port)?,
            lab_program: self.lab_program.clone(),
            place: place.clone(),
            boot: dir.boot()?,
        })
        .start();
        let place = Sandbox { hostname: Some(node.to_owned()), ..place };
        let proxy_flags = self.proxy_flags(&place)?;
        let (lab_program, programs) = (self.lab_program.clone(), self.programs.clone());
        let (node, families, ipam) = (node.to_owned(), self.shape.ip_family, self.shape.ipam);
        Supervisor { node, addresses, families, ipam, proxy_flags, dir, place, lab_program, programs }
            .start();
        Ok(())
    }

    /// The flags of a node's service proxy by which the lab's shape comes about.
    fn proxy_flags(&self, place: &Sandbox) -> Result<Vec<String>> {
        let mut flags = vec![format!("--proxy-mode={}", self.shape.proxy_mode.name())];
        if self.shape.ebpf {
            let cgroup = place.cgroup.as_ref().ok_or_else(|| Error::MissingKernelFeature {
                feature: "a cgroup for a node",
                module: "cgroups of version 2, or make a lab without --ebpf",
                reason: "none are mounted, or they cannot be written to".to_owned(),
            })?;
            flags.extend(["--ebpf", "--ebpf-scope=all"].map(str::to_owned));
            let cgroup = self.dir.cgroups().join(cgroup.file_name().unwrap_or_default());
            flags.push(format!("--ebpf-cgroup={}", cgroup.display()));
            flags.push(format!("--ebpf-bpffs={}", self.dir.bpffs().display()));
        }
        Ok(flags)
    }

    /// Puts on a node's disk what an installation puts there, and the mark of a new boot.
    fn furnish(&self, dir: &NodeDir) -> Result<()> {
        dir.create()?;
        for plugin in PLUGINS {
            let link = dir.cni_bin().join(plugin);
            match symlink(self.programs.path(plugin), &link) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("link", &link)(error));
                }
                _ => {}
            }
        }
        write_file(&dir.boot_id(), &format!("{}\n", uuid::Uuid::new_v4()))?;
        write_file(&dir.kubeconfig(), &kubeconfig::text(&self.shape.ip_family.api_server().to_string()))
    }

    /// The namespaces of a node's pods, from the runtime's cache.
    fn pod_namespaces(&self, node: &str) -> Vec<String> {
        let runtime = crate::cni::Runtime {
            lab_program: self.lab_program.clone(),
            place: Sandbox::default(),
            dir: self.dir.node(node),
        };
        let attachments = runtime.attachments().into_iter();
        let names = attachments.filter_map(|one| Some(one.netns.file_name()?.to_str()?.to_owned()));
        names.filter(|name| self.name.owns(name)).collect()
    }
}
