//! Which packets leave a network under the host's own address (`ipMasq`): fixed rules, and for each network
//! elements of two sets. Only says what they are; `nft` tells the kernel.
//!
//! Containers come and go without a change here: elements are of networks, not of containers, and stay as
//! long as their bridge has containers.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use weft_nftables::{
    Base, Data, DataType, Declaration, Expression, Family, Field, Hook, Operator, Owned, PRIORITY_SRCNAT,
    Rule, Set, SetKind, Statement, Table, Tuple, Verdict,
};

use crate::plan::network;
use crate::{Error, Masquerade, Result};

/// The name of the tables, one per family.
const TABLE: &str = "weft-cni-masquerade";
/// Pairs of networks between which containers keep their addresses.
const STAYING: &str = "staying";
/// Networks whose containers leave under the host's address, paired with everywhere.
const LEAVING: &str = "leaving";

/// What is to change in a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Elements that make room for wider ones.
    pub(crate) delete: Vec<Owned>,
    /// Elements that are missing.
    pub(crate) add: Vec<Owned>,
}

/// The table of a family without any element.
pub(crate) fn layout(family: Family) -> Table {
    let (multicast, pair) = (multicast(family), vec![Expression::saddr(family), Expression::daddr(family)]);
    let lookup = |set: &str| Statement::lookup(pair.clone(), Operator::Equal, set.into());
    let stay = Statement::Verdict(Verdict::Return);
    let mut table = Table::new(family, TABLE);
    table.chain(
        "postrouting",
        Some(Base::nat(Hook::Postrouting, PRIORITY_SRCNAT)),
        vec![
            Rule::new([
                Statement::compare(Expression::daddr(family), Operator::Equal, multicast),
                stay.clone(),
            ]),
            Rule::new([lookup(STAYING), stay]),
            Rule::new([lookup(LEAVING), Statement::masquerade()]),
        ],
    );
    sets(family).into_iter().for_each(|set| table.set(Set::new(set)));
    table
}

/// The sets of a family, in the order of [`Masquerade::elements`].
pub(crate) fn sets(family: Family) -> [Arc<Declaration>; 2] {
    [STAYING, LEAVING].map(|name| {
        let (table, name, key) = (TABLE.into(), name.into(), vec![DataType::address(family); 2]);
        let family = family.into();
        Arc::new(Declaration { family, table, name, key, kind: SetKind::RangeSet, comment: None })
    })
}

fn multicast(family: Family) -> IpNetwork {
    let (address, prefix) = match family {
        Family::Ip => ([224, 0, 0, 0].into(), 4),
        Family::Ip6 => ([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8),
    };
    network(address, prefix)
}

fn everywhere(family: Family) -> IpNetwork {
    match family {
        Family::Ip => network([0, 0, 0, 0].into(), 0),
        Family::Ip6 => network([0u16; 8].into(), 0),
    }
}

impl Masquerade {
    /// The families that there are networks of.
    pub(crate) fn families(&self) -> impl Iterator<Item = Family> + '_ {
        let is_of = |family: &Family| self.networks.iter().any(|network| Family::of(network.ip()) == *family);
        Family::BOTH.into_iter().filter(is_of)
    }

    /// What the sets of a family must hold.
    pub(crate) fn elements(&self, family: Family) -> [Vec<Owned>; 2] {
        let networks: Vec<IpNetwork> =
            self.networks.iter().filter(|network| Family::of(network.ip()) == family).copied().collect();
        let pair = |from: IpNetwork, to: IpNetwork| {
            let (key, end) = Tuple::span(&[Field::Network(from), Field::Network(to)]);
            Owned { key, end: Some(end), data: Data::None, owner: self.bridge.as_str().into() }
        };
        let staying = networks.iter().flat_map(|from| networks.iter().map(|to| pair(*from, *to)));
        let leaving = networks.iter().map(|from| pair(*from, everywhere(family)));
        [staying.collect(), leaving.collect()]
    }
}

/// What of the wanted elements a set lacks. An element that another of the same bridge covers is not missing.
/// One that another bridge has left, or has as well, becomes this one's: the bridge that got the last
/// container knows best. `is_used` tells whether a bridge has containers.
///
/// # Errors
/// Where a network of another bridge that has containers overlaps in part, so that the kernel would take
/// neither.
pub(crate) fn missing(
    set: &Declaration,
    held: &[Owned],
    wanted: Vec<Owned>,
    mut is_used: impl FnMut(&str) -> Result<bool>,
) -> Result<Change> {
    let mut change = Change::default();
    for wanted in wanted {
        let covered = |held: &Owned| held.owner == wanted.owner && held.covers(&wanted, set);
        if held.iter().any(covered) || change.add.iter().any(covered) {
            continue;
        }
        for other in held.iter().filter(|held| held.overlaps(&wanted, set)) {
            let is_same = (&other.key, &other.end) == (&wanted.key, &wanted.end);
            if other.owner != wanted.owner && !is_same && is_used(&other.owner)? {
                let (bridge, other) = (wanted.owner.to_string(), other.owner.to_string());
                return Err(Error::OverlappingNetworks { bridge, other });
            }
            if !change.delete.contains(other) {
                change.delete.push(other.clone());
            }
        }
        change.add.push(wanted);
    }
    Ok(change)
}

/// Whether a set holds all of these, whosever they are.
pub(crate) fn holds(set: &Declaration, held: &[Owned], wanted: &[Owned]) -> bool {
    wanted.iter().all(|wanted| held.iter().any(|held| held.covers(wanted, set)))
}

/// Whether an element is about what is sent from that address.
pub(crate) fn is_from(element: &Owned, set: &Declaration, address: IpAddr) -> bool {
    let everywhere = everywhere(Family::of(address));
    let (key, end) = Tuple::span(&[Field::Network(address.into()), Field::Network(everywhere)]);
    element.overlaps(&Owned { key, end: Some(end), ..element.clone() }, set)
}

/// In words of people: there is no `ip` command for it.
impl fmt::Display for Masquerade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for family in self.families() {
            for (set, elements) in sets(family).iter().zip(self.elements(family)) {
                let mut transaction = weft_nftables::Transaction::default();
                transaction.add_owned(set, elements);
                write!(f, "nft {transaction}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(_: &str) -> Result<bool> {
        Ok(true)
    }

    fn masquerade(networks: &[&str]) -> Masquerade {
        Masquerade::of("cni0", networks.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn the_rules_are_fixed() {
        insta::assert_snapshot!(layout(Family::Ip), @r#"
        table ip weft-cni-masquerade {
        	set leaving {
        		type ipv4_addr . ipv4_addr
        		flags interval
        	}

        	set staying {
        		type ipv4_addr . ipv4_addr
        		flags interval
        	}

        	chain postrouting {
        		type nat hook postrouting priority srcnat; policy accept;
        		ip daddr 224.0.0.0/4 return
        		ip saddr . ip daddr @staying return
        		ip saddr . ip daddr @leaving masquerade fully-random
        	}
        }
        "#);
    }

    #[test]
    fn a_network_with_two_ranges() {
        let both = masquerade(&["10.1.0.5/24", "10.2.0.1/24", "10.1.0.1/24", "fd00::1/64"]);
        insta::assert_snapshot!(both, @r#"
        nft add element ip weft-cni-masquerade staying { 10.1.0.0/24 . 10.1.0.0/24 comment "cni0", 10.1.0.0/24 . 10.2.0.0/24 comment "cni0", 10.2.0.0/24 . 10.1.0.0/24 comment "cni0", 10.2.0.0/24 . 10.2.0.0/24 comment "cni0" }
        nft add element ip weft-cni-masquerade leaving { 10.1.0.0/24 . 0.0.0.0/0 comment "cni0", 10.2.0.0/24 . 0.0.0.0/0 comment "cni0" }
        nft add element ip6 weft-cni-masquerade staying { fd00::/64 . fd00::/64 comment "cni0" }
        nft add element ip6 weft-cni-masquerade leaving { fd00::/64 . ::/0 comment "cni0" }
        "#);
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let set = &sets(Family::Ip)[1];
        let [_, held] = masquerade(&["10.1.0.0/24"]).elements(Family::Ip);
        let [_, wanted] = masquerade(&["10.1.0.0/24", "10.2.0.0/24"]).elements(Family::Ip);
        let change = missing(set, &held, wanted.clone(), used).unwrap();
        assert_eq!(change, Change { delete: vec![], add: vec![wanted[1].clone()] });
        assert_eq!(missing(set, &wanted, wanted.clone(), used).unwrap(), Change::default());
    }

    #[test]
    fn a_wider_network_takes_the_place_of_its_parts_and_stands_for_them() {
        let set = &sets(Family::Ip)[1];
        let [_, narrow] = masquerade(&["10.1.1.0/24", "10.1.2.0/24"]).elements(Family::Ip);
        let [_, wide] = masquerade(&["10.1.0.0/16"]).elements(Family::Ip);
        let change = missing(set, &narrow, wide.clone(), used).unwrap();
        assert_eq!(change, Change { delete: narrow.clone(), add: wide.clone() });
        assert_eq!(missing(set, &wide, narrow, used).unwrap(), Change::default());
    }

    #[test]
    fn a_network_becomes_the_bridges_that_got_the_last_container_and_none_overlaps_in_part() {
        let set = &sets(Family::Ip)[1];
        let [_, held] =
            Masquerade { bridge: "cni1".into(), ..masquerade(&["10.1.0.0/16"]) }.elements(Family::Ip);
        let [_, same] = masquerade(&["10.1.0.0/16"]).elements(Family::Ip);
        let taken_over = Change { delete: held.clone(), add: same.clone() };
        assert_eq!(missing(set, &held, same.clone(), used).unwrap(), taken_over);
        assert!(holds(set, &held, &same), "it is masqueraded all the same");
        let [_, part] = masquerade(&["10.1.1.0/24"]).elements(Family::Ip);
        let error = missing(set, &held, part.clone(), used).unwrap_err();
        assert_eq!(error.failure().code.number(), 7);
        assert!(error.to_string().contains("cni1"), "{error}");
        let change = missing(set, &held, part.clone(), |_| Ok(false)).unwrap();
        assert_eq!(change, Change { delete: held, add: part }, "what a bridge without containers left");
    }

    #[test]
    fn an_element_is_about_the_addresses_of_its_network() {
        let set = &sets(Family::Ip)[1];
        let [_, held] = masquerade(&["10.1.0.0/16"]).elements(Family::Ip);
        assert!(is_from(&held[0], set, "10.1.2.3".parse().unwrap()));
        assert!(!is_from(&held[0], set, "10.2.0.1".parse().unwrap()));
    }
}
