//! Which address a container gets: one out of each range set, the asked-for ones first, otherwise round
//! robin, and of those that were given before the one that was freed longest ago. Pure but for the [`Store`]
//! that it is given.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_cni_spec::IpConfig;

use crate::{Error, Holder, Listing, Owner, Pool, Range, RangeSet, Record, Result, Store};

/// The addresses that a container got, one of each range set and in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The addresses with prefix and gateway; of no interface yet.
    pub ips: Vec<IpConfig>,
}

/// Reserves an address of each of the pool's range sets for `owner`, and all of `requested`. `listing` is
/// what `store` holds.
///
/// # Errors
/// Where a set has none left, a requested address cannot be given, or `owner` has one already; then nothing
/// stays reserved.
pub fn allocate(
    store: &mut impl Store,
    listing: &Listing,
    pool: &Pool,
    owner: &Owner,
    requested: &[IpAddr],
) -> Result<Lease> {
    let held: Vec<&Record> = listing.records.iter().filter(|record| record.is_held()).collect();
    if let Some(record) = held.iter().find(|record| record.is_of(owner) && pool.holds(record.address)) {
        return Err(Error::Duplicate { owner: owner.clone(), address: record.address });
    }
    // No other program must take the containers of an earlier boot for living ones. What cannot be freed is
    // passed over when its turn comes.
    let _ = free(store, listing, |record| !record.is_held());
    let taken = held.iter().map(|record| record.address).collect();
    let freed = store.freed();
    let rests = freed.iter().copied().collect();
    let mut request =
        Request { owner, taken, freed, rests, requested: requested.to_vec(), reserved: Vec::new() };
    let outcome = request.fill(store, pool);
    if outcome.is_err() {
        // The first error is the one to report; what could not be freed is found by garbage collection.
        let _ = store.free(&request.reserved.iter().collect::<Vec<_>>());
    }
    outcome
}

/// Frees every address of `owner`. None is no error.
pub fn release(store: &mut impl Store, listing: &Listing, owner: &Owner) -> Result<()> {
    // A record with the interface's name is meant before one of an old version without.
    let is_old = |record: &Record| matches!(record.holder, Holder::Container { ifname: None, .. });
    let named = listing.records.iter().any(|record| record.is_of(owner) && !is_old(record));
    free(store, listing, |record| record.is_of(owner) && is_old(record) != named)
}

/// Frees every address but those of living containers that `is_valid` speaks for.
pub fn collect(store: &mut impl Store, listing: &Listing, is_valid: impl Fn(&Record) -> bool) -> Result<()> {
    free(store, listing, |record| match &record.holder {
        Holder::Container { .. } | Holder::Marked(_) => !record.is_held() || !is_valid(record),
        Holder::Nobody => true,
        // It is no record, and not ours to delete.
        Holder::Unknown => false,
    })
}

fn free(store: &mut impl Store, listing: &Listing, which: impl Fn(&Record) -> bool) -> Result<()> {
    let records: Vec<&Record> = listing.records.iter().filter(|record| which(record)).collect();
    if records.is_empty() { Ok(()) } else { store.free(&records) }
}

struct Request<'a> {
    owner: &'a Owner,
    taken: BTreeSet<IpAddr>,
    /// In the order in which they were freed, and to look one up.
    freed: Vec<IpAddr>,
    rests: BTreeSet<IpAddr>,
    requested: Vec<IpAddr>,
    /// What to free again where the rest fails.
    reserved: Vec<Record>,
}

impl Request<'_> {
    fn fill(&mut self, store: &mut impl Store, pool: &Pool) -> Result<Lease> {
        let mut lease = Lease::default();
        for (index, set) in pool.sets.iter().enumerate() {
            let wanted = self.requested.iter().position(|address| set.range_of(*address).is_some());
            let (range, record) = match wanted.map(|place| self.requested.remove(place)) {
                Some(address) => self.requested_one(store, index, set, address)?,
                None => self.next_one(store, pool, index, set)?,
            };
            lease.ips.push(IpConfig {
                address: range.with_prefix(record.address),
                gateway: Some(range.gateway),
                interface: None,
            });
            self.reserved.push(record);
        }
        match self.requested.as_slice() {
            [] => Ok(lease),
            left => Err(Error::LeftOver(left.to_vec())),
        }
    }

    fn requested_one<'s>(
        &self,
        store: &mut impl Store,
        index: usize,
        set: &'s RangeSet,
        address: IpAddr,
    ) -> Result<(&'s Range, Record)> {
        let taken = || Error::Taken { address, set: set.to_string() };
        let range = set.range_of(address).ok_or_else(taken)?;
        if range.gateway == address {
            return Err(Error::Gateway { address, set: set.to_string() });
        }
        let record = match self.taken.contains(&address) {
            true => None,
            false => store.reserve(address, self.owner, index)?,
        };
        record.map(|record| (range, record)).ok_or_else(taken)
    }

    fn next_one<'s>(
        &self,
        store: &mut impl Store,
        pool: &Pool,
        index: usize,
        set: &'s RangeSet,
    ) -> Result<(&'s Range, Record)> {
        let last = store.last(index)?;
        let fresh = set.round_robin(last).filter(|(_, address)| !self.rests.contains(address));
        // Peers may still send to who had it before: the longest rest is the best.
        let rested = self.freed.iter().filter_map(|address| Some((set.range_of(*address)?, *address)));
        let rested = rested.filter(|(range, address)| range.gateway != *address);
        for (range, address) in fresh.chain(rested).filter(|(_, address)| !self.taken.contains(address)) {
            if let Some(record) = store.reserve(address, self.owner, index)? {
                return Ok((range, record));
            }
        }
        Err(pool.exhausted(set))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use weft_cni_spec as cni;

    use super::*;
    use crate::Record;

    /// A store in memory. The set's last address is kept as the disk store keeps it.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Memory {
        records: BTreeMap<IpAddr, Record>,
        last: BTreeMap<usize, IpAddr>,
        freed: Vec<IpAddr>,
    }

    impl Memory {
        fn listing(&self) -> Listing {
            Listing { records: self.records.values().cloned().collect(), ..Listing::default() }
        }
    }

    fn allocate(store: &mut Memory, pool: &Pool, owner: &Owner, requested: &[IpAddr]) -> Result<Lease> {
        super::allocate(store, &store.listing(), pool, owner, requested)
    }

    fn release(store: &mut Memory, owner: &Owner) -> Result<()> {
        super::release(store, &store.listing(), owner)
    }

    fn record(address: &str, id: &str, ifname: Option<&str>, earlier_boot: bool) -> Record {
        let holder = Holder::Container { id: id.into(), ifname: ifname.map(str::to_owned) };
        Record { earlier_boot, ..of(address, holder) }
    }

    fn of(address: &str, holder: Holder) -> Record {
        Record { address: ip(address), holder, earlier_boot: false, mark: None }
    }

    impl Store for Memory {
        fn last(&self, set: usize) -> Result<Option<IpAddr>> {
            Ok(self.last.get(&set).copied())
        }
        fn freed(&self) -> Vec<IpAddr> {
            self.freed.clone()
        }
        fn reserve(&mut self, address: IpAddr, owner: &Owner, set: usize) -> Result<Option<Record>> {
            if self.records.contains_key(&address) {
                return Ok(None);
            }
            let record = record(&address.to_string(), &owner.container, Some(&owner.ifname), false);
            self.records.insert(address, record.clone());
            self.last.insert(set, address);
            Ok(Some(record))
        }
        fn free(&mut self, records: &[&Record]) -> Result<()> {
            for record in records {
                if self.records.remove(&record.address).is_some() {
                    self.freed.retain(|freed| *freed != record.address);
                    self.freed.push(record.address);
                }
            }
            Ok(())
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn owner(container: &str) -> Owner {
        Owner { container: container.into(), ifname: "eth0".into() }
    }

    fn pool(sets: &[&[&str]]) -> Pool {
        let range = |subnet: &&str| cni::Range::of(subnet.parse().unwrap());
        let sets = sets
            .iter()
            .map(|set| RangeSet::new(&set.iter().map(range).collect::<Vec<_>>()).unwrap())
            .collect();
        Pool::of("blue".parse().unwrap(), sets)
    }

    /// A store on a /29 where these are taken and that was the last given.
    fn store(taken: &[&str], last: &str) -> Memory {
        let mut store = Memory::default();
        for address in taken {
            store.reserve(ip(address), &owner("other"), 0).unwrap();
        }
        store.last.insert(0, ip(last));
        store
    }

    fn next(store: &mut Memory, pool: &Pool) -> Result<String> {
        allocate(store, pool, &owner("new"), &[]).map(|lease| lease.ips[0].address.to_string())
    }

    #[test]
    fn the_vectors_of_the_reference() {
        let small = pool(&[&["10.0.0.0/29"]]);
        let first = next(&mut Memory::default(), &small).unwrap();
        assert_eq!(first, "10.0.0.2/29", "nothing given yet: the first behind the gateway");
        assert_eq!(next(&mut store(&[], "10.0.0.5"), &small).unwrap(), "10.0.0.6/29");
        assert_eq!(next(&mut store(&["10.0.0.6"], "10.0.0.5"), &small).unwrap(), "10.0.0.2/29");
        assert_eq!(next(&mut store(&[], "10.0.0.10"), &small).unwrap(), "10.0.0.2/29", "last out of range");
        let all_but_last = store(&["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.6"], "10.0.0.5");
        assert_eq!(next(&mut all_but_last.clone(), &small).unwrap(), "10.0.0.5/29");
        let two = pool(&[&["10.0.0.0/29", "10.1.0.0/29"]]);
        assert_eq!(next(&mut store(&[], "10.0.0.6"), &two).unwrap(), "10.1.0.2/29", "on to the next subnet");
        assert_eq!(next(&mut store(&[], "10.1.0.6"), &two).unwrap(), "10.0.0.2/29", "and round to the first");
    }

    #[test]
    fn a_full_set_is_an_error_that_names_network_and_range() {
        let mut full = store(&["10.0.0.2"], "10.0.0.2");
        let error = next(&mut full, &pool(&[&["10.0.0.0/30"]])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no IP addresses available in range set 10.0.0.1-10.0.0.2 of network blue"
        );
        assert!(error.failure().details.contains("/var/lib/cni/networks/blue"), "{}", error.failure());
    }

    #[test]
    fn an_attachment_gets_one_address_of_each_set_and_no_second() {
        let dual = pool(&[&["10.0.0.0/29"], &["fd00::/64"]]);
        let mut store = Memory::default();
        let lease = allocate(&mut store, &dual, &owner("a"), &[]).unwrap();
        let addresses: Vec<_> = lease.ips.iter().map(|ip| ip.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.2/29", "fd00::2/64"]);
        assert_eq!(lease.ips[1].gateway, Some(ip("fd00::1")));
        let before = store.clone();
        let again = allocate(&mut store, &dual, &owner("a"), &[]).unwrap_err();
        assert!(matches!(again, Error::Duplicate { .. }), "{again}");
        let other = Owner { ifname: "eth1".into(), ..owner("a") };
        assert!(allocate(&mut store, &dual, &other, &[]).is_ok(), "another interface is another attachment");
        release(&mut store, &other).unwrap();
        assert_eq!(store.records, before.records);
    }

    #[test]
    fn a_failure_in_a_later_set_frees_the_earlier_address() {
        let dual = pool(&[&["10.0.0.0/29"], &["10.1.0.0/30"]]);
        let mut store = store(&["10.1.0.2"], "10.0.0.2");
        assert!(matches!(next(&mut store, &dual), Err(Error::Exhausted { .. })));
        assert_eq!(store.records.len(), 1, "only the other's");
    }

    #[test]
    fn requested_addresses() {
        let dual = pool(&[&["10.0.0.0/29"], &["10.1.0.0/29"]]);
        let ask = |store: &mut Memory, requested: &[&str]| {
            let requested: Vec<_> = requested.iter().map(|address| ip(address)).collect();
            allocate(store, &dual, &owner("new"), &requested)
                .map(|lease| lease.ips.iter().map(|ip| ip.address.ip().to_string()).collect::<Vec<_>>())
                .map_err(|error| error.to_string())
        };
        let mut taken = store(&["10.0.0.4"], "10.0.0.4");
        assert_eq!(ask(&mut taken.clone(), &["10.1.0.5"]), Ok(vec!["10.0.0.5".into(), "10.1.0.5".into()]));
        let refused = [
            (
                &["10.0.0.1"][..],
                "requested IP address 10.0.0.1 is the gateway of range set 10.0.0.1-10.0.0.6",
            ),
            (&["10.0.0.4"], "requested IP address 10.0.0.4 is not available in range set 10.0.0.1-10.0.0.6"),
            (&["10.0.0.5", "10.9.9.9"], "failed to allocate all requested IPs: 10.9.9.9 left over"),
            (&["10.0.0.5", "10.0.0.6"], "failed to allocate all requested IPs: 10.0.0.6 left over"),
        ];
        for (requested, expected) in refused {
            assert_eq!(ask(&mut taken, requested), Err(expected.to_owned()));
            assert_eq!(taken.records.len(), 1, "all rolled back");
        }
    }

    #[test]
    fn release_is_idempotent_and_frees_only_the_owners() {
        let small = pool(&[&["10.0.0.0/29"]]);
        let mut store = Memory::default();
        allocate(&mut store, &small, &owner("a"), &[]).unwrap();
        allocate(&mut store, &small, &owner("b"), &[]).unwrap();
        release(&mut store, &owner("a")).unwrap();
        release(&mut store, &owner("a")).unwrap();
        assert_eq!(store.records.keys().collect::<Vec<_>>(), [&ip("10.0.0.3")]);
    }

    #[test]
    fn a_record_of_an_old_version_counts_only_where_none_has_the_interface() {
        let mut store = Memory::default();
        store.records.insert(ip("10.0.0.5"), record("10.0.0.5", "a", None, false));
        store.reserve(ip("10.0.0.6"), &owner("a"), 0).unwrap();
        release(&mut store, &owner("a")).unwrap();
        assert_eq!(store.records.keys().collect::<Vec<_>>(), [&ip("10.0.0.5")]);
        release(&mut store, &owner("a")).unwrap();
        assert!(store.records.is_empty());
    }

    #[test]
    fn an_empty_record_is_nobodys() {
        let mut store = Memory::default();
        store.records.insert(ip("10.0.0.2"), of("10.0.0.2", Holder::Nobody));
        assert_eq!(next(&mut store, &pool(&[&["10.0.0.0/30"]])).unwrap(), "10.0.0.2/30");
    }

    #[test]
    fn who_lived_before_the_reboot_holds_nothing() {
        let mut store = Memory::default();
        for address in ["10.0.0.2", "10.0.0.3"] {
            store.records.insert(ip(address), record(address, "new", Some("eth0"), true));
        }
        let small = pool(&[&["10.0.0.0/30"]]);
        assert_eq!(
            next(&mut store, &small).unwrap(),
            "10.0.0.2/30",
            "a full range, and the same container's id"
        );
        assert_eq!(store.records.len(), 1, "the other is gone for all programs");
        let mut late = Memory::default();
        late.records.insert(ip("10.0.0.2"), record("10.0.0.2", "new", Some("eth0"), true));
        release(&mut late, &owner("new")).unwrap();
        assert!(late.records.is_empty(), "a DEL that comes after the reboot");
    }

    #[test]
    fn what_cannot_be_read_is_given_to_nobody_and_not_deleted() {
        let mut store = Memory::default();
        store.records.insert(ip("10.0.0.2"), of("10.0.0.2", Holder::Unknown));
        assert!(matches!(next(&mut store, &pool(&[&["10.0.0.0/30"]])), Err(Error::Exhausted { .. })));
        let listing = store.listing();
        collect(&mut store, &listing, |_| false).unwrap();
        assert_eq!(store.records.len(), 1);
    }

    #[test]
    fn of_the_freed_addresses_the_one_that_rests_longest_goes_first() {
        let small = pool(&[&["10.0.0.0/29"]]);
        let mut store = Memory::default();
        for name in ["a", "b", "c", "d", "e"] {
            allocate(&mut store, &small, &owner(name), &[]).unwrap();
        }
        for name in ["d", "a", "c"] {
            release(&mut store, &owner(name)).unwrap();
        }
        // Round robin would be at .2 now.
        for expected in ["10.0.0.5/29", "10.0.0.2/29", "10.0.0.4/29"] {
            assert_eq!(next(&mut store, &small).unwrap(), expected);
            let held = store.records.values_mut().find(|record| record.is_of(&owner("new"))).unwrap();
            held.holder = Holder::Unknown;
        }
        let mut roomy = Memory { freed: vec![ip("10.0.0.3")], ..Memory::default() };
        roomy.last.insert(0, ip("10.0.0.2"));
        assert_eq!(next(&mut roomy, &small).unwrap(), "10.0.0.4/29", "never given goes before");
    }

    proptest! {
        /// Whatever comes and goes: no address twice, none outside the ranges, no gateway, and full only when
        /// full.
        #[test]
        fn addresses_are_unique_and_of_the_range(steps in prop::collection::vec((0u8..12, any::<bool>()), 0..80)) {
            let small = pool(&[&["10.0.0.0/29", "10.1.0.0/30"]]);
            let mut store = Memory::default();
            for (name, add) in steps {
                let owner = owner(&name.to_string());
                if !add {
                    release(&mut store, &owner).unwrap();
                    continue;
                }
                let (held, known) = (store.records.len(), store.records.values().any(|record| record.is_of(&owner)));
                match allocate(&mut store, &small, &owner, &[]) {
                    Ok(lease) => {
                        let address = lease.ips[0].address.ip();
                        prop_assert!(!known && store.records.len() == held + 1);
                        prop_assert!(small.sets[0].range_of(address).is_some_and(|range| range.gateway != address));
                    }
                    Err(Error::Duplicate { .. }) => prop_assert!(known),
                    Err(Error::Exhausted { .. }) => prop_assert_eq!(held, 6),
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                }
            }
        }
    }
}
