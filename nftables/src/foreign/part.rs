//! What rules of other programs are made of, and how it prints: close to nft's words, and never more than is known.

use std::fmt;

use super::super::rule::{Interface, Is, Selector, Verdict};
use super::super::value::{DataType, Name, Tuple, Value};
use super::keys;

/// What a packet or its connection is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// What our own rules ask for, too.
    Selector(Selector),
    /// The name of an interface.
    Interface(Interface),
    /// `ct state`: one of `NF_CT_STATE_BIT`.
    State,
    /// The same as iptables has it: with bits for rewritten addresses (`XT_CONNTRACK_STATE_*`).
    XtState,
    /// `ct status`: bits of `enum ip_conntrack_status`.
    Status,
    /// `meta nfproto`: the family.
    Family,
    /// `fib daddr type`, or that of the source: these `NFTA_FIB_F_*`.
    AddressType(u32),
    /// Something else.
    Other(Name),
}

/// What a rule does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Goes on only where the loaded bytes, masked, begin with these, or where they do not.
    Compare {
        /// What is compared.
        load: Load,
        /// Which of its bits.
        mask: Option<Vec<u8>>,
        /// Whether it must be equal.
        is: Is,
        /// With what.
        constant: Vec<u8>,
    },
    /// Goes on only where a set has that, or has not.
    Lookup(Vec<Load>, Is, Name),
    /// Takes the verdict that a map holds for that; goes on where it holds none.
    Vmap(Vec<Load>, Name),
    /// Ends the rule.
    Verdict(Verdict),
    /// Tells the sender that the packet goes no further.
    Reject,
    /// Goes on: it counts, logs, or notes something.
    Passes(Name),
    /// Rewrites an address, and lets the packet through.
    Rewrites(Name),
    /// Whether it goes on, or how it ends, is not known.
    Unknown(Name),
}

impl Part {
    /// The set that it looks into.
    pub(super) fn set(&self) -> Option<&Name> {
        match self {
            Part::Lookup(.., set) | Part::Vmap(_, set) => Some(set),
            _ => None,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Load::Selector(selector) => selector.fmt(f),
            Load::Interface(Interface::Input) => f.write_str("iifname"),
            Load::Interface(Interface::Output) => f.write_str("oifname"),
            Load::State | Load::XtState => f.write_str("ct state"),
            Load::Status => f.write_str("ct status"),
            Load::Family => f.write_str("meta nfproto"),
            Load::AddressType(1) => f.write_str("fib saddr type"),
            Load::AddressType(_) => f.write_str("fib daddr type"),
            Load::Other(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Compare { load, mask, is, constant } => {
                // That some bit is set, or none.
                let bits = mask.as_deref().filter(|_| constant.iter().all(|byte| *byte == 0));
                match bits.and_then(|mask| words(load, mask)) {
                    Some(words) => {
                        let is = if *is == Is::Equal { Is::NotEqual } else { Is::Equal };
                        write!(f, "{load} {is}{words}")
                    }
                    None => write!(f, "{load} {is}{}", shown(load, mask.as_deref(), constant)),
                }
            }
            Part::Lookup(key, is, set) => {
                keys(f, key)?;
                write!(f, " {is}@{set}")
            }
            Part::Vmap(key, map) => {
                keys(f, key)?;
                write!(f, " vmap @{map}")
            }
            Part::Verdict(verdict) => verdict.fmt(f),
            Part::Reject => f.write_str("reject"),
            Part::Passes(name) | Part::Rewrites(name) => f.write_str(name),
            Part::Unknown(name) => write!(f, "[{name}]"),
        }
    }
}

/// The names of the bits of a connection's state or status.
fn words(load: &Load, bits: &[u8]) -> Option<String> {
    let names: &[(u32, &str)] = match load {
        Load::State => &[(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")],
        Load::XtState => {
            &[(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "snat"), (128, "dnat")]
        }
        Load::Status => &[(16, "snat"), (32, "dnat")],
        _ => return None,
    };
    let bits = u32::from_ne_bytes(bits.try_into().ok()?);
    let set: Vec<&str> = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    Some(set.join(","))
}

fn shown(load: &Load, mask: Option<&[u8]>, constant: &[u8]) -> String {
    let known = match load {
        Load::Interface(_) => {
            let text = String::from_utf8_lossy(constant);
            let name = text.trim_end_matches('\0');
            Some(format!("\"{name}{}\"", if name.len() < constant.len() { "" } else { "*" }))
        }
        Load::Family => match constant {
            [2] => Some("ipv4".to_owned()),
            [10] => Some("ipv6".to_owned()),
            _ => None,
        },
        Load::State | Load::XtState | Load::Status if mask.is_none() => words(load, constant),
        Load::AddressType(_) if constant == 2u32.to_ne_bytes() => Some("local".to_owned()),
        Load::Selector(selector) => field(*selector, mask, constant),
        _ => None,
    };
    known.unwrap_or_else(|| {
        let bytes = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match mask {
            Some(mask) => format!("0x{} & 0x{}", bytes(constant), bytes(mask)),
            None => format!("0x{}", bytes(constant)),
        }
    })
}

/// A constant of a type of ours; of an address perhaps only the first octets.
fn field(selector: Selector, mask: Option<&[u8]>, constant: &[u8]) -> Option<String> {
    let kind = selector.data_type();
    let whole = match kind {
        DataType::Ipv4Addr => 4,
        DataType::Ipv6Addr => 16,
        _ => constant.len(),
    };
    let mut padded = constant.to_vec();
    padded.resize(whole, 0);
    let value = Tuple::from_kernel(&padded).values(&[kind])?.first().copied()?;
    let prefix = match mask {
        Some(mask) => mask.iter().map(|byte| byte.count_ones()).sum::<u32>(),
        None => 8 * constant.len() as u32,
    };
    Some(match value {
        Value::Address(address) if (prefix as usize) < 8 * whole => format!("{address}/{prefix}"),
        value => value.to_string(),
    })
}
