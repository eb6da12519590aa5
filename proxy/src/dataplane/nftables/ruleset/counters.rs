//! Counters for each Service, where they are asked for: sets of frontends at whose elements the kernel counts, and the rules
//! that do nothing but look packets up in them.
//!
//! ```text
//! connections  { daddr . l4proto . dport }   asked where connections begin, behind what turns them away
//! received     { daddr . l4proto . dport }   asked for each packet, before its destination is rewritten
//! sent         { saddr . l4proto . sport }   asked for each packet, behind the rewriting of its source
//! ```
//!
//! So a connection's counters need no state but its own addresses, and elements stay while endpoints change. NodePorts have
//! sets of their own, without an address.

use weft_nftables::{Base, Expression, Family, Hook, Operator, PRIORITY_SRCNAT, Rule, Statement, Table};

use super::{PRIORITY, SetName, jump, nodeport_destinations};
use crate::config::Config;
use crate::services::plan::Frontend;

const RECEIVED: &str = "count-received";
const SENT: &str = "count-sent";

/// What is counted of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meter {
    /// First packets of connections.
    Connections,
    /// Packets from clients.
    Received,
    /// Packets to clients.
    Sent,
}

impl Meter {
    /// All of them.
    pub const ALL: [Meter; 3] = [Meter::Connections, Meter::Received, Meter::Sent];

    /// The sets in which it is counted: for addresses, and for NodePorts.
    pub fn sets(self) -> [SetName; 2] {
        match self {
            Meter::Connections => [SetName::Connections, SetName::NodePortConnections],
            Meter::Received => [SetName::Received, SetName::NodePortReceived],
            Meter::Sent => [SetName::Sent, SetName::NodePortSent],
        }
    }

    /// The set that has such a frontend.
    pub fn set(self, frontend: &Frontend) -> SetName {
        let [addresses, node_ports] = self.sets();
        match frontend {
            Frontend::Address(..) => addresses,
            Frontend::NodePort(..) => node_ports,
        }
    }

    fn rules(self, config: &Config, address: Expression, port: Expression, family: Family) -> Vec<Rule> {
        let [addresses, node_ports] = self.sets().map(|set| set.name().into());
        let at_address = vec![address, Expression::L4PROTO, port];
        let mut rules = vec![Rule::new([Statement::lookup(at_address, Operator::Equal, addresses)])];
        let of_node = nodeport_destinations(config, family, address).into_iter();
        rules.extend(of_node.map(|mut statements| {
            let key = vec![Expression::L4PROTO, port];
            statements.push(Statement::lookup(key, Operator::Equal, node_ports.clone()));
            Rule::new(statements)
        }));
        rules
    }
}

/// Counts a connection that begins.
pub(super) fn connections(config: &Config, family: Family) -> Vec<Rule> {
    match config.service_counters {
        true => Meter::Connections.rules(config, Expression::daddr(family), Expression::DPORT, family),
        false => Vec::new(),
    }
}

/// The chains that see all packets. Each packet comes by one of those on its way in, and by one on its way out.
pub(super) fn chains(table: &mut Table, config: &Config) {
    if !config.service_counters {
        return;
    }
    let family = table.family;
    let received = Meter::Received.rules(config, Expression::daddr(family), Expression::DPORT, family);
    let sent = Meter::Sent.rules(config, Expression::saddr(family), Expression::SPORT, family);
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
