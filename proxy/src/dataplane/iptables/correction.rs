//! What brings the tables into step, wherever they are. Pure. What others have in them stays.
//!
//! First come chains that nothing leads to yet, in parts: neither this process nor the kernel ever holds all
//! of them as messages, and the kernel need not follow packets through them. Then one transaction changes all
//! else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weft_nftables::{Change, Family, Name, RuleHead, TableKey, Transaction, digest};

use super::desired::{DesiredRules, SharedChain, entering};
use super::held::{Held, HeldChain, HeldTable};
use super::layout::{Shared, Table};
use super::rule::Rule;
use crate::error::Error;

/// So many changes are a part.
const PART: usize = 20_000;

/// The changes behind the chains that nothing leads to.
#[derive(Debug, Default)]
struct Rest {
    changes: Vec<Change>,
    /// Chains that are to go, when nothing names them any more.
    deleted: Vec<Change>,
}

/// Has the chains added that nothing leads to yet, and returns what changes all else at once.
///
/// # Errors
/// Those of `load`.
pub(super) fn correct(
    desired: &DesiredRules,
    held: &Held,
    mut load: impl FnMut(&Transaction) -> Result<(), Error>,
) -> Result<Transaction, Error> {
    let (mut added, mut rest) = (Transaction::default(), Rest::default());
    let none = HeldTable::default();
    let of = |family, table| held.get(&(family, table)).unwrap_or(&none);
    for family in Family::BOTH {
        for table in Table::ALL {
            frame(family, table, of(family, table), &mut added);
        }
        for chain in desired.fixed_chains(family) {
            let table = of(family, chain.table);
            own_chain(
                &chain.table.key(family),
                &chain.name,
                family,
                &chain.rules,
                table,
                &mut added,
                &mut rest,
            );
        }
    }
    let mut shared: BTreeMap<SharedChain, Vec<Rule>> = BTreeMap::new();
    let mut wanted: BTreeSet<(Family, Name)> = BTreeSet::new();
    for service in desired.names() {
        let rules = desired.rules(&service);
        let (mut chains, mut filled) = (Transaction::default(), Transaction::default());
        for ((family, chain), rules) in rules.chains {
            let mut part = Transaction::default();
            let table = of(family, Table::Nat);
            own_chain(&Table::Nat.key(family), &chain, family, &rules, table, &mut part, &mut rest);
            // Chains before their rules, which name each other.
            let (new, rules) = part.changes.into_iter().partition(|it| matches!(it, Change::AddChain(..)));
            chains.changes.extend::<Vec<_>>(new);
            filled.changes.extend::<Vec<_>>(rules);
            wanted.insert((family, chain));
        }
        added.changes.extend(chains.changes.into_iter().chain(filled.changes));
        for (key, rules) in rules.shared {
            shared.entry(key).or_default().extend(rules);
        }
        if added.changes.len() >= PART {
            load(&added)?;
            added.changes.clear();
        }
    }
    if !added.is_empty() {
        load(&added)?;
    }
    for family in Family::BOTH {
        for chain in Shared::ALL {
            let (key, held) = ((family, chain), of(family, chain.table()));
            let rules = shared.remove(&key).unwrap_or_default();
            shared_chain(key, &rules, &desired.last_rules(key), held.chains.get(chain.chain()), &mut rest);
        }
        for table in Table::ALL {
            portals(family, table, of(family, table), &mut rest);
        }
        strange_chains(family, of(family, Table::Nat), &wanted, &mut rest);
    }
    rest.changes.extend(rest.deleted);
    Ok(Transaction { changes: rest.changes })
}

/// The table, the chains in which packets enter, and the chains that are always there.
fn frame(family: Family, table: Table, held: &HeldTable, added: &mut Transaction) {
    let key = table.key(family);
    if held.chains.is_empty() {
        added.changes.push(Change::AddTable(key.clone()));
    }
    let shared = Shared::ALL.into_iter().filter(|shared| shared.table() == table);
    let shared = shared.map(|shared| (shared.chain(), None));
    for (chain, base) in table.entries().into_iter().map(|(chain, base)| (chain, Some(base))).chain(shared) {
        if !held.chains.contains_key(chain) {
            added.changes.push(Change::AddChain(key.clone(), chain.into(), base));
        }
    }
}

/// A chain that is ours alone: as planned, or filled anew.
fn own_chain(
    key: &TableKey,
    chain: &Name,
    family: Family,
    rules: &[Rule],
    held: &HeldTable,
    added: &mut Transaction,
    rest: &mut Rest,
) {
    let rules: Vec<_> = rules.iter().map(|rule| rule.encoded(family)).collect();
    let Some(held) = held.chains.get(chain) else {
        added.changes.push(Change::AddChain(key.clone(), chain.clone(), None));
        return added.add_rules(key, chain, &rules);
    };
    if held.rules.iter().map(|rule| rule.digest).eq(rules.iter().map(|rule| Some(digest(rule)))) {
        return;
    }
    let mut filled = Transaction { changes: vec![Change::FlushChain(key.clone(), chain.clone())] };
    filled.add_rules(key, chain, &rules);
    rest.changes.extend(filled.changes);
}

/// A chain of rules of many Services: their order is nobody's concern, but for those that stand behind all
/// others.
fn shared_chain(
    (family, shared): SharedChain,
    rules: &[Rule],
    last: &[Rule],
    held: Option<&HeldChain>,
    rest: &mut Rest,
) {
    let (key, chain) = (shared.table().key(family), Name::from(shared.chain()));
    let held: &[RuleHead] = held.map(|held| &held.rules[..]).unwrap_or_default();
    let last: Vec<_> = last.iter().map(|rule| rule.encoded(family)).collect();
    let is_last = |head: &&RuleHead| last.iter().any(|rule| head.digest == Some(digest(rule)));
    let end = held.len().saturating_sub(last.len());
    let in_place = held[end..].iter().map(|head| head.digest).eq(last.iter().map(|rule| Some(digest(rule))))
        && !held[..end].iter().any(|head| is_last(&head));
    let (kept, held) = if in_place { (true, &held[..end]) } else { (false, held) };
    let mut missing: HashMap<u64, usize> = HashMap::new();
    let encoded: Vec<_> = rules.iter().map(|rule| rule.encoded(family)).collect();
    for rule in &encoded {
        *missing.entry(digest(rule)).or_default() += 1;
    }
    for head in held {
        match head.digest.and_then(|digest| missing.get_mut(&digest)) {
            Some(count) if *count > 0 => *count -= 1,
            _ => rest.changes.push(Change::DeleteRule(key.clone(), chain.clone(), head.handle)),
        }
    }
    // Each goes before the one that went in before it.
    for rule in encoded.into_iter().rev() {
        if let Some(count) = missing.get_mut(&digest(&rule)).filter(|count| **count > 0) {
            *count -= 1;
            rest.changes.push(Change::InsertRule(key.clone(), chain.clone(), rule));
        }
    }
    if !kept {
        let mut ended = Transaction::default();
        ended.add_rules(&key, &chain, &last);
        rest.changes.extend(ended.changes);
    }
}

/// The rules by which packets come to our chains, among those that others have there.
fn portals(family: Family, table: Table, held: &HeldTable, rest: &mut Rest) {
    let key = table.key(family);
    for (chain, _) in table.entries() {
        let mut missing: Vec<_> = entering(table, chain).map(|portal| portal.rule.encoded(family)).collect();
        let chain = Name::from(chain);
        let to_ours = |head: &&RuleHead| head.leads_to.as_ref().is_some_and(|to| table.owns(to));
        for head in held.chains.get(&chain).iter().flat_map(|held| &held.rules).filter(to_ours) {
            match missing.iter().position(|rule| Some(digest(rule)) == head.digest) {
                Some(index) => drop(missing.remove(index)),
                None => rest.changes.push(Change::DeleteRule(key.clone(), chain.clone(), head.handle)),
            }
        }
        for rule in missing.into_iter().rev() {
            rest.changes.push(Change::InsertRule(key.clone(), chain.clone(), rule));
        }
    }
}

/// Chains of Services that are gone.
fn strange_chains(family: Family, held: &HeldTable, wanted: &BTreeSet<(Family, Name)>, rest: &mut Rest) {
    let key = Table::Nat.key(family);
    let strange = held.chains.iter().filter(|(name, _)| super::layout::is_of_service(name));
    for (name, _) in strange.filter(|(name, _)| !wanted.contains(&(family, (*name).clone()))) {
        delete_chain(&key, Table::Nat, name, held, rest);
    }
}

/// A chain to which a rule of another program leads cannot go, and stays empty.
fn delete_chain(key: &TableKey, table: Table, name: &Name, held: &HeldTable, rest: &mut Rest) {
    rest.changes.push(Change::FlushChain(key.clone(), name.clone()));
    if !held.is_named_by_others(table, name) {
        rest.deleted.push(Change::DeleteChain(key.clone(), name.clone()));
    }
}

/// What takes away the rules that lead new connections to ours, and leaves the others. They go first: who has
/// come in still needs the rules about its source.
pub(super) fn ways_in(held: &Held) -> Transaction {
    let of_nat = held.iter().filter(|((_, table), held)| *table == Table::Nat && held.is_ours(*table));
    let portals = of_nat.flat_map(|((family, table), held)| {
        let chains = held.chains.iter().filter(|(name, _)| ["PREROUTING", "OUTPUT"].contains(&&***name));
        chains.flat_map(move |(name, chain)| {
            let ours = chain.rules.iter().filter(|rule| is_portal(*table, rule));
            ours.map(move |rule| Change::DeleteRule(table.key(*family), name.clone(), rule.handle))
        })
    });
    Transaction { changes: portals.collect() }
}

/// Whether a rule leads to a chain of ours.
fn is_portal(table: Table, rule: &RuleHead) -> bool {
    rule.leads_to.as_ref().is_some_and(|to| table.owns(to))
}

/// What takes all of ours away. Tables and entrances in which nothing else is left go too.
pub(super) fn clean_up(held: &Held) -> Transaction {
    let mut all = Vec::new();
    for ((family, table), held) in held.iter().filter(|((_, table), held)| held.is_ours(*table)) {
        let key = table.key(*family);
        let is_ours = |rule: &RuleHead| is_portal(*table, rule);
        let is_left = |(name, chain): (&Name, &HeldChain)| match &chain.base {
            Some(base) => base.policy == 0 || !chain.rules.iter().all(is_ours),
            None => !table.owns(name),
        };
        if !held.chains.iter().any(is_left) {
            all.push(Change::DeleteTable(key));
            continue;
        }
        let mut rest = Rest::default();
        for (name, chain) in held.chains.iter().filter(|(_, chain)| chain.base.is_some()) {
            let portals = chain.rules.iter().filter(|rule| is_ours(rule));
            let delete = portals.map(|rule| Change::DeleteRule(key.clone(), name.clone(), rule.handle));
            rest.changes.extend(delete);
            // Such a chain does nothing any more: iptables has it or not, and -X takes it away.
            let is_entry = table.entries().iter().any(|(entry, _)| *entry == &**name);
            if is_entry && !is_left((name, chain)) {
                rest.deleted.push(Change::DeleteChain(key.clone(), name.clone()));
            }
        }
        for name in held.chains.keys().filter(|name| table.owns(name)) {
            delete_chain(&key, *table, name, held, &mut rest);
        }
        all.extend(rest.changes.into_iter().chain(rest.deleted));
    }
    Transaction { changes: all }
}
