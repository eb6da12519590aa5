//! Which address a container gets: one out of each range set, the asked-for ones first, otherwise round robin. Pure
//! but for the [`Store`] that it is given.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_types::cni::IpConfig;

use crate::{Error, Owner, Pool, Range, RangeSet, Result, Store};

/// The addresses that a container got, one of each range set and in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The addresses with prefix and gateway; of no interface yet.
    pub ips: Vec<IpConfig>,
}

/// Reserves an address of each of the pool's range sets for `owner`, and all of `requested`.
///
/// # Errors
/// Where a set has none left, a requested address cannot be given, or `owner` has one already; then nothing stays
/// reserved.
pub fn allocate(store: &mut impl Store, pool: &Pool, owner: &Owner, requested: &[IpAddr]) -> Result<Lease> {
    let records = store.records()?;
    if let Some(record) = records.iter().find(|record| record.is_of(owner) && pool.holds(record.address)) {
        return Err(Error::Duplicate { owner: owner.clone(), address: record.address });
    }
    // An empty record belongs to nobody: its writer died, for the lock is ours. `reserve` replaces it.
    let taken =
        records.iter().filter(|record| record.container.is_some()).map(|record| record.address).collect();
    let mut request = Request { owner, taken, requested: requested.to_vec() };
    let mut lease = Lease::default();
    let outcome = request.fill(store, pool, &mut lease);
    if outcome.is_err() {
        for ip in &lease.ips {
            // The first error is the one to report; what could not be freed is found by garbage collection.
            let _ = store.free(ip.address.ip());
        }
    }
    outcome.map(|()| lease)
}

/// Frees every address of `owner`. None is no error.
pub fn release(store: &mut impl Store, owner: &Owner) -> Result<()> {
    let records = store.records()?;
    // A record with the interface's name is meant before one of an old version without.
    let exact = |named: bool| {
        records.iter().filter(move |record| record.is_of(owner) && record.ifname.is_some() == named)
    };
    let named = exact(true).count() > 0;
    exact(named).try_for_each(|record| store.free(record.address))
}

struct Request<'a> {
    owner: &'a Owner,
    taken: BTreeSet<IpAddr>,
    requested: Vec<IpAddr>,
}

impl Request<'_> {
    fn fill(&mut self, store: &mut impl Store, pool: &Pool, lease: &mut Lease) -> Result<()> {
        for (index, set) in pool.sets.iter().enumerate() {
            let wanted = self.requested.iter().position(|address| set.range_of(*address).is_some());
            let (range, address) = match wanted {
                Some(place) => {
                    let address = self.requested.remove(place);
                    (self.requested_one(store, index, set, address)?, address)
                }
                None => self.next_one(store, pool, index, set)?,
            };
            lease.ips.push(IpConfig {
                address: range.with_prefix(address),
                gateway: Some(range.gateway),
                interface: None,
            });
        }
        match self.requested.as_slice() {
            [] => Ok(()),
            left => Err(Error::LeftOver(left.to_vec())),
        }
    }

    fn requested_one<'s>(
        &self,
        store: &mut impl Store,
        index: usize,
        set: &'s RangeSet,
        address: IpAddr,
    ) -> Result<&'s Range> {
        match set.range_of(address) {
            Some(range) if range.gateway == address => Err(Error::Gateway { address, set: set.to_string() }),
            Some(range) if store.reserve(address, self.owner, index)? => Ok(range),
            _ => Err(Error::Taken { address, set: set.to_string() }),
        }
    }

    fn next_one<'s>(
        &self,
        store: &mut impl Store,
        pool: &Pool,
        index: usize,
        set: &'s RangeSet,
    ) -> Result<(&'s Range, IpAddr)> {
        let last = store.last(index)?;
        for (range, address) in set.round_robin(last).filter(|(_, address)| !self.taken.contains(address)) {
            if store.reserve(address, self.owner, index)? {
                return Ok((range, address));
            }
        }
        let (network, folder) = (pool.network.to_string(), pool.folder());
        Err(Error::Exhausted { network, set: set.to_string(), folder })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use weft_types::cni;

    use super::*;
    use crate::Record;

    /// A store in memory. The set's last address is kept as the disk store keeps it.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Memory {
        records: BTreeMap<IpAddr, Record>,
        last: BTreeMap<usize, IpAddr>,
    }

    impl Store for Memory {
        fn records(&self) -> Result<Vec<Record>> {
            Ok(self.records.values().cloned().collect())
        }
        fn last(&self, set: usize) -> Result<Option<IpAddr>> {
            Ok(self.last.get(&set).copied())
        }
        fn reserve(&mut self, address: IpAddr, owner: &Owner, set: usize) -> Result<bool> {
            if self.records.get(&address).is_some_and(|record| record.container.is_some()) {
                return Ok(false);
            }
            let (container, ifname) = (Some(owner.container.clone()), Some(owner.ifname.clone()));
            self.records.insert(address, Record { address, container, ifname });
            self.last.insert(set, address);
            Ok(true)
        }
        fn free(&mut self, address: IpAddr) -> Result<()> {
            self.records.remove(&address);
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
        let old = |address: &str| Record { address: ip(address), container: Some("a".into()), ifname: None };
        store.records.insert(ip("10.0.0.5"), old("10.0.0.5"));
        store.reserve(ip("10.0.0.6"), &owner("a"), 0).unwrap();
        release(&mut store, &owner("a")).unwrap();
        assert_eq!(store.records.keys().collect::<Vec<_>>(), [&ip("10.0.0.5")]);
        release(&mut store, &owner("a")).unwrap();
        assert!(store.records.is_empty());
    }

    #[test]
    fn an_empty_record_is_nobodys() {
        let mut store = Memory::default();
        let empty = Record { address: ip("10.0.0.2"), container: None, ifname: None };
        store.records.insert(empty.address, empty);
        assert_eq!(next(&mut store, &pool(&[&["10.0.0.0/30"]])).unwrap(), "10.0.0.2/30");
    }

    proptest! {
        /// Whatever comes and goes: no address twice, none outside the ranges, no gateway, and full only when full.
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
