//! What was seen on a machine, without an opinion.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weft_types::IpNetwork;

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Whether this process may change the kernel's network.
    pub is_root: bool,
    /// What the kernel can do.
    pub features: Vec<Feature>,
    /// Whether the kernel can encrypt what nodes send each other.
    pub wireguard: Vec<Feature>,
    /// What eBPF programs that lead sockets need.
    pub ebpf: Vec<Feature>,
    /// What the fast path between pods needs.
    pub fast_path: Vec<Feature>,
    /// `net.ipv4.ip_forward`; none where the kernel has no such setting.
    pub ipv4_forwarding: Option<bool>,
    /// `net.ipv6.conf.all.forwarding`; none where the kernel has no IPv6.
    pub ipv6_forwarding: Option<bool>,
    /// Interfaces whose default route comes from a router's advertisement.
    pub advertised: Vec<Advertised>,
    /// Ports that somebody listens on.
    pub listeners: Vec<Listener>,
    /// The names of the files in the runtime's folder of CNI configurations, in the order in which it reads
    /// them.
    pub cni_configs: Vec<String>,
    /// The names of all interfaces.
    pub links: Vec<String>,
    /// nf_tables chains in tables that matter (iptables' among them).
    pub chains: Vec<Chain>,
    /// Tables of the legacy iptables, whose chains cannot be seen.
    pub legacy_tables: Vec<String>,
    /// Networks that lead somewhere from here, default routes left out.
    pub routes: Vec<Route>,
    /// The machine's names.
    pub identity: Identity,
    /// Addresses of neighbours, with their Ethernet addresses.
    pub neighbours: Vec<(IpAddr, String)>,
    /// Sockets of container runtimes.
    pub runtimes: Vec<String>,
}

/// A feature of the kernel, tried.
#[derive(Clone, Debug)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// The kernel's options or modules that give it.
    pub needs: &'static str,
    /// What the kernel said against it.
    pub problem: Option<String>,
}

/// An interface with a default route from a router's advertisement.
#[derive(Clone, Debug)]
pub struct Advertised {
    /// Its name.
    pub link: String,
    /// Whether it takes advertisements while the machine forwards, too (`accept_ra=2`).
    pub always: bool,
}

/// What nodes' pods heard of each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Between {
    /// What was tried from here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// The ports at which nobody was answered here, as somebody has them: Weft itself, where it runs already.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<(Transport, u16)>,
}

/// A port of another node that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The other Node.
    pub node: String,
    /// The protocol.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of asking at a port of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Somebody answered.
    Answered,
    /// Somebody said that nobody listens.
    Refused,
    /// Nothing came back.
    Silent,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Transport {
    /// As people write it before a port.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

/// A port that somebody listens on.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its protocol.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// The program's name and process id; none where it is the kernel, or in another process namespace.
    pub program: Option<(String, u32)>,
}

/// A chain of nf_tables.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Its table, with the family: `ip nat`
    pub table: String,
    /// Its name.
    pub name: String,
    /// Whether it drops forwarded packets that no rule lets through.
    pub drops_forwarded: bool,
    /// Whether it has rules of Weft: its proxy can make kube-proxy's chains.
    pub is_ours: bool,
}

/// A network that leads somewhere.
#[derive(Clone, Debug)]
pub struct Route {
    /// The network.
    pub destination: IpNetwork,
    /// The interface; none for routes such as `blackhole`.
    pub link: Option<String>,
    /// Who set it (`rtm_protocol`).
    pub protocol: u8,
}

/// What must be this machine's alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The host's name.
    pub hostname: String,
    /// `/etc/machine-id`; empty where there is none.
    pub machine_id: String,
    /// The Ethernet addresses of its interfaces that hold addresses.
    pub macs: Vec<OwnMac>,
}

/// An Ethernet address of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnMac {
    /// The interface's name.
    pub link: String,
    /// The address.
    pub mac: String,
}
