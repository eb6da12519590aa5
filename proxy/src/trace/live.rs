//! The tables as they stand in the kernel now, with what packets wrote into them, on the machine that this
//! runs on. The one part of the tracer that does I/O.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_netlink::rtnl::{RouteFilter, RtnetlinkClient};
use weft_nftables::{Chain, Client, Data, Hook, Name, ObservedTable, Rule, Set, SetKind, Table, TableKey};
use weft_types::{Family, IpNetwork};

use super::{Memory, Packet, Tracer};
use crate::dataplane::iptables::SERVICES;
use crate::dataplane::nftables::ruleset::{SetName, TABLE, table_keys};
use crate::error::Error;

/// Where xt_recent shows its lists.
const LISTS: &str = "/proc/thread-self/net/xt_recent";
/// Longer than anybody looks.
const FOR_NOW: Duration = Duration::from_secs(3600);

/// A packet's way through the kernel's tables.
///
/// # Errors
/// What the kernel refuses, and what of the packet cannot be understood or followed.
pub fn trace(packet: &str) -> Result<String, Error> {
    let addresses = addresses()?;
    let packet = Packet::parse(packet, &addresses)?;
    let mut kernel = Client::open()?;
    let (tables, mut memory) = read(&mut kernel)?;
    read_lists(&mut memory);
    let is_empty = tables.is_empty();
    let tracer = Tracer::new(tables, addresses).with_routes(routes()?);
    let (foreign, mut unread) = match kernel.foreign(TABLE, &Hook::ALL) {
        Ok(foreign) => (foreign, String::new()),
        Err(error) => {
            (Vec::new(), format!("not certain: {error}; what other programs' rules do is not known\n"))
        }
    };
    // In the mode iptables, the chains stand in tables that are shared, and are followed as other programs'
    // are.
    if is_empty && !foreign.iter().any(|table| table.chains.contains_key(SERVICES)) {
        let problem = "weft-proxy has programmed nothing here, or somebody deleted it".to_owned();
        return Err(Error::Trace { rule: "the tables ip weft and ip6 weft".to_owned(), problem });
    }
    let legacy = legacy_tables(Family::of(packet.source)).join(", ");
    if !legacy.is_empty() {
        unread += &format!(
            "not certain: rules of the legacy iptables cannot be seen here (tables {legacy}); look at what \
             iptables-legacy-save prints\n"
        );
    }
    Ok(tracer.among(foreign).explain(&packet, &memory)? + &unread)
}

/// Which clients the lists of the mode iptables have. How long ago they were put there the kernel tells by a
/// clock of its own.
fn read_lists(memory: &mut Memory) {
    for list in fs::read_dir(LISTS).into_iter().flatten().flatten() {
        let (name, text) = (list.file_name(), fs::read_to_string(list.path()).unwrap_or_default());
        let sources = text.lines().filter_map(|line| line.strip_prefix("src=")?.split(' ').next());
        let sources = sources.filter_map(|source| source.parse().ok());
        sources.for_each(|source| memory.list_sometime(&Name::from(&*name.to_string_lossy()), source));
    }
}

/// The tables that the legacy iptables has for packets of that family.
fn legacy_tables(family: Family) -> Vec<String> {
    let family = if family == Family::V4 { "ip" } else { "ip6" };
    let names = fs::read_to_string(format!("/proc/thread-self/net/{family}_tables_names"));
    names.unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The tables that the legacy iptables has, each once.
pub(crate) fn all_legacy_tables() -> Vec<String> {
    let mut tables: Vec<String> = Family::BOTH.into_iter().flat_map(legacy_tables).collect();
    tables.sort();
    tables.dedup();
    tables
}

/// The proxy's tables, and what clients stick to.
///
/// # Errors
/// What the kernel refuses, and rules in these tables that another program wrote.
pub fn read(kernel: &mut Client) -> Result<(Vec<Table>, Memory), Error> {
    let observed = kernel.observe(&table_keys())?;
    let (mut tables, mut memory) = (Vec::new(), Memory::default());
    for (key, observed) in observed.tables {
        let rules = kernel.rules(&key)?;
        let table = assemble(&key, observed, rules);
        for (name, set) in &table.sets {
            if let SetKind::ExpiringMap(..) = set.declaration.kind {
                for (client, data) in kernel.held(&set.declaration)? {
                    if let Data::Tuple(data) = data {
                        memory.update(&key, name, client, data, FOR_NOW);
                    }
                }
            }
        }
        tables.push(table);
    }
    Ok((tables, memory))
}

fn assemble(key: &TableKey, observed: ObservedTable, mut rules: BTreeMap<Name, Vec<Rule>>) -> Table {
    let (family, name) = key;
    let mut table = Table::new(*family, name.clone());
    for (name, chain) in observed.chains {
        let base = chain.base.as_ref().and_then(|base| base.planned(*family));
        table.chains.insert(name.clone(), Chain { base, rules: rules.remove(&name).unwrap_or_default() });
    }
    let mut sets = observed.sets;
    for set in SetName::ALL {
        if let Some(held) = sets.remove(set.name()) {
            let Some(ip) = family.ip() else { continue };
            let declaration = Arc::new(set.declaration(ip));
            table.set(Set { elements: held.elements, details: held.details, ..Set::new(declaration) });
        }
    }
    table
}

/// What the main routing table says.
pub(crate) fn routes() -> Result<Vec<(IpNetwork, Name)>, Error> {
    let mut route = RtnetlinkClient::open()?;
    let names: BTreeMap<u32, Name> =
        route.links()?.into_iter().map(|link| (link.index, link.name.into())).collect();
    let paths = route.routes(RouteFilter::default())?.into_iter();
    Ok(paths.filter_map(|path| Some((path.destination, names.get(&path.link?)?.clone()))).collect())
}

/// The addresses of all interfaces, those first that another machine may ask for.
pub(crate) fn addresses() -> Result<Vec<IpAddr>, Error> {
    let all = RtnetlinkClient::open()?.addresses(None)?;
    let mut addresses: Vec<IpAddr> = all.into_iter().map(|address| address.address.ip()).collect();
    addresses.sort_by_key(|address| match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    });
    Ok(addresses)
}
