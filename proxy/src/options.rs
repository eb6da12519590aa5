//! The flags of `weft-proxy`, and those that a configuration file adds to them. What they lead to is in
//! [`crate::daemon`].

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, ValueEnum};
use weft_daemon::{LogFormat, address};
use weft_types::well_known::port;
use weft_types::{Family, IpNetwork};

use crate::config::{Config, DetectLocal, NodePortAddresses, ProxyMode, of_family};
use crate::ebpf_options::EbpfOptions;
use crate::error::Error;
use crate::ipvs_options::IpvsOptions;
use crate::kube_proxy::config_file::{self, ConfigFile};
use crate::kube_proxy::flags;
use crate::limits::Limits;

/// The service proxy of a Kubernetes node: programs nftables so that Services lead to their endpoints.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-proxy", version)]
pub struct Options {
    /// Path to a KubeProxyConfiguration file (kubeproxy.config.k8s.io/v1alpha1). Flags on the command line
    /// override it.
    #[arg(long = "config", value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Path to a kubeconfig file. Without it, the pod's service account is used.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Name of this machine's Node. Without it, $NODE_NAME, or else the host name.
    #[arg(long, value_name = "NODE", env = "NODE_NAME", hide_env_values = true)]
    pub hostname_override: Option<String>,

    /// Data plane: nftables; iptables with the chains that kube-proxy makes, which takes one --cluster-cidr
    /// of each family; or ipvs with virtual servers, which needs the kernel's modules ip_vs and that of the
    /// scheduler.
    #[arg(long, value_name = "MODE", default_value = "nftables")]
    pub proxy_mode: ProxyMode,

    /// CIDRs of the pods of the cluster. Traffic to a ClusterIP from any other source is masqueraded.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNetwork>,

    /// How to tell traffic of pods from other traffic: by --cluster-cidr, by the pod CIDRs of this Node, or
    /// by the interface that it arrives on. Other traffic to a ClusterIP is masqueraded.
    #[arg(long, value_name = "MODE", default_value = "ClusterCIDR")]
    pub detect_local_mode: DetectLocalMode,

    /// Bridge that pods are attached to, for --detect-local-mode=BridgeInterface.
    #[arg(long, value_name = "INTERFACE", required_if_eq("detect_local_mode", "BridgeInterface"), value_parser = interface)]
    pub pod_bridge_interface: Option<String>,

    /// Prefix of the names of the pods' interfaces, for --detect-local-mode=InterfaceNamePrefix.
    #[arg(long, value_name = "PREFIX", required_if_eq("detect_local_mode", "InterfaceNamePrefix"), value_parser = interface)]
    pub pod_interface_name_prefix: Option<String>,

    /// Masquerade all traffic to ClusterIPs, that of pods too: for networks that do not route replies back
    /// through this node.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub masquerade_all: bool,

    /// Addresses that serve NodePorts: CIDRs, "all" for every address, or "primary" for the Node's first
    /// address of each family.
    #[arg(long, value_name = "CIDR[,CIDR]|all|primary", default_value = "primary", value_parser = nodeport_addresses)]
    pub nodeport_addresses: NodePortAddresses,

    /// Address of the health server: /healthz and /livez.
    #[arg(long, value_name = "ADDR[:PORT]", default_value_t = SocketAddr::from(([0, 0, 0, 0], port::PROXY_HEALTH)), value_parser = |text: &str| address(text, port::PROXY_HEALTH))]
    pub healthz_bind_address: SocketAddr,

    /// Address of the metrics server: /metrics, /proxyMode and /configz.
    #[arg(long, value_name = "ADDR[:PORT]", default_value_t = SocketAddr::from(([127, 0, 0, 1], port::PROXY_METRICS)), value_parser = |text: &str| address(text, port::PROXY_METRICS))]
    pub metrics_bind_address: SocketAddr,

    /// Delete the conntrack entries of TCP connections to endpoints that are gone, so that packets of their
    /// clients no longer go to the old address. UDP entries are always deleted.
    #[arg(long)]
    pub terminate_removed_tcp: bool,

    /// Count connections, packets and bytes of each Service, for /metrics. Costs a lookup for every packet of
    /// the node.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub service_counters: bool,

    /// Programs that lead sockets.
    #[command(flatten)]
    pub ebpf: EbpfOptions,

    /// Limits and timeouts of connection tracking.
    #[command(flatten)]
    pub limits: Limits,

    /// What is for the mode ipvs.
    #[command(flatten)]
    pub ipvs: IpvsOptions,

    /// Keep what settings of the kernel held before in this folder, by which `weft remove-plugins` puts them
    /// back. Without it, they stay.
    #[arg(long, value_name = "DIR")]
    pub settings_dir: Option<PathBuf>,

    /// Set the limits and timeouts of connection tracking, which needs more privileges than NET_ADMIN, detach
    /// eBPF programs of an earlier run unless --ebpf is set, and exit.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set, conflicts_with_all = ["cleanup", "dry_run"])]
    pub init_only: bool,

    /// Print what would be programmed for these manifests, as nft, iptables or ipvsadm text, and change
    /// nothing. Needs neither a cluster nor privileges.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "cleanup")]
    pub dry_run: Option<Vec<PathBuf>>,

    /// Print the path of a packet through the rules in the kernel, or with --dry-run through the planned
    /// ones: each rule that is evaluated, what it finds, and what becomes of the packet. PACKET is 'SOURCE ->
    /// ADDRESS:PORT[/tcp|udp|sctp] [via INTERFACE]'; SOURCE is "node" or an address.
    #[arg(long, value_name = "PACKET", conflicts_with_all = ["cleanup", "init_only"])]
    pub trace: Option<String>,

    /// Delete everything that weft-proxy has programmed on this machine, and exit.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub cleanup: bool,

    /// Format of the log on stderr. RUST_LOG sets what is logged.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// By what the traffic of pods is told from that of others. The names are kube-proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DetectLocalMode {
    /// By its source, in the networks of all pods.
    #[value(name = "ClusterCIDR")]
    ClusterCidr,
    /// By its source, in the networks of this Node's pods.
    #[value(name = "NodeCIDR")]
    NodeCidr,
    /// By the bridge that it comes from.
    #[value(name = "BridgeInterface")]
    BridgeInterface,
    /// By the interface that it comes from.
    #[value(name = "InterfaceNamePrefix")]
    InterfaceNamePrefix,
}

impl Options {
    /// Reads the command line, and the configuration file where it names one. Returns what is to be said
    /// about the file besides, too. Ends the process where the command line is wrong, or asks for help.
    ///
    /// # Errors
    /// Why the file cannot be used.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<(Options, Vec<String>), Error> {
        let (arguments, mut notes) = flags::translate(arguments)
            .unwrap_or_else(|problem| Options::command().error(ErrorKind::InvalidValue, problem).exit());
        let matches = Options::command().get_matches_from(&arguments);
        let options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let Some(path) = &options.config_file else { return Ok((options, notes)) };
        let refuse = |problem| Error::ConfigFile { path: path.clone(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        let file = config_file::parse(&text).map_err(refuse)?;
        notes.extend(notes_about(path, &file));
        Ok((options_with(arguments, &matches, file).map_err(refuse)?, notes))
    }

    /// What of the flags the planner and the data plane need.
    ///
    /// # Errors
    /// Where the Node has no name, or the data plane cannot do something.
    pub fn config(&self) -> Result<Config, Error> {
        let node = weft_daemon::node_name(self.hostname_override.as_deref())?;
        let detect_local = self.detect_local();
        let cluster_cidrs = match detect_local {
            DetectLocal::ClusterCidr => self.cluster_cidr.clone(),
            DetectLocal::NodeCidr | DetectLocal::Interface(_) => Vec::new(),
        };
        if self.proxy_mode == ProxyMode::Iptables {
            self.fits_iptables()?;
        }
        Ok(Config {
            node,
            mode: self.proxy_mode,
            detect_local,
            cluster_cidrs,
            masquerade_all: self.masquerade_all,
            nodeport_addresses: self.nodeport_addresses.clone(),
            service_counters: self.service_counters,
            conntrack_be_liberal: self.limits.be_liberal == Some(true),
            ebpf: self.ebpf.config(),
            ipvs: self.ipvs.clone(),
            settings_dir: self.settings_dir.clone(),
        })
    }

    /// What kube-proxy's chains have no place for.
    fn fits_iptables(&self) -> Result<(), Error> {
        let count = |family| of_family(&self.cluster_cidr, family).count();
        let told_apart = self.detect_local_mode == DetectLocalMode::ClusterCidr;
        if told_apart && Family::BOTH.into_iter().any(|family| count(family) > 1) {
            return Err(Error::Unsupported(
                "more than one --cluster-cidr of a family; give the network that holds them all, or set --detect-local-mode",
            ));
        }
        match self.service_counters {
            true => Err(Error::Unsupported(
                "--service-counters; iptables -t nat -vL shows how often each rule applied",
            )),
            false => Ok(()),
        }
    }

    fn detect_local(&self) -> DetectLocal {
        let named = |name: &Option<String>| name.clone().unwrap_or_default();
        match self.detect_local_mode {
            DetectLocalMode::ClusterCidr => DetectLocal::ClusterCidr,
            DetectLocalMode::NodeCidr => DetectLocal::NodeCidr,
            DetectLocalMode::BridgeInterface => DetectLocal::Interface(named(&self.pod_bridge_interface)),
            DetectLocalMode::InterfaceNamePrefix => {
                DetectLocal::Interface(format!("{}*", named(&self.pod_interface_name_prefix)))
            }
        }
    }
}

/// The command line with what a file adds to it: the flags that were not given.
fn options_with(
    mut arguments: Vec<OsString>,
    given: &ArgMatches,
    file: ConfigFile,
) -> Result<Options, String> {
    let is_given = |flag: &str| given.value_source(&flag_id(flag)) == Some(ValueSource::CommandLine);
    let added: Vec<_> = file.flags.into_iter().filter(|(flag, _)| !is_given(flag)).collect();
    // Before the given ones: a --dry-run takes all that follows.
    arguments.splice(1..1, added.iter().map(|(flag, value)| format!("--{flag}={value}").into()));
    Options::try_parse_from(arguments).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// The name by which clap knows a flag.
fn flag_id(flag: &str) -> String {
    let of_flag = |argument: &clap::Arg| argument.get_long() == Some(flag);
    Options::command()
        .get_arguments()
        .find(|argument| of_flag(argument))
        .map_or_else(String::new, |argument| argument.get_id().to_string())
}

/// What a user should know about a file that is used.
fn notes_about(path: &Path, file: &ConfigFile) -> Vec<String> {
    let path = path.display();
    let ignored =
        file.ignored.iter().map(|(field, why)| format!("{path}: {field} has no effect on weft-proxy: {why}"));
    let unknown = file.unknown.iter().map(|field| format!("{path}: unknown field {field}"));
    ignored.chain(unknown).collect()
}

/// The name of an interface, or the beginning of one (`IFNAMSIZ`, with its end).
fn interface(text: &str) -> Result<String, String> {
    let is_fine = |byte: u8| byte.is_ascii_graphic() && !b"/:*\"".contains(&byte);
    match (1..16).contains(&text.len()) && text.bytes().all(is_fine) {
        true => Ok(text.to_owned()),
        false => Err("not a valid interface name".to_owned()),
    }
}

fn nodeport_addresses(text: &str) -> Result<NodePortAddresses, String> {
    if text == "primary" {
        return Ok(NodePortAddresses::Primary);
    }
    if text == "all" {
        let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let networks = all.into_iter().filter_map(|address| IpNetwork::new(address, 0).ok());
        return Ok(NodePortAddresses::Networks(networks.collect()));
    }
    let network = |text: &str| {
        text.trim()
            .parse()
            .map_err(|_| format!("{text:?} is not a CIDR; \"primary\" and \"all\" must be given alone"))
    };
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

    fn with_file(arguments: &[&str], fields: &str) -> Result<(Options, Vec<String>), String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration";
        let text = if fields.contains("kind:") { fields.to_owned() } else { format!("{head}\n{fields}") };
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let arguments = [&["weft-proxy", "--config", path], arguments].concat();
        let read = Options::read(arguments.into_iter().map(OsString::from));
        read.map_err(|error| error.to_string().replace(path, "FILE"))
    }

    #[test]
    fn a_file_counts_more_than_defaults_and_less_than_flags() {
        let fields = "hostnameOverride: file\nclusterCIDR: 10.1.0.0/16,fd01::/48\nnodePortAddresses: [all]\noomScoreAdj: 5\n\
                      conntrack: {udpTimeout: 9s, maxPerCore: 0}\nhealthzBindAddress: 192.0.2.1";
        let (options, notes) =
            with_file(&["--cluster-cidr=10.2.0.0/16", "--conntrack-udp-timeout=8s"], fields).unwrap();
        assert_eq!(options.config().unwrap().node, "file");
        assert_eq!(options.cluster_cidr, ["10.2.0.0/16".parse().unwrap()], "the flag's alone");
        assert_eq!(options.limits.udp, Some(std::time::Duration::from_secs(8)));
        assert_eq!(options.limits.max_per_core, Some(0));
        assert_eq!(options.healthz_bind_address, "192.0.2.1:10256".parse().unwrap());
        assert!(matches!(&options.nodeport_addresses, NodePortAddresses::Networks(all) if all.len() == 2));
        assert!(
            notes.len() == 1 && notes[0].contains(": oomScoreAdj has no effect on weft-proxy: "),
            "{notes:?}"
        );
    }

    #[test]
    fn configz_is_a_file_that_asks_for_what_is_in_effect() {
        let (options, notes) = with_file(&[], include_str!("../tests/manifests/full-config.yaml")).unwrap();
        let shown = &crate::kube_proxy::configz::configz(&options)["kubeproxy.config.k8s.io"];
        let file = config_file::parse(&shown.to_string()).unwrap();
        assert_eq!((notes.len(), file.ignored.len(), file.unknown.len()), (0, 0, 0));
        let again = options_with(
            vec!["weft-proxy".into()],
            &Options::command().get_matches_from(["weft-proxy"]),
            file,
        );
        assert_eq!(
            format!("{:?}", again.unwrap()),
            format!("{:?}", Options { config_file: None, ..options })
        );
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said_with_its_name() {
        for (fields, words) in [
            ("mode: ebpf", "cannot use the configuration FILE: mode is \"ebpf\""),
            (
                "clusterCIDR: 10.1.0.0/99",
                "cannot use the configuration FILE: invalid value '10.1.0.0/99' for '--cluster-cidr",
            ),
        ] {
            let error = with_file(&[], fields).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
        let missing = ["weft-proxy", "--config", "/no/such/file"].map(OsString::from);
        let error = Options::read(missing).unwrap_err().to_string();
        assert!(error.starts_with("cannot use the configuration /no/such/file: No such file"), "{error}");
    }

    #[test]
    fn every_flag_that_a_file_may_set_exists() {
        for (flag, _) in
            config_file::parse(include_str!("../tests/manifests/full-config.yaml")).unwrap().flags
        {
            assert_ne!(flag_id(flag), "", "--{flag}");
        }
    }

    #[test]
    fn local_traffic_is_detected_in_kube_proxys_four_modes() {
        let detected = |arguments: &[&str]| {
            let config =
                parse(&[&["--hostname-override=node1", "--cluster-cidr=10.244.0.0/16"], arguments].concat());
            config
                .map(|options| options.config().unwrap())
                .map(|it| (it.detect_local, it.cluster_cidrs.len()))
        };
        assert_eq!(detected(&[]), Ok((DetectLocal::ClusterCidr, 1)));
        assert_eq!(detected(&["--detect-local-mode=NodeCIDR"]), Ok((DetectLocal::NodeCidr, 0)));
        let bridge = detected(&["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"]);
        assert_eq!(bridge, Ok((DetectLocal::Interface("cni0".into()), 0)));
        let prefix =
            detected(&["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=veth"]);
        assert_eq!(prefix, Ok((DetectLocal::Interface("veth*".into()), 0)));
        for (arguments, missing) in [
            (&["--detect-local-mode=BridgeInterface"][..], "--pod-bridge-interface"),
            (&["--detect-local-mode=InterfaceNamePrefix"], "--pod-interface-name-prefix"),
            (
                &["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=a\"b"],
                "not a valid interface name",
            ),
        ] {
            let error = detected(arguments).unwrap_err();
            assert!(error.contains(missing), "{error}");
        }
    }

    #[test]
    fn what_kube_proxy_takes_is_taken() {
        let options =
            parse(&["--healthz-bind-address=127.0.0.1", "--metrics-bind-address=::", "--cleanup=true"]);
        let options = options.unwrap();
        assert_eq!(options.healthz_bind_address, "127.0.0.1:10256".parse().unwrap());
        assert_eq!(options.metrics_bind_address, "[::]:10249".parse().unwrap());
        assert!(options.cleanup && !parse(&["--init-only=false"]).unwrap().init_only);
        assert!(parse(&["--healthz-bind-address=localhost"]).unwrap_err().contains("localhost"));
        let words = ["weft-proxy", "--v=2", "--iptables-sync-period", "30s", "--hostname-override=a"]
            .map(OsString::from);
        let (options, notes) = Options::read(words).unwrap();
        assert_eq!((options.hostname_override.as_deref(), notes.len()), (Some("a"), 2));
        assert!(parse(&["--iptables-sink-period=1s"]).unwrap_err().contains("--iptables-sink-period"));
    }

    #[test]
    fn a_bad_network_is_named_with_its_flag() {
        for flag in ["--cluster-cidr", "--nodeport-addresses"] {
            let error = parse(&[flag, "10.244.0.0/99"]).unwrap_err();
            assert!(error.contains(flag) && error.contains("10.244.0.0/99"), "{error}");
        }
    }
}
