//! Session affinity: the rules by which a client's new connections go to the endpoint that its last one went
//! to.
//!
//! ```text
//! affinity-frontends { daddr . l4proto . dport : the Service port's number }
//! affinity           { saddr . the Service port's number : the endpoint's number }   written by packets, expires
//! affinity-endpoints { daddr . l4proto . dport . the endpoint's number : the endpoint }
//! affinity-timeouts  { the Service port's number : goto remember-N }
//! ```
//!
//! A rule can look up one thing only, if nft is to print it. So the packet's priority carries a number from
//! one rule to the next; it is put back behind that, as only the first packet of a connection comes here. An
//! endpoint's number is a [hash](weft_nftables::hash) of where it listens, which a rule can make too. A
//! client with affinity to an endpoint that left finds nothing in the last map, and gets another one.

use weft_nftables::{
    Expression, Family, Hook, Operator, PRIORITY_SRCNAT, Rule, Statement, Table, Value, Verdict,
};

use super::{PROTOCOLS, Path, SetName, nodeport_destinations};
use crate::dataplane::settings::Settings;

/// What the names of chains begin with that write a client's affinity; behind it for how many seconds.
pub(super) const REMEMBER: &str = "remember-";
const ENTRY: &str = "remember";

/// The chain that remembers a client's endpoint for so many seconds.
pub(crate) fn remember_chain(timeout: u32) -> String {
    format!("{REMEMBER}{timeout}")
}

/// All fixed chains of session affinity.
pub(super) fn chains(table: &mut Table, family: Family, settings: &Settings) {
    for path in Path::ALL {
        table.chain(path.use_affinity(), None, use_affinity(family, path));
    }
    table.chain(ENTRY, None, remember(settings, family));
}

/// Where clients' endpoints are remembered: those on this machine are reached by `input`, all others by
/// `postrouting`.
pub(super) const HOOKS: [Hook; 2] = [Hook::Input, Hook::Postrouting];

/// Before anybody else rewrites the source, so that the client still stands there: of the nat chains that want
/// to, the first one is the last that is asked.
pub(super) const BEFORE_SOURCES: i32 = PRIORITY_SRCNAT - 1;

/// The rule of a hook.
pub(super) fn enter() -> Rule {
    Rule::new([Statement::ct_status_dnat(), Statement::Verdict(Verdict::Jump(ENTRY.into()))])
}

/// A client and the Service port whose number is the packet's priority.
fn client(family: Family) -> Vec<Expression> {
    vec![Expression::saddr(family), Expression::PRIORITY]
}

/// Leads to the endpoint that the client has affinity to, if it still serves. If not, forgets it: else it
/// could not be replaced, since writing an element that is there only prolongs it.
fn use_affinity(family: Family, path: Path) -> Vec<Rule> {
    let number = Statement::set_priority(path.key(family), path.affinity_numbers().name().into());
    let affinity = SetName::Affinity.name();
    let endpoint = [path.key(family), vec![Expression::PRIORITY]].concat();
    vec![
        Rule::new([number.clone()]),
        Rule::new([Statement::set_priority(client(family), affinity.into())]),
        Rule::new([Statement::dnat(family, endpoint, path.affinity_endpoints().name().into())]),
        Rule::new([number]),
        Rule::new([Statement::forget(client(family), affinity.into())]),
        Rule::new([Statement::reset_priority()]),
    ]
}

/// Finds out which Service port a connection was for. nft can print a port only where the protocol is fixed.
fn remember(settings: &Settings, family: Family) -> Vec<Rule> {
    let port = vec![Expression::L4PROTO, Expression::ORIGINAL_DPORT];
    let frontend = [&[Expression::original_daddr(family)], &port[..]].concat();
    let timeout = Statement::Vmap(vec![Expression::PRIORITY], SetName::AffinityTimeouts.name().into());
    let rule = |protocol: u8, destination: &[Statement], key: &[Expression], numbers: SetName| {
        let is_protocol = Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(protocol));
        let number = Statement::set_priority(key.to_vec(), numbers.name().into());
        Rule::new([&[is_protocol], destination, &[number, timeout.clone()]].concat())
    };
    let mut rules = Vec::new();
    for protocol in PROTOCOLS.map(|protocol| protocol.number()) {
        rules.push(rule(protocol, &[], &frontend, SetName::AffinityFrontends));
        for destination in nodeport_destinations(settings, family, Expression::original_daddr(family)) {
            rules.push(rule(protocol, &destination, &port, SetName::AffinityNodePorts));
        }
    }
    rules
}

/// The rules of a chain that remembers a client's endpoint.
pub(super) fn remember_for(family: Family, timeout: u32) -> Vec<Rule> {
    let endpoint = vec![Expression::daddr(family), Expression::DPORT];
    let affinity = SetName::Affinity.name().into();
    vec![
        Rule::new([Statement::remember(client(family), timeout, endpoint, affinity)]),
        Rule::new([Statement::reset_priority()]),
    ]
}
