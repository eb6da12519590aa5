//! A rule's expressions as parts. Registers are followed only as far as nft and iptables use them: a load, perhaps masked, and a
//! comparison or a look-up of it. All else is named as unknown.

use std::collections::BTreeMap;

use super::super::client::parse_verdict;
use super::super::expression::{
    CT_STATE, CT_STATUS, DATA_VALUE, DATA_VERDICT, EXPR_DATA, EXPR_NAME, FIB_ADDRESS_TYPE, FIB_DADDR,
    FIB_SADDR, VERDICT_REGISTER,
};
use super::super::rule::{Interface, Is, Selector};
use super::super::value::Name;
use super::part::{Load, Part};
use weft_netlink::Family;
use weft_netlink::attribute::Attributes;

/// Where `match_flags`, `invert_flags` and `state_mask` stand in `struct xt_conntrack_mtinfo2` and `_mtinfo3`, and the flag
/// by which the state alone is asked for (`XT_CONNTRACK_STATE`).
const XT_FLAGS: usize = 146;
const XT_INVERTED: usize = 148;
const XT_STATE: usize = 150;
const XT_STATE_ONLY: u16 = 1;
/// Targets of iptables after which the next rule is asked.
const GO_ON: [&str; 17] = [
    "AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CT", "DSCP", "HL", "LOG", "MARK", "NFLOG", "NOTRACK",
    "SET", "TCPMSS", "TEE", "TOS", "TRACE", "TTL",
];
/// Those that rewrite an address and let the packet through.
const REWRITE: [&str; 5] = ["DNAT", "MASQUERADE", "NETMAP", "REDIRECT", "SNAT"];
/// Expressions after which the next one is asked.
const PASS: [&str; 9] =
    ["counter", "dup", "dynset", "flow_offload", "last", "log", "notrack", "objref", "tproxy"];

/// What these expressions (`NFTA_RULE_EXPRESSIONS`) do.
pub(super) fn parts(expressions: Attributes<'_>) -> Vec<Part> {
    let mut program = Program::default();
    let mut parts = Vec::new();
    for (_, expression) in expressions {
        let expression = Attributes(expression);
        let name = expression.string(EXPR_NAME).unwrap_or("nameless");
        let part = program.expression(name, &expression.nested(EXPR_DATA));
        parts.extend(part.unwrap_or_else(|| Some(Part::Unknown(name.into()))));
    }
    parts
}

/// What is in the registers.
#[derive(Default)]
struct Program {
    held: BTreeMap<usize, (Load, Option<Vec<u8>>)>,
}

impl Program {
    /// Takes the next expression. `Some(None)` where it only loads; `None` where it is not known.
    fn expression(&mut self, name: &str, data: &Attributes<'_>) -> Option<Option<Part>> {
        let passes = || Some(Some(Part::Passes(name.into())));
        match name {
            "counter" | "log" => return passes(),
            // What is written into a packet or its connection: NFTA_META_SREG, NFTA_CT_SREG, no NFTA_PAYLOAD_DREG.
            "meta" if data.get(3).is_some() => return passes(),
            "ct" if data.get(4).is_some() => return passes(),
            "payload" if data.get(1).is_none() => return passes(),
            _ => {}
        }
        if PASS.contains(&name) {
            return passes();
        }
        let load = match name {
            "payload" => payload(data),
            "meta" => meta(data),
            "ct" => connection(data),
            "fib" => address_type(data),
            "immediate" if data.u32(1)? == VERDICT_REGISTER => {
                return Some(Some(Part::Verdict(parse_verdict(&data.nested(2).nested(DATA_VERDICT))?)));
            }
            "bitwise" => return self.mask(data),
            "cmp" => return self.compare(data).map(Some),
            "lookup" => return self.lookup(data),
            "reject" => return Some(Some(Part::Reject)),
            "nat" | "masq" | "redir" => return Some(Some(Part::Rewrites(name.into()))),
            "match" => return Some(Some(extension(data))),
            "target" => return Some(Some(target(data))),
            // These decide about the packet themselves.
            "limit" | "quota" | "connlimit" | "range" | "synproxy" | "queue" | "fwd" => return None,
            _ => {
                // It puts something somewhere.
                self.held.clear();
                return Some(None);
            }
        };
        self.held.insert(offset(data.u32(1)?)?, (load.unwrap_or_else(|| Load::Other(name.into())), None));
        Some(None)
    }

    /// `NFTA_BITWISE_*`: a mask, and no other operation.
    fn mask(&mut self, data: &Attributes<'_>) -> Option<Option<Part>> {
        let (from, to) = (offset(data.u32(1)?)?, offset(data.u32(2)?)?);
        let is_mask = data.u32(6).unwrap_or_default() == 0;
        let xor = data.nested(5).get(DATA_VALUE).unwrap_or_default();
        let mask = data.nested(4).get(DATA_VALUE).filter(|_| is_mask && xor.iter().all(|byte| *byte == 0));
        let held = match (self.held.get(&from), mask) {
            (Some((load, None)), Some(mask)) => (load.clone(), Some(mask.to_vec())),
            _ => (Load::Other("bitwise".into()), None),
        };
        self.held.insert(to, held);
        Some(None)
    }

    /// `NFTA_CMP_*`, of which `NFT_CMP_EQ` and `NFT_CMP_NEQ` are known.
    fn compare(&mut self, data: &Attributes<'_>) -> Option<Part> {
        let from = offset(data.u32(1)?)?;
        let is = match data.u32(2)? {
            0 => Is::Equal,
            1 => Is::NotEqual,
            _ => return None,
        };
        let constant = data.nested(3).get(DATA_VALUE)?.to_vec();
        let (load, mask) =
            self.held.get(&from).cloned().unwrap_or_else(|| (Load::Other("something".into()), None));
        Some(Part::Compare { load, mask, is, constant })
    }

    /// `NFTA_LOOKUP_*`. A key may begin with a load and go on in the registers behind it.
    fn lookup(&mut self, data: &Attributes<'_>) -> Option<Option<Part>> {
        let (set, from): (Name, _) = (data.string(1)?.into(), offset(data.u32(2)?)?);
        let bare = |(load, mask): &(Load, Option<Vec<u8>>)| match mask {
            None => load.clone(),
            Some(_) => Load::Other("bitwise".into()),
        };
        let key: Vec<Load> = self.held.range(from..).map(|(_, held)| bare(held)).collect();
        let inverted = data.u32(5).unwrap_or_default() & 1 != 0;
        let is = if inverted { Is::NotEqual } else { Is::Equal };
        self.held.clear();
        Some(match data.u32(3) {
            None => Some(Part::Lookup(key, is, set)),
            Some(VERDICT_REGISTER) => Some(Part::Vmap(key, set)),
            Some(register) => {
                self.held.insert(offset(register)?, (Load::Other("map".into()), None));
                None
            }
        })
    }
}

/// Where a register begins in the register file: the wide ones of 16 bytes are 1 to 4, those of 4 bytes begin with 8.
fn offset(register: u32) -> Option<usize> {
    match register {
        1..=4 => Some((register as usize - 1) * 16),
        8..=23 => Some((register as usize - 8) * 4),
        _ => None,
    }
}

/// Addresses, of which perhaps only the first octets are loaded; the protocol; ports.
fn payload(data: &Attributes<'_>) -> Option<Load> {
    Some(Load::Selector(match (data.u32(2)?, data.u32(3)?, data.u32(4)?) {
        (1, 12, 1..=4) => Selector::Saddr(Family::Ip),
        (1, 16, 1..=4) => Selector::Daddr(Family::Ip),
        (1, 8, 1..=16) => Selector::Saddr(Family::Ip6),
        (1, 24, 1..=16) => Selector::Daddr(Family::Ip6),
        (2, 0, 2) => Selector::Sport,
        (2, 2, 2) => Selector::Dport,
        _ => return None,
    }))
}

fn meta(data: &Attributes<'_>) -> Option<Load> {
    Some(match data.u32(2)? {
        6 => Load::Interface(Interface::Input),
        7 => Load::Interface(Interface::Output),
        15 => Load::Family,
        16 => Load::Selector(Selector::L4Proto),
        _ => return None,
    })
}

fn connection(data: &Attributes<'_>) -> Option<Load> {
    Some(match (data.u32(2)?, data.get(3)) {
        (CT_STATE, _) => Load::State,
        (CT_STATUS, _) => Load::Status,
        (12, Some([0])) => Load::Selector(Selector::OriginalDport),
        (20, Some([0])) => Load::Selector(Selector::OriginalDaddr(Family::Ip)),
        (22, Some([0])) => Load::Selector(Selector::OriginalDaddr(Family::Ip6)),
        _ => return None,
    })
}

fn address_type(data: &Attributes<'_>) -> Option<Load> {
    let flags = data.u32(3).filter(|flags| [FIB_SADDR, FIB_DADDR].contains(flags))?;
    (data.u32(2) == Some(FIB_ADDRESS_TYPE)).then_some(Load::AddressType(flags))
}

/// A match of iptables (`NFTA_MATCH_NAME`, `_INFO`).
fn extension(data: &Attributes<'_>) -> Part {
    let (name, info) = (data.string(1).unwrap_or_default(), data.get(3).unwrap_or_default());
    let half = |at: usize| Some(u16::from_ne_bytes(info.get(at..at + 2)?.try_into().ok()?));
    let state = match (name, half(XT_FLAGS), half(XT_INVERTED)) {
        ("comment", ..) => return Part::Passes(name.into()),
        ("conntrack", Some(XT_STATE_ONLY), Some(inverted)) => {
            half(XT_STATE).map(|bits| (u32::from(bits), inverted & XT_STATE_ONLY != 0))
        }
        _ => None,
    };
    match state {
        Some((bits, inverted)) => Part::Compare {
            load: Load::XtState,
            mask: Some(bits.to_ne_bytes().to_vec()),
            is: if inverted { Is::Equal } else { Is::NotEqual },
            constant: vec![0; 4],
        },
        None => Part::Unknown(format!("-m {name}").into()),
    }
}

/// A target of iptables (`NFTA_TARGET_NAME`).
fn target(data: &Attributes<'_>) -> Part {
    let name = data.string(1).unwrap_or_default();
    match name {
        "REJECT" => Part::Reject,
        _ if GO_ON.contains(&name) => Part::Passes(name.into()),
        _ if REWRITE.contains(&name) => Part::Rewrites(name.into()),
        _ => Part::Unknown(format!("-j {name}").into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_bytes_a_rule_is_made_of_it_is_read_and_printed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for part in parts(Attributes(&bytes)) {
                let _ = part.to_string();
            }
        }
    }
}
