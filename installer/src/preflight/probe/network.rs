//! Links, routes, neighbours and chains, as the kernel has them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_netlink::Result;
use weft_netlink::rtnl::{Link, RouteFilter, RtnetlinkClient};
use weft_netlink::sysctl;
use weft_nftables::{self as nft, Hook, ObservedTable, Policy};

use crate::preflight::facts::{Advertised, Chain, Facts, Identity, OwnMac, Route};

/// The tables that are looked into: iptables' own two, kube-proxy's and the proxy's own.
const TABLES: [&str; 4] = ["nat", "filter", "kube-proxy", OWN_TABLE];
/// The proxy's.
const OWN_TABLE: &str = "weft";
/// `NF_INET_FORWARD` and `NF_DROP` (linux/netfilter.h).
const FORWARD: u32 = 2;
const DROP: u32 = 0;
/// `RTPROT_RA` (linux/rtnetlink.h)
const ADVERTISED: u8 = 9;
/// Interfaces of these kinds are known to no other machine by their Ethernet addresses.
const VIRTUAL: [&str; 3] = ["bridge", "vxlan", "dummy"];

/// What the kernel has of all that.
pub(super) fn look() -> Result<Facts> {
    let mut client = RtnetlinkClient::open()?;
    let links = client.links()?;
    let names: BTreeMap<u32, String> = links.iter().map(|link| (link.index, link.name.clone())).collect();
    Ok(Facts {
        routes: routes(&mut client, &names)?,
        advertised: advertised(&mut client, &names)?,
        identity: Identity { macs: macs(&mut client, &links)?, ..Identity::default() },
        neighbours: neighbours(&mut client)?,
        links: names.into_values().collect(),
        // Where nf_tables does not work, the kernel's features say so.
        chains: chains().unwrap_or_default(),
        ..Facts::default()
    })
}

fn routes(client: &mut RtnetlinkClient, names: &BTreeMap<u32, String>) -> Result<Vec<Route>> {
    let paths = client.routes(RouteFilter::default())?;
    let somewhere = paths
        .into_iter()
        .filter(|path| path.destination.prefix() > 0 && !is_on_every_link(path.destination.ip()));
    let route = somewhere.map(|path| Route {
        destination: path.destination,
        link: path.link.and_then(|index| names.get(&index).cloned()),
        protocol: path.protocol,
    });
    Ok(route.collect())
}

fn advertised(client: &mut RtnetlinkClient, names: &BTreeMap<u32, String>) -> Result<Vec<Advertised>> {
    let filter = RouteFilter { protocol: Some(ADVERTISED), ..RouteFilter::default() };
    let routes = client.routes(filter)?.into_iter().filter(|path| path.destination.prefix() == 0);
    let links: BTreeSet<&String> = routes.filter_map(|path| names.get(&path.link?)).collect();
    let always = |link: &String| {
        sysctl::read(&format!("net/ipv6/conf/{link}/accept_ra")).is_ok_and(|value| value == "2")
    };
    Ok(links.into_iter().map(|link| Advertised { link: link.clone(), always: always(link) }).collect())
}

fn is_on_every_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_link_local(),
        IpAddr::V6(address) => address.is_multicast() || address.is_unicast_link_local(),
    }
}

/// The Ethernet addresses by which other machines know this one: those of interfaces that hold addresses.
fn macs(client: &mut RtnetlinkClient, links: &[Link]) -> Result<Vec<OwnMac>> {
    let addresses = client.addresses(None)?;
    let holds = |link: &Link| {
        addresses.iter().any(|held| held.link == link.index && !is_on_every_link(held.address.ip()))
    };
    let is_real =
        |link: &Link| link.name != "lo" && !link.kind.as_deref().is_some_and(|kind| VIRTUAL.contains(&kind));
    let own = links.iter().filter(|link| is_real(link) && holds(link));
    Ok(own.filter_map(|link| Some(OwnMac { link: link.name.clone(), mac: link.mac?.to_string() })).collect())
}

fn neighbours(client: &mut RtnetlinkClient) -> Result<Vec<(IpAddr, String)>> {
    let known = client.neighbours(None)?.into_iter().filter(|neighbour| !neighbour.permanent);
    Ok(known.filter_map(|neighbour| Some((neighbour.address, neighbour.mac?.to_string()))).collect())
}

fn chains() -> Result<Vec<Chain>> {
    let families = nft::Family::BOTH.into_iter();
    let keys: Vec<_> =
        families.flat_map(|family| TABLES.map(|table| (family.into(), table.into()))).collect();
    let mut client = nft::Client::open()?;
    let observed = client.observe(&keys)?;
    let known = observed.tables.iter();
    let known = known.flat_map(|((family, name), table)| of_table(&format!("{family} {name}"), table));
    // A firewall's table may have any name, and be of both families. An engine of network policies may look
    // at what leaves.
    let hooks = [Hook::Forward, Hook::Postrouting];
    let others = client.foreign(OWN_TABLE, &hooks)?;
    let others = others
        .iter()
        .filter(|table| table.family == nft::TableFamily::Inet || !TABLES.contains(&&*table.name));
    let others = others.flat_map(|table| {
        hooks.into_iter().flat_map(|hook| table.at(hook)).map(|(name, _, base)| Chain {
            table: format!("{} {}", table.family, table.name),
            name: name.to_string(),
            drops_forwarded: base.hook == Hook::Forward && base.policy == Policy::Drop,
            is_ours: false,
        })
    });
    Ok(known.chain(others).collect())
}

fn of_table(name: &str, table: &ObservedTable) -> Vec<Chain> {
    let chain = |(chain, held): (&nft::Name, &nft::ObservedChain)| Chain {
        table: name.to_owned(),
        name: chain.to_string(),
        drops_forwarded: held.base.as_ref().is_some_and(|base| (base.hook, base.policy) == (FORWARD, DROP)),
        // Weft alone gives rules a digest.
        is_ours: held.rules.iter().any(Option::is_some),
    };
    table.chains.iter().map(chain).collect()
}
