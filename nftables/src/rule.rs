//! Rules: statements close to nft's own language, and how they print. Their encoding is in `expression.rs`.

use std::fmt;

use ipnetwork::IpNetwork;

use super::hash::{HASH_MODULUS, HASH_SEED};
use super::value::{DataType, Name, Value, concatenation};
use weft_netlink::Family;

/// What a packet or its connection is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The packet's source address: `ip saddr`
    Saddr(Family),
    /// The packet's destination address: `ip daddr`
    Daddr(Family),
    /// The transport protocol: `meta l4proto`
    L4Proto,
    /// The transport source port: `th sport`
    Sport,
    /// The transport destination port: `th dport`
    Dport,
    /// The address that the connection's first packet was sent to: `ct original ip daddr`
    OriginalDaddr(Family),
    /// The port that the connection's first packet was sent to: `ct original proto-dst`. nft knows its type only
    /// behind a match on one transport protocol in the same rule.
    OriginalDport,
    /// The packet's priority: `meta priority`. Rules use it to hand a number on to the next rule.
    Priority,
    /// A random number from 0 to one below this: `numgen random mod N`
    Random(u32),
}

impl Selector {
    /// The type of its value.
    pub fn data_type(self) -> DataType {
        match self {
            Selector::Saddr(family) | Selector::Daddr(family) | Selector::OriginalDaddr(family) => {
                DataType::address(family)
            }
            Selector::L4Proto => DataType::InetProto,
            Selector::Sport | Selector::Dport | Selector::OriginalDport => DataType::InetService,
            Selector::Random(_) => DataType::Integer,
            Selector::Priority => DataType::ClassId,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Saddr(family) => write!(f, "{family} saddr"),
            Selector::Daddr(family) => write!(f, "{family} daddr"),
            Selector::L4Proto => f.write_str("meta l4proto"),
            Selector::Sport => f.write_str("th sport"),
            Selector::Dport => f.write_str("th dport"),
            Selector::OriginalDaddr(family) => write!(f, "ct original {family} daddr"),
            Selector::OriginalDport => f.write_str("ct original proto-dst"),
            Selector::Priority => f.write_str("meta priority"),
            Selector::Random(modulus) => write!(f, "numgen random mod {modulus}"),
        }
    }
}

/// Whether a comparison asks for equality or for the contrary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Is {
    /// The value, or one of the set.
    Equal,
    /// Any other (`!=`).
    NotEqual,
}

impl fmt::Display for Is {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Is::Equal => "",
            Is::NotEqual => "!= ",
        })
    }
}

/// An interface of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interface {
    /// The one that it came in by: `iifname`
    Input,
    /// The one that it leaves by: `oifname`
    Output,
}

/// Where a packet goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Through: `accept`
    Accept,
    /// Nowhere: `drop`
    Drop,
    /// Back to the calling chain: `return`
    Return,
    /// To a chain, and back: `jump`
    Jump(Name),
    /// To a chain, for good: `goto`
    Goto(Name),
}

impl Verdict {
    /// The chain that it names.
    pub fn chain(&self) -> Option<&Name> {
        match self {
            Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
            Verdict::Accept | Verdict::Drop | Verdict::Return => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Return => f.write_str("return"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

/// One statement of a rule. A packet that does not match one leaves the rule there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Statement {
    /// Compares with a constant: `meta l4proto tcp`
    Match(Selector, Is, Value),
    /// Compares an address with a network: `ip saddr != 10.244.0.0/16`. The selector must be an address of the
    /// network's family.
    MatchNetwork(Selector, Is, IpNetwork),
    /// Compares an interface's name: `iifname "cni0"`; a `*` at its end stands for any rest: `iifname "veth*"`. A packet that
    /// came through none has an empty one.
    MatchInterface(Interface, Is, Name),
    /// Whether the connection's destination was rewritten: `ct status dnat`
    Dnatted,
    /// Whether connection tracking cannot tell what a packet belongs to: `ct state invalid`
    Invalid,
    /// Whether the destination is an address of this machine: `fib daddr type local`
    ToLocal,
    /// Whether the source is an address of this machine: `fib saddr type local`
    FromLocal,
    /// Whether the packet would leave by the interface that it came by: `fib daddr . iif oif exists`
    RoutedBack,
    /// Looks a concatenation up in a set: `ip saddr . ip daddr @hairpins`
    Lookup(Vec<Selector>, Is, Name),
    /// Takes the verdict that a map holds for a concatenation; goes on where it holds none: `... vmap @frontends`
    Vmap(Vec<Selector>, Name),
    /// Rewrites the destination to the address and port that a map holds: `dnat ip to ... map @endpoints`
    Dnat(Family, Vec<Selector>, Name),
    /// Sets the packet's priority to what a map holds for a concatenation: `meta priority set ... map @affinity`
    SetPriority(Vec<Selector>, Name),
    /// Sets the packet's priority to what it is for most: `meta priority set none`
    ResetPriority,
    /// Writes an element that expires after so many seconds; one that is there already only lives on. It holds the
    /// [`hash`](super::hash) of a concatenation: `update @affinity { ... timeout 3h : jhash ... }`
    Update(Vec<Selector>, u32, Vec<Selector>, Name),
    /// Puts a concatenation into an expiring set for so many seconds; one that is there already only lives on:
    /// `update @translated { ip daddr . th dport timeout 1d }`
    Note(Vec<Selector>, u32, Name),
    /// Deletes an element of an expiring map, whatever it holds: `delete @affinity { ... : meta priority }`
    Delete(Vec<Selector>, Name),
    /// Rewrites the source to an address of the outgoing interface, its port chosen at random:
    /// `masquerade fully-random`
    Masquerade,
    /// Keeps the packet out of connection tracking: `notrack`
    Notrack,
    /// Answers "port unreachable", in the words of that family: `reject`
    Reject(Family),
    /// Answers with a TCP reset, which no limit of ICMP messages holds back. The rule must match TCP before:
    /// `reject with tcp reset`
    Reset,
    /// Ends the rule.
    Verdict(Verdict),
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statement::Match(selector, is, value) => write!(f, "{selector} {is}{value}"),
            Statement::MatchNetwork(selector, is, network) => write!(f, "{selector} {is}{network}"),
            Statement::MatchInterface(Interface::Input, is, name) => write!(f, "iifname {is}\"{name}\""),
            Statement::MatchInterface(Interface::Output, is, name) => write!(f, "oifname {is}\"{name}\""),
            Statement::Dnatted => f.write_str("ct status dnat"),
            Statement::Invalid => f.write_str("ct state invalid"),
            Statement::ToLocal => f.write_str("fib daddr type local"),
            Statement::FromLocal => f.write_str("fib saddr type local"),
            Statement::RoutedBack => f.write_str("fib daddr . iif oif exists"),
            Statement::Lookup(key, is, set) => {
                concatenation(f, key)?;
                write!(f, " {is}@{set}")
            }
            Statement::Vmap(key, map) => {
                concatenation(f, key)?;
                write!(f, " vmap @{map}")
            }
            Statement::Dnat(family, key, map) => {
                write!(f, "dnat {family} to ")?;
                concatenation(f, key)?;
                write!(f, " map @{map}")
            }
            Statement::SetPriority(key, map) => {
                f.write_str("meta priority set ")?;
                concatenation(f, key)?;
                write!(f, " map @{map}")
            }
            Statement::ResetPriority => f.write_str("meta priority set none"),
            Statement::Update(key, timeout, hashed, map) => {
                write!(f, "update @{map} {{ ")?;
                concatenation(f, key)?;
                write!(f, " timeout {} : jhash ", Seconds(*timeout))?;
                concatenation(f, hashed)?;
                write!(f, " mod {HASH_MODULUS} seed {HASH_SEED:#x} }}")
            }
            Statement::Note(key, timeout, set) => {
                write!(f, "update @{set} {{ ")?;
                concatenation(f, key)?;
                write!(f, " timeout {} }}", Seconds(*timeout))
            }
            Statement::Delete(key, map) => {
                write!(f, "delete @{map} {{ ")?;
                concatenation(f, key)?;
                f.write_str(" : meta priority }")
            }
            Statement::Masquerade => f.write_str("masquerade fully-random"),
            Statement::Notrack => f.write_str("notrack"),
            Statement::Reject(_) => f.write_str("reject"),
            Statement::Reset => f.write_str("reject with tcp reset"),
            Statement::Verdict(verdict) => verdict.fmt(f),
        }
    }
}

/// A time as nft prints it: `1h30m`.
struct Seconds(u32);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for (length, unit) in [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")] {
            if rest >= length || (unit == "s" && self.0 == 0) {
                write!(f, "{}{unit}", rest / length)?;
            }
            rest %= length;
        }
        Ok(())
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

    /// The rule with a remark.
    pub fn comment(self, comment: &str) -> Rule {
        Rule { comment: Some(comment.into()), ..self }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, statement) in self.statements.iter().enumerate() {
            write!(f, "{}{statement}", if index == 0 { "" } else { " " })?;
        }
        match &self.comment {
            Some(comment) => write!(f, " comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_print_in_nfts_own_language() {
        let key = vec![Selector::Daddr(Family::Ip), Selector::L4Proto, Selector::Dport, Selector::Random(3)];
        let rule = Rule::new([Statement::Dnat(Family::Ip, key, "endpoints".into())]).comment("one of 3");
        assert_eq!(
            rule.to_string(),
            "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints comment \"one of 3\""
        );
        let rule = Rule::new([
            Statement::MatchNetwork(Selector::Saddr(Family::Ip6), Is::NotEqual, "fd00::/64".parse().unwrap()),
            Statement::MatchInterface(Interface::Output, Is::Equal, "eth0".into()),
            Statement::Lookup(vec![Selector::Saddr(Family::Ip6)], Is::NotEqual, "pods".into()),
            Statement::Verdict(Verdict::Jump("elsewhere".into())),
        ]);
        let client = vec![Selector::Saddr(Family::Ip), Selector::Priority];
        let update = Statement::Update(client.clone(), 5_430, vec![Selector::Daddr(Family::Ip)], "x".into());
        assert_eq!(
            Rule::new([Statement::SetPriority(client, "x".into()), update]).to_string(),
            "meta priority set ip saddr . meta priority map @x update @x { ip saddr . meta priority timeout 1h30m30s : \
             jhash ip daddr mod 2147483648 seed 0x1 }"
        );
        assert_eq!(
            rule.to_string(),
            "ip6 saddr != fd00::/64 oifname \"eth0\" ip6 saddr != @pods jump elsewhere"
        );
    }
}
