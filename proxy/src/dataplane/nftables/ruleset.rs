//! The layout of the tables `ip weft` and `ip6 weft`: fixed chains, and maps that hold everything about
//! Services.
//!
//! ```text
//! frontends           { daddr . l4proto . dport        : a number }
//! endpoints           { daddr . l4proto . dport . slot : the endpoint }
//! nodeports           { l4proto . dport                : a number }
//! nodeport-endpoints  { l4proto . dport . slot         : the endpoint }
//! local-*             { the same, asked first for clients outside of the cluster }
//! dispatch            { a number : goto lb-N }          see `ruleset/dispatch.rs`
//! affinity*           { which client has affinity to which endpoint: see `ruleset/affinity.rs` }
//! connections, …      { what the kernel counts, where that is asked for: see `ruleset/counters.rs` }
//! chain lb-3          { meta priority set none dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints }
//! ```
//!
//! There is one chain `lb-N` for each number N of endpoints that some Service has, and never one for a
//! Service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use weft_nftables::{
    Base, Change, Expression, Family, Hook, Observed, ObservedTable, Operator, PRIORITY_DSTNAT,
    PRIORITY_SRCNAT, Rule, Set, Statement, Table, TableKey, Transaction, Value, Verdict,
};
use weft_types::{Family as AddressFamily, IpNetwork, Ipv4Network, Protocol};

use crate::config::{DetectLocal, NodePortAddresses, of_family};
use crate::dataplane::settings::Settings;

mod affinity;
mod counters;
mod dispatch;
mod forward;
mod masquerade;
mod path;
mod sets;

pub(crate) use affinity::remember_chain;
pub(super) use counters::meter_set;
pub use counters::meter_sets;
pub(crate) use dispatch::{Destination, LoadBalancer, OnDemand};
pub use path::Path;
pub use sets::SetName;

/// The name of both tables.
pub const TABLE: &str = "weft";
/// Before what others redirect at the usual priority: a port of the host that is mapped to a container takes
/// nothing from a Service (CVE-2019-9946), whichever of the two tables was made first.
const PRIORITY: i32 = PRIORITY_DSTNAT - 1;
/// The chain that answers for Services without endpoints.
pub(crate) const NO_ENDPOINTS: &str = "no-endpoints";
/// The chain that answers for ports of ClusterIPs that no Service has.
const NO_SUCH_PORT: &str = "no-such-port";
/// The chain in which packets are left to IPVS.
const TO_IPVS: &str = "ipvs";
const SERVICES: &str = "services";
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
/// The chains by which new connections come in.
const WAYS_IN: [&str; 2] = [PREROUTING, OUTPUT];
const OUTSIDE: &str = "outside";
const UNALLOCATED: &str = "unallocated";
const LOOPBACK_V4: IpNetwork = match Ipv4Network::new_checked(Ipv4Addr::new(127, 0, 0, 0), 8) {
    Some(network) => IpNetwork::V4(network),
    None => panic!("8 is a prefix length"),
};

/// The keys of both tables.
pub fn table_keys() -> [TableKey; 2] {
    Family::BOTH.map(|family| (family.into(), TABLE.into()))
}

fn frontend_key(family: Family) -> Vec<Expression> {
    vec![Expression::daddr(family), Expression::L4PROTO, Expression::DPORT]
}

fn nodeport_key() -> Vec<Expression> {
    vec![Expression::L4PROTO, Expression::DPORT]
}

fn jump(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Jump(chain.into()))
}

/// The table of one family without any Service in it.
pub(super) fn table(settings: &Settings, family: Family) -> Table {
    let mut table = Table::new(family, TABLE);
    let is_ipvs = settings.is_ipvs();
    let is_needed = |set: &SetName| match set.counts() {
        true => settings.config.service_counters,
        false => !(is_ipvs && set.balances()),
    };
    for set in SetName::ALL.into_iter().filter(is_needed) {
        table.set(Set::new(Arc::new(set.declaration(family))));
    }
    if let Some(dispatch) = table.sets.get_mut(SetName::Dispatch.name()) {
        dispatch.elements.extend(dispatch::fixed(is_ipvs));
    }
    let enter = Rule::new([jump(SERVICES)]);
    let mut from_outside = from_outside(settings, family);
    from_outside.push(jump(OUTSIDE));
    let begin = counters::connections(settings, family);
    let arrive = [&begin[..], &[Rule::new(from_outside), enter.clone()]].concat();
    table.chain(PREROUTING, Some(Base::nat(Hook::Prerouting, PRIORITY)), arrive);
    table.chain(OUTPUT, Some(Base::nat(Hook::Output, PRIORITY)), [begin, vec![enter]].concat());
    table.chain(OUTSIDE, None, outside(settings, family));
    table.chain(SERVICES, None, services(settings, family));
    if settings.service_cidrs(address_family(family)).next().is_some() {
        table.chain(UNALLOCATED, None, unallocated());
    }
    table.chain(NO_ENDPOINTS, None, refuse(family, &[], "no endpoints").to_vec());
    table.chain(NO_SUCH_PORT, None, no_such_port(family));
    // What IPVS translates has no such status. Only the first packet of a connection comes here.
    let translated = (!is_ipvs).then(Statement::ct_status_dnat);
    let leave = vec![Rule::new(translated.into_iter().chain([jump("masquerading")]).collect::<Vec<_>>())];
    table.chain("postrouting", Some(Base::nat(Hook::Postrouting, PRIORITY_SRCNAT)), leave);
    table.chain("masquerading", None, masquerade::masquerading(settings, family));
    if is_ipvs {
        let leave = [Statement::reset_priority(), Statement::Verdict(Verdict::Accept)];
        table.chain(TO_IPVS, None, vec![Rule::new(leave)]);
    } else {
        forward::chains(&mut table, family, settings);
        affinity::chains(&mut table, family, settings);
    }
    counters::chains(&mut table, family, settings);
    table
}

/// What takes away the chains by which new connections come in, and leaves the others. They go first: while a
/// table goes, its maps are empty already and its sets are not, so that a client who still came in would be
/// refused; and one who has come in still needs the rules about its source.
pub(super) fn ways_in(observed: &Observed) -> Transaction {
    let of_table = |(key, table): (&TableKey, &ObservedTable)| -> Vec<Change> {
        let held = WAYS_IN.into_iter().filter(|name| table.chains.contains_key(*name));
        held.map(|name| Change::DeleteChain(key.clone(), name.into())).collect()
    };
    Transaction { changes: observed.tables.iter().flat_map(of_table).collect() }
}

/// Keeps those away whom a load balancer's address is not for. Its chains are of type nat, where only the
/// first packet of a connection comes by: no other packet is asked.
fn guard(family: Family) -> Rule {
    let source = [frontend_key(family), vec![Expression::saddr(family)]].concat();
    Rule::new([
        Statement::lookup(frontend_key(family), Operator::Equal, SetName::Restricted.name().into()),
        Statement::lookup(source, Operator::NotEqual, SetName::Allowed.name().into()),
        Statement::Verdict(Verdict::Drop),
    ])
    .comment("not in loadBalancerSourceRanges")
}

/// Tells a client at once that it is not served. The kernel sends few ICMP messages to one client in a second
/// (RFC 1812, section 4.3.2.8), but any number of resets.
fn refuse(family: Family, matches: &[Statement], comment: &str) -> [Rule; 2] {
    let is_tcp =
        Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(Protocol::Tcp.number()));
    let tcp = [matches, &[is_tcp, Statement::reset()]].concat();
    let others = [matches, &[Statement::reject(family)]].concat();
    [tcp, others].map(|statements| Rule::new(statements).comment(comment))
}

/// Where new connections from outside of the cluster go, if the way that all go is not for them.
fn outside(settings: &Settings, family: Family) -> Vec<Rule> {
    let mut rules = vec![Rule::new(dispatch::look_up(frontend_key(family), SetName::LocalFrontends))];
    rules.extend(nodeports(settings, family, SetName::LocalNodePorts));
    rules
}

/// Where new connections go.
fn services(settings: &Settings, family: Family) -> Vec<Rule> {
    let cluster_ip = Statement::lookup(
        vec![Expression::daddr(family)],
        Operator::Equal,
        SetName::ClusterIps.name().into(),
    );
    let mut rules = vec![Rule::new(dispatch::look_up(frontend_key(family), SetName::Frontends))];
    // In the mode ipvs a client that is refused may have the address of the Service itself, and is to be
    // told.
    let begins = settings.is_ipvs().then(Statement::ct_state_new);
    let refused = begins.iter().cloned().chain([cluster_ip, jump(NO_SUCH_PORT)]);
    rules.push(Rule::new(refused.collect::<Vec<_>>()));
    rules.extend(nodeports(settings, family, SetName::NodePorts));
    if settings.is_ipvs() {
        let external: Vec<Statement> = begins.into_iter().chain(external(settings, family)).collect();
        rules.extend(refuse(family, &external, "no Service has this port"));
    }
    let of_services = |network| Statement::compare(Expression::daddr(family), Operator::Equal, network);
    let unallocated = settings.service_cidrs(address_family(family)).map(of_services);
    rules.extend(unallocated.map(|matches| Rule::new([matches, jump(UNALLOCATED)])));
    rules
}

/// Matches for external addresses that this machine has for IPVS only: nothing else of it is to be reached
/// there. Its own ones may be external addresses too.
fn external(settings: &Settings, family: Family) -> Vec<Statement> {
    let own = settings.node.addresses.iter().filter(|address| Family::of(**address) == family);
    let other = |address: &IpAddr| {
        Statement::compare(Expression::daddr(family), Operator::NotEqual, Value::Address(*address))
    };
    let external = SetName::ExternalIps.name().into();
    let external = Statement::lookup(vec![Expression::daddr(family)], Operator::Equal, external);
    own.map(other).chain([external]).collect()
}

/// Refuses who asks for a port that no Service has. Each look-up sees the maps as they are at that moment, and
/// a change may have come between two of one packet; so this looks once more.
fn no_such_port(family: Family) -> Vec<Rule> {
    let mut rules = vec![Rule::new(dispatch::look_up(frontend_key(family), SetName::Frontends))];
    rules.extend(refuse(family, &[], "no Service has this port"));
    rules
}

/// Where connections go to addresses that Services could have and none has: nowhere, so that they do not
/// wander off by the default route, and in silence, since the Service may be about to come. An address of the
/// node itself stays reachable.
fn unallocated() -> Vec<Rule> {
    vec![
        Rule::new([Statement::fib_daddr_local(), Statement::Verdict(Verdict::Return)]),
        Rule::new([Statement::Verdict(Verdict::Drop)]).comment("no Service has this address"),
    ]
}

fn nodeports(settings: &Settings, family: Family, map: SetName) -> impl Iterator<Item = Rule> {
    let to_local = settings.config.nodeport_addresses != NodePortAddresses::Primary;
    let destinations = nodeport_destinations(settings, family, Expression::daddr(family));
    destinations.into_iter().map(move |mut statements| {
        if to_local {
            statements.insert(0, Statement::fib_daddr_local());
        }
        statements.extend(dispatch::look_up(nodeport_key(), map));
        Rule::new(statements)
    })
}

/// Matches, each a rule's beginning, for the addresses of this node that serve NodePorts.
fn nodeport_destinations(settings: &Settings, family: Family, address: Expression) -> Vec<Vec<Statement>> {
    match &settings.config.nodeport_addresses {
        NodePortAddresses::Primary => {
            let set = SetName::NodePortAddresses.name().into();
            vec![vec![Statement::lookup(vec![address], Operator::Equal, set)]]
        }
        NodePortAddresses::Networks(networks) => {
            let matches = |network| {
                let not_loopback = Statement::compare(address.clone(), Operator::NotEqual, loopback(family));
                vec![Statement::compare(address.clone(), Operator::Equal, network), not_loopback]
            };
            of_family(networks, address_family(family)).map(matches).collect()
        }
    }
}

/// Matches for what comes from outside of the pod network, where that can be told.
fn from_outside(settings: &Settings, family: Family) -> Vec<Statement> {
    if let DetectLocal::Interface(name) = &settings.config.detect_local {
        return vec![Statement::compare(Expression::IIFNAME, Operator::NotEqual, name.as_str())];
    }
    let outside = |network| Statement::compare(Expression::saddr(family), Operator::NotEqual, network);
    settings.cluster_cidrs(address_family(family)).map(outside).collect()
}

fn loopback(family: Family) -> IpNetwork {
    match family {
        Family::Ip => LOOPBACK_V4,
        Family::Ip6 => IpNetwork::V6(Ipv6Addr::LOCALHOST.into()),
    }
}

/// The family of addresses in that table.
pub(crate) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::Ip => AddressFamily::V4,
        Family::Ip6 => AddressFamily::V6,
    }
}

/// The family of the table for such addresses.
pub(crate) fn table_family(family: AddressFamily) -> Family {
    match family {
        AddressFamily::V4 => Family::Ip,
        AddressFamily::V6 => Family::Ip6,
    }
}
