//! What can go wrong on a node, in words that name the object and the remedy.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// An error of the agent, its causes told in its own text.
#[derive(Debug, Error)]
pub enum Error {
    /// The cluster cannot be reached at all, or manifests cannot be read.
    #[error(transparent)]
    Cluster(#[from] weft_cluster::Error),
    /// The kernel refused something, which the text names.
    #[error(transparent)]
    Kernel(#[from] weft_netlink::Error),
    /// A route to another node's pods cannot be set.
    #[error(
        "{problem}; with --backend host-gw or bgp every node must be reachable on its InternalIP (or, without one, its ExternalIP) without a router in between"
    )]
    Route {
        /// What the kernel said, with the route.
        problem: weft_netlink::Error,
    },
    /// A file that an agent left cannot be removed.
    #[error("cannot remove {}: {problem}; remove it by hand", path.display())]
    Leftover {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        problem: io::Error,
    },
    /// Another program's route stands where one to another node's pods belongs.
    #[error("{problem}: the route there is not Weft's and stays; delete it (ip route show {destination})")]
    ForeignRoute {
        /// The other node's pod CIDR.
        destination: weft_types::IpNetwork,
        /// What the kernel said, with the route.
        problem: weft_netlink::Error,
    },
    /// There is no address by which the other nodes are to be reached.
    #[error(
        "{wish} names no address of this machine: choose one that `ip address` lists, or leave the flag out"
    )]
    NoExit {
        /// The flag and its value.
        wish: String,
    },
    /// Another program's interface has the name of the tunnel's.
    #[error("there is a device {name} that is no {kind} device and not Weft's: delete or rename it")]
    ForeignDevice {
        /// The interface's name.
        name: String,
        /// What it should be.
        kind: &'static str,
    },
    /// Another program's tunnel has the tunnel's VNI and port.
    #[error(
        "{problem}: another VXLAN device has the same VNI and port (ip -d link show type vxlan), perhaps left by another \
         pod network; delete it, or give all nodes another --vxlan-vni or --vxlan-port"
    )]
    ForeignTunnel {
        /// What the kernel said, with the device.
        problem: weft_netlink::Error,
    },
    /// The kernel has no WireGuard.
    #[error(
        "{problem}: this kernel has no WireGuard (CONFIG_WIREGUARD, modprobe wireguard), so that this node's pods and those of \
         other nodes do not reach each other; see weft preflight --backend wireguard"
    )]
    NoWireGuard {
        /// What the kernel said, with the device.
        problem: weft_netlink::Error,
    },
    /// Somebody else listens at the port of the encrypted tunnel.
    #[error(
        "{problem}: another program or WireGuard device has UDP port {port} (ss -lnup sport = {port}, wg show); end it, or give \
         this node another --wireguard-port"
    )]
    WireGuardPort {
        /// The port.
        port: u16,
        /// What the kernel said, with the device.
        problem: weft_netlink::Error,
    },
    /// Another node does not answer through the encrypted tunnel.
    #[error(
        "Node {node} does not answer at its WireGuard endpoint ({}): packets to its pods are lost; see that this UDP port is open \
         between the nodes, and that weft-agent runs there",
        endpoint.map_or_else(|| "none that can be used".to_owned(), |endpoint| endpoint.to_string())
    )]
    WireGuardSilence {
        /// The other node.
        node: String,
        /// Where it should be.
        endpoint: Option<SocketAddr>,
    },
    /// There is no key for the encrypted tunnel.
    #[error(
        "cannot use the WireGuard key {path}: {problem}; to have another one made, delete the file",
        path = path.display()
    )]
    WireGuardKey {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// A kernel setting cannot be read or written.
    #[error("cannot set {name} to {value}: {problem}; set it on the host, or make /proc/sys/net writable")]
    Sysctl {
        /// The setting, as sysctl(8) has it.
        name: String,
        /// The value that is needed.
        value: &'static str,
        /// The reason.
        problem: io::Error,
    },
    /// What the fast path goes by cannot be read.
    #[error("cannot read {what}: {problem}")]
    FastPath {
        /// What it is.
        what: &'static str,
        /// The reason.
        problem: io::Error,
    },
    /// The runtime would not find the plugin that the configuration names.
    #[error(
        "the CNI plugin {path} {problem}: install it there, or name its folder with --cni-bin-dir; until then no pod \
         can start, as the CNI configuration is not written",
        path = path.display()
    )]
    Plugin {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The CNI configuration cannot be written.
    #[error("cannot write the CNI configuration {path}: {problem}", path = path.display())]
    Conflist {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: io::Error,
    },
    /// The runtime takes another configuration.
    #[error(
        "{path} is sorted before {own}: the container runtime takes it, and new pods get no network of Weft's; remove it, if \
         its network is not in use any more",
        path = path.display(), own = crate::cni_config::plan::FILE
    )]
    ForeignConflist {
        /// The other file.
        path: PathBuf,
    },
    /// The CNI configuration cannot be taken away.
    #[error("cannot remove the CNI configuration {path}: {problem}", path = path.display())]
    RemoveConflist {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: io::Error,
    },
    /// The plugin cannot be told which namespaces have policies.
    #[error(
        "cannot write {path}, by which the CNI plugin knows which pods have network policies: {problem}; no policy is \
         changed until then",
        path = path.display()
    )]
    PolicyFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: io::Error,
    },
    /// The blocks of addresses are written down nowhere.
    #[error(
        "cannot use {path}, by which the CNI plugin knows this node's blocks of addresses: {problem}; no block is \
         claimed or given up until then",
        path = path.display()
    )]
    Blocks {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// The backend leads into no such tunnel.
    #[error(
        "--tunnel {tunnel} has no effect with --backend {backend}: it says what --backend auto leads through; leave one of \
         them out"
    )]
    TunnelFlag {
        /// The tunnel that was asked for.
        tunnel: String,
        /// The backend that was.
        backend: String,
    },
    /// Blocks of addresses cannot be as flags say.
    #[error("{0}")]
    BlockFlags(String),
    /// What serving the CNI plugin dhcp left cannot be taken away.
    #[error("cannot clean up DHCP: {problem}")]
    Dhcp {
        /// The reason.
        problem: weft_dhcp::daemon::Error,
    },
    /// What is to be known of pods after the next start cannot be kept, or read.
    #[error(
        "cannot use {path}, by which an agent that comes back knows the addresses of pods that have just started: {problem}; no \
         policy is changed until then",
        path = path.display()
    )]
    PolicyPods {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: io::Error,
    },
    /// The container runtime does not say what it has.
    #[error(
        "the container runtime at {socket} does not list its sandboxes: {problem}; is it running, and is --cri-socket its socket?"
    )]
    Cri {
        /// Its socket.
        socket: String,
        /// The reason.
        problem: String,
    },
    /// The password of BGP sessions cannot be read.
    #[error("there is no password in {path} (--bgp-password-file): {problem}", path = path.display())]
    BgpPassword {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// What is kept for a container that is gone cannot be freed.
    #[error("cannot free what is kept for {ifname} of the container {container}, which is gone: {problem}")]
    Collect {
        /// The container's id.
        container: String,
        /// The interface's name.
        ifname: String,
        /// What the system or the plugin said.
        problem: String,
    },
    /// What every daemon needs at its start: an address for HTTP, a runtime, the Node's name.
    #[error(transparent)]
    Daemon(#[from] weft_daemon::Error),
    /// The process cannot wait for signals or for the kernel.
    #[error("cannot {operation}: {problem}")]
    Runtime {
        /// What was tried.
        operation: &'static str,
        /// The reason.
        problem: io::Error,
    },
}
