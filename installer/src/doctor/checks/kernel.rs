//! What machines' kernels do with packets of pods: settings, tables that fill, rules and interfaces of others.

use std::collections::BTreeSet;

use serde_json::Value;
use weft_types::node_facts::{ChainFacts, Fill, NodeFacts};
use weft_types::well_known::device;

use super::nodes::uplink;
use crate::cluster::name;
use crate::doctor::facts::Facts;
use crate::finding::{Finding, Id};
use crate::preflight::conflicts::{OTHER_LINKS, engine, is_kube_proxy};
use crate::status;

/// From which share on a table is nearly full, and as good as full, in percent.
const NEARLY: u64 = 80;
const FULL: u64 = 97;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in &facts.nodes {
        let Some(Ok(machine)) = facts.agents.get(name(node)) else { continue };
        findings.extend(forwarding(node, machine));
        findings.extend(strict(node, machine));
        findings.extend(machine.conntrack.as_ref().and_then(connections));
        findings.extend(machine.neighbours.iter().filter_map(neighbours));
        findings.extend(dropped(node, machine));
        findings.extend(stale_rules(machine));
        findings.extend(stale_links(machine));
        findings.extend(engines(machine));
        let subject = format!("Node {}", name(node));
        for finding in findings.iter_mut().filter(|one| one.subject.is_empty() || one.subject == subject) {
            finding.subject.clone_from(&subject);
            finding.reach = facts.pods_on(name(node)).max(1);
        }
    }
    findings
}

/// The subject is filled in by [`check`].
fn error(id: Id, what: String) -> Finding {
    Finding::error(id, "", what)
}

fn forwarding(node: &Value, machine: &NodeFacts) -> Option<Finding> {
    let has = |ipv6: bool| {
        let ranges = super::lookup::texts(&node["spec"]["podCIDRs"]);
        let mut ranges = ranges
            .map(|range| range.contains(':'))
            .chain(machine.ranges.iter().map(|one| one.range.is_ipv6()));
        ranges.any(|is_ipv6| is_ipv6 == ipv6)
    };
    let settings = [(false, "net.ipv4.ip_forward"), (true, "net.ipv6.conf.all.forwarding")];
    let (_, off) = settings.into_iter().find(|(ipv6, setting)| {
        has(*ipv6) && machine.sysctls.get(*setting).is_some_and(|value| value == "0")
    })?;
    let what = format!("{off} is 0: packets from pods and to pods are dropped");
    let fix = format!(
        "On the node: sysctl -w {off}=1, and find who sets it to 0 (grep -r {off} /etc/sysctl.conf /etc/sysctl.d)"
    );
    Some(error(Id::ForwardingOff, what).fix(fix))
}

/// A packet is refused where the way back does not lead out by the interface that it came in by: by the tunnel,
/// while the direct way is taken for answers, or by one of several interfaces. The setting is the larger of
/// `all` and the interface's own (ip-sysctl, rp_filter).
fn strict(node: &Value, machine: &NodeFacts) -> Option<Finding> {
    let value =
        |link: &str| machine.sysctls.get(&format!("net.ipv4.conf.{link}.rp_filter"))?.parse::<u8>().ok();
    let is_strict = |link: &str| value("all").max(value(link)) == Some(1);
    let has_tunnel = machine.links.iter().any(|link| link.name == device::VXLAN);
    let between = uplink(node, machine).map(|link| link.name.as_str()).filter(|_| has_tunnel);
    let tunnel = Some(device::VXLAN).filter(|_| has_tunnel);
    let link = tunnel.into_iter().chain(between).find(|link| is_strict(link))?;
    let what = format!(
        "rp_filter is strict on {link}: what comes by the tunnel while answers go directly, or the other way round, is dropped \
         without a word"
    );
    let fix = format!(
        "On the node: sysctl -w net.ipv4.conf.{link}.rp_filter=2, and the same in /etc/sysctl.d/ to keep it (also of all)"
    );
    Some(Finding::warning(Id::RpFilterStrict, "", what).fix(fix))
}

fn percent(fill: &Fill) -> u64 {
    fill.used.saturating_mul(100) / fill.most.max(1)
}

fn connections(fill: &Fill) -> Option<Finding> {
    let share = percent(fill);
    if fill.most == 0 || share < NEARLY {
        return None;
    }
    let what = format!(
        "{} of the {} connections that its kernel can track are taken ({share} %)",
        fill.used, fill.most
    );
    let finding = match share >= FULL {
        true => error(Id::ConntrackFull, format!("{what}: packets of new ones are dropped")),
        false => Finding::warning(Id::ConntrackFull, "", what),
    };
    let fix = "Raise the limit: weft-proxy --conntrack-max-per-core (or sysctl -w net.netfilter.nf_conntrack_max=N on the node), \
               and see whose they are: conntrack -L | awk '{print $4}' | sort | uniq -c | sort -n";
    Some(finding.fix(fix))
}

fn neighbours(fill: &Fill) -> Option<Finding> {
    let share = percent(fill);
    if fill.most == 0 || share < NEARLY {
        return None;
    }
    let setting = if fill.name == "IPv6" { "net.ipv6.neigh.default" } else { "net.ipv4.neigh.default" };
    let what = format!(
        "{} of the {} neighbours of {} that its kernel can know are taken ({share} %): beyond that, packets to others are \
         dropped",
        fill.used, fill.most, fill.name
    );
    let finding = if share >= FULL {
        error(Id::NeighboursFull, what)
    } else {
        Finding::warning(Id::NeighboursFull, "", what)
    };
    Some(finding.fix(format!("On the node: sysctl -w {setting}.gc_thresh3=16384 {setting}.gc_thresh2=8192, and the same in /etc/sysctl.d/")))
}

/// The proxy sends packets through the rules of others, as the kernel would.
fn dropped(node: &Value, machine: &NodeFacts) -> Vec<Finding> {
    let told = machine.proxy.iter().flat_map(|proxy| &proxy.conflicts);
    told.filter_map(|text| status::dropped(name(node), text)).collect()
}

fn tables<'a>(chains: impl Iterator<Item = &'a ChainFacts>) -> String {
    chains
        .map(|chain| chain.table.as_str())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
        .join(", ")
}

fn stale_rules(machine: &NodeFacts) -> Option<Finding> {
    let of_others =
        machine.chains.iter().filter(|chain| !chain.is_ours && is_kube_proxy(&chain.table, &chain.name));
    let tables = tables(of_others);
    let what = format!(
        "rules of kube-proxy are in {tables}: connections to Services may go where the cluster was when it wrote them"
    );
    let fix = "See that no kube-proxy runs (kubectl -n kube-system get daemonset kube-proxy), then on the node: kube-proxy \
               --cleanup, or reboot";
    (!tables.is_empty()).then(|| error(Id::StaleProxyRules, what).fix(fix))
}

fn stale_links(machine: &NodeFacts) -> Option<Finding> {
    let whose =
        |name: &str| OTHER_LINKS.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, whose)| whose);
    let found: Vec<String> = machine
        .links
        .iter()
        .filter_map(|link| Some(format!("{} ({})", link.name, whose(&link.name)?)))
        .collect();
    let what = format!("it has interfaces of another pod network: {}", super::lookup::some(&found));
    let fix = "Uninstall that network, then on the node: ip link delete NAME of each, or reboot";
    (!found.is_empty()).then(|| Finding::warning(Id::StaleNetworkLinks, "", what).fix(fix))
}

fn engines(machine: &NodeFacts) -> Option<Finding> {
    let found = machine
        .chains
        .iter()
        .filter_map(|chain| Some((engine(&chain.table, &chain.name)?, chain.table.as_str())));
    let found: BTreeSet<_> = found.collect();
    let each: Vec<String> = found.iter().map(|(whose, table)| format!("{whose} in table {table}")).collect();
    let what = format!(
        "it has rules of another engine of network policies: {}. A connection has to be allowed by both",
        each.join(", ")
    );
    let fix = "Remove the other engine (its DaemonSet), then its rules, or reboot; or keep it, and give the agents \
               --network-policy=false";
    (!found.is_empty()).then(|| Finding::warning(Id::PoliciesOther, "", what).fix(fix))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{after, machine_of, only};
    use super::*;
    use crate::finding::Severity;

    fn chain(table: &str, name: &str, is_ours: bool) -> ChainFacts {
        ChainFacts { table: table.to_owned(), name: name.to_owned(), is_ours, ..ChainFacts::default() }
    }

    fn set(facts: &mut Facts, name: &str, value: &str) {
        machine_of(facts, "node1").sysctls.insert(name.to_owned(), value.to_owned());
    }

    #[test]
    fn forwarding_that_is_off_is_named_for_the_families_of_pods() {
        let finding = only(Id::ForwardingOff, |facts| set(facts, "net.ipv4.ip_forward", "0"));
        assert!(finding.subject == "Node node1" && finding.fix.contains("sysctl -w net.ipv4.ip_forward=1"));
        assert_eq!(after(|facts| set(facts, "net.ipv6.conf.all.forwarding", "0")), [], "no pod has IPv6");
    }

    #[test]
    fn a_strict_filter_matters_where_there_is_a_tunnel() {
        let strict = |facts: &mut Facts| set(facts, "net.ipv4.conf.eth0.rp_filter", "1");
        assert_eq!(after(strict), []);
        let tunnel = |facts: &mut Facts| {
            let link = weft_types::node_facts::LinkFacts {
                name: "weft-vxlan".to_owned(),
                kind: Some("vxlan".to_owned()),
                ..Default::default()
            };
            machine_of(facts, "node1").links.push(link);
        };
        only(Id::RpFilterStrict, |facts| {
            strict(facts);
            tunnel(facts);
        });
        let loose = after(|facts| {
            strict(facts);
            tunnel(facts);
            set(facts, "net.ipv4.conf.all.rp_filter", "2");
        });
        assert_eq!(loose, []);
    }

    #[test]
    fn tables_that_fill_are_told_before_they_are_full() {
        for (used, expected) in [(210_000, Severity::Warning), (262_000, Severity::Error)] {
            let fill = |facts: &mut Facts| {
                machine_of(facts, "node1").conntrack.as_mut().unwrap().used = used;
            };
            assert_eq!(only(Id::ConntrackFull, fill).severity, expected);
        }
        let finding = only(Id::NeighboursFull, |facts| machine_of(facts, "node1").neighbours[0].used = 1020);
        assert!(finding.severity == Severity::Error && finding.fix.contains("net.ipv4.neigh"), "{finding:?}");
    }

    #[test]
    fn firewalls_that_stop_pods_are_named_with_the_remedy() {
        let finding = only(Id::ForwardDropped, |facts| {
            let told =
                "the chain FORWARD of table ip filter stops what is passed on; let it through: iptables -P";
            machine_of(facts, "node1").proxy.as_mut().unwrap().conflicts = vec![told.to_owned()];
        });
        assert_eq!(finding.fix, "let it through: iptables -P");
    }

    #[test]
    fn what_other_proxies_and_networks_left_is_named() {
        only(Id::StaleProxyRules, |facts| {
            machine_of(facts, "node1").chains = vec![chain("ip nat", "KUBE-SVC-ABC", false)];
        });
        let none = after(|facts| {
            machine_of(facts, "node1").chains = vec![chain("ip nat", "KUBE-SVC-ABC", true)];
        });
        assert_eq!(none, [], "these are the proxy's own");
        only(Id::PoliciesOther, |facts| {
            machine_of(facts, "node1").chains = vec![chain("ip filter", "cali-FORWARD", false)];
        });
        only(Id::StaleNetworkLinks, |facts| {
            let link =
                weft_types::node_facts::LinkFacts { name: "flannel.1".to_owned(), ..Default::default() };
            machine_of(facts, "node1").links.push(link);
        });
    }
}
