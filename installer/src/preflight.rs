//! `weft preflight`: whether Weft can work on this machine, and what to do where it cannot.
//!
//! ```text
//! probe::machine(&Expectations) -> Facts -> check(&Facts, &Expectations, &others) -> Report -> table or JSON
//! ```
//!
//! The probes look and try, in a throw-away network namespace where trying leaves something behind; they
//! decide nothing. What is good and what is not is decided in [`check()`], from values alone.

mod between;
mod checks;
mod facts;
pub mod nodes;
mod probe;
mod report;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use thiserror::Error;
use weft_types::IpNetwork;

use crate::cluster::Connection;
use crate::manifests::{BACKENDS, FastPathValues, IMAGE, TUNNELS};

pub use checks::check;
pub(crate) use checks::conflicts;
pub use facts::{
    Advertised, Attempt, Between, Chain, Facts, Feature, Identity, Listener, Outcome, OwnMac, Route,
    Transport,
};
pub use report::{Check, Report, Verdict};

/// What the cluster will be like, which this machine must fit, and how to say it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What is expected of the machine.
    #[command(flatten)]
    pub expectations: Expectations,
    /// Reports of the other nodes (`weft preflight --output json`), which this one's names and MACs must
    /// differ from.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub against: Vec<PathBuf>,
    /// Check every node of the cluster of the kubeconfig, by a privileged pod on each that is deleted
    /// afterwards.
    #[arg(long, conflicts_with = "against")]
    pub all_nodes: bool,
    /// How that is done.
    #[command(flatten)]
    pub nodes: NodesOptions,
    /// How the report looks.
    #[arg(long, value_enum, default_value = "table")]
    pub output: Output,
}

/// How every node of a cluster is checked.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "With --all-nodes")]
pub struct NodesOptions {
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// The image that holds the weft command.
    #[arg(long, default_value = IMAGE)]
    pub image: String,
    /// Where the weft command is in the image.
    #[arg(long, value_name = "PATH", default_value = "/weft")]
    pub program: String,
    /// Where the node's files are in the pod.
    #[arg(long, value_name = "DIR", default_value = "/host")]
    pub host_root: PathBuf,
    /// How many seconds to wait for the nodes.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub timeout: u64,
}

/// What the cluster will be like.
#[derive(Args, Clone, Debug)]
pub struct Expectations {
    /// The pods' address ranges.
    #[arg(
        long = "cluster-cidr",
        value_delimiter = ',',
        default_value = "10.244.0.0/16",
        value_name = "CIDR"
    )]
    pub cluster_cidrs: Vec<IpNetwork>,
    /// The Services' address ranges.
    #[arg(long = "service-cidr", value_delimiter = ',', default_value = "10.96.0.0/12", value_name = "CIDR")]
    pub service_cidrs: Vec<IpNetwork>,
    /// The UDP port of the VXLAN tunnel between nodes.
    #[arg(long, value_name = "PORT", default_value_t = weft_types::well_known::port::VXLAN)]
    pub vxlan_port: u16,
    /// How packets will get to the pods of other nodes.
    #[arg(long, default_value = BACKENDS[0], value_parser = BACKENDS, value_name = "BACKEND")]
    pub backend: String,
    /// What will lead to nodes that are not reached directly, with the backend auto.
    #[arg(long, default_value = TUNNELS[0], value_parser = TUNNELS, value_name = "TUNNEL")]
    pub tunnel: String,
    /// The UDP port of the WireGuard tunnel between nodes.
    #[arg(long, value_name = "PORT", default_value_t = weft_types::well_known::port::WIREGUARD)]
    pub wireguard_port: u16,
    /// Each node gets a DNS server of its own (`weft manifests --node-local-dns`), which needs some more
    /// ports.
    #[arg(long)]
    pub node_local_dns: bool,
    /// Nodes answer for load balancer addresses (`weft install --lb-pool`), and watch each other by BFD.
    #[arg(long)]
    pub load_balancers: bool,
    /// eBPF is to lead sockets (`weft manifests --proxy-ebpf`), which takes more of a machine.
    #[arg(long)]
    pub proxy_ebpf: bool,
    /// How packets of established connections between pods will go.
    #[command(flatten)]
    pub fast_path: FastPathValues,
    /// Where the container runtime reads CNI configurations.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people.
    Table,
    /// One JSON object.
    Json,
}

/// Why no report can be made.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel does not even say what it has.
    #[error(
        "cannot look at this machine's network: {0}; run weft preflight as root, in the host's network namespace"
    )]
    Kernel(#[from] weft_netlink::Error),
    /// A report of another node cannot be read.
    #[error("cannot read the report {}: {problem}; make it with weft preflight --output json", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// A pod cannot look at its node, or tell what it saw.
    #[error(
        "cannot look at this node from a pod: {0}; the pod must be privileged, with hostNetwork, and have the host's / as a volume"
    )]
    Host(#[source] std::io::Error),
}

impl Expectations {
    /// As the flags that give them.
    fn flags(&self) -> Vec<String> {
        let list =
            |networks: &[IpNetwork]| networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let valued = [
            format!("--cluster-cidr={}", list(&self.cluster_cidrs)),
            format!("--service-cidr={}", list(&self.service_cidrs)),
            format!("--vxlan-port={}", self.vxlan_port),
            format!("--backend={}", self.backend),
            format!("--tunnel={}", self.tunnel),
            format!("--wireguard-port={}", self.wireguard_port),
            format!("--cni-conf-dir={}", self.cni_conf_dir.display()),
        ];
        let asked = [
            (self.node_local_dns, "--node-local-dns"),
            (self.load_balancers, "--load-balancers"),
            (self.proxy_ebpf, "--proxy-ebpf"),
        ];
        let asked = asked.into_iter().filter(|(asked, _)| *asked).map(|(_, flag)| flag.to_owned());
        valued.into_iter().chain(asked).chain(self.fast_path.agent_flag()).collect()
    }

    /// Whether nodes are to encrypt what they send each other, or what goes through the tunnel.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.backend == "wireguard" || self.backend == BACKENDS[0] && self.tunnel == "wireguard"
    }

    /// Whether pods or Services get IPv6 addresses.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.cluster_cidrs.iter().chain(&self.service_cidrs).any(IpNetwork::is_ipv6)
    }
}

/// Looks at the machine, in the calling thread's network namespace, and checks it.
///
/// # Errors
/// Where the machine cannot be looked at at all, or another node's report cannot be read. What is wrong with
/// the machine is in the report.
pub fn run(options: &Options) -> Result<Report, Error> {
    let others = options.against.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let facts = probe::machine(&options.expectations.cni_conf_dir)?;
    Ok(check(&facts, &options.expectations, &others))
}

fn read(path: &Path) -> Result<Identity, Error> {
    let failed = |problem: String| Error::Other { path: path.to_owned(), problem };
    let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let report: Report = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    Ok(report.identity)
}
