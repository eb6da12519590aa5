//! The nf_tables tables by which pods leave the cluster under their node's address. Within the cluster,
//! everybody sees the pods' own addresses.

use std::iter;
use std::sync::Arc;

use tracing::info;
use weft_nftables::{
    self as nft, Base, Data, DataType, Declaration, Expression, Field, Hook, Operator, PRIORITY_SRCNAT, Rule,
    Set, SetKind, Statement, Table, Tuple, Verdict,
};
use weft_types::{Family, IpNetwork};

use crate::Result;
use crate::masquerade::plan::MasqueradePlan;

/// The name of the tables, one per family.
pub(crate) const TABLE: &str = "weft-agent";
/// The name of the set of whence and whither pods keep their addresses. A Node more or less is an element of
/// it.
const STAYS: &str = "stays-within";

/// The kernel's tables, in the network namespace in which they were opened.
#[derive(Debug)]
pub struct MasqueradeRules {
    nft: nft::Client,
}

impl MasqueradeRules {
    /// Opens them in the calling thread's network namespace.
    pub fn open() -> Result<MasqueradeRules> {
        Ok(MasqueradeRules { nft: nft::Client::open()? })
    }

    /// Brings Weft's own tables to the plan.
    pub fn apply(&mut self, plan: &MasqueradePlan) -> Result<()> {
        let names = nft::Family::BOTH.map(|family| (family.into(), TABLE.into()));
        let planned = tables(plan);
        let transaction = nft::diff(&planned, &self.nft.observe(&names)?);
        if !transaction.is_empty() {
            self.nft.commit(&transaction)?;
            info!("{} the masquerade rules", if planned.is_empty() { "removed" } else { "set" });
        }
        Ok(())
    }
}

/// A table for each family that the node has pods of.
pub fn tables(plan: &MasqueradePlan) -> Vec<Table> {
    let table = |family| table(family, &plan.inside, &plan.pods);
    Family::BOTH.into_iter().filter_map(table).collect()
}

fn table(family: Family, inside: &[IpNetwork], pods: &[IpNetwork]) -> Option<Table> {
    let of_family = |network: &&IpNetwork| Family::of_network(network) == family;
    let pods: Vec<&IpNetwork> = pods.iter().filter(of_family).collect();
    if pods.is_empty() {
        return None;
    }
    let family = match family {
        Family::V4 => nft::Family::Ip,
        Family::V6 => nft::Family::Ip6,
    };
    let mut stays = Set::new(Arc::new(Declaration {
        family: family.into(),
        table: TABLE.into(),
        name: STAYS.into(),
        key: vec![DataType::address(family); 2],
        kind: SetKind::RangeSet,
        comment: Some("from a pod of this node to within the cluster"),
    }));
    for from in &pods {
        for to in inside.iter().filter(of_family) {
            stays.elements.insert(Tuple::range(&[Field::Network(**from), Field::Network(*to)]), Data::None);
        }
    }
    let ends = vec![Expression::saddr(family), Expression::daddr(family)];
    let stay = Rule::new([
        Statement::lookup(ends, Operator::Equal, STAYS.into()),
        Statement::Verdict(Verdict::Accept),
    ]);
    let leave = pods.into_iter().map(|network| {
        let from = Statement::compare(Expression::saddr(family), Operator::Equal, *network);
        Rule::new([from, Statement::masquerade()]).comment("a pod of this node leaves the cluster")
    });
    let mut table = Table::new(family, TABLE);
    let base = Base::nat(Hook::Postrouting, PRIORITY_SRCNAT);
    table.chain("postrouting", Some(base), iter::once(stay).chain(leave).collect());
    table.set(stays);
    Some(table)
}
