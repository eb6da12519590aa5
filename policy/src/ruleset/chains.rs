//! The chains, which are the same for all plans.

use weft_nftables::{
    Base, Ct, Expression, Family, Header, Hook, Limit, Log, Operand, Operator, PRIORITY_FILTER, Payload,
    Rule, Statement, Table, Value, Verdict,
};

use super::{Denied, ENTERING, IPVS_ENTERING, LOG_RATE, Names, denying_chain, log_prefix, refused};
use crate::pending;
use crate::plan::Direction;

/// `IPPROTO_ICMPV6`
const ICMPV6: u8 = 58;
/// The flag of a TCP segment that resets a connection.
const RST: u8 = 4;

/// Adds all chains.
pub(super) fn add(family: Family, denied: Denied, table: &mut Table) {
    let (source, destination) = (Expression::saddr(family), Expression::daddr(family));
    let (ingress, egress) = (Names::of(Direction::Ingress), Names::of(Direction::Egress));
    // What leaves a pod goes first, as it comes first on the packet's way.
    let mut leaving: Vec<Rule> = pending::refusals(family).into();
    leaving.push(refused::rule(family));
    leaving.extend([
        Rule::new([within(&[&source], egress.closed), goto("leave")]),
        Rule::new([within(&[&source], egress.open), goto("leave-open")]),
    ]);
    // A connection that was cut must not come back by the answers of its other end.
    leaving
        .extend([ingress.closed, ingress.open].map(|set| Rule::new([within(&[&source], set), goto("late")])));
    let mut entering = vec![
        Rule::new([within(&[&destination], ingress.closed), goto("enter")]),
        Rule::new([within(&[&destination], ingress.open), goto("enter-open")]),
    ];
    entering.extend(
        [egress.closed, egress.open].map(|set| Rule::new([within(&[&destination], set), goto("late")])),
    );
    let passing = always_passing(family);
    let ipvs = || [Rule::new([is_known(), accept()]), pending::from_the_node(), passing_resets()];
    let forwarded = || [Rule::new([is_known(), accept()])];
    let rules = |first: &[Rule], last: &[Rule]| [first, &passing, last].concat();
    let after = PRIORITY_FILTER + 1;
    table.chain(pending::CHAIN, Some(pending::base()), rules(&forwarded(), &leaving));
    table.chain(ENTERING, Some(Base::filter(Hook::Forward, after)), rules(&forwarded(), &entering));
    table.chain(pending::IPVS_CHAIN, Some(pending::ipvs_base()), rules(&ipvs(), &leaving));
    table.chain(IPVS_ENTERING, Some(Base::filter(Hook::Output, after)), rules(&ipvs(), &entering));
    for (way, direction, pod, peer) in [
        ("leave", Direction::Egress, &source, &destination),
        ("enter", Direction::Ingress, &destination, &source),
    ] {
        let (names, denied_chain) = (Names::of(direction), denying_chain(direction));
        let judge = |rows: &str| vec![cut_late(), Rule::new([jump(rows)]), Rule::new([goto(denied_chain)])];
        table.chain(denied_chain, None, deny(family, denied, direction));
        let rows = format!("{way}-rows");
        table.chain(way, None, judge(&rows));
        table.chain(rows, None, look_up(pod, peer, &names));
        let (open, rows) = (format!("{way}-open"), format!("{way}-open-rows"));
        table.chain(open, None, judge(&rows));
        let mut all = look_up(pod, peer, &names);
        all.push(Rule::new([accept()]));
        table.chain(rows, None, all);
    }
    table.chain("late", None, vec![cut_late()]);
    table.chain("cut", None, vec![Rule::new([is_tcp(), Statement::reset()]), Rule::new([drop()])]);
}

/// What passes whatever policies say.
fn always_passing(family: Family) -> Vec<Rule> {
    let (source, destination) = (Expression::saddr(family), Expression::daddr(family));
    let mut rules = vec![Rule::new([within(&[&source, &destination], "self"), accept()])];
    // Between pods of one bridge, where the bridge shows its packets to this hook.
    rules.extend((family == Family::Ip6).then(|| Rule::new(is_neighbour_discovery(accept()))));
    rules
}

/// A reset that the kernel sends in the name of another machine, where it refuses a packet, leaves by the
/// hook `output` with that machine's address. Without a connection there is nothing that it could begin.
fn passing_resets() -> Rule {
    let flags = Operand::Masked { mask: Value::TcpFlags(RST), value: Value::TcpFlags(RST) };
    Rule::new([is_tcp(), Statement::compare(Payload::TCP_FLAGS.into(), Operator::Equal, flags), accept()])
}

/// The rows of the peer's class, and then those for all. What lets traffic through ends the base chain; what
/// denies it, and the end of these rules, return.
fn look_up(pod: &Expression, peer: &Expression, names: &Names) -> Vec<Rule> {
    let [exact, protocol, any] = names.rows.map(Into::into);
    let rule = |key: &[Expression], map: &weft_nftables::Name| {
        let key = std::iter::once(pod).chain(key).cloned().collect();
        Rule::new([Statement::Vmap(key, map.clone())])
    };
    let (class, in_order) = (Expression::PRIORITY, Expression::PRIORITY.in_network_order());
    let (proto, port) = (Expression::L4PROTO, Expression::DPORT);
    let set = |key: &[&Expression], map: &str| {
        let key = key.iter().map(|it| (*it).clone()).collect();
        Rule::new([Statement::set_priority(key, map.into())])
    };
    // Forwarding sets a priority of its own, by the type of service.
    let none = || Rule::new([Statement::reset_priority()]);
    let of_peer = || [none(), set(&[peer], "networks"), set(&[peer], "peers")];
    let ranges =
        Rule::new([Statement::Vmap(vec![in_order, proto.clone(), port.clone()], names.ranges.into())]);
    // The list of ranges takes the class's place for a moment.
    let first = || {
        [
            rule(&[class.clone(), proto.clone(), port.clone()], &exact),
            set(&[pod, &class], names.lists),
            ranges.clone(),
        ]
    };
    let last =
        || [rule(&[class.clone(), proto.clone()], &protocol), rule(std::slice::from_ref(&class), &any)];
    let mut rules: Vec<Rule> = of_peer().into();
    rules.extend(first());
    rules.extend(of_peer());
    rules.extend(last());
    for half in [first().to_vec(), last().to_vec()] {
        rules.push(none());
        rules.extend(half);
    }
    rules
}

fn deny(family: Family, denied: Denied, direction: Direction) -> Vec<Rule> {
    let mut rules = Vec::new();
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
