//! Whether other programs' firewalls let through what Services need: packets that the node passes on. Asked
//! of the rules that are in the kernel, for packets such as a Service makes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};
use weft_nftables::{Client, Hook, KnownTable, Name};
use weft_types::{Family, IpNetwork, Node, Protocol, Snapshot};

use crate::dataplane::nftables::ruleset::TABLE;
use crate::error::Error;
use crate::health::Health;
use crate::trace::live::{addresses, routes};
use crate::trace::{Block, Origin, Packet, Tracer};

/// How long to wait between two looks at least, and how many times as long as a look takes.
const PAUSE: Duration = Duration::from_millis(500);
const SHARE: u32 = 20;
/// An address of nobody (RFC 5737, RFC 3849), for a client or a pod of which none is known.
const ELSEWHERE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// A chain that keeps connections to Services from their endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    block: Block,
    /// The networks of pods that it should let through.
    pods: Vec<IpNetwork>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Block { table, chain, cause, unless } = &self.block;
        write!(
            f,
            "the chain {chain} of table {table} stops what is passed on to endpoints of Services ({cause})"
        )?;
        if !unless.is_empty() {
            write!(f, ", unless a rule that cannot be read here lets it through ({})", unless.join("; "))?;
        }
        let pods = |separator: &str| {
            let pods: Vec<String> = self.pods.iter().map(ToString::to_string).collect();
            pods.join(separator)
        };
        match &**table {
            "ip filter" | "ip6 filter" => {
                let command = if &**table == "ip filter" { "iptables" } else { "ip6tables" };
                write!(
                    f,
                    "; let it through: {command} -I {chain} -s {pods} -j ACCEPT and {command} -I {chain} -d {pods} -j \
                     ACCEPT, or {command} -P {chain} ACCEPT (Docker sets DROP at its start, unless \
                     /etc/docker/daemon.json has \"ip-forward-no-drop\": true; ufw: ufw default allow routed)",
                    pods = pods(",")
                )
            }
            "inet firewalld" => write!(
                f,
                "; let it through: firewall-cmd --permanent --zone=trusted --add-source={} and firewall-cmd --reload",
                pods(" --add-source=")
            ),
            _ => {
                let of = |family: Family| {
                    let pods = self.pods.iter().filter(|pods| Family::of_network(pods) == family);
                    let pods: Vec<String> = pods.map(ToString::to_string).collect();
                    let word = if family == Family::V4 { "ip" } else { "ip6" };
                    let rule = format!(
                        "nft insert rule {table} {chain} {word} saddr {{ {} }} accept",
                        pods.join(", ")
                    );
                    (!pods.is_empty()).then_some(rule)
                };
                let rules: Vec<String> = Family::BOTH.into_iter().filter_map(of).collect();
                write!(f, "; let it through: {}, and the same with daddr", rules.join(", "))
            }
        }
    }
}

/// Looks when something changed, tells the log, and says so to probes.
#[derive(Debug)]
pub struct Firewall {
    kernel: Client,
    found: Vec<Conflict>,
    not_before: Instant,
}

impl Firewall {
    /// One that has not looked yet, in the calling thread's network namespace.
    pub fn open() -> Result<Firewall, Error> {
        Ok(Firewall { kernel: Client::open()?, found: Vec::new(), not_before: Instant::now() })
    }

    /// Waits until `others` is woken. Not too often: whoever changes rules may be at it for longer, and may
    /// have many. Nothing is lost if the future is dropped.
    pub async fn may_have_changed(&self, others: &Notify) {
        sleep_until(self.not_before).await;
        others.notified().await;
    }

    /// Looks at the kernel's rules.
    pub fn look(&mut self, node: &str, snapshot: &Snapshot, health: &Health) {
        let start = Instant::now();
        match look(&mut self.kernel, node, snapshot) {
            Ok(found) => self.tell(found, health),
            Err(error) => debug!("{error}; whether other programs' rules are in the way is not known"),
        }
        self.not_before = Instant::now() + PAUSE.max(start.elapsed() * SHARE);
    }

    fn tell(&mut self, found: Vec<Conflict>, health: &Health) {
        for conflict in found.iter().filter(|conflict| !self.found.contains(conflict)) {
            warn!("{conflict}");
        }
        if found.is_empty() && !self.found.is_empty() {
            info!("other programs' chains let connections to Services through again");
        }
        health.set_conflicts(found.iter().map(ToString::to_string).collect());
        self.found = found;
    }
}

/// What the kernel's other tables do with the packets of Services on this Node.
///
/// # Errors
/// What cannot be read of the kernel.
pub fn look(kernel: &mut Client, node: &str, snapshot: &Snapshot) -> Result<Vec<Conflict>, Error> {
    let mut foreign = kernel.foreign(TABLE, &[Hook::Forward])?;
    foreign.retain(|table| !is_weft(&table.name));
    if foreign.is_empty() {
        return Ok(Vec::new());
    }
    Ok(conflicts(foreign, addresses()?, routes()?, node, snapshot))
}

/// Other parts of Weft are in nobody's way: what network policies deny is meant so.
fn is_weft(table: &str) -> bool {
    table.strip_prefix(TABLE).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn conflicts(
    foreign: Vec<KnownTable>,
    addresses: Vec<IpAddr>,
    routes: Vec<(IpNetwork, Name)>,
    node: &str,
    snapshot: &Snapshot,
) -> Vec<Conflict> {
    let tracer = Tracer::new(Vec::new(), addresses).with_routes(routes).among(foreign);
    let (own, others): (Vec<&Node>, Vec<&Node>) = snapshot.nodes().partition(|other| other.name == node);
    let mut found: BTreeMap<Block, BTreeSet<IpNetwork>> = BTreeMap::new();
    for family in Family::BOTH {
        let networks = |nodes: &[&Node]| -> Vec<IpNetwork> {
            let all = nodes.iter().flat_map(|node| &node.pod_cidrs).copied();
            all.filter(|network| Family::of_network(network) == family).collect()
        };
        let (here, there) = (networks(&own), networks(&others));
        for (packet, to) in ways(&tracer, family, &here, &there) {
            for block in tracer.blocks(&packet, to) {
                found.entry(block).or_default().extend(&here);
            }
        }
    }
    found.into_iter().map(|(block, pods)| Conflict { block, pods: pods.into_iter().collect() }).collect()
}

/// A packet of a client outside to a pod here, and one of a pod here to a pod of another node, or outside.
fn ways(
    tracer: &Tracer,
    family: Family,
    here: &[IpNetwork],
    there: &[IpNetwork],
) -> Vec<(Packet, SocketAddr)> {
    let elsewhere = ELSEWHERE.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    let Some(elsewhere) = elsewhere.into_iter().find(|address| Family::of(*address) == family) else {
        return Vec::new();
    };
    let Some(pod) = here.first().map(pod_of) else { return Vec::new() };
    let far = there.first().map_or(elsewhere, pod_of);
    [(elsewhere, pod), (pod, far)]
        .into_iter()
        .map(|(source, to)| {
            let origin = Origin::Interface(tracer.interface_to(source).cloned());
            let destination = SocketAddr::new(elsewhere, 80);
            (Packet { source, destination, protocol: Protocol::Tcp, origin }, SocketAddr::new(to, 8080))
        })
        .collect()
}

/// An address of a pod: not the first ones of a network, which bridges have.
fn pod_of(network: &IpNetwork) -> IpAddr {
    match network {
        IpNetwork::V4(network) => network.nth(9).unwrap_or(network.network()).into(),
        IpNetwork::V6(network) => network.iter().nth(9).unwrap_or(network.network()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_policies_are_no_firewall_in_the_way() {
        assert!(["weft", "weft-policy", "weft-cni-hostports"].iter().all(|table| is_weft(table)));
        assert!(["filter", "weftless", "policy", ""].iter().all(|table| !is_weft(table)));
    }
}
