//! What the data plane depends on besides the cluster. Flags become this in `options.rs`.

use std::path::PathBuf;

use clap::ValueEnum;
use weft_types::{Family, IpNetwork};

use crate::ipvs_options::IpvsOptions;

/// The settings of the data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The name of the Node that the proxy runs on.
    pub node: String,
    /// What carries out the plans of Services.
    pub mode: ProxyMode,
    /// How traffic of pods is told from that of others. Where it can be told, traffic of others to a
    /// ClusterIP is masqueraded.
    pub detect_local: DetectLocal,
    /// The networks that pods take their addresses from; none where those of this Node's pods are asked for.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// Whether all traffic to ClusterIPs is masqueraded, that of pods too.
    pub masquerade_all: bool,
    /// The addresses that serve NodePorts.
    pub nodeport_addresses: NodePortAddresses,
    /// Whether packets that connection tracking finds invalid are let through: it takes none of TCP for that.
    pub conntrack_be_liberal: bool,
    /// Whether connections, packets and bytes of each Service are counted.
    pub service_counters: bool,
    /// Whether and where programs lead sockets.
    pub ebpf: Ebpf,
    /// What is for the mode ipvs.
    pub ipvs: IpvsOptions,
    /// Where is kept what settings of the kernel held before; nowhere without it.
    pub settings_dir: Option<PathBuf>,
}

/// Programs that lead sockets to endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ebpf {
    /// Whose sockets they lead; nobody's where they are turned off.
    pub scope: Option<EbpfScope>,
    /// The cgroup, of version 2, whose sockets they see; the root of all where none is given.
    pub cgroup: Option<PathBuf>,
    /// Where a file system of type bpf is mounted. Where none is given, there are no programs, and none of an
    /// earlier run.
    pub bpffs: Option<PathBuf>,
    /// Which sockets are destroyed when the endpoint is gone to which they were led.
    pub stale_sockets: StaleSockets,
}

/// Whose sockets are led.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EbpfScope {
    /// Those of the proxy's own network namespace: of the node.
    Host,
    /// Those of every namespace: of the node and of its pods.
    All,
}

impl EbpfScope {
    /// As the flag has it.
    pub fn name(self) -> &'static str {
        match self {
            EbpfScope::Host => "host",
            EbpfScope::All => "all",
        }
    }
}

/// Which sockets are destroyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StaleSockets {
    /// None.
    None,
    /// Those of UDP: nothing tells them that nobody answers any more.
    #[default]
    Udp,
    /// Those of TCP too, which would end by their own timers.
    All,
}

/// A data plane, by kube-proxy's name for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProxyMode {
    /// Maps of nf_tables, whose elements are all that there is of a Service.
    #[default]
    Nftables,
    /// The chains that kube-proxy makes in its mode of that name.
    Iptables,
    /// Virtual servers of IPVS, and nf_tables for what that does not do.
    Ipvs,
}

impl ProxyMode {
    /// All of them.
    pub const ALL: [ProxyMode; 3] = [ProxyMode::Nftables, ProxyMode::Iptables, ProxyMode::Ipvs];

    /// kube-proxy's name for it.
    pub fn name(self) -> &'static str {
        match self {
            ProxyMode::Nftables => "nftables",
            ProxyMode::Iptables => "iptables",
            ProxyMode::Ipvs => "ipvs",
        }
    }
}

/// By what traffic of pods is told from that of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DetectLocal {
    /// By its source: in a network that pods take their addresses from. By nothing where none is known.
    #[default]
    ClusterCidr,
    /// By its source: in a network that this Node's pods take their addresses from.
    NodeCidr,
    /// By the interface through which it came, whose name is this; one that ends with `*` stands for all that
    /// begin so.
    Interface(String),
}

/// Which of the node's addresses serve NodePorts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The Node's first address of each family.
    #[default]
    Primary,
    /// Every address of the machine that lies in one of these networks; loopback addresses never.
    Networks(Vec<IpNetwork>),
}

/// Those of the networks that are of one family.
pub(crate) fn of_family(networks: &[IpNetwork], family: Family) -> impl Iterator<Item = IpNetwork> {
    networks.iter().copied().filter(move |network| Family::of_network(network) == family)
}
