//! Chains and rules of a table that is shared with other programs: as much of them as tells which are ours,
//! and where they are.

use super::client::{Client, find_digest, parse_chain};
use super::encode::message;
use super::observed::ObservedBase;
use super::register::{DATA_VERDICT, EXPR_DATA, EXPR_NAME};
use super::table::TableKey;
use super::value::Name;
use weft_netlink::Result;
use weft_netlink::attribute::Attributes;

/// What is known of a rule without reading all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleHead {
    /// The chain that it stands in.
    pub chain: Name,
    /// The number that the kernel gave it, which is its own in its table.
    pub handle: u64,
    /// The digest that it carries; none in rules of other programs.
    pub digest: Option<u64>,
    /// The chain that it jumps to.
    pub leads_to: Option<Name>,
}

impl Client {
    /// The chains of a table; none where it does not exist.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn chains(&mut self, (family, table): &TableKey) -> Result<Vec<(Name, Option<ObservedBase>)>> {
        let chains = self.dump(message::GET_CHAIN, *family, Some(table), None, parse_chain);
        let chains =
            chains.map_err(|error| error.during(format!("read the chains of table {family} {table}")))?;
        // The kernel does not filter them by table.
        let of_table = chains.into_iter().filter(|(owner, ..)| owner == table);
        Ok(of_table.map(|(_, chain, base)| (chain, base)).collect())
    }

    /// The rules of a table, or of one of its chains, in their order; none where it does not exist.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn rule_heads(&mut self, (family, table): &TableKey, chain: Option<&Name>) -> Result<Vec<RuleHead>> {
        let heads = self.dump(message::GET_RULE, *family, Some(table), chain, head);
        heads.map_err(|error| error.during(format!("read the rules of table {family} {table}")))
    }
}

fn head(rule: &Attributes<'_>) -> Option<RuleHead> {
    let leads_to = |(_, expression): (u16, &[u8])| {
        let expression = Attributes(expression);
        let is_verdict = expression.string(EXPR_NAME) == Some("immediate");
        let verdict = || expression.nested(EXPR_DATA).nested(2).nested(DATA_VERDICT);
        // NFTA_VERDICT_CHAIN
        is_verdict.then(verdict)?.string(2).map(Name::from)
    };
    Some(RuleHead {
        chain: rule.string(2)?.into(),
        handle: u64::from_be_bytes(rule.get(3)?.try_into().ok()?),
        digest: rule.get(7).and_then(find_digest),
        leads_to: rule.nested(4).find_map(leads_to),
    })
}
