//! The nf_tables tables by which pods leave the cluster under their node's address. Within the cluster, everybody
//! sees the pods' own addresses.

use std::iter;
use std::sync::Arc;

use weft_nftables::{
    self as nft, Base, Data, DataType, Declaration, Expression, Field, Hook, Operator, PRIORITY_SRCNAT, Rule,
    Set, SetKind, Statement, Table, Tuple, Verdict,
};
use weft_types::{Family, IpNetwork};

use crate::plan::contains;

/// The name of the tables, one per family.
pub(crate) const TABLE: &str = "weft-agent";
/// The name of the set of whence and whither pods keep their addresses. A Node more or less is an element of it.
const STAYS: &str = "stays-within";

/// A table for each family of `pods`, the ranges of the node's own pods. `inside` are the networks in which pods keep their
/// addresses, besides those.
pub(crate) fn plan(pods: &[IpNetwork], inside: impl Iterator<Item = IpNetwork>) -> Vec<Table> {
    let inside = widest(inside.chain(pods.iter().copied()));
    Family::BOTH.into_iter().filter_map(|family| table(family, &inside, pods)).collect()
}

/// The networks without those that are part of another, in order. Usually one is left of each family: the cluster's.
fn widest(networks: impl Iterator<Item = IpNetwork>) -> Vec<IpNetwork> {
    let mut networks: Vec<IpNetwork> = networks.collect();
    // A network comes before its own parts.
    networks.sort_by_key(|network| (network.ip(), network.prefix()));
    let mut widest: Vec<IpNetwork> = Vec::new();
    for network in networks {
        if !widest.last().is_some_and(|last| contains(last, &network)) {
            widest.push(network);
        }
    }
    widest
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
        family,
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
        Rule::new([from, Statement::Masquerade]).comment("a pod of this node leaves the cluster")
    });
    let mut table = Table::new(family, TABLE);
    let base = Base::nat(Hook::Postrouting, PRIORITY_SRCNAT);
    table.chain("postrouting", Some(base), iter::once(stay).chain(leave).collect());
    table.set(stays);
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_wider_networks_are_left_out() {
        let networks =
            ["10.244.1.0/24", "fd00::/64", "10.244.0.0/16", "10.9.0.0/16", "10.244.0.0/24", "fd00::/48"];
        let widest = widest(networks.iter().map(|text| text.parse().unwrap()));
        let texts: Vec<String> = widest.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.9.0.0/16", "10.244.0.0/16", "fd00::/48"]);
    }
}
