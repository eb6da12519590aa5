//! The flags of `weft-proxy`. What they lead to is in [`crate::daemon`].

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use weft_types::IpNetwork;

use crate::config::{Config, NodePortAddresses};
use crate::error::Error;

/// Programs the kernel so that the Services of a Kubernetes cluster lead to their endpoints.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-proxy", version)]
pub struct Options {
    /// The kubeconfig of the cluster. Without it, the pod's own service account is used.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The name of this machine's Node. Without it, NODE_NAME of the environment, or the host name.
    #[arg(long, value_name = "NODE", env = "NODE_NAME", hide_env_values = true)]
    pub hostname_override: Option<String>,

    /// The networks that pods take their addresses from. With it, traffic to a ClusterIP from elsewhere is masqueraded.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNetwork>,

    /// The addresses that serve NodePorts: networks, or "primary" for the Node's first address of each family.
    #[arg(long, value_name = "CIDR[,CIDR]|primary", default_value = "primary", value_parser = nodeport_addresses)]
    pub nodeport_addresses: NodePortAddresses,

    /// Where /healthz says whether the kernel is in step with the cluster.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: SocketAddr,

    /// Where /metrics gives numbers to Prometheus.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: SocketAddr,

    /// Forget the TCP connections through Services to endpoints that are gone: what clients send on them no longer goes to
    /// the endpoint's old address. UDP flows are always forgotten.
    #[arg(long)]
    pub terminate_removed_tcp: bool,

    /// Print what would be programmed for these manifests, as nft text, and change nothing. Needs neither a cluster nor
    /// any right.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "cleanup")]
    pub dry_run: Option<Vec<PathBuf>>,

    /// Delete everything that weft-proxy ever programmed on this machine.
    #[arg(long)]
    pub cleanup: bool,

    /// How the log on stderr looks. What it holds is set by RUST_LOG.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Options {
    /// What of the flags the planner needs.
    ///
    /// # Errors
    /// Where the Node has no name.
    pub fn config(&self) -> Result<Config, Error> {
        let node = match &self.hostname_override {
            Some(name) => name.clone(),
            None => host_name().ok_or(Error::NoNodeName)?,
        };
        let cluster_cidrs = self.cluster_cidr.clone();
        Ok(Config { node, cluster_cidrs, nodeport_addresses: self.nodeport_addresses.clone() })
    }
}

/// The host name in lower case, as the kubelet names its Node.
fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    Some(name.trim().to_lowercase()).filter(|name| !name.is_empty())
}

fn nodeport_addresses(text: &str) -> Result<NodePortAddresses, String> {
    if text == "primary" {
        return Ok(NodePortAddresses::Primary);
    }
    let network =
        |text: &str| text.trim().parse().map_err(|_| format!("{text:?} is neither a CIDR nor \"primary\""));
    text.split(',').map(network).collect::<Result<_, _>>().map(NodePortAddresses::Networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::try_parse_from([&["weft-proxy"], arguments].concat()).map_err(|error| error.to_string())
    }

    #[test]
    fn networks_are_separated_by_commas() {
        let options = parse(&[
            "--hostname-override=node1",
            "--cluster-cidr=10.244.0.0/16,fd00:244::/56",
            "--nodeport-addresses=172.30.0.0/24,fd00:30::/64",
        ])
        .unwrap();
        let config = options.config().unwrap();
        assert_eq!(config.node, "node1");
        assert_eq!(config.cluster_cidrs.len(), 2);
        let networks = ["172.30.0.0/24", "fd00:30::/64"].map(|network| network.parse().unwrap()).to_vec();
        assert_eq!(config.nodeport_addresses, NodePortAddresses::Networks(networks));
        assert_eq!(parse(&[]).unwrap().nodeport_addresses, NodePortAddresses::Primary);
    }

    #[test]
    fn a_bad_network_is_named_with_its_flag() {
        for flag in ["--cluster-cidr", "--nodeport-addresses"] {
            let error = parse(&[flag, "10.244.0.0/99"]).unwrap_err();
            assert!(error.contains(flag) && error.contains("10.244.0.0/99"), "{error}");
        }
    }
}
