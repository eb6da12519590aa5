//! Other programs' chains on a packet's way, as far as they can be read. A rule that asks for what is not known is taken not to
//! apply, and noted as a doubt.

use std::fmt;

use weft_nftables::{
    ForeignChain, ForeignRule, ForeignTable, Interface, Is, Load, Name, Part, Selector, Tuple, Value, Verdict,
};

use super::walk::{DEEPEST, End, Walk};
use super::{Applies, Origin, Step};

/// The bit of a new connection in `ct state`, those of rewritten addresses in what iptables knows as its state and in its
/// status (`NF_CT_STATE_BIT`, `XT_CONNTRACK_STATE_DNAT`, `IPS_DST_NAT`).
const STATE_NEW: u32 = 8;
const XT_STATE_DNAT: u32 = 128;
const STATUS_DNAT: u32 = 32;
/// `RTN_UNICAST`, `RTN_LOCAL`
const UNICAST: u32 = 1;
const LOCAL: u32 = 2;
/// `NFTA_FIB_F_SADDR`
const OF_SOURCE: u32 = 1;
/// As long as the kernel compares names of interfaces (`IFNAMSIZ`).
const NAME_LENGTH: usize = 16;

/// A rule of which it is not known whether it applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The rule, in nft's words as far as they are known.
    pub rule: String,
    /// If it applies, the packet goes no further.
    pub stops: bool,
}

/// What a rule comes to.
enum Ruling {
    Next,
    /// A verdict, or the rewriting of an address; not certain, where something was not known.
    Decides(Decision),
}

enum Decision {
    Verdict(Verdict),
    Reject,
    Rewrite(Name),
    Unknown,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule)
    }
}

/// `FORWARD of table ip filter`
pub(super) fn label(table: &ForeignTable, chain: &Name) -> Name {
    format!("{chain} of table {} {}", table.layer, table.name).into()
}

impl<'a> Walk<'a> {
    /// Asks the rules of a chain; none of them may decide.
    pub(super) fn foreign_chain(
        &mut self,
        table: &'a ForeignTable,
        name: &'a Name,
        chain: &'a ForeignChain,
        depth: usize,
    ) -> Option<End> {
        for rule in &chain.rules {
            let (ruling, certain) = self.foreign_rule(table, rule);
            let Ruling::Decides(decision) = ruling else { continue };
            if !certain || matches!(decision, Decision::Unknown) {
                self.doubt(table, name, rule, &decision);
                continue;
            }
            self.tell(table, name, rule, Applies::Yes);
            let target = match decision {
                Decision::Verdict(Verdict::Accept) => return Some(End::Accepted),
                Decision::Verdict(Verdict::Drop) => return Some(self.stopped_by(rule, End::Dropped)),
                Decision::Reject => return Some(self.stopped_by(rule, End::Rejected)),
                Decision::Verdict(Verdict::Return) | Decision::Unknown => return None,
                Decision::Rewrite(how) => return Some(self.rewritten(rule, &how)),
                Decision::Verdict(Verdict::Goto(target)) => {
                    return self.foreign_called(table, &target, depth);
                }
                Decision::Verdict(Verdict::Jump(target)) => target,
            };
            if let Some(end) = self.foreign_called(table, &target, depth) {
                return Some(end);
            }
        }
        None
    }

    fn foreign_called(&mut self, table: &'a ForeignTable, name: &Name, depth: usize) -> Option<End> {
        let (name, chain) = table.chains.get_key_value(name).filter(|_| depth < DEEPEST)?;
        self.foreign_chain(table, name, chain, depth + 1)
    }

    fn stopped_by(&mut self, rule: &ForeignRule, end: End) -> End {
        self.stopped_by = Some(rule.to_string());
        end
    }

    /// To what address is not known, save where the source is rewritten.
    fn rewritten(&mut self, rule: &ForeignRule, how: &str) -> End {
        match how {
            "masq" | "MASQUERADE" | "SNAT" => self.masqueraded = true,
            _ => self.doubts.push(Doubt { rule: rule.to_string(), stops: true }),
        }
        End::Accepted
    }

    fn doubt(&mut self, table: &ForeignTable, chain: &Name, rule: &ForeignRule, decision: &Decision) {
        let stops = matches!(decision, Decision::Verdict(Verdict::Drop) | Decision::Reject);
        self.doubts.push(Doubt { rule: rule.to_string(), stops });
        self.tell(table, chain, rule, Applies::Unknown);
    }

    fn tell(&mut self, table: &ForeignTable, chain: &Name, rule: &ForeignRule, applies: Applies) {
        let (chain, text) = (label(table, chain), rule.to_string());
        self.steps.push(Step::Rule { chain, text, applies, notes: Vec::new() });
    }

    /// What a rule does, and whether all that it asks for is known.
    fn foreign_rule(&mut self, table: &ForeignTable, rule: &ForeignRule) -> (Ruling, bool) {
        let mut certain = true;
        for part in &rule.parts {
            let fits = match part {
                Part::Compare { load, mask, is, constant } => {
                    self.compares(load, mask.as_deref(), constant).map(|equal| equal == (*is == Is::Equal))
                }
                Part::Lookup(key, is, set) => {
                    self.foreign_find(table, key, set).map(|found| found.is_some() == (*is == Is::Equal))
                }
                Part::Vmap(key, map) => match self.foreign_find(table, key, map) {
                    Some(Some(Some(verdict))) => {
                        return (Ruling::Decides(Decision::Verdict(verdict)), certain);
                    }
                    Some(None) => Some(true),
                    _ => return (Ruling::Decides(Decision::Unknown), false),
                },
                Part::Verdict(verdict) => {
                    return (Ruling::Decides(Decision::Verdict(verdict.clone())), certain);
                }
                Part::Reject => return (Ruling::Decides(Decision::Reject), certain),
                Part::Rewrites(how) => return (Ruling::Decides(Decision::Rewrite(how.clone())), certain),
                Part::Passes(_) => Some(true),
                Part::Unknown(_) => None,
            };
            match fits {
                Some(true) => {}
                Some(false) => return (Ruling::Next, true),
                None => certain = false,
            }
        }
        // An unknown end may be one that decides.
        match rule.parts.last() {
            Some(Part::Unknown(_)) => (Ruling::Decides(Decision::Unknown), false),
            _ => (Ruling::Next, true),
        }
    }

    fn compares(&self, load: &Load, mask: Option<&[u8]>, constant: &[u8]) -> Option<bool> {
        let mut found = self.bytes(load)?;
        for (byte, mask) in found.iter_mut().zip(mask.unwrap_or_default()) {
            *byte &= mask;
        }
        Some(found.get(..constant.len())? == constant)
    }

    /// What a set has for a key: an element, perhaps with a verdict.
    fn foreign_find(
        &self,
        table: &ForeignTable,
        key: &[Load],
        set: &Name,
    ) -> Option<Option<Option<Verdict>>> {
        let mut bytes = Vec::new();
        for load in key {
            bytes.extend(self.bytes(load)?);
            if key.len() > 1 {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        let found = table.sets.get(set)?.find(&bytes)?;
        Some(found.map(|element| element.verdict.clone()))
    }

    /// What a packet that begins a connection has in a register; none where that is not known.
    fn bytes(&self, load: &Load) -> Option<Vec<u8>> {
        let is_led = self.packet.destination != self.original.destination;
        let status = |bit: u32| if is_led { bit } else { 0 };
        Some(match load {
            Load::Selector(selector) => self.field(*selector)?,
            Load::Interface(interface) => {
                let mut name = self.interface_name(*interface)?.into_bytes();
                name.resize(NAME_LENGTH, 0);
                name
            }
            Load::State => STATE_NEW.to_ne_bytes().to_vec(),
            Load::XtState => (STATE_NEW | status(XT_STATE_DNAT)).to_ne_bytes().to_vec(),
            Load::Status => status(STATUS_DNAT).to_ne_bytes().to_vec(),
            Load::Family => vec![if self.packet.source.is_ipv4() { 2 } else { 10 }],
            Load::AddressType(flags) => {
                let address = match *flags {
                    OF_SOURCE => self.packet.source,
                    _ => self.packet.destination.ip(),
                };
                let kind = if self.tracer.is_local(address) { LOCAL } else { UNICAST };
                kind.to_ne_bytes().to_vec()
            }
            Load::Other(_) => return None,
        })
    }

    fn field(&self, selector: Selector) -> Option<Vec<u8>> {
        let value = match selector {
            Selector::Saddr(_) => Value::Address(self.packet.source),
            Selector::Daddr(_) => Value::Address(self.packet.destination.ip()),
            Selector::L4Proto => Value::Protocol(self.packet.protocol.number()),
            Selector::Dport => Value::Port(self.packet.destination.port()),
            Selector::OriginalDaddr(_) => Value::Address(self.original.destination.ip()),
            Selector::OriginalDport => Value::Port(self.original.destination.port()),
            Selector::Sport | Selector::Priority | Selector::Random(_) => return None,
        };
        let is_of_family = match (selector, value) {
            (
                Selector::Saddr(family) | Selector::Daddr(family) | Selector::OriginalDaddr(family),
                Value::Address(_),
            ) => family == self.family(),
            _ => true,
        };
        is_of_family.then(|| Tuple::new(&[value]).bytes().to_vec())
    }

    fn interface_name(&self, interface: Interface) -> Option<String> {
        let way = |address| self.tracer.interface_to(address).map(|name| name.to_string());
        match (interface, &self.packet.origin) {
            (Interface::Input, Origin::Machine) if self.looped => Some("lo".to_owned()),
            (Interface::Input, Origin::Machine) => Some(String::new()),
            (Interface::Input, Origin::Interface(Some(name))) => Some(name.to_string()),
            (Interface::Input, Origin::Interface(None)) => way(self.packet.source),
            (Interface::Output, _) if self.tracer.is_local(self.packet.destination.ip()) => None,
            (Interface::Output, _) => way(self.packet.destination.ip()),
        }
    }
}
