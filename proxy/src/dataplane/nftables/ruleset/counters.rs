//! Counters for each Service, where they are asked for: sets of frontends at whose elements the kernel
//! counts, and the rules that do nothing but look packets up in them.
//!
//! ```text
//! connections  { daddr . l4proto . dport }   asked where connections begin, behind what turns them away
//! received     { daddr . l4proto . dport }   asked for each packet, before its destination is rewritten
//! sent         { saddr . l4proto . sport }   asked for each packet, behind the rewriting of its source
//! ```
//!
//! So a connection's counters need no state but its own addresses, and elements stay while endpoints change.
//! NodePorts have sets of their own, without an address.

use weft_nftables::{Base, Expression, Family, Hook, Operator, PRIORITY_SRCNAT, Rule, Statement, Table};

use super::{PRIORITY, SetName, jump, nodeport_destinations};
use crate::counters::Meter;
use crate::dataplane::settings::Settings;
use crate::services::plan::Frontend;

const RECEIVED: &str = "count-received";
const SENT: &str = "count-sent";

/// The sets in which it is counted: for addresses, and for NodePorts.
pub fn meter_sets(meter: Meter) -> [SetName; 2] {
    match meter {
        Meter::Connections => [SetName::Connections, SetName::NodePortConnections],
        Meter::Received => [SetName::Received, SetName::NodePortReceived],
        Meter::Sent => [SetName::Sent, SetName::NodePortSent],
    }
}

/// The set that has such a frontend.
pub(in super::super) fn meter_set(meter: Meter, frontend: &Frontend) -> SetName {
    let [addresses, node_ports] = meter_sets(meter);
    match frontend {
        Frontend::Address(..) => addresses,
        Frontend::NodePort(..) => node_ports,
    }
}

fn rules(
    meter: Meter,
    settings: &Settings,
    address: Expression,
    port: Expression,
    family: Family,
) -> Vec<Rule> {
    let [addresses, node_ports] = meter_sets(meter).map(|set| set.name().into());
    let at_address = vec![address.clone(), Expression::L4PROTO, port.clone()];
    let mut rules = vec![Rule::new([Statement::lookup(at_address, Operator::Equal, addresses)])];
    let of_node = nodeport_destinations(settings, family, address).into_iter();
    rules.extend(of_node.map(|mut statements| {
        let key = vec![Expression::L4PROTO, port.clone()];
        statements.push(Statement::lookup(key, Operator::Equal, node_ports.clone()));
        Rule::new(statements)
    }));
    rules
}

/// Counts a connection that begins.
pub(super) fn connections(settings: &Settings, family: Family) -> Vec<Rule> {
    match settings.config.service_counters {
        true => rules(Meter::Connections, settings, Expression::daddr(family), Expression::DPORT, family),
        false => Vec::new(),
    }
}

/// The chains that see all packets. Each packet comes by one of those on its way in, and by one on its way
/// out.
pub(super) fn chains(table: &mut Table, family: Family, settings: &Settings) {
    if !settings.config.service_counters {
        return;
    }
    let received = rules(Meter::Received, settings, Expression::daddr(family), Expression::DPORT, family);
    let sent = rules(Meter::Sent, settings, Expression::saddr(family), Expression::SPORT, family);
    table.chain(RECEIVED, None, received);
    table.chain(SENT, None, sent);
    let mut base = |name: &str, hook, priority, statements: &[Statement]| {
        table.chain(name, Some(Base::filter(hook, priority)), vec![Rule::new(statements)]);
    };
    base("count-prerouting", Hook::Prerouting, PRIORITY - 1, &[jump(RECEIVED)]);
    base("count-output", Hook::Output, PRIORITY - 1, &[jump(RECEIVED)]);
    base("count-postrouting", Hook::Postrouting, PRIORITY_SRCNAT + 1, &[jump(SENT)]);
    // What this node answers to itself has left by postrouting before.
    let from_elsewhere = Statement::compare(Expression::IIFNAME, Operator::NotEqual, "lo");
    base("count-input", Hook::Input, PRIORITY_SRCNAT + 1, &[from_elsewhere, jump(SENT)]);
}
