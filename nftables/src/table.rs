//! Tables, chains and flowtables as plain values, and how they print.

use std::collections::BTreeMap;
use std::fmt;

use super::family::TableFamily;
use super::flowtable::Flowtable;
use super::hook::Hook;
use super::rule::Rule;
use super::set::{Declaration, Set};
use super::value::{INTERFACE_NAME_LENGTH, Name};

/// A table's family and name.
pub type TableKey = (TableFamily, Name);

/// A table and everything in it. Prints as a block that `nft -f` accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The packets that it sees.
    pub family: TableFamily,
    /// Its name.
    pub name: Name,
    /// Its chains, by name.
    pub chains: BTreeMap<Name, Chain>,
    /// Its sets and maps, by name.
    pub sets: BTreeMap<Name, Set>,
    /// Its flowtables, by name.
    pub flowtables: BTreeMap<Name, Flowtable>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets enter it; a regular chain, which others jump to, has none.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where in the kernel a base chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// What its rules may do.
    pub kind: ChainKind,
    /// Which packets it sees.
    pub hook: Hook,
    /// Its place among the chains of that hook: lower ones come first.
    pub priority: i32,
    /// What becomes of a packet that no rule decides about.
    pub policy: Policy,
    /// The device of which it sees the packets, where the hook is one of a device.
    pub device: Option<Device>,
}

/// The type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of every connection, and may rewrite its addresses.
    Nat,
    /// Sees every packet of this machine, which is routed anew where a rule changed what routes depend on.
    Route,
}

/// The name of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device([u8; INTERFACE_NAME_LENGTH]);

impl Device {
    /// A device of that name; `None` where no device can have it.
    pub fn new(name: &str) -> Option<Device> {
        let mut bytes = [0; INTERFACE_NAME_LENGTH];
        let fits = !name.is_empty() && name.len() < INTERFACE_NAME_LENGTH && !name.contains('\0');
        bytes.get_mut(..name.len()).filter(|_| fits)?.copy_from_slice(name.as_bytes());
        Some(Device(bytes))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

/// What becomes of a packet that no rule decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// It goes on.
    Accept,
    /// It goes nowhere.
    Drop,
}

/// Where packets have not reached connection tracking yet (`raw`).
pub const PRIORITY_RAW: i32 = -300;
/// Where destinations are rewritten (`dstnat`).
pub const PRIORITY_DSTNAT: i32 = -100;
/// Where packets are filtered (`filter`).
pub const PRIORITY_FILTER: i32 = 0;
/// Where sources are rewritten (`srcnat`).
pub const PRIORITY_SRCNAT: i32 = 100;

impl Table {
    /// An empty table.
    pub fn new(family: impl Into<TableFamily>, name: impl Into<Name>) -> Table {
        Table {
            family: family.into(),
            name: name.into(),
            chains: BTreeMap::new(),
            sets: BTreeMap::new(),
            flowtables: BTreeMap::new(),
        }
    }

    /// Its family and name.
    pub fn key(&self) -> TableKey {
        (self.family, self.name.clone())
    }

    /// Puts a chain in.
    pub fn chain(&mut self, name: impl Into<Name>, base: Option<Base>, rules: Vec<Rule>) {
        self.chains.insert(name.into(), Chain { base, rules });
    }

    /// Puts a set in. Its declaration must name this table.
    pub fn set(&mut self, set: Set) {
        let Declaration { family, table, name, .. } = &*set.declaration;
        debug_assert_eq!((family, table), (&self.family, &self.name));
        self.sets.insert(name.clone(), set);
    }

    /// Puts a flowtable in.
    pub fn flowtable(&mut self, name: impl Into<Name>, flowtable: Flowtable) {
        self.flowtables.insert(name.into(), flowtable);
    }

    /// The chains that packets enter at a hook.
    pub fn at(&self, hook: Hook) -> impl Iterator<Item = (&Name, &Chain, Base)> {
        self.chains.iter().filter_map(move |(name, chain)| {
            chain.base.filter(|base| base.hook == hook).map(|base| (name, chain, base))
        })
    }
}

impl Base {
    /// A base chain of type `nat` that lets packets through.
    pub fn nat(hook: Hook, priority: i32) -> Base {
        Base { kind: ChainKind::Nat, ..Base::filter(hook, priority) }
    }

    /// A base chain of type `filter` that lets packets through.
    pub fn filter(hook: Hook, priority: i32) -> Base {
        Base { kind: ChainKind::Filter, hook, priority, policy: Policy::Accept, device: None }
    }

    /// The same with the policy to drop packets.
    pub fn dropping(self) -> Base {
        Base { policy: Policy::Drop, ..self }
    }

    /// The same on a device.
    pub fn on(self, device: Device) -> Base {
        Base { device: Some(device), ..self }
    }

    /// Prints it as nft does in a table of that family.
    pub(super) fn text(&self, family: TableFamily) -> String {
        let (kind, hook, policy) = (self.kind.name(), self.hook.name(), self.policy.name());
        let device = self.device.map_or_else(String::new, |device| format!(" device \"{}\"", device.name()));
        format!(
            "type {kind} hook {hook}{device} priority {}; policy {policy};",
            family.priority(self.hook, self.priority)
        )
    }
}

impl ChainKind {
    /// The kernel's and nft's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        }
    }

    /// The type of that name.
    pub(super) fn of_name(name: &str) -> Option<ChainKind> {
        [ChainKind::Filter, ChainKind::Nat, ChainKind::Route].into_iter().find(|kind| kind.name() == name)
    }
}

impl Policy {
    /// The kernel's number for it (`NF_DROP`, `NF_ACCEPT`).
    pub(super) fn number(self) -> u32 {
        match self {
            Policy::Drop => 0,
            Policy::Accept => 1,
        }
    }

    /// nft's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        }
    }
}

/// As in a table of the IP layer.
impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(TableFamily::Inet))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.name)?;
        let mut separator = "";
        for (name, flowtable) in &self.flowtables {
            write!(f, "{separator}\tflowtable {name} {{\n{flowtable}\t}}\n")?;
            separator = "\n";
        }
        for set in self.sets.values() {
            write!(f, "{separator}{set}")?;
            separator = "\n";
        }
        for (name, chain) in &self.chains {
            writeln!(f, "{separator}\tchain {name} {{")?;
            if let Some(base) = chain.base {
                writeln!(f, "\t\t{}", base.text(self.family))?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t{}", rule.text(self.family))?;
            }
            f.write_str("\t}\n")?;
            separator = "\n";
        }
        f.write_str("}\n")
    }
}
