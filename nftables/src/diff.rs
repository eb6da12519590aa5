//! The difference between a plan and what the kernel holds, as the transaction that turns one into the other.
//!
//! Where chains and declarations are as planned, only elements change. A chain whose rules differ is filled
//! anew; a table in which a declaration or a base chain differs is built anew, which no packet sees: the
//! kernel switches from the old table to the new one at once, and connections keep the addresses that they
//! have.

use std::collections::BTreeMap;

use super::encode::digest;
use super::flowtable::Flowtable;
use super::observed::{Observed, ObservedBase, ObservedChain, ObservedSet, ObservedTable};
use super::set::{Data, Element, Set};
use super::table::{Chain, Table, TableKey};
use super::transaction::{Change, Transaction};
use super::value::{Name, Tuple};

/// The transaction after which the kernel holds `planned`, when it holds `observed` now. Tables that are
/// observed but not planned go.
pub fn diff(planned: &[Table], observed: &Observed) -> Transaction {
    let mut transaction = Transaction::default();
    for key in observed.tables.keys() {
        if !planned.iter().any(|table| (table.family, &table.name) == (key.0, &key.1)) {
            transaction.changes.push(Change::DeleteTable(key.clone()));
        }
    }
    for table in planned {
        let key = table.key();
        match observed.tables.get(&key) {
            None => transaction.add_table(table),
            Some(held) if can_be_kept(table, held) => diff_table(key, table, held, &mut transaction),
            Some(_) => {
                transaction.changes.push(Change::DeleteTable(key));
                transaction.add_table(table);
            }
        }
    }
    transaction
}

/// Whether everything in the table that cannot be changed in place is as planned.
fn can_be_kept(planned: &Table, held: &ObservedTable) -> bool {
    let chain = |(name, chain): (&Name, &Chain)| {
        let base = chain.base.as_ref().map(|base| ObservedBase::of(planned.family, base));
        held.chains.get(name).is_none_or(|held| held.base == base)
    };
    let set = |(name, set): (&Name, &Set)| {
        held.sets.get(name).is_none_or(|held| held.shape.is_of(&set.declaration))
    };
    let flowtable = |(name, flowtable): (&Name, &Flowtable)| {
        held.flowtables.get(name).is_none_or(|held| held == flowtable)
    };
    held.flags == 0
        && planned.chains.iter().all(chain)
        && planned.sets.iter().all(set)
        && planned.flowtables.iter().all(flowtable)
}

/// Steps in the order that the kernel asks for: what is named comes before what names it, and goes after.
fn diff_table(key: TableKey, planned: &Table, held: &ObservedTable, transaction: &mut Transaction) {
    let cleared = clear_full_sets(&key, planned, held, transaction);
    let held = cleared.as_ref().unwrap_or(held);
    for (name, chain) in &planned.chains {
        if !held.chains.contains_key(name) {
            transaction.changes.push(Change::AddChain(key.clone(), name.clone(), chain.base));
        }
    }
    for (name, flowtable) in &planned.flowtables {
        if !held.flowtables.contains_key(name) {
            let add = Change::AddFlowtable(key.clone(), name.clone(), flowtable.clone());
            transaction.changes.push(add);
        }
    }
    for (name, set) in &planned.sets {
        if !held.sets.contains_key(name) {
            transaction.changes.push(Change::AddSet(set.declaration.clone(), 0));
        }
    }
    let strange: Vec<&Name> = held.chains.keys().filter(|name| !planned.chains.contains_key(*name)).collect();
    for name in &strange {
        transaction.changes.push(Change::FlushChain(key.clone(), (*name).clone()));
    }
    for (name, chain) in &planned.chains {
        diff_rules(&key, name, chain, held.chains.get(name), transaction);
    }
    for name in held.sets.keys().filter(|name| !planned.sets.contains_key(*name)) {
        transaction.changes.push(Change::DeleteSet(key.clone(), name.clone()));
    }
    for name in held.flowtables.keys().filter(|name| !planned.flowtables.contains_key(*name)) {
        transaction.changes.push(Change::DeleteFlowtable(key.clone(), name.clone()));
    }
    for (name, set) in &planned.sets {
        diff_elements(set, held.sets.get(name), transaction);
    }
    for name in strange {
        transaction.changes.push(Change::DeleteChain(key.clone(), name.clone()));
    }
}

/// Deletes the sets that have no room for what is planned, and for that all rules, which may name them.
/// Returns what is left, if anything was to be done: other sets stay, with what packets have written into
/// them.
fn clear_full_sets(
    key: &TableKey,
    planned: &Table,
    held: &ObservedTable,
    transaction: &mut Transaction,
) -> Option<ObservedTable> {
    let is_full = |name: &&Name| {
        let count = planned.sets.get(*name).map_or(0, |set| set.elements.len());
        !held.sets[*name].shape.has_room_for(count)
    };
    let full: Vec<&Name> = held.sets.keys().filter(is_full).collect();
    if full.is_empty() {
        return None;
    }
    let mut left = held.clone();
    for (name, chain) in &mut left.chains {
        transaction.changes.push(Change::FlushChain(key.clone(), name.clone()));
        chain.rules.clear();
    }
    for name in full {
        transaction.changes.push(Change::DeleteSet(key.clone(), name.clone()));
        left.sets.remove(name);
    }
    Some(left)
}

fn diff_rules(
    key: &TableKey,
    name: &Name,
    chain: &Chain,
    held: Option<&ObservedChain>,
    transaction: &mut Transaction,
) {
    let held = held.map(|held| &held.rules[..]).unwrap_or_default();
    if held.iter().copied().eq(chain.rules.iter().map(|rule| Some(digest(rule)))) {
        return;
    }
    if !held.is_empty() {
        transaction.changes.push(Change::FlushChain(key.clone(), name.clone()));
    }
    transaction.add_rules(key, name, &chain.rules);
}

/// An element whose data differs is deleted and added again in the same transaction: no packet misses it.
fn diff_elements(set: &Set, observed: Option<&ObservedSet>, transaction: &mut Transaction) {
    let none = BTreeMap::new();
    let held = observed.map_or(&none, |observed| &observed.elements);
    // Both are in order of their keys.
    let missing = |from: &BTreeMap<Tuple, Data>, to: &BTreeMap<Tuple, Data>| -> Vec<Element> {
        let mut to = to.iter().peekable();
        let differs = |element: &(&Tuple, &Data)| {
            while to.next_if(|(key, _)| *key < element.0).is_some() {}
            to.peek() != Some(element)
        };
        from.iter().filter(differs).map(|(key, data)| (key.clone(), data.clone())).collect()
    };
    let (mut gone, mut new) = (missing(held, &set.elements), missing(&set.elements, held));
    if let Some(observed) = observed.filter(|observed| observed.details != set.details) {
        // Those of which only something else is said than was planned.
        let same = |(key, data): &(&Tuple, &Data)| set.elements.get(*key) == Some(data);
        for (key, data) in held.iter().filter(same) {
            if observed.details.get(key) != set.details.get(key) {
                gone.push((key.clone(), data.clone()));
                new.push((key.clone(), data.clone()));
            }
        }
    }
    transaction.delete_elements(&set.declaration, gone);
    transaction.add_elements_of(set, new);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::super::expression::Expression;
    use super::super::hook::Hook;
    use super::super::rule::{Rule, Statement, Verdict};
    use super::super::set::{Declaration, SetKind};
    use super::super::table::Base;
    use super::super::value::{DataType, Value};
    use super::*;
    use weft_netlink::Family;

    fn declaration(table: &str, name: &str, key: DataType) -> Arc<Declaration> {
        let (table, name) = (table.into(), name.into());
        let kind = SetKind::DataMap(vec![DataType::InetService]);
        Arc::new(Declaration { family: Family::Ip.into(), table, name, key: vec![key], kind, comment: None })
    }

    fn port(port: u16) -> Tuple {
        Tuple::new(&[Value::Port(port)])
    }

    fn rule() -> impl Strategy<Value = Rule> {
        prop_oneof![
            Just(Rule::new([Statement::Verdict(Verdict::Accept)])),
            Just(Rule::new([Statement::Verdict(Verdict::Drop)])),
            Just(Rule::new([Statement::Vmap(vec![Expression::DPORT], "a".into())])),
        ]
    }

    fn chain() -> impl Strategy<Value = Chain> {
        let base = prop_oneof![
            4 => Just(None),
            1 => Just(Some(Base::nat(Hook::Output, 1))),
            1 => Just(Some(Base::nat(Hook::Output, 2))),
        ];
        (base, vec(rule(), 0..3)).prop_map(|(base, rules)| Chain { base, rules })
    }

    fn table(name: &'static str) -> impl Strategy<Value = Table> {
        let key = prop_oneof![4 => Just(DataType::InetService), 1 => Just(DataType::InetProto)];
        let elements = btree_map(0u16..6, 0u16..3, 0..6);
        let sets = btree_map("[a-c]", (key, elements), 0..3);
        let chains = btree_map("[a-c]".prop_map(Name::from), chain(), 0..3);
        (chains, sets).prop_map(move |(chains, sets)| {
            let mut table = Table { chains, ..Table::new(Family::Ip, name) };
            for (set, (key, elements)) in sets {
                let mut set = Set::new(declaration(name, &set, key));
                set.elements =
                    elements.into_iter().map(|(key, data)| (port(key), Data::Tuple(port(data)))).collect();
                table.set(set);
            }
            table
        })
    }

    fn plan() -> impl Strategy<Value = Vec<Table>> {
        let optional = |name| prop::option::weighted(0.8, table(name));
        (optional("x"), optional("y")).prop_map(|(x, y)| x.into_iter().chain(y).collect())
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_plan(plans in vec(plan(), 1..5)) {
            let mut kernel = Observed::default();
            for plan in plans {
                kernel.apply(&diff(&plan, &kernel)).unwrap();
                prop_assert_eq!(&kernel, &Observed::of(&plan));
                prop_assert!(diff(&plan, &kernel).is_empty());
            }
        }
    }

    #[test]
    fn where_the_chains_are_right_only_elements_change() {
        let mut table = Table::new(Family::Ip, "x");
        table.chain("a", None, vec![Rule::new([Statement::Verdict(Verdict::Drop)])]);
        let mut set = Set::new(declaration("x", "a", DataType::InetService));
        set.elements.insert(port(1), Data::Tuple(port(1)));
        set.elements.insert(port(2), Data::Tuple(port(2)));
        table.set(set.clone());
        let held = Observed::of(std::slice::from_ref(&table));
        set.elements.insert(port(2), Data::Tuple(port(20)));
        table.set(set);
        assert_eq!(
            diff(&[table], &held).to_string(),
            "delete element ip x a { 2 : 2 }\nadd element ip x a { 2 : 20 }\n"
        );
    }

    #[test]
    fn a_set_that_became_too_small_is_replaced_and_the_others_stay() {
        let mut table = Table::new(Family::Ip, "x");
        table.chain("a", None, vec![Rule::new([Statement::Verdict(Verdict::Drop)])]);
        for (name, count) in [("large", 1000), ("small", 1)] {
            let mut set = Set::new(declaration("x", name, DataType::InetService));
            set.elements = (0..count).map(|key| (port(key), Data::Tuple(port(key)))).collect();
            table.set(set);
        }
        let load = |table: &Table, held: &mut Observed| {
            let mut transaction = diff(std::slice::from_ref(table), held);
            transaction.make_room();
            held.apply(&transaction).unwrap();
            let text = transaction.to_string();
            text.lines().map(|line| line.split(" {").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let mut held = Observed::default();
        load(&table, &mut held);
        let elements = &mut table.sets.get_mut("large").unwrap().elements;
        elements.extend((0..2048).map(|key| (port(key), Data::Tuple(port(key)))));
        assert_eq!(load(&table, &mut held), ["add element ip x large"], "half as many again fit in");
        table.sets.get_mut("large").unwrap().elements.insert(port(2048), Data::Tuple(port(1)));
        let steps =
            ["flush chain ip x a", "delete set ip x large", "add map ip x large", "add rule ip x a drop"];
        assert_eq!(load(&table, &mut held), [&steps[..], &["add element ip x large"]].concat());
        assert!(diff(&[table], &held).is_empty());
    }

    #[test]
    fn a_dormant_table_is_built_anew() {
        let tables = [Table::new(Family::Ip, "x")];
        let mut held = Observed::of(&tables);
        held.tables.values_mut().for_each(|table| table.flags = 1);
        assert_eq!(diff(&tables, &held).to_string(), "delete table ip x\nadd table ip x\n");
    }
}
