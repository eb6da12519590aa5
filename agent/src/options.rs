//! The flags of `weft-agent`. What they lead to is in [`crate::plan`] and [`crate::daemon`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum};
use weft_cni_spec::{InterfaceName, NetworkName};
use weft_daemon::LogFormat;
use weft_ipam::Blocks;
use weft_types::well_known::{device, nflog, port};
use weft_types::{AddressRange, IpNetwork};

use crate::Error;
use crate::bgp::options::BgpOptions;
use crate::blocks::plan as blocks;
use crate::config::Config;
use crate::dhcp::options::DhcpOptions;
use crate::fast_path;
use crate::flows::options::FlowsOptions;
use crate::routing::vxlan::plan::Settings;
use crate::routing::wireguard::options::WireGuardOptions;
use crate::uplink::{Backend, LeaveBy, Tunnel};

/// Makes this machine a node of the pod network: CNI configuration, forwarding, routes to the pods of the
/// other nodes, masquerade of what leaves the cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-agent", version)]
pub struct Options {
    /// The kubeconfig of the cluster. Without it, the pod's own service account is used.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The name of this machine's Node. Without it, the host's name.
    #[arg(long, value_name = "NODE", env = "NODE_NAME")]
    pub hostname_override: Option<String>,

    /// Ranges within which pods see each other's real addresses. Without it, the pod CIDRs of all Nodes.
    #[arg(long = "cluster-cidr", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    pub cluster_cidrs: Vec<IpNetwork>,

    /// Where pods' addresses come from: the pod CIDR of their Node, or blocks of the cluster CIDR that nodes
    /// claim as they need them. The same on every node.
    #[arg(long, value_name = "HOW", default_value = "node-cidr")]
    pub ipam: IpamMode,

    /// With --ipam blocks: the length of the prefix of an IPv4 block.
    #[arg(long, value_name = "LENGTH", default_value = "26", value_parser = clap::value_parser!(u8).range(8..=30))]
    pub block_mask_size_ipv4: u8,

    /// With --ipam blocks: the length of the prefix of an IPv6 block.
    #[arg(long, value_name = "LENGTH", default_value = "122", value_parser = clap::value_parser!(u8).range(64..=126))]
    pub block_mask_size_ipv6: u8,

    /// With --ipam blocks: for how many seconds a block must be empty, or its Node gone, before it is given up.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = clap::value_parser!(u64).range(1..))]
    pub block_grace: u64,

    /// Where the container runtime reads CNI configurations.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,

    /// Where the container runtime finds CNI plugins.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,

    /// Where the reservations of pod addresses are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni/networks")]
    pub cni_data_dir: PathBuf,

    /// The name of the CNI network.
    #[arg(long, value_name = "NAME", default_value = "weft")]
    pub network_name: NetworkName,

    /// The bridge that this node's pods are put on.
    #[arg(long, value_name = "NAME", default_value = device::BRIDGE)]
    pub bridge: InterfaceName,

    /// Ranges that Services take their addresses from. A pod CIDR that overlaps one is refused.
    #[arg(long = "service-cidr", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    pub service_cidrs: Vec<IpNetwork>,

    /// How packets get to the pods of other nodes. The same on every node.
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    pub backend: Backend,

    /// With --backend auto: what leads to nodes that are not reached directly. An encrypted tunnel leaves what
    /// is reached directly as it is. The same on every node. Without it, vxlan.
    #[arg(long, value_name = "TUNNEL")]
    pub tunnel: Option<Tunnel>,

    /// By which address of this machine, at most one of each family, the other nodes are reached. Without it,
    /// the Node's own where an interface has it, and otherwise the one that the routes to the other nodes
    /// choose.
    #[arg(long = "node-ip", value_name = "ADDRESS", value_delimiter = ',', conflicts_with = "iface")]
    pub node_ips: Vec<IpAddr>,

    /// By which interface of this machine the other nodes are reached: by the first address of each family
    /// that it has.
    #[arg(long, value_name = "NAME")]
    pub iface: Option<InterfaceName>,

    /// The VXLAN network identifier. The same on every node.
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=0xff_ffff))]
    pub vxlan_vni: u32,

    /// The UDP port of the VXLAN tunnel. The same on every node.
    #[arg(long, value_name = "PORT", default_value_t = port::VXLAN, value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: u16,

    /// The encrypted tunnel.
    #[command(flatten)]
    pub wireguard: WireGuardOptions,

    /// The pods' MTU, in bytes. Without it, what fits on the way to every other node: the MTU of the
    /// interface that holds the node's address, less the headers of the tunnel where one is used.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1280..=65535))]
    pub mtu: Option<u32>,

    /// How packets of established connections between pods go: as all others do, or past the network stack of
    /// the host, by eBPF programs (Linux 6.6).
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub fast_path: fast_path::Mode,

    /// Enforce NetworkPolicies, and ClusterNetworkPolicies where the cluster has them.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub network_policy: bool,

    /// What happens to traffic that network policies deny: it is dropped, so that who sends it waits, or
    /// rejected, so that who sends it is told.
    #[arg(long, value_name = "HOW", default_value = "drop")]
    pub policy_deny: PolicyDeny,

    /// End connections that a change of network policies denies. Without it, they last until their ends close
    /// them.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub policy_cut_connections: bool,

    /// What becomes known of traffic that network policies deny: how much it is, also by which policies, or
    /// also of each packet a line in the log. Counted by policy and told of are at most 200 packets a second
    /// for each family and direction; the log has at most ten a second, and how many more there were.
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_value = "off", default_missing_value = "lines")]
    pub policy_log: PolicyLog,

    /// The group of nflog by which denied traffic is told of. A group has one reader: with another program
    /// that reads this one, choose another.
    #[arg(long, value_name = "NUMBER", default_value_t = nflog::DENIED)]
    pub policy_log_group: u16,

    /// For how many seconds the start of a pod waits until the agent has read its policies; 0 for not at all.
    /// A pod that still waits then runs, closed. Without it, 2.
    #[arg(long, value_name = "SECONDS")]
    pub policy_timeout: Option<u32>,

    /// Give these addresses to Services of the type LoadBalancer: networks, ranges such as
    /// 192.0.2.10-192.0.2.20, or addresses, of both families. One agent of the cluster does. The same on every
    /// node.
    #[arg(long, value_name = "RANGE", value_delimiter = ',')]
    pub lb_pool: Vec<AddressRange>,

    /// Give the addresses of MetalLB's IPAddressPools to Services, too. MetalLB itself must not run. The same
    /// on every node.
    #[arg(long)]
    pub lb_crds: bool,

    /// The class of Services that get addresses (spec.loadBalancerClass). Without it, those that name none.
    #[arg(long, value_name = "CLASS", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub lb_class: Option<String>,

    /// Answer ARP and Neighbor Discovery for the load balancer addresses of Services, on one node for each
    /// address. Without it, it is done where addresses are given (--lb-pool, --lb-crds). With it and without
    /// these, it is done for all addresses, whoever gives them. The same on every node.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub lb_l2: Option<bool>,

    /// The interfaces on which load balancer addresses are answered. Without it, those whose network holds the
    /// address, and for an address of none of them that of the Node's own address.
    #[arg(long = "lb-interface", value_name = "NAME", value_delimiter = ',')]
    pub lb_interfaces: Vec<InterfaceName>,

    /// Where the proc file system of the machine is, by which `weft trace` sees whether something listens in a
    /// pod. It is only read.
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub host_proc: PathBuf,

    /// The socket of the container runtime (CRI). With it, what is kept for containers that the runtime no
    /// longer has is freed: addresses, links and ports of the host.
    #[arg(long, value_name = "PATH")]
    pub cri_socket: Option<PathBuf>,

    /// For how many seconds the runtime must not have a container before what is kept for it is freed.
    #[arg(long, value_name = "SECONDS", default_value = "180", value_parser = clap::value_parser!(u64).range(1..))]
    pub collect_after: u64,

    /// BGP.
    #[command(flatten)]
    pub bgp: BgpOptions,

    /// DHCP.
    #[command(flatten)]
    pub dhcp: DhcpOptions,

    /// Flows.
    #[command(flatten)]
    pub flows: FlowsOptions,

    /// Remove everything that the agent set up on this node, and exit: the CNI configuration first, so that
    /// no pod starts, then masquerade, routes and tunnel. Running pods and their addresses stay.
    #[arg(long)]
    pub cleanup: bool,

    /// Where /healthz says that the agent runs and what is wrong, /readyz whether pods can start on this
    /// node, and /metrics gives figures. Without it, nowhere.
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = |text: &str| weft_daemon::address(text, port::AGENT))]
    pub healthz_bind_address: Option<SocketAddr>,

    /// Print what this node needs, going by manifests (YAML or JSON) that hold its Nodes, and exit. Needs
    /// neither privileges nor a cluster.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub dry_run: Vec<PathBuf>,

    /// How the log on stderr looks. What it holds is set by RUST_LOG.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Where pods' addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IpamMode {
    /// The pod CIDRs of the Node.
    NodeCidr,
    /// Blocks of the cluster CIDR, claimed by nodes.
    Blocks,
}

/// What happens to denied traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyDeny {
    /// It is dropped without a word.
    Drop,
    /// TCP is reset, and the rest answered by ICMP.
    Reject,
}

/// What becomes known of denied traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyLog {
    /// How many packets it is, by direction.
    Off,
    /// Also by policies.
    Count,
    /// Also a line in the log for each packet, with the pods of both ends.
    Lines,
}

impl Options {
    /// What blocks of addresses are like, where pods get theirs of blocks.
    ///
    /// # Errors
    /// Where there can be no such blocks.
    pub(crate) fn block_settings(&self) -> Result<Option<blocks::Settings>, Error> {
        if self.ipam != IpamMode::Blocks {
            return Ok(None);
        }
        let settings = blocks::Settings {
            cluster_cidrs: self.cluster_cidrs.clone(),
            prefixes: (self.block_mask_size_ipv4, self.block_mask_size_ipv6),
            grace: Duration::from_secs(self.block_grace),
        };
        settings.check().map_err(Error::BlockFlags).map(|()| Some(settings))
    }

    /// Whether the flags of the way between nodes fit together.
    ///
    /// # Errors
    /// Where a tunnel is asked for that the backend does not lead into: nobody is to think that packets are
    /// encrypted.
    pub(crate) fn check_tunnel(&self) -> Result<(), Error> {
        match (self.backend, self.tunnel) {
            (Backend::Auto, _)
            | (_, None)
            | (Backend::Vxlan, Some(Tunnel::Vxlan))
            | (Backend::WireGuard, Some(Tunnel::WireGuard)) => Ok(()),
            (_, Some(tunnel)) => Err(Error::TunnelFlag { tunnel: name(tunnel), backend: name(self.backend) }),
        }
    }

    /// The settings that plans depend on.
    pub fn config(&self) -> Config {
        Config {
            cluster_cidrs: self.cluster_cidrs.clone(),
            network_name: self.network_name.clone(),
            blocks: (self.ipam == IpamMode::Blocks)
                .then(|| Blocks::path(&self.cni_data_dir, self.network_name.as_str())),
            bridge: self.bridge.clone(),
            data_dir: self.cni_data_dir.clone(),
            boot: None,
            mtu: self.mtu,
            policy_timeout: self.policy_timeout,
            backend: self.backend,
            tunnel: self.tunnel.unwrap_or_default(),
            vxlan: Settings { vni: self.vxlan_vni, port: self.vxlan_port },
            wireguard: self.wireguard.settings(&self.cni_data_dir),
            leave_by: match (&self.iface, self.node_ips.as_slice()) {
                (Some(iface), _) => LeaveBy::Interface(iface.clone()),
                (None, []) => LeaveBy::Node,
                (None, addresses) => LeaveBy::Addresses(addresses.to_vec()),
            },
            bgp_imports: self.bgp.bgp_import.clone(),
            service_cidrs: self.service_cidrs.clone(),
        }
    }
}

/// A value of a flag as it is written.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn network(text: &str) -> Result<IpNetwork, String> {
    let network: IpNetwork =
        text.trim().parse().map_err(|_| "expected a network such as 10.244.0.0/16".to_owned())?;
    match network.network() == network.ip() {
        true => Ok(network),
        false => Err(format!(
            "it has bits set beyond its prefix; did you mean {}/{}?",
            network.network(),
            network.prefix()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::try_parse_from([&["weft-agent"], arguments].concat()).map_err(|error| error.to_string())
    }

    #[test]
    fn both_families_in_one_flag() {
        let options = parse(&["--cluster-cidr=10.244.0.0/16,fd00:10:244::/56"]).unwrap();
        assert_eq!(options.cluster_cidrs.len(), 2);
        assert_eq!(options.config().bridge.to_string(), "cni0");
    }

    #[test]
    fn load_balancer_addresses_are_of_every_form_and_of_both_families() {
        let options =
            parse(&["--lb-pool=192.0.2.0/28,192.0.2.40-192.0.2.49", "--lb-pool=2001:db8::7"]).unwrap();
        let ranges: Vec<String> = options.lb_pool.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["192.0.2.0-192.0.2.15", "192.0.2.40-192.0.2.49", "2001:db8::7"]);
        assert!(parse(&[]).unwrap().lb_pool.is_empty() && !parse(&[]).unwrap().lb_crds);
    }

    /// Nobody is to think that packets are encrypted.
    #[test]
    fn a_tunnel_that_the_backend_does_not_lead_into_is_refused() {
        let check = |flags: &[&str]| parse(flags).unwrap().check_tunnel().map_err(|error| error.to_string());
        for flags in [
            &[][..],
            &["--tunnel=wireguard"],
            &["--tunnel=vxlan", "--backend=vxlan"],
            &["--tunnel=wireguard", "--backend=wireguard"],
        ] {
            assert_eq!(check(flags), Ok(()), "{flags:?}");
        }
        for backend in ["host-gw", "vxlan", "bgp"] {
            let error = check(&["--tunnel=wireguard", &format!("--backend={backend}")]).unwrap_err();
            assert!(
                error.contains(&format!("--tunnel wireguard has no effect with --backend {backend}")),
                "{error}"
            );
        }
    }

    #[test]
    fn denied_traffic_is_logged_where_the_flag_is_given_with_or_without_a_value() {
        for (arguments, expected) in [
            (&[][..], PolicyLog::Off),
            (&["--policy-log"], PolicyLog::Lines),
            (&["--policy-log", "--mtu=1400"], PolicyLog::Lines),
            (&["--policy-log=count"], PolicyLog::Count),
        ] {
            assert_eq!(parse(arguments).unwrap().policy_log, expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_bad_value_is_named_with_its_flag() {
        for (flag, value) in [
            ("--cluster-cidr", "10.244.0.0/33"),
            ("--cluster-cidr", "10.244.1.0/16"),
            ("--bridge", "a/b"),
            ("--network-name", "a b"),
            ("--mtu", "68"),
            ("--backend", "udp"),
            ("--tunnel", "WireGuard"),
            ("--vxlan-vni", "16777216"),
            ("--service-cidr", "10.96.0.1/12"),
            ("--log-format", "xml"),
            ("--fast-path", "xdp"),
            ("--policy-log", "loudly"),
            ("--policy-log-group", "65536"),
            ("--lb-pool", "192.0.2.20-192.0.2.10"),
            ("--lb-class", ""),
        ] {
            let error = parse(&[&format!("{flag}={value}")]).unwrap_err();
            assert!(error.contains(flag) && error.contains(value), "{error}");
        }
        assert!(
            parse(&["--cluster-cidr=10.244.1.0/16"]).unwrap_err().contains("did you mean 10.244.0.0/16?")
        );
    }
}
