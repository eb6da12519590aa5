//! What is wrong somewhere in a cluster, where, how bad that is, and what mends it: one model for
//! `weft preflight`, `weft status`, `weft self-test` and `weft doctor`. docs/troubleshooting.md explains each
//! [`Id`].

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Deserializer, Serialize};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work, or soon will not.
    Error,
    /// All works, but something else may not.
    Warning,
}

/// Which kind of fault it is: a name that stays from release to release. A fault stands before those that may
/// follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Id {
    /// A Node is not ready.
    NodeNotReady,
    /// Several Nodes have one address.
    NodeAddressDuplicate,
    /// A Node's address is none of its machine.
    NodeAddressForeign,
    /// Ranges of pods, Services and nodes that have addresses in common.
    RangesOverlap,
    /// The agent of a Node does not answer.
    AgentSilent,
    /// The proxy of a Node does not answer.
    ProxySilent,
    /// The kernel's rules are behind the cluster.
    ProxyBehind,
    /// Two programs serve the same Services.
    ProxyOther,
    /// Proxies of different modes.
    ProxyModes,
    /// Sockets are not led by eBPF, though they are to be.
    ProxyEbpf,
    /// Packets between pods do not take the fast path, though they are to.
    FastPath,
    /// Another network's configuration comes before Weft's.
    CniShadowed,
    /// Weft's configuration is missing.
    CniMissing,
    /// Two pod networks.
    OtherNetwork,
    /// A Node has no addresses for pods.
    PodCidrMissing,
    /// No address is left for a pod.
    AddressesExhausted,
    /// Addresses that are reserved for nobody.
    AddressesLeaked,
    /// Pods with the same address.
    PodAddressDuplicate,
    /// A firewall stops what a node passes on.
    ForwardDropped,
    /// The kernel passes nothing on.
    ForwardingOff,
    /// The kernel refuses packets by the way that they came.
    RpFilterStrict,
    /// There are too many connections.
    ConntrackFull,
    /// There are too many neighbours.
    NeighboursFull,
    /// A kernel sends what is for another node to the wrong machine.
    NeighbourWrong,
    /// There is no DNS Service.
    DnsMissing,
    /// No DNS server is ready.
    DnsWithoutServers,
    /// A DNS server asks itself.
    DnsLoop,
    /// A node's resolv.conf has more than pods can have.
    DnsLimits,
    /// Pods ask for names in more steps than others.
    DnsNdots,
    /// Network policies keep pods from DNS.
    DnsDenied,
    /// A selector misses pods by one label.
    SelectorMisses,
    /// A selector matches no pod.
    SelectorMatchesNothing,
    /// A port's name is none of the pods' ports.
    PortNameMissing,
    /// Pods do not have the port.
    PortMismatch,
    /// No pod of a Service is ready.
    PodsNotReady,
    /// Nobody writes the EndpointSlices.
    EndpointsMissing,
    /// Network policies that nobody enforces.
    PoliciesNotEnforced,
    /// Pods that are closed until their policies are read.
    PoliciesPending,
    /// Two engines of network policies.
    PoliciesOther,
    /// Rules that another proxy left.
    StaleProxyRules,
    /// Interfaces that another network left.
    StaleNetworkLinks,
    /// Machines that are copies: the MAC.
    MacDuplicate,
    /// Machines that are copies: the machine id.
    MachineIdDuplicate,
    /// Machines that are copies: the host's name, or one that no Node can have.
    HostnameDuplicate,
    /// Nodes with different MTUs.
    MtuDiffers,
    /// Clocks that differ.
    ClockSkew,
    /// Parts of different versions.
    VersionsDiffer,
    /// What an uninstallation left.
    InstallationLeft,
    /// What an agent complains of besides.
    AgentProblem,
    /// Checks of the self-test without an answer.
    SelfTestFailed,
    /// A program does not run as root.
    NotRoot,
    /// The kernel lacks a feature.
    KernelFeature,
    /// IPv6 default routes that forwarding takes away.
    RouterAdvertisements,
    /// Somebody else has a port.
    PortTaken,
    /// Nodes do not hear each other at a port.
    PortClosed,
    /// Somebody else has a port for Services.
    NodePortTaken,
    /// No container runtime.
    RuntimeMissing,
    /// What another release found.
    Unknown,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which kind of fault.
    pub id: Id,
    /// Where: an object or a node, as `Service shop/web`.
    pub subject: String,
    /// What is so, as a sentence without its subject's name.
    pub what: String,
    /// Since when, where somebody tells (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// What mends it.
    pub fix: String,
    /// How many pods it is about, roughly: what comes first among equally bad faults.
    pub reach: usize,
}

impl Id {
    /// Every one of them.
    pub fn all() -> &'static [Id] {
        Id::value_variants()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// None for one of another release.
pub(crate) fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Id>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| <Id as ValueEnum>::from_str(&text, false).ok()))
}

impl Finding {
    pub(crate) fn error(id: Id, subject: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding {
            severity: Severity::Error,
            id,
            subject: subject.into(),
            what: what.into(),
            since: None,
            fix: String::new(),
            reach: 1,
        }
    }

    pub(crate) fn warning(id: Id, subject: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding { severity: Severity::Warning, ..Finding::error(id, subject, what) }
    }

    pub(crate) fn fix(self, fix: impl Into<String>) -> Finding {
        Finding { fix: fix.into(), ..self }
    }

    pub(crate) fn since(self, since: Option<&str>) -> Finding {
        Finding { since: since.map(str::to_owned), ..self }
    }

    pub(crate) fn reach(self, reach: usize) -> Finding {
        Finding { reach, ..self }
    }

    /// What tells it from others, and stays from one look to the next: not what may be counted differently.
    /// What began meanwhile is another one: pods that start in the place of others.
    pub(crate) fn key(&self) -> (Id, &str, Option<&str>) {
        (self.id, &self.subject, self.since.as_deref())
    }
}

/// The worst first, then what is about most pods, then what others may follow from.
pub(crate) fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        let rank = |it: &Finding| (it.severity, std::cmp::Reverse(it.reach), it.id);
        rank(a).cmp(&rank(b)).then_with(|| a.subject.cmp(&b.subject))
    });
}

/// `SUBJECT: what is so`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_then_what_is_about_most_pods_then_causes() {
        let mut findings = vec![
            Finding::warning(Id::NodeNotReady, "a", "").reach(9),
            Finding::error(Id::PodsNotReady, "b", ""),
            Finding::error(Id::AgentSilent, "c", ""),
            Finding::error(Id::PodsNotReady, "d", "").reach(2),
        ];
        sort(&mut findings);
        let order: Vec<&str> = findings.iter().map(|finding| finding.subject.as_str()).collect();
        assert_eq!(order, ["d", "c", "b", "a"]);
    }

    #[test]
    fn names_of_faults_are_the_same_in_text_and_json() {
        for id in Id::all() {
            assert_eq!(serde_json::to_string(id).unwrap(), format!("\"{id}\""));
        }
    }

    #[test]
    fn every_fault_is_explained_in_the_docs_and_no_other() {
        let document = include_str!("../../docs/troubleshooting.md");
        let (_, table) = document.split_once("## What it finds").unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let mut explained: Vec<&str> = rows.collect();
        explained.sort_unstable();
        let mut all: Vec<String> = Id::all().iter().map(ToString::to_string).collect();
        all.sort_unstable();
        assert_eq!(explained, all);
    }
}
