//! Reads the tables of other programs, as far as they can be understood. Sets are read in `contents.rs`.

use std::collections::BTreeMap;

use super::client::{Client, parse_chain, parse_table};
use super::encode::message;
use super::family::TableFamily;
use super::hook::Hook;
use super::known::KnownTable;
use super::rule::{Rule, Statement, decode::decode};
use super::table::Chain;
use super::userdata::comment;
use super::value::Name;
use weft_netlink::Result;
use weft_netlink::attribute::Attributes;

mod contents;

/// `NFT_TABLE_F_DORMANT`: no packet comes to such a table.
const DORMANT: u32 = 1;
/// Sets with more elements, which lists of unwanted addresses are, are left unread.
const MOST_ELEMENTS: u32 = 4_096;

impl Client {
    /// The tables that packets enter at one of these hooks, but those of that name in `ip` and `ip6`.
    pub fn foreign(&mut self, own: &str, hooks: &[Hook]) -> Result<Vec<KnownTable>> {
        let is_wanted = |table: &KnownTable| {
            (table.family == TableFamily::Inet || &*table.name != own)
                && hooks.iter().any(|hook| table.at(*hook).next().is_some())
        };
        self.read_tables(&[TableFamily::Inet, TableFamily::Ip, TableFamily::Ip6], is_wanted, |_| {
            MOST_ELEMENTS
        })
    }

    /// All tables that packets enter at a hook of the IP layer. Large sets are read where `is_own` says so of
    /// the table's name.
    pub fn all(&mut self, is_own: impl Fn(&str) -> bool) -> Result<Vec<KnownTable>> {
        let is_wanted = |table: &KnownTable| Hook::ALL.iter().any(|hook| table.at(*hook).next().is_some());
        let most = |table: &KnownTable| if is_own(&table.name) { u32::MAX } else { MOST_ELEMENTS };
        self.read_tables(&[TableFamily::Inet, TableFamily::Ip, TableFamily::Ip6], is_wanted, most)
    }

    /// The tables of that name in `ip` and `ip6`, whole, however large their sets are.
    pub fn whole(&mut self, name: &str) -> Result<Vec<KnownTable>> {
        self.read_tables(&[TableFamily::Ip, TableFamily::Ip6], |table| &*table.name == name, |_| u32::MAX)
    }

    fn read_tables(
        &mut self,
        families: &[TableFamily],
        is_wanted: impl Fn(&KnownTable) -> bool,
        most_elements: impl Fn(&KnownTable) -> u32,
    ) -> Result<Vec<KnownTable>> {
        let mut tables = Vec::new();
        for family in families {
            let found = self.tables_of(*family, &is_wanted, &most_elements);
            tables
                .extend(found.map_err(|error| error.during(format!("read the tables of family {family}")))?);
        }
        Ok(tables)
    }

    fn tables_of(
        &mut self,
        family: TableFamily,
        is_wanted: impl Fn(&KnownTable) -> bool,
        most_elements: impl Fn(&KnownTable) -> u32,
    ) -> Result<Vec<KnownTable>> {
        let mut tables: BTreeMap<Name, KnownTable> = BTreeMap::new();
        for (table, chain, base) in self.dump(message::GET_CHAIN, family, None, None, parse_chain)? {
            let empty =
                || KnownTable { family, name: table.clone(), chains: BTreeMap::new(), sets: BTreeMap::new() };
            let chain_of =
                Chain { base: base.as_ref().and_then(|base| base.planned(family)), rules: Vec::new() };
            tables.entry(table.clone()).or_insert_with(empty).chains.insert(chain, chain_of);
        }
        tables.retain(|_, table| is_wanted(table));
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        for (name, flags) in self.dump(message::GET_TABLE, family, None, None, parse_table)? {
            if flags & DORMANT != 0 {
                tables.remove(&name);
            }
        }
        for table in tables.values_mut() {
            let most = most_elements(table);
            self.fill(table, most)?;
        }
        Ok(tables.into_values().collect())
    }

    fn fill(&mut self, table: &mut KnownTable, most_elements: u32) -> Result<()> {
        let (family, name) = (table.family, table.name.clone());
        let parse = |rule: &Attributes<'_>| parse_rule(family, rule);
        for (chain, rule) in self.dump(message::GET_RULE, family, Some(&name), None, parse)? {
            table.chains.entry(chain).or_default().rules.push(rule);
        }
        let rules = table.chains.values().flat_map(|chain| &chain.rules);
        let named: Vec<Name> =
            rules.flat_map(|rule| &rule.statements).filter_map(Statement::set).cloned().collect();
        if named.is_empty() {
            return Ok(());
        }
        for (set, mut found) in self.dump(message::GET_SET, family, Some(&name), None, contents::header)? {
            if named.contains(&set) {
                if found.count.is_none_or(|count| count <= most_elements) {
                    let parse = contents::elements;
                    let lists = self.dump(message::GET_ELEMENTS, family, Some(&name), Some(&set), parse)?;
                    found.elements = Some(lists.into_iter().flatten().collect());
                }
                table.sets.insert(set, found);
            }
        }
        Ok(())
    }
}

fn parse_rule(family: TableFamily, rule: &Attributes<'_>) -> Option<(Name, Rule)> {
    let comment = rule.get(7).and_then(comment).map(Name::from);
    Some((rule.string(2)?.into(), Rule { comment, ..decode(family, rule.nested(4)) }))
}
