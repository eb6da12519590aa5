//! What a lab is made of, as it is asked for.

use clap::{Args, ValueEnum};

use crate::addressing::{IpFamily, Ipam, MOST_NODES};

/// What a lab is made of.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many nodes
    #[arg(long, default_value = "3", value_parser = check_nodes)]
    pub nodes: u8,
    /// The families of addresses of nodes, pods and Services
    #[arg(long, value_enum, default_value = "dual")]
    pub ip_family: IpFamily,
    /// Where pods get their addresses from
    #[arg(long, value_enum, default_value = "node-cidr")]
    pub ipam: Ipam,
    /// How Services lead to their endpoints
    #[arg(long, value_enum, default_value = "nftables")]
    pub proxy_mode: ProxyMode,
    /// Have eBPF programs lead the sockets of nodes and pods
    #[arg(long)]
    pub ebpf: bool,
}

/// The service proxy's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxyMode {
    /// Maps of nf_tables
    Nftables,
    /// The chains of kube-proxy
    Iptables,
    /// Virtual servers
    Ipvs,
}

impl ProxyMode {
    /// As the proxy's flag has it.
    pub fn name(self) -> &'static str {
        match self {
            ProxyMode::Nftables => "nftables",
            ProxyMode::Iptables => "iptables",
            ProxyMode::Ipvs => "ipvs",
        }
    }
}

/// Checks a number of nodes.
pub fn check_nodes(text: &str) -> std::result::Result<u8, String> {
    match text.parse() {
        Ok(number) if (1..=MOST_NODES).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from 1 to {MOST_NODES}")),
    }
}
