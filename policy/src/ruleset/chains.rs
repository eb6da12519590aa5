//! The chains, which are the same for all plans.

use weft_nftables::{
    Ct, Expression, Family, Header, Limit, Log, Operand, Operator, Payload, Rule, Statement, Table, Value,
    Verdict,
};

use super::{Denied, ENTERING, LEAVING, LOG_RATE, Names, denying_chain, log_prefix, refused};
use crate::pending;
use crate::plan::Direction;

/// `IPPROTO_ICMPV6`
const ICMPV6: u8 = 58;
/// The flag of a TCP segment that resets a connection.
const RST: u8 = 4;

/// Adds all chains. One base chain is all that a packet passes: of most packets, one rule of it.
pub(super) fn add(family: Family, denied: Denied, table: &mut Table) {
    let (source, destination) = (Expression::saddr(family), Expression::daddr(family));
    let (ingress, egress) = (Names::of(Direction::Ingress), Names::of(Direction::Egress));
    let judged = || pending::refusals(family).into_iter().chain([Rule::new([goto(LEAVING)])]);
    let is_known = || Rule::new([is_known(), accept()]);
    let forwarded = [is_known()].into_iter().chain(judged()).collect();
    let by_ipvs = [is_known(), pending::from_the_node(), passing_resets()].into_iter().chain(judged());
    table.chain(pending::CHAIN, Some(pending::base()), forwarded);
    table.chain(pending::IPVS_CHAIN, Some(pending::ipvs_base()), by_ipvs.collect());
    // What leaves a pod goes first, as it comes first on the packet's way.
    let mut leaving: Vec<Rule> = Vec::new();
    if family == Family::Ip6 {
        leaving.push(Rule::new(is_neighbour_discovery(accept())));
    }
    leaving.push(refused::rule(family));
    leaving.extend([
        Rule::new([within(&[&source], egress.closed), goto("leave")]),
        Rule::new([within(&[&source], egress.open), goto("leave-open")]),
    ]);
    // A connection that was cut must not come back by the answers of its other end.
    leaving
        .extend([ingress.closed, ingress.open].map(|set| Rule::new([within(&[&source], set), jump("late")])));
    leaving.push(Rule::new([goto(ENTERING)]));
    table.chain(LEAVING, None, leaving);
    let mut entering = vec![
        Rule::new([within(&[&destination], ingress.closed), goto("enter")]),
        Rule::new([within(&[&destination], ingress.open), goto("enter-open")]),
    ];
    entering.extend(
        [egress.closed, egress.open].map(|set| Rule::new([within(&[&destination], set), goto("late")])),
    );
    table.chain(ENTERING, None, entering);
    for (way, direction, pod, peer) in [
        ("leave", Direction::Egress, &source, &destination),
        ("enter", Direction::Ingress, &destination, &source),
    ] {
        let denied_chain = denying_chain(direction);
        table.chain(denied_chain, None, deny(family, denied, direction));
        let names = Names::of(direction);
        let asked = Asked { pod, names: &names, denied: denied_chain };
        // Where a pod is open, all passes without a row.
        for (chain, end) in [(way.to_owned(), Some(denied_chain)), (format!("{way}-open"), None)] {
            let [rows, rows_for_all] = ["rows", "rows-for-all"].map(|end| format!("{chain}-{end}"));
            let judge = match direction {
                Direction::Egress => vec![Rule::new([jump(&rows)]), Rule::new([goto(ENTERING)])],
                Direction::Ingress => vec![Rule::new([goto(&rows)])],
            };
            table.chain(chain, None, [vec![cut_late()], judge].concat());
            table.chain(rows, None, asked.look_up(peer, &rows_for_all));
            table.chain(rows_for_all, None, asked.for_all(end));
        }
    }
    table.chain("late", None, vec![cut_late()]);
    let cut = vec![passing_itself(family), Rule::new([is_tcp(), Statement::reset()]), Rule::new([drop()])];
    table.chain("cut", None, cut);
}

/// A pod reaches itself, whatever policies say. That is asked where something is to be denied, and not of all
/// traffic.
fn passing_itself(family: Family) -> Rule {
    let ends = [Expression::saddr(family), Expression::daddr(family)];
    Rule::new([within(&ends.each_ref(), "self"), accept()])
}

/// A reset that the kernel sends in the name of another machine, where it refuses a packet, leaves by the
/// hook `output` with that machine's address. Without a connection there is nothing that it could begin.
fn passing_resets() -> Rule {
    let flags = Operand::Masked { mask: Value::TcpFlags(RST), value: Value::TcpFlags(RST) };
    Rule::new([is_tcp(), Statement::compare(Payload::TCP_FLAGS.into(), Operator::Equal, flags), accept()])
}

/// Whose rows are asked, and where what a row denies goes to.
struct Asked<'a> {
    pod: &'a Expression,
    names: &'a Names,
    denied: &'a str,
}

impl Asked<'_> {
    /// The rows of the peer's class, and then those for all; these alone where the peer is of no class. What
    /// lets traffic through returns.
    fn look_up(&self, peer: &Expression, for_all: &str) -> Vec<Rule> {
        // Networks are asked for the few that are no pods and no nodes: to look into ranges takes longer.
        let of_peer = || {
            [
                no_class(),
                Rule::new([set_class(&[peer], "peers")]),
                Rule::new([is_of_no_class(), set_class(&[peer], "networks")]),
            ]
        };
        let mut rules: Vec<Rule> = of_peer().into();
        rules.push(Rule::new([is_of_no_class(), goto(for_all)]));
        rules.extend(self.rows_of_ports());
        rules.extend(of_peer());
        rules.extend(self.rows_without_ports());
        rules.push(Rule::new([goto(for_all)]));
        rules
    }

    /// The rows that hold for all peers, and where to go without one of them; nowhere where all passes then.
    fn for_all(&self, end: Option<&str>) -> Vec<Rule> {
        let ports = [no_class()].into_iter().chain(self.rows_of_ports());
        let rows = ports.chain([no_class()]).chain(self.rows_without_ports());
        rows.chain(end.map(|end| Rule::new([goto(end)]))).collect()
    }

    /// The rows of the packet's class with that port. The list of ranges takes the class's place.
    fn rows_of_ports(&self) -> [Rule; 3] {
        let (class, in_order) = (Expression::PRIORITY, Expression::PRIORITY.in_network_order());
        let (proto, port) = (Expression::L4PROTO, Expression::DPORT);
        [
            self.rows(&[self.pod, &class, &proto, &port], self.names.rows[0]),
            Rule::new([set_class(&[self.pod, &class], self.names.lists)]),
            self.rows(&[&in_order, &proto, &port], self.names.ranges),
        ]
    }

    fn rows_without_ports(&self) -> [Rule; 2] {
        let (class, proto) = (Expression::PRIORITY, Expression::L4PROTO);
        [
            self.rows(&[self.pod, &class, &proto], self.names.rows[1]),
            self.rows(&[self.pod, &class], self.names.rows[2]),
        ]
    }

    fn rows(&self, key: &[&Expression], map: &str) -> Rule {
        let found = Statement::Vmap(key.iter().map(|it| (*it).clone()).collect(), map.into());
        Rule::new([found, goto(self.denied)])
    }
}

fn set_class(key: &[&Expression], map: &str) -> Statement {
    Statement::set_priority(key.iter().map(|it| (*it).clone()).collect(), map.into())
}

/// Forwarding sets a priority of its own, by the type of service.
fn no_class() -> Rule {
    Rule::new([Statement::reset_priority()])
}

fn is_of_no_class() -> Statement {
    Statement::compare(Expression::PRIORITY, Operator::Equal, Value::ClassId(0))
}

fn deny(family: Family, denied: Denied, direction: Direction) -> Vec<Rule> {
    let mut rules = vec![passing_itself(family)];
    if let Some(group) = denied.log_group {
        let prefix = Some(log_prefix(direction).as_str().into());
        let log = Log { prefix, group: Some(group), ..Log::default() };
        let limit = Limit { burst: LOG_RATE, ..Limit::packets(LOG_RATE.into(), 1) };
        rules.push(Rule::new([Statement::Limit(limit), Statement::Log(log)]));
    }
    let counter = Statement::Counter { packets: 0, bytes: 0 };
    if denied.rejects {
        rules.push(Rule::new([counter]));
        rules.push(Rule::new([is_tcp(), Statement::reset()]));
        rules.push(Rule::new([Statement::reject(family)]));
    } else {
        rules.push(Rule::new([counter, drop()]));
    }
    rules
}

/// TCP in the middle of a connection that nobody knows any more.
fn cut_late() -> Rule {
    let flags = Operand::Masked { mask: Value::TcpFlags(0x12), value: Value::TcpFlags(0x02) };
    let is_late = Statement::compare(Payload::TCP_FLAGS.into(), Operator::NotEqual, flags);
    Rule::new([is_tcp(), is_late, goto("cut")])
}

/// `ct state established,related`
fn is_known() -> Statement {
    Statement::compare(Ct::STATE.into(), Operator::Equal, Operand::Bits(Value::CtState(2 | 4)))
}

/// ICMPv6 by which neighbours find each other, types 133 to 137 (RFC 4861, section 4): without it there is no
/// traffic to judge.
fn is_neighbour_discovery(end: Statement) -> [Statement; 4] {
    let kind = Expression::Payload(Payload { header: Header::Transport, offset: 0, length: 1 });
    let compare = |operator, number: u8| {
        Statement::compare(kind.clone(), operator, Operand::Bytes { mask: None, bytes: [number].into() })
    };
    let icmpv6 = Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(ICMPV6));
    [icmpv6, compare(Operator::AtLeast, 133), compare(Operator::AtMost, 137), end]
}

fn is_tcp() -> Statement {
    Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(6))
}

fn within(key: &[&Expression], set: &str) -> Statement {
    let key = key.iter().map(|it| (*it).clone()).collect();
    Statement::lookup(key, Operator::Equal, set.into())
}

fn accept() -> Statement {
    Statement::Verdict(Verdict::Accept)
}

fn drop() -> Statement {
    Statement::Verdict(Verdict::Drop)
}

fn jump(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Jump(chain.into()))
}

fn goto(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Goto(chain.into()))
}
