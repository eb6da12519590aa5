//! Others that do Weft's work already: pod networks, kube-proxy, network policy engines, firewalls in the
//! way.

use std::collections::BTreeSet;

use crate::finding::Id;
use crate::preflight::facts::{Chain, Facts};
use crate::preflight::report::Check;

/// The configuration that the agent writes.
const OWN_CONFIG: &str = "10-weft.conflist";
/// What other pod networks call their interfaces: the beginning of a name, and whose it is.
pub(crate) const OTHER_LINKS: [(&str, &str); 10] = [
    ("flannel", "Flannel"),
    ("cali", "Calico"),
    ("tunl0", "Calico"),
    ("vxlan.calico", "Calico"),
    ("cilium", "Cilium"),
    ("lxc_health", "Cilium"),
    ("weave", "Weave Net"),
    ("kube-bridge", "kube-router"),
    ("antrea", "Antrea"),
    ("ovn-k8s", "OVN-Kubernetes"),
];
/// What other engines of network policies call their chains: the beginning of a name, and whose it is.
const POLICY_CHAINS: [(&str, &str); 7] = [
    ("KUBE-NWPLCY-", "kube-router"),
    ("KUBE-POD-FW-", "kube-router"),
    ("KUBE-ROUTER-", "kube-router"),
    ("cali-", "Calico"),
    ("CILIUM_", "Cilium"),
    ("WEAVE-NPC", "Weave Net"),
    ("ANTREA-", "Antrea"),
];
/// The end of the names of the tables by which kube-network-policies, also as part of kindnet, gets packets
/// into user space.
const POLICY_TABLES: &str = "network-policies";
/// The interface on which kube-proxy's IPVS mode keeps the Services' addresses.
const IPVS_LINK: &str = "kube-ipvs0";
/// The end of the names of the proxy's own tables.
const OWN_TABLE: &str = " weft";

pub(super) fn checks(facts: &Facts) -> [Check; 4] {
    [other_networks(facts), kube_proxy(facts), policy_engines(facts), firewall(facts)]
}

fn policy_engines(facts: &Facts) -> Check {
    let whose = |chain: &Chain| engine(&chain.table, &chain.name);
    let found = facts.chains.iter().filter_map(|chain| Some((whose(chain)?, chain.table.as_str())));
    let found: BTreeSet<_> = found.collect();
    let found: Vec<String> =
        found.into_iter().map(|(whose, table)| format!("rules of {whose} in table {table}")).collect();
    match found.is_empty() {
        true => Check::pass("network policies", "no rules of another engine"),
        false => Check::warn(
            Id::PoliciesOther,
            "network policies",
            format!("{}: a connection has to be allowed by both", found.join(", ")),
            "Remove the other engine (its DaemonSet; kube-router also has --run-firewall=false), then its rules, or reboot; or \
             keep it, and give the agent --network-policy=false",
        ),
    }
}

/// The engine of network policies that a chain is of.
pub(crate) fn engine(table: &str, chain: &str) -> Option<&'static str> {
    if table.ends_with(POLICY_TABLES) {
        return Some("kube-network-policies or kindnet");
    }
    POLICY_CHAINS.iter().find(|(prefix, _)| chain.starts_with(prefix)).map(|(_, whose)| *whose)
}

fn other_networks(facts: &Facts) -> Check {
    let configs = facts.cni_configs.iter().filter(|name| *name != OWN_CONFIG);
    let configs = configs.map(|name| format!("the CNI configuration {name}"));
    let links = facts.links.iter().filter_map(|link| {
        let (_, whose) = OTHER_LINKS.iter().find(|(prefix, _)| link.starts_with(prefix))?;
        Some(format!("the interface {link} ({whose})"))
    });
    let found: Vec<String> = configs.chain(links).collect();
    match found.is_empty() {
        true => Check::pass("other pod networks", "none"),
        false => Check::fail(
            Id::OtherNetwork,
            "other pod networks",
            found.join(", "),
            "Uninstall the other network (its DaemonSet first), then delete its files in the CNI folder and its \
             interfaces (ip link delete NAME), or reboot",
        ),
    }
}

fn kube_proxy(facts: &Facts) -> Check {
    let others = facts.chains.iter().filter(|chain| !chain.is_ours);
    let chains = others.filter(|chain| is_kube_proxy(&chain.table, &chain.name));
    let mut found: Vec<String> = chains.map(|chain| format!("rules in table {}", chain.table)).collect();
    // In mode ipvs Weft's proxy has that interface too, beside its own tables.
    let has_own_tables = facts.chains.iter().any(|chain| chain.is_ours && chain.table.ends_with(OWN_TABLE));
    if !has_own_tables && facts.links.iter().any(|link| link == IPVS_LINK) {
        found.push(format!("the interface {IPVS_LINK}"));
    }
    found.sort();
    found.dedup();
    if !found.is_empty() {
        return Check::fail(
            Id::StaleProxyRules,
            "kube-proxy",
            found.join(", "),
            "kubectl -n kube-system delete daemonset kube-proxy, then on each node kube-proxy --cleanup, or reboot",
        );
    }
    match facts.legacy_tables.is_empty() {
        true => Check::pass("kube-proxy", "no rules of it"),
        false => Check::warn(
            Id::StaleProxyRules,
            "kube-proxy",
            format!("rules of the legacy iptables cannot be seen here ({})", facts.legacy_tables.join(", ")),
            "iptables-legacy-save | grep KUBE-SVC must print nothing; otherwise kube-proxy --cleanup, or reboot",
        ),
    }
}

/// A kubelet alone makes KUBE-KUBELET-CANARY, KUBE-FIREWALL and KUBE-MARK-*: these are harmless.
pub(crate) fn is_kube_proxy(table: &str, chain: &str) -> bool {
    table.ends_with(" kube-proxy")
        || ["KUBE-SERVICES", "KUBE-SVC-", "KUBE-SEP-"].iter().any(|prefix| chain.starts_with(prefix))
}

fn firewall(facts: &Facts) -> Check {
    let chains = facts.chains.iter().filter(|chain| chain.drops_forwarded);
    let found: Vec<String> = chains.map(|chain| format!("{} {}", chain.table, chain.name)).collect();
    match found.is_empty() {
        true => Check::pass("firewall", "forwarded packets are not dropped by default"),
        false => Check::fail(
            Id::ForwardDropped,
            "firewall",
            format!("drops forwarded packets by default: {}", found.join(", ")),
            "Let the pods' ranges through, or accept by default: iptables -P FORWARD ACCEPT (Docker sets DROP at its \
             start; \"ip-forward-no-drop\": true in /etc/docker/daemon.json keeps it from that)",
        ),
    }
}
