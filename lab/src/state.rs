//! The lab's folder: where each file of a lab lies, and the record of the running lab. Everything a lab
//! writes is below this folder, and what is written here suffices to remove the lab after its process was
//! killed.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::names::LabName;
use crate::netns;
use crate::process::ProcessId;
use crate::sandbox::{Bind, Sandbox};

/// The folder of one lab: `<state-dir>/<name>`.
#[derive(Clone, Debug)]
pub struct LabDir {
    root: PathBuf,
}

/// What is known of a lab on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabRecord {
    /// The background process that holds the lab.
    pub process: ProcessId,
    /// The names of its nodes.
    pub nodes: Vec<String>,
    /// The API server's port on the host's 127.0.0.1. None until it listens.
    pub api_port: Option<u16>,
}

/// A supervised daemon of a node, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRecord {
    /// The program's name.
    pub name: String,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended the last time.
    pub last_exit: Option<String>,
}

impl LabDir {
    /// The folder of the lab of that name.
    pub fn new(state_dir: &Path, name: &LabName) -> LabDir {
        LabDir { root: state_dir.join(name.to_string()) }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Everything that the background process says.
    pub fn log(&self) -> PathBuf {
        self.root.join("lab.log")
    }

    /// The kubeconfig for the host's kubectl.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Where the process that holds the lab takes requests.
    pub fn control(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// Where the cgroups of this machine are seen by processes that have a /sys of their own.
    pub fn cgroups(&self) -> PathBuf {
        self.root.join("cgroups")
    }

    /// Where what belongs to eBPF is pinned, of all nodes.
    pub fn bpffs(&self) -> PathBuf {
        self.root.join("bpf")
    }

    /// kubectl's cache, which would otherwise be in the user's home.
    pub fn kubectl_cache(&self) -> PathBuf {
        self.root.join("kubectl-cache")
    }

    /// The folder of a node, which stands for its root file system.
    pub fn node(&self, node: &str) -> NodeDir {
        NodeDir { root: self.root.join("nodes").join(node) }
    }

    /// The folder of a pod.
    pub fn pod(&self, uid: &str) -> PodDir {
        PodDir { root: self.root.join("pods").join(uid) }
    }

    /// Makes the folder; an error when it is there, for then a lab of that name is.
    pub fn create(&self, name: &LabName) -> Result<()> {
        if let Some(parent) = self.root.parent() {
            make_dir(parent)?;
        }
        fs::create_dir(&self.root).map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => Error::LabExists(name.to_string()),
            _ => Error::Io { operation: "create", path: self.root.clone(), source },
        })
    }

    /// The record of the lab, if there is one.
    pub fn record(&self) -> Result<Option<LabRecord>> {
        read_json(&self.root.join("lab.json"))
    }

    /// Replaces the record of the lab.
    pub fn write_record(&self, record: &LabRecord) -> Result<()> {
        write_json(&self.root.join("lab.json"), record)
    }
}

/// The folder of a node.
#[derive(Clone, Debug)]
pub struct NodeDir {
    root: PathBuf,
}

impl NodeDir {
    /// The CNI plugins.
    pub fn cni_bin(&self) -> PathBuf {
        self.root.join("opt/cni/bin")
    }

    /// The network configuration.
    pub fn cni_conf(&self) -> PathBuf {
        self.root.join("etc/cni/net.d")
    }

    /// The address reservations of host-local IPAM.
    pub fn cni_data(&self) -> PathBuf {
        self.root.join("var/lib/cni/networks")
    }

    /// The runtime's cache of CNI results.
    pub fn cni_results(&self) -> PathBuf {
        self.root.join("var/lib/cni/results")
    }

    /// What the node's kernel says of its boot, in the place of this machine's.
    pub fn boot_id(&self) -> PathBuf {
        self.root.join("boot_id")
    }

    /// The boot that the node is in.
    pub fn boot(&self) -> Result<String> {
        let path = self.boot_id();
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        Ok(text.trim().to_owned())
    }

    /// The kubeconfig of the node's daemons.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("etc/kubernetes/kubeconfig")
    }

    /// The log file of a daemon.
    pub fn log(&self, daemon: &str) -> PathBuf {
        self.root.join("var/log").join(format!("{daemon}.log"))
    }

    /// The records of the node's daemons.
    pub fn daemons(&self) -> Result<Vec<DaemonRecord>> {
        Ok(read_json(&self.root.join("daemons.json"))?.unwrap_or_default())
    }

    /// Replaces the records of the node's daemons.
    pub fn write_daemons(&self, daemons: &[DaemonRecord]) -> Result<()> {
        write_json(&self.root.join("daemons.json"), &daemons)
    }

    /// Makes the folders that the daemons, the runtime and the plugins expect.
    pub fn create(&self) -> Result<()> {
        for dir in [self.cni_bin(), self.cni_conf(), self.cni_data(), self.cni_results()] {
            make_dir(&dir)?;
        }
        make_dir(&self.root.join("etc/kubernetes"))?;
        make_dir(&self.root.join("var/log"))
    }
}

/// The folder of a pod.
#[derive(Clone, Debug)]
pub struct PodDir {
    root: PathBuf,
}

impl PodDir {
    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the pod sees as /etc/resolv.conf.
    pub fn resolv_conf(&self) -> PathBuf {
        self.root.join("resolv.conf")
    }

    /// What the pod sees as /etc/hosts.
    pub fn hosts(&self) -> PathBuf {
        self.root.join("hosts")
    }

    /// The log file of a container.
    pub fn log(&self, container: &str) -> PathBuf {
        self.root.join(format!("{container}.log"))
    }

    /// Where the pod's processes live, by the name of its network namespace and its host name.
    pub fn place(&self, namespace: &str, hostname: &str) -> Sandbox {
        let bind = |source: PathBuf, target: &str| Bind { source, target: target.into() };
        Sandbox {
            netns: Some(netns::path(namespace)),
            hostname: Some(hostname.to_owned()),
            binds: vec![bind(self.resolv_conf(), "/etc/resolv.conf"), bind(self.hosts(), "/etc/hosts")],
            ..Sandbox::default()
        }
    }

    /// Notes where the pod's processes live, for `weft-lab exec`.
    pub fn write_place(&self, place: &Sandbox) -> Result<()> {
        write_json(&self.root.join("place.json"), place)
    }

    /// Where the pod's processes live, if it is set up.
    pub fn read_place(&self) -> Result<Option<Sandbox>> {
        read_json(&self.root.join("place.json"))
    }
}

/// Makes a folder and those above it.
pub fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Writes a file so that a reader finds the old or the new text, never half of it.
pub fn write_file(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text).map_err(Error::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::io("write", path))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::io("write", path)(std::io::Error::other(error)))?;
    write_file(path, &text)
}

/// What a file holds; nothing where there is none.
pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Error::io("read", path)(std::io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let name: LabName = "weft".parse().unwrap();
        let dir = LabDir::new(folder.path(), &name);
        assert_eq!(dir.record().unwrap(), None);
        dir.create(&name).unwrap();
        let record = LabRecord {
            process: ProcessId { pid: 7, started: 9 },
            nodes: vec!["node1".to_owned()],
            api_port: Some(4242),
        };
        dir.write_record(&record).unwrap();
        assert_eq!(dir.record().unwrap(), Some(record));
    }

    #[test]
    fn a_second_lab_of_the_same_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let name: LabName = "weft".parse().unwrap();
        let dir = LabDir::new(folder.path(), &name);
        dir.create(&name).unwrap();
        assert!(matches!(dir.create(&name), Err(Error::LabExists(_))));
    }
}
