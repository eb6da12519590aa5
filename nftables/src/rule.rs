//! Rules: statements close to nft's own language, and how they print. Their encoding is in `rule/`.

use std::fmt;

use weft_netlink::Family;

use super::expression::{Ct, Expression, Fib};
use super::value::{Name, Value, concatenation};

mod assign;
pub(super) mod decode;
mod dynamic;
pub(super) mod encode;
mod limit;
mod log;
mod lookup;
mod matches;
mod nat;
mod native;
mod reject;
mod text;
mod verdict;
mod xt;

pub use assign::{Assign, Source};
pub use dynamic::{Dynamic, Operation};
pub use limit::Limit;
pub use log::Log;
pub(crate) use matches::Comparison;
pub use matches::{Match, Operand, Operator};
pub use nat::{Nat, Translation};
pub(crate) use native::native;
pub use reject::Reject;
pub use verdict::Verdict;
pub use xt::Xt;

/// `IPS_DST_NAT`, the bit of a connection's status.
const STATUS_DNAT: u32 = 1 << 5;
/// `NF_CT_STATE_INVALID_BIT`
const STATE_INVALID: u32 = 1;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`
const STATE_NEW: u32 = 1 << 3;
/// `RTN_LOCAL`, a type of address.
const ADDRESS_LOCAL: u32 = 2;

/// One statement of a rule. A packet that does not match one leaves the rule there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Statement {
    /// Goes on only where a comparison holds.
    Match(Match),
    /// Takes the verdict that a map holds for a concatenation; goes on where it holds none: `... vmap
    /// @frontends`
    Vmap(Vec<Expression>, Name),
    /// Rewrites an address: `dnat ip to ... map @endpoints`
    Nat(Nat),
    /// Writes a value where rules read it again: `meta priority set ... map @affinity`
    Assign(Assign),
    /// Changes an element of a set: `update @affinity { ... timeout 3h : jhash ... }`
    Dynamic(Dynamic),
    /// Keeps the packet out of connection tracking: `notrack`
    Notrack,
    /// Goes on as long as a rate is not exceeded: `limit rate 5/second`
    Limit(Limit),
    /// Logs the packet: `log prefix "dropped: " group 5`
    Log(Log),
    /// Counts packets, and the bytes of them. In a plan both are 0: `counter packets 0 bytes 0`
    Counter {
        /// How many packets came by.
        packets: u64,
        /// How many bytes they had.
        bytes: u64,
    },
    /// Lets the connection's further packets pass by the fast way of a flowtable: `flow add @fast`
    FlowAdd(Name),
    /// Tells the sender that the packet goes no further.
    Reject(Reject),
    /// Ends the rule.
    Verdict(Verdict),
    /// A match or a target of iptables, written as `iptables-nft` does: `-m comment --comment "why"`
    Xt(Xt),
    /// What another program wrote and of which not all is known. It is read, and never written.
    Other(Name, Effect),
}

/// What is known of a statement of which not all is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The rule goes on behind it.
    Continues,
    /// The rule goes on behind it, or does not apply.
    Matches,
    /// It rewrites an address and lets the packet through.
    Translates,
    /// It tells the sender that the packet goes no further.
    Rejects,
    /// Whether the rule goes on, or how it ends.
    Unknown,
}

impl Statement {
    /// Compares what one expression reads: `meta l4proto tcp`
    pub fn compare(expression: Expression, operator: Operator, value: impl Into<Operand>) -> Statement {
        Statement::Match(Match { expression: vec![expression], operator, value: value.into() })
    }

    /// Looks a concatenation up in a set: `ip saddr . ip daddr @hairpins`
    pub fn lookup(expression: Vec<Expression>, operator: Operator, set: Name) -> Statement {
        Statement::Match(Match { expression, operator, value: Operand::Set(set) })
    }

    /// The set whose elements packets change by it.
    pub(super) fn writes(&self) -> Option<&Name> {
        match self {
            Statement::Dynamic(dynamic) => Some(&dynamic.set),
            _ => None,
        }
    }

    /// Whether the connection's destination was rewritten: `ct status dnat`
    pub fn ct_status_dnat() -> Statement {
        let dnat = Operand::Bits(Value::CtStatus(STATUS_DNAT));
        Statement::compare(Ct::STATUS.into(), Operator::Equal, dnat)
    }

    /// Whether connection tracking cannot tell what a packet belongs to: `ct state invalid`
    pub fn ct_state_invalid() -> Statement {
        let invalid = Operand::Bits(Value::CtState(STATE_INVALID));
        Statement::compare(Ct::STATE.into(), Operator::Equal, invalid)
    }

    /// Whether a packet begins a connection: `ct state new`
    pub fn ct_state_new() -> Statement {
        let new = Operand::Bits(Value::CtState(STATE_NEW));
        Statement::compare(Ct::STATE.into(), Operator::Equal, new)
    }

    /// Whether the destination is an address of this machine: `fib daddr type local`
    pub fn fib_daddr_local() -> Statement {
        Statement::compare(Fib::DADDR_TYPE.into(), Operator::Equal, Value::AddressType(ADDRESS_LOCAL))
    }

    /// Whether the source is an address of this machine: `fib saddr type local`
    pub fn fib_saddr_local() -> Statement {
        Statement::compare(Fib::SADDR_TYPE.into(), Operator::Equal, Value::AddressType(ADDRESS_LOCAL))
    }

    /// Whether the packet would leave by the interface that it came by: `fib daddr . iif oif exists`
    pub fn fib_routed_back() -> Statement {
        Statement::compare(Fib::ROUTED_BACK.into(), Operator::Equal, Value::Exists(true))
    }

    /// Answers "port unreachable", in the words of that family: `reject`
    pub fn reject(family: Family) -> Statement {
        Statement::Reject(Reject::port_unreachable(family))
    }

    /// Answers with a TCP reset, which no limit of ICMP messages holds back. The rule must match TCP before:
    /// `reject with tcp reset`
    pub fn reset() -> Statement {
        Statement::Reject(Reject::TcpReset)
    }

    /// Rewrites the destination to the address and port that a map holds: `dnat ip to ... map @endpoints`
    pub fn dnat(family: Family, key: Vec<Expression>, map: Name) -> Statement {
        Statement::Nat(Nat::Destination(family, Translation::Map(key, map)))
    }

    /// Rewrites the source to an address of the outgoing interface, its port chosen at random:
    /// `masquerade fully-random`
    pub fn masquerade() -> Statement {
        Statement::Nat(Nat::Masquerade { is_fully_random: true })
    }

    /// Writes a value: `meta mark set 0x1`
    pub fn assign(target: Expression, source: Source) -> Statement {
        Statement::Assign(Assign { target, source })
    }

    /// Sets the packet's priority to what a map holds for a concatenation: `meta priority set ... map
    /// @affinity`
    pub fn set_priority(key: Vec<Expression>, map: Name) -> Statement {
        Statement::assign(Expression::PRIORITY, Source::Map(key, map))
    }

    /// Sets the packet's priority to what it is for most: `meta priority set none`
    pub fn reset_priority() -> Statement {
        Statement::assign(Expression::PRIORITY, Source::Value(Value::ClassId(0)))
    }

    /// Writes an element that expires after so many seconds; one that is there already only lives on. It
    /// holds the [`hash`](super::hash) of a concatenation.
    pub fn remember(key: Vec<Expression>, seconds: u32, hashed: Vec<Expression>, map: Name) -> Statement {
        let data = vec![Expression::hash_of(hashed)];
        let (operation, timeout) = (Operation::Update, Some(seconds));
        Statement::Dynamic(Dynamic { operation, set: map, key, timeout, data })
    }

    /// Puts a concatenation into an expiring set for so many seconds; one that is there already only lives
    /// on: `update @translated { ip daddr . th dport timeout 1d }`
    pub fn note(key: Vec<Expression>, seconds: u32, set: Name) -> Statement {
        let (operation, timeout) = (Operation::Update, Some(seconds));
        Statement::Dynamic(Dynamic { operation, set, key, timeout, data: Vec::new() })
    }

    /// Deletes an element of an expiring map, whatever it holds: `delete @affinity { ... : meta priority }`
    pub fn forget(key: Vec<Expression>, map: Name) -> Statement {
        let data = vec![Expression::PRIORITY];
        Statement::Dynamic(Dynamic { operation: Operation::Delete, set: map, key, timeout: None, data })
    }

    /// The set that it looks into.
    pub(crate) fn set(&self) -> Option<&Name> {
        match self {
            Statement::Match(Match { value: Operand::Set(set), .. })
            | Statement::Vmap(_, set)
            | Statement::Assign(Assign { source: Source::Map(_, set), .. }) => Some(set),
            Statement::Nat(nat) => nat.map().map(|(_, map)| map),
            _ => None,
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statement::Match(comparison) => comparison.fmt(f),
            Statement::Vmap(key, map) => {
                concatenation(f, key)?;
                write!(f, " vmap @{map}")
            }
            Statement::Nat(nat) => nat.fmt(f),
            Statement::Assign(assign) => assign.fmt(f),
            Statement::Dynamic(dynamic) => dynamic.fmt(f),
            Statement::Notrack => f.write_str("notrack"),
            Statement::Limit(limit) => limit.fmt(f),
            Statement::Log(log) => log.fmt(f),
            Statement::Counter { packets, bytes } => write!(f, "counter packets {packets} bytes {bytes}"),
            Statement::FlowAdd(flowtable) => write!(f, "flow add @{flowtable}"),
            Statement::Reject(reject) => reject.fmt(f),
            Statement::Verdict(verdict) => verdict.fmt(f),
            Statement::Xt(xt) => xt.fmt(f),
            Statement::Other(words, Effect::Matches | Effect::Unknown) => write!(f, "[{words}]"),
            Statement::Other(words, _) => f.write_str(words),
        }
    }
}

/// A rule: statements from left to right, and a remark for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Its statements.
    pub statements: Vec<Statement>,
    /// A remark that nft prints behind it; at most 127 bytes, no `"`.
    pub comment: Option<Name>,
}

impl Rule {
    /// A rule without a remark.
    pub fn new(statements: impl Into<Vec<Statement>>) -> Rule {
        Rule { statements: statements.into(), comment: None }
    }

    /// The protocol that its matches of iptables are for.
    pub(crate) fn xt_protocol(&self) -> Option<u8> {
        self.statements.iter().find_map(|statement| match statement {
            Statement::Xt(xt) => xt.protocol(),
            _ => None,
        })
    }

    /// The rule with a remark.
    pub fn comment(self, comment: &str) -> Rule {
        Rule { comment: Some(comment.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use ipnetwork::IpNetwork;

    use super::*;

    #[test]
    fn rules_print_in_nfts_own_language() {
        let key = vec![
            Expression::daddr(Family::Ip),
            Expression::L4PROTO,
            Expression::DPORT,
            Expression::random(3),
        ];
        let rule = Rule::new([Statement::dnat(Family::Ip, key, "endpoints".into())]).comment("one of 3");
        assert_eq!(
            rule.to_string(),
            "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints comment \"one of 3\""
        );
        let rule = Rule::new([
            Statement::compare(
                Expression::saddr(Family::Ip6),
                Operator::NotEqual,
                "fd00::/64".parse::<IpNetwork>().unwrap(),
            ),
            Statement::compare(Expression::OIFNAME, Operator::Equal, "eth0"),
            Statement::lookup(vec![Expression::saddr(Family::Ip6)], Operator::NotEqual, "pods".into()),
            Statement::Verdict(Verdict::Jump("elsewhere".into())),
        ]);
        let client = vec![Expression::saddr(Family::Ip), Expression::PRIORITY];
        let update =
            Statement::remember(client.clone(), 5_430, vec![Expression::daddr(Family::Ip)], "x".into());
        assert_eq!(
            Rule::new([Statement::set_priority(client, "x".into()), update]).to_string(),
            "meta priority set ip saddr . meta priority map @x update @x { ip saddr . meta priority timeout 1h30m30s : \
             jhash ip daddr mod 2147483648 seed 0x1 }"
        );
        assert_eq!(
            rule.to_string(),
            "ip6 saddr != fd00::/64 oifname \"eth0\" ip6 saddr != @pods jump elsewhere"
        );
    }
}
