//! What an agent tells of its machine (`/facts`), without an opinion: `weft doctor` draws the conclusions.
//! What one release does not know of another's is left out, so that both can be read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// Everything that an agent sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeFacts {
    /// The agent's version.
    pub version: String,
    /// The kernel's release, as `uname -r` has it.
    pub kernel: String,
    /// The machine's clock, in milliseconds since 1970.
    pub time: u64,
    /// Whether pods can start.
    pub is_ready: bool,
    /// What the agent complains of.
    pub problems: Vec<String>,
    /// The pods that wait for their network policies.
    pub pending_pods: Vec<String>,
    /// Whether the agent enforces network policies.
    pub enforces_policies: bool,
    /// Kernel settings by their names, as sysctl(8) has them. One that the kernel does not have is left out.
    pub sysctls: BTreeMap<String, String>,
    /// Connections that the kernel tracks, and how many it can; none where it tracks none.
    pub conntrack: Option<Fill>,
    /// Neighbours that the kernel knows, and how many it can, of both families.
    pub neighbours: Vec<Fill>,
    /// The interfaces, pods' own left out.
    pub links: Vec<LinkFacts>,
    /// The chains that packets enter, of all tables but Weft's own, and those that kube-proxy and engines of
    /// network policies are known by.
    pub chains: Vec<ChainFacts>,
    /// Where the runtime reads CNI configurations, and what is there.
    pub cni: CniFacts,
    /// The ranges that pods get addresses of.
    pub ranges: Vec<RangeFacts>,
    /// Addresses that are reserved for containers without an interface on this node.
    pub unused_reservations: Vec<IpAddr>,
    /// What this node's resolv.conf says.
    pub resolver: ResolverFacts,
    /// What the proxy of this node says of itself; none where it does not answer.
    pub proxy: Option<ProxyFacts>,
}

/// How full a table of the kernel is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Fill {
    /// What it is: `IPv4`.
    pub name: String,
    /// Entries.
    pub used: u64,
    /// How many there can be; 0 where that is not known.
    pub most: u64,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinkFacts {
    /// Its name.
    pub name: String,
    /// Its kind: `bridge`, `vxlan`; none for hardware.
    pub kind: Option<String>,
    /// In bytes.
    pub mtu: u32,
    /// Its Ethernet address.
    pub mac: Option<String>,
    /// Whether it is up.
    pub is_up: bool,
    /// Its addresses.
    pub addresses: Vec<IpNetwork>,
    /// The Ethernet addresses of the machines that the kernel knows there, as far as they are told of.
    pub neighbours: BTreeMap<IpAddr, String>,
}

/// A chain of nf_tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ChainFacts {
    /// Its table, with the family: `ip filter`.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where packets enter it; none where other chains lead to it.
    pub hook: Option<String>,
    /// Whether it drops what no rule lets through.
    pub drops: bool,
    /// Whether it has rules of Weft: its proxy can make kube-proxy's chains.
    pub is_ours: bool,
}

/// The CNI configurations of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CniFacts {
    /// The folder.
    pub folder: String,
    /// The file that the agent writes there.
    pub own: String,
    /// The files that a runtime reads, in its order: the first one is the pod network.
    pub files: Vec<String>,
}

/// A range that pods get addresses of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RangeFacts {
    /// The range.
    pub range: IpNetwork,
    /// How many addresses pods can have.
    pub most: u64,
    /// How many are reserved.
    pub used: u64,
}

/// A resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResolverFacts {
    /// The servers.
    pub nameservers: Vec<String>,
    /// The domains that are searched.
    pub search: Vec<String>,
    /// The options.
    pub options: Vec<String>,
}

/// A proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyFacts {
    /// What is wrong, by its `/healthz`.
    pub problem: Option<String>,
    /// When it was last in step with the cluster.
    pub last_updated: Option<String>,
    /// The chains of other programs that stop what is passed on, with the remedies.
    pub conflicts: Vec<String>,
    /// Its mode: `nftables`; none where it does not say.
    pub mode: Option<String>,
    /// What is wrong with the programs that are to lead sockets.
    pub ebpf_problem: Option<String>,
}

impl ResolverFacts {
    /// Reads the text of a resolv.conf (resolv.conf(5)): of each keyword but `nameserver` the last line counts.
    pub fn parse(text: &str) -> ResolverFacts {
        let mut resolver = ResolverFacts::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => resolver.nameservers.extend(words.next()),
                Some("search" | "domain") => resolver.search = words.collect(),
                Some("options") => resolver.options = words.collect(),
                _ => {}
            }
        }
        resolver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_is_read_as_resolvers_do() {
        let text = "# comment\nnameserver 127.0.0.53\nnameserver\nsearch a.example b.example\nsearch c.example\n\
                    options ndots:2 edns0\nnameserver fe80::1%eth0\n";
        let resolver = ResolverFacts::parse(text);
        assert_eq!(resolver.nameservers, ["127.0.0.53", "fe80::1%eth0"]);
        assert_eq!((resolver.search, resolver.options.len()), (vec!["c.example".to_owned()], 2));
        assert_eq!(ResolverFacts::parse("\u{0}"), ResolverFacts::default());
    }
}
