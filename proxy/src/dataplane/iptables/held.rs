//! What the kernel holds of the tables that are shared with other programs.

use std::collections::{BTreeMap, HashMap};

use weft_nftables::{Client, Family, Name, ObservedBase, RuleHead};

use super::layout::Table;
use crate::error::Error;

/// How often a reading is begun anew because something was committed meanwhile.
const ATTEMPTS: u32 = 10;

/// All of them.
pub(super) type Held = BTreeMap<(Family, Table), HeldTable>;

/// One table that is there.
#[derive(Debug, Default)]
pub(super) struct HeldTable {
    pub(super) chains: BTreeMap<Name, HeldChain>,
}

/// One chain.
#[derive(Debug, Default)]
pub(super) struct HeldChain {
    pub(super) base: Option<ObservedBase>,
    pub(super) rules: Vec<RuleHead>,
}

impl HeldTable {
    /// Whether some of it was written by us.
    pub(super) fn is_ours(&self, table: Table) -> bool {
        let own = self.chains.iter().filter(|(name, _)| table.owns(name));
        own.flat_map(|(_, chain)| &chain.rules).any(|rule| rule.digest.is_some())
    }

    /// Whether a rule of another program leads to a chain.
    pub(super) fn is_named_by_others(&self, table: Table, chain: &Name) -> bool {
        let others = self.chains.iter().filter(|(name, chain)| !table.owns(name) && chain.base.is_none());
        others.flat_map(|(_, chain)| &chain.rules).any(|rule| rule.leads_to.as_ref() == Some(chain))
    }
}

/// Reads all tables, as they were at one moment.
///
/// # Errors
/// What the kernel refused.
pub(super) fn read(kernel: &mut Client) -> Result<Held, Error> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let before = kernel.generation()?;
        let held = read_once(kernel)?;
        if kernel.generation()? == before || attempts == ATTEMPTS {
            return Ok(held);
        }
    }
}

fn read_once(kernel: &mut Client) -> Result<Held, Error> {
    let mut held = Held::new();
    for family in Family::BOTH {
        for table in Table::ALL {
            let key = table.key(family);
            let chains = kernel.chains(&key)?;
            if chains.is_empty() {
                continue;
            }
            let of_table = held.entry((family, table)).or_default();
            // Chain by chain: of a whole table the kernel looks for its place among all rules, again and
            // again.
            for (name, base) in chains {
                let rules = kernel.rule_heads(&key, Some(&name))?;
                of_table.chains.insert(name, HeldChain { base, rules });
            }
        }
    }
    Ok(held)
}

/// The numbers of rules in a chain that is shared, by their digests.
pub(super) type Handles = HashMap<u64, Vec<u64>>;

/// The numbers of the rules of one chain.
pub(super) fn handles(rules: &[RuleHead]) -> Handles {
    let mut handles = Handles::new();
    for rule in rules {
        if let Some(digest) = rule.digest {
            handles.entry(digest).or_default().push(rule.handle);
        }
    }
    handles
}
