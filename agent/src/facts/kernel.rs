//! What the kernel of this machine has: settings, tables that fill, interfaces, chains of others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_netlink::rtnl::{Link, Neighbour, RtnetlinkClient};
use weft_netlink::sysctl;
use weft_nftables::{self as nft, Hook, ObservedTable, Policy};
use weft_types::node_facts::{ChainFacts, Fill, LinkFacts, NodeFacts};
use weft_types::well_known::device;

use crate::Result;
use crate::attachments::PluginPaths;

/// The settings that matter, beside those of interfaces.
const SETTINGS: [&str; 8] = [
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.ip_local_port_range",
    "net.bridge.bridge-nf-call-iptables",
    "net.ipv6.conf.all.disable_ipv6",
];
/// The tables that kube-proxy and engines of network policies put chains into.
const TABLES: [&str; 3] = ["nat", "filter", "kube-proxy"];
/// So many neighbours of an interface are told of.
const MOST_NEIGHBOURS: usize = 256;
/// The proxy's own table.
const OWN: &str = "weft";

/// In the calling thread's network namespace.
pub(super) fn look(paths: &PluginPaths) -> Result<NodeFacts> {
    let mut client = RtnetlinkClient::open()?;
    let links = client.links()?;
    let known = client.neighbours(None)?;
    let of = |ipv6: bool| known.iter().filter(|one| one.address.is_ipv6() == ipv6).count();
    let noted: BTreeSet<_> = links.iter().filter_map(|link| paths.attachment(link)).collect();
    let unused = paths.holders().into_iter().filter(|(_, holder)| !noted.contains(holder));
    let shown = shown(&mut client, &links, &known, paths)?;
    Ok(NodeFacts {
        sysctls: sysctls(&shown),
        conntrack: number("net.netfilter.nf_conntrack_count")
            .map(|used| fill("connections", used, number("net.netfilter.nf_conntrack_max"))),
        neighbours: vec![
            fill("IPv4", of(false) as u64, number("net.ipv4.neigh.default.gc_thresh3")),
            fill("IPv6", of(true) as u64, number("net.ipv6.neigh.default.gc_thresh3")),
        ],
        unused_reservations: unused.map(|(address, _)| address).collect(),
        links: shown,
        // Where nf_tables does not work, much more is wrong, and is told.
        chains: chains().unwrap_or_default(),
        ..NodeFacts::default()
    })
}

fn number(name: &str) -> Option<u64> {
    sysctl::read(name).ok()?.trim().parse().ok()
}

fn fill(name: &str, used: u64, most: Option<u64>) -> Fill {
    Fill { name: name.to_owned(), used, most: most.unwrap_or_default() }
}

/// All interfaces but those of pods.
fn shown(
    client: &mut RtnetlinkClient,
    links: &[Link],
    known: &[Neighbour],
    paths: &PluginPaths,
) -> Result<Vec<LinkFacts>> {
    let addresses = client.addresses(None)?;
    // Those of a bridge are pods, and those of a tunnel are the agent's own.
    let neighbours = |link: &Link| -> BTreeMap<IpAddr, String> {
        let has_machines = !matches!(link.kind.as_deref(), Some("bridge" | "vxlan" | "wireguard"));
        let there = known.iter().filter(|one| one.link == link.index && has_machines);
        let known = there.filter_map(|one| Some((one.address, one.mac?.to_string())));
        known.take(MOST_NEIGHBOURS).collect()
    };
    let facts = links.iter().filter(|link| paths.attachment(link).is_none()).map(|link| LinkFacts {
        name: link.name.clone(),
        kind: link.kind.clone(),
        mtu: link.mtu,
        mac: link.mac.map(|mac| mac.to_string()),
        is_up: link.up,
        addresses: addresses.iter().filter(|one| one.link == link.index).map(|one| one.address).collect(),
        neighbours: neighbours(link),
    });
    Ok(facts.collect())
}

/// Those of interfaces that have addresses, too, and of the tunnel.
fn sysctls(links: &[LinkFacts]) -> BTreeMap<String, String> {
    let own = links.iter().filter(|link| link.name == device::VXLAN || !link.addresses.is_empty());
    let filters = own.map(|link| {
        (format!("net.ipv4.conf.{}.rp_filter", link.name), crate::sysctls::plan::written(&link.name))
    });
    let filters = filters.map(|(name, link)| (name, format!("net.ipv4.conf.{link}.rp_filter")));
    let named = SETTINGS.map(|name| (name.to_owned(), name.to_owned())).into_iter().chain(filters);
    named.filter_map(|(name, path)| Some((name, sysctl::read(&path).ok()?.trim().to_owned()))).collect()
}

/// The chains of tables that others write, and those of any table at which packets are passed on.
fn chains() -> weft_netlink::Result<Vec<ChainFacts>> {
    let families = nft::Family::BOTH.into_iter();
    let keys: Vec<_> =
        families.flat_map(|family| TABLES.map(|table| (family.into(), table.into()))).collect();
    let mut client = nft::Client::open()?;
    let observed = client.observe(&keys)?;
    let known = observed
        .tables
        .iter()
        .flat_map(|((family, name), table)| of_table(&format!("{family} {name}"), table));
    let mut chains: Vec<ChainFacts> = known.collect();
    for table in client.foreign(OWN, &[Hook::Forward])? {
        let name = format!("{} {}", table.family, table.name);
        for (chain, _, base) in table.at(Hook::Forward) {
            let drops = base.policy == Policy::Drop;
            match chains.iter_mut().find(|one| (&one.table, &*one.name) == (&name, &**chain)) {
                Some(one) => (one.hook, one.drops) = (Some("forward".to_owned()), drops),
                None => chains.push(ChainFacts {
                    table: name.clone(),
                    name: chain.to_string(),
                    hook: Some("forward".to_owned()),
                    drops,
                    is_ours: table.name.starts_with(OWN),
                }),
            }
        }
    }
    Ok(chains)
}

fn of_table(name: &str, table: &ObservedTable) -> Vec<ChainFacts> {
    let chain = |(chain, held): (&nft::Name, &nft::ObservedChain)| ChainFacts {
        table: name.to_owned(),
        name: chain.to_string(),
        // Weft alone gives rules a digest.
        is_ours: held.rules.iter().any(Option::is_some),
        ..ChainFacts::default()
    };
    table.chains.iter().map(chain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_named_as_people_name_the_interfaces() {
        let link = |name: &str| LinkFacts {
            name: name.to_owned(),
            addresses: vec!["127.0.0.1/8".parse().unwrap()],
            ..LinkFacts::default()
        };
        let settings = sysctls(&[link("lo"), link("gone.7")]);
        assert!(settings.contains_key("net.ipv4.conf.lo.rp_filter"), "{settings:?}");
        assert!(settings.contains_key("net.ipv4.ip_forward"));
        assert!(!settings.keys().any(|name| name.contains("gone")));
    }
}
