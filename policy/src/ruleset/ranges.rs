//! Rows for ranges of ports. The kernel looks a range up in a structure that it walks for each element that
//! goes, so that it must stay small: not a row for each pod, class and range, but a *list* of ranges for each
//! pod and class, and the ranges of each different list once. Policies have few different ones.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_types::Protocol;

use crate::plan::{ClassId, Direction, Verdict};

/// Set in the number of a list, and never in that of a class: both are looked up in the packet's priority.
const LIST: u32 = 1 << 31;

/// The ranges of a list, each with what happens to its traffic.
pub(super) type Ranges = BTreeMap<(Protocol, u16, u16), Verdict>;

/// Whose ranges.
pub(super) type Place = (Direction, IpAddr, ClassId);

/// All lists, and who has which.
#[derive(Default)]
pub(super) struct RangeLists {
    by_place: BTreeMap<Place, (Ranges, Option<u32>)>,
    /// By direction and family, as each has a map of its own: the lists, and how many have each.
    lists: BTreeMap<(Direction, bool, u32), (Ranges, usize)>,
}

/// What changes of the lists.
#[derive(Default)]
pub(super) struct ListChanges {
    /// Who has another list, or none any more.
    pub(super) places: Vec<(Place, Option<u32>)>,
    /// Lists that are new, and those that nobody has any more.
    pub(super) new: Vec<((Direction, bool, u32), Ranges)>,
    pub(super) gone: Vec<((Direction, bool, u32), Ranges)>,
}

impl RangeLists {
    /// Changes ranges of a place; the list that it has follows with [`RangeLists::follow`].
    pub(super) fn set(&mut self, place: Place, range: (Protocol, u16, u16), verdict: Option<Verdict>) {
        let (ranges, _) = self.by_place.entry(place).or_default();
        match verdict {
            Some(verdict) => ranges.insert(range, verdict),
            None => ranges.remove(&range),
        };
    }

    /// Gives places whose ranges changed the lists with these ranges.
    pub(super) fn follow(&mut self, changed: impl IntoIterator<Item = Place>) -> ListChanges {
        let mut changes = ListChanges::default();
        for place in changed {
            let Some((ranges, before)) = self.by_place.get(&place).cloned() else { continue };
            let after = (!ranges.is_empty()).then(|| self.take(place, &ranges, &mut changes));
            if let Some(before) = before {
                self.release(key(place, before), &mut changes);
            }
            if before != after {
                changes.places.push((place, after));
            }
            match after {
                Some(_) => self.by_place.insert(place, (ranges, after)),
                None => self.by_place.remove(&place),
            };
        }
        changes
    }

    /// The number of the list with these ranges, for one more who has it. It follows from the ranges, so that
    /// an agent that comes back gives the same.
    fn take(&mut self, place: Place, ranges: &Ranges, changes: &mut ListChanges) -> u32 {
        let mut number = LIST | digest(ranges);
        loop {
            match self.lists.get_mut(&key(place, number)) {
                Some((held, users)) if held == ranges => {
                    *users += 1;
                    return number;
                }
                // Another list has that number.
                Some(_) => number = LIST | number.wrapping_add(1),
                None => {
                    self.lists.insert(key(place, number), (ranges.clone(), 1));
                    changes.new.push((key(place, number), ranges.clone()));
                    return number;
                }
            }
        }
    }

    fn release(&mut self, key: (Direction, bool, u32), changes: &mut ListChanges) {
        let Some((_, users)) = self.lists.get_mut(&key) else { return };
        *users -= 1;
        if *users == 0
            && let Some((ranges, _)) = self.lists.remove(&key)
        {
            changes.gone.push((key, ranges));
        }
    }
}

fn key((direction, address, _): Place, number: u32) -> (Direction, bool, u32) {
    (direction, address.is_ipv6(), number)
}

/// 32-bit FNV-1a.
fn digest(ranges: &Ranges) -> u32 {
    let bytes = ranges.iter().flat_map(|((protocol, first, last), verdict)| {
        let [a, b] = first.to_be_bytes();
        let [c, d] = last.to_be_bytes();
        [protocol.number(), a, b, c, d, u8::from(*verdict == Verdict::Accept)]
    });
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(last: u8) -> Place {
        (Direction::Ingress, IpAddr::from([10, 0, 0, last]), ClassId(7))
    }

    const RANGE: (Protocol, u16, u16) = (Protocol::Tcp, 8000, 8100);

    #[test]
    fn equal_ranges_are_one_list_for_as_long_as_somebody_has_it() {
        let mut lists = RangeLists::default();
        lists.set(place(1), RANGE, Some(Verdict::Accept));
        let first = lists.follow([place(1)]);
        assert_eq!((first.new.len(), first.gone.len(), first.places.len()), (1, 0, 1));
        lists.set(place(2), RANGE, Some(Verdict::Accept));
        let second = lists.follow([place(2)]);
        assert!(second.new.is_empty());
        assert_eq!(second.places[0].1, first.places[0].1);
        lists.set(place(1), RANGE, None);
        let third = lists.follow([place(1)]);
        assert_eq!((third.places, third.gone.len()), (vec![(place(1), None)], 0));
        lists.set(place(2), RANGE, Some(Verdict::Deny));
        let fourth = lists.follow([place(2)]);
        assert_eq!((fourth.new.len(), fourth.gone.len()), (1, 1));
        assert_ne!(fourth.places[0].1, first.places[0].1);
    }

    #[test]
    fn a_number_is_that_of_a_list_and_the_same_for_the_same_ranges() {
        let number = |ranges: &[(Protocol, u16, u16)]| {
            let mut lists = RangeLists::default();
            ranges.iter().for_each(|range| lists.set(place(1), *range, Some(Verdict::Accept)));
            lists.follow([place(1)]).places[0].1.unwrap()
        };
        let other = (Protocol::Udp, 1, 1024);
        assert_eq!(number(&[RANGE, other]), number(&[other, RANGE]));
        assert_ne!(number(&[RANGE]), number(&[other]));
        assert!(number(&[RANGE]) & LIST != 0);
    }
}
