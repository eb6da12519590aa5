//! Whom nodes take for each other: an entry of a neighbour table that is not what the other machine says of
//! itself (a spoofed or stale answer, or one written by hand).

use std::net::IpAddr;

use weft_types::node_facts::LinkFacts;

use super::lookup::node_addresses;
use super::nodes::uplink;
use crate::cluster::name;
use crate::doctor::facts::Facts;
use crate::finding::{Finding, Id};

/// Some networks answer for all machines with one address of their own (proxy ARP). So an entry counts as
/// wrong only where another node knows the right one.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (address, mac, owner) in machines(facts) {
        let told = |node: &str| -> Option<String> {
            let machine = facts.agents.get(node)?.as_ref().ok()?;
            machine.links.iter().find_map(|link| link.neighbours.get(&address).cloned())
        };
        let others = || facts.nodes.iter().map(name).filter(|node| *node != owner);
        if !others().any(|node| told(node).as_deref() == Some(&mac)) {
            continue;
        }
        for node in others() {
            let Some(wrong) = told(node).filter(|known| *known != mac) else { continue };
            let what = format!(
                "it takes {wrong} for {owner} ({address}), which is {mac}: what it sends there gets to another machine or to \
                 nobody"
            );
            let fix = format!(
                "On {node}: ip neigh del {address} dev LINK (ip neigh show to {address} names it), and find who answers \
                 there or wrote that: tcpdump -eni LINK arp"
            );
            let reach = facts.pods_on(node).max(1);
            findings
                .push(Finding::error(Id::NeighbourWrong, format!("Node {node}"), what).reach(reach).fix(fix));
        }
    }
    findings
}

/// The addresses of Nodes, with the Ethernet addresses that their machines say they have.
fn machines(facts: &Facts) -> impl Iterator<Item = (IpAddr, String, &str)> {
    facts.nodes.iter().flat_map(|node| {
        let machine = facts.agents.get(name(node)).and_then(|answer| answer.as_ref().ok());
        let mac =
            machine.and_then(|machine| uplink(node, machine)).and_then(|link: &LinkFacts| link.mac.clone());
        let addresses = node_addresses(node).filter_map(|text| text.parse::<IpAddr>().ok());
        let all: Vec<_> = addresses.filter_map(|address| Some((address, mac.clone()?, name(node)))).collect();
        all
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{after, machine, machine_of, node, only};
    use super::*;

    const RIGHT: &str = "02:00:00:00:00:02";
    const WRONG: &str = "02:00:00:00:00:99";

    /// What node1 and node3 take node2 for.
    fn known(of: [&'static str; 2]) -> impl FnOnce(&mut Facts) {
        move |facts| {
            facts.nodes.push(node("node3", 3));
            facts.agents.insert("node3".to_owned(), Ok(machine(3)));
            for (name, mac) in [("node1", of[0]), ("node3", of[1])] {
                let neighbours = &mut machine_of(facts, name).links[0].neighbours;
                neighbours.insert("172.30.0.12".parse().unwrap(), mac.to_owned());
            }
        }
    }

    #[test]
    fn who_takes_another_machine_for_a_node_is_named() {
        let finding = only(Id::NeighbourWrong, known([WRONG, RIGHT]));
        assert_eq!(finding.subject, "Node node1");
        assert!(finding.what.starts_with("it takes 02:00:00:00:00:99 for node2 (172.30.0.12)"), "{finding}");
        assert_eq!(after(known([RIGHT, RIGHT])), []);
        assert_eq!(after(known([WRONG, WRONG])), [], "the network answers for everybody");
    }
}
