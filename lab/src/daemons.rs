//! The supervisor of a node's daemons: starts the real programs in the node's namespace and starts them again
//! when they end, as a DaemonSet would.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::addressing::{IpFamily, Ipam};
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::kubelet::PATH;
use crate::requirements::{DAEMONS, Programs};
use crate::sandbox::Sandbox;
use crate::state::{DaemonRecord, NodeDir};

/// The class of LoadBalancer Services that the agents give addresses to.
pub const LOAD_BALANCER_CLASS: &str = "weft.test/lab";

/// What the supervisor of one node needs.
pub struct Supervisor {
    /// The node's name.
    pub node: String,
    /// Its addresses on the underlay.
    pub addresses: Vec<IpAddr>,
    /// The families of the lab.
    pub families: IpFamily,
    /// What the service proxy is told besides.
    pub proxy_flags: Vec<String>,
    /// Where pods get their addresses from.
    pub ipam: Ipam,
    /// Its folders.
    pub dir: NodeDir,
    /// Where its processes run.
    pub place: Sandbox,
    /// The lab's own program.
    pub lab_program: PathBuf,
    /// Weft's programs.
    pub programs: Programs,
}

/// The records of all daemons of the node, as they stand on disk.
type Records = Arc<Mutex<Vec<DaemonRecord>>>;

impl Supervisor {
    /// Starts the daemons and keeps them running until the process ends.
    pub fn start(self) {
        let record =
            |name: &str| DaemonRecord { name: name.to_owned(), pid: None, restarts: 0, last_exit: None };
        let records: Records = Arc::new(Mutex::new(DAEMONS.map(record).to_vec()));
        let supervisor = Arc::new(self);
        for (position, name) in DAEMONS.into_iter().enumerate() {
            tokio::spawn(keep(supervisor.clone(), records.clone(), position, name));
        }
    }

    fn note(&self, records: &Records, change: impl FnOnce(&mut [DaemonRecord])) {
        // Held while writing, so that records reach the disk in the order of the changes.
        let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut records);
        if let Err(error) = self.dir.write_daemons(&records) {
            tracing::warn!(node = self.node, %error, "cannot note the state of the daemons");
        }
    }

    fn spawn(&self, name: &str) -> Result<tokio::process::Child> {
        let path = self.dir.log(name);
        let failed = Error::io("open", &path);
        let log = File::options().create(true).append(true).open(&path).map_err(failed)?;
        let copy = log.try_clone().map_err(Error::io("open", &path))?;
        let place = self.place.clone().dying_with_me();
        let mut command = place.command(&self.lab_program, self.programs.path(name));
        command.args(arguments(name, &self.node, &self.addresses, self.families, &self.dir));
        command.args(self.proxy_flags.iter().filter(|_| name == "weft-proxy"));
        if name == "weft-agent" && self.ipam == Ipam::Blocks {
            command.args([
                "--ipam",
                "blocks",
                "--block-mask-size-ipv4",
                "29",
                "--block-mask-size-ipv6",
                "125",
            ]);
            command.args(["--block-grace", "3"]);
        }
        command.env_clear().env("PATH", PATH).env("NODE_NAME", &self.node);
        command.envs(std::env::vars().filter(|(name, _)| name == "RUST_LOG" || name == "RUST_BACKTRACE"));
        command.stdin(Stdio::null()).stdout(log).stderr(copy);
        let started = tokio::process::Command::from(command).spawn();
        started.map_err(|source| Error::Spawn { program: name.to_owned(), source })
    }
}

async fn keep(supervisor: Arc<Supervisor>, records: Records, position: usize, name: &'static str) {
    let mut backoff = Backoff::default();
    loop {
        let start = Instant::now();
        let end = match supervisor.spawn(name) {
            Err(error) => error.to_string(),
            Ok(mut child) => {
                supervisor.note(&records, |records| records[position].pid = child.id());
                match child.wait().await {
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                }
            }
        };
        tracing::warn!(node = supervisor.node, daemon = name, end, "daemon ended; starting it again");
        supervisor.note(&records, |records| {
            let record = &mut records[position];
            (record.pid, record.last_exit) = (None, Some(end));
            record.restarts += 1;
        });
        tokio::time::sleep(backoff.after(start.elapsed())).await;
    }
}

/// A daemon's command line.
fn arguments(
    daemon: &str,
    node: &str,
    addresses: &[IpAddr],
    families: IpFamily,
    dir: &NodeDir,
) -> Vec<String> {
    let path = |path: PathBuf| path.display().to_string();
    let mut line = vec!["--kubeconfig".to_owned(), path(dir.kubeconfig())];
    let mut flag = |name: &str, value: String| line.extend([name.to_owned(), value]);
    match daemon {
        "weft-agent" => {
            flag("--hostname-override", node.to_owned());
            flag("--cluster-cidr", families.cluster_cidr_flag());
            flag("--cni-conf-dir", path(dir.cni_conf()));
            flag("--cni-bin-dir", path(dir.cni_bin()));
            flag("--cni-data-dir", path(dir.cni_data()));
            // As the manifests have it: the API server asks there for those who explain.
            let any: IpAddr = match addresses.iter().any(IpAddr::is_ipv4) {
                true => Ipv4Addr::UNSPECIFIED.into(),
                false => Ipv6Addr::UNSPECIFIED.into(),
            };
            flag("--healthz-bind-address", SocketAddr::new(any, 10246).to_string());
            flag("--lb-pool", families.load_balancer_pool());
            // Services that name no class are left to whoever tries something out.
            flag("--lb-class", LOAD_BALANCER_CLASS.to_owned());
        }
        "weft-proxy" => {
            flag("--hostname-override", node.to_owned());
            flag("--cluster-cidr", families.cluster_cidr_flag());
        }
        _ => {
            for &address in addresses {
                flag("--listen", SocketAddr::new(address, 53).to_string());
            }
            for gateway in families.gateways() {
                flag("--upstream", gateway.to_string());
            }
            // The names outside of the lab are below `test`, which no upstream is told otherwise (RFC 6761).
            flag("--keep-private", "none".to_owned());
            if families.has_ipv6() {
                // Takes IPv4 too.
                flag("--ready-bind-address", "[::]:8181".to_owned());
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::state::LabDir;

    #[test]
    fn every_daemon_gets_the_node_s_own_folders_and_addresses() {
        let dir = LabDir::new(Path::new("/run/weft-lab"), &"weft".parse().unwrap()).node("node2");
        let line =
            |daemon| arguments(daemon, "node2", &IpFamily::Dual.node(2), IpFamily::Dual, &dir).join(" ");
        for daemon in DAEMONS {
            let kubeconfig = "--kubeconfig /run/weft-lab/weft/nodes/node2/etc/kubernetes/kubeconfig";
            assert!(line(daemon).starts_with(kubeconfig), "{}", line(daemon));
        }
        assert!(line("weft-agent").contains("--cni-conf-dir /run/weft-lab/weft/nodes/node2/etc/cni/net.d"));
        assert!(
            line("weft-proxy")
                .contains("--hostname-override node2 --cluster-cidr 10.244.0.0/16,fd00:10:244::/56")
        );
        let servers =
            "--listen 172.30.0.12:53 --listen [fd00:30::12]:53 --upstream 172.30.0.1 --upstream fd00:30::1";
        assert!(line("weft-dns").contains(servers), "{}", line("weft-dns"));
    }
}
