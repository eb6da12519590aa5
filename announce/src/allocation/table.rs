//! Which address has which users, and the search for one that is free.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_types::{AddressRange, Family, Labels, LoadBalancer};

use super::pools::{Pool, Pools};
use super::sharing::User;

/// All addresses that somebody has.
pub(super) struct Table<'a> {
    pools: &'a Pools,
    reserved: &'a BTreeMap<IpAddr, String>,
    users: BTreeMap<IpAddr, Vec<User<'a>>>,
    /// For each range, with and without the addresses that some pools avoid, the place before which nothing is
    /// free. Addresses are only taken while those are served who need one, save for a few that are changed for
    /// others.
    cursors: BTreeMap<(AddressRange, bool), u128>,
}

/// What was found for a Service.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) addresses: Vec<IpAddr>,
    /// Why there is not one of each family.
    pub(super) why: String,
}

impl<'a> Table<'a> {
    pub(super) fn new(pools: &'a Pools, reserved: &'a BTreeMap<IpAddr, String>) -> Table<'a> {
        Table { pools, reserved, users: BTreeMap::new(), cursors: BTreeMap::new() }
    }

    /// All addresses that somebody has.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.users.keys().copied()
    }

    pub(super) fn put(&mut self, address: IpAddr, user: User<'a>) {
        self.users.entry(address).or_default().push(user);
    }

    pub(super) fn remove(&mut self, address: IpAddr, service: &weft_types::NamespacedName) {
        if let Some(users) = self.users.get_mut(&address) {
            users.retain(|user| user.service != *service);
            if users.is_empty() {
                self.users.remove(&address);
            }
        }
    }

    /// Whether an address may be given to one more user, and if not, why.
    pub(super) fn may_have(&self, address: IpAddr, user: &User<'_>) -> Result<(), String> {
        if let Some(owner) = self.reserved.get(&address) {
            return Err(format!("{owner} has it"));
        }
        for other in self.users.get(&address).into_iter().flatten() {
            user.may_share(other).map_err(|why| format!("Service {} has it, too: {why}", other.service))?;
        }
        Ok(())
    }

    /// Chooses an address of each of these families: of one pool if one has all, and else of several.
    pub(super) fn choose(
        &mut self,
        user: &User<'a>,
        asks: &LoadBalancer,
        held: &[IpAddr],
        families: &[Family],
        namespaces: &BTreeMap<String, Labels>,
    ) -> Found {
        if families.is_empty() {
            return Found::default();
        }
        let pools = self.pools;
        let mut candidates = pools.candidates(&user.service.namespace, asks, namespaces);
        // The addresses of a Service are of one pool where they can be.
        candidates.sort_by_key(|pool| !held.iter().any(|address| pool.has(*address)));
        let mut first: BTreeMap<Family, IpAddr> = BTreeMap::new();
        for pool in &candidates {
            let found: Vec<(Family, IpAddr)> = families
                .iter()
                .filter_map(|&family| Some((family, self.find(pool, family, user)?)))
                .collect();
            if found.len() == families.len() {
                return Found {
                    addresses: found.into_iter().map(|(_, it)| it).collect(),
                    why: String::new(),
                };
            }
            found.into_iter().for_each(|(family, address)| {
                first.entry(family).or_insert(address);
            });
        }
        let missing: Vec<Family> = families.iter().copied().filter(|it| !first.contains_key(it)).collect();
        let why = pools.lack(&candidates, &missing, asks);
        Found { addresses: families.iter().filter_map(|family| first.get(family)).copied().collect(), why }
    }

    /// An address of a pool that a user may have: one that it shares, if it shares, or the first that is free.
    fn find(&mut self, pool: &Pool, family: Family, user: &User<'_>) -> Option<IpAddr> {
        let ranges = || pool.ranges().iter().filter(|range| range.family() == family);
        if user.shares() {
            for range in ranges() {
                let taken = self.users.range(range.first()..=range.last());
                let mut shared = taken.map(|(address, _)| *address).filter(|address| pool.has(*address));
                if let Some(address) = shared.find(|address| self.may_have(*address, user).is_ok()) {
                    return Some(address);
                }
            }
        }
        ranges().find_map(|range| {
            let cursor = self.cursors.entry((*range, pool.avoids_buggy_ips())).or_default();
            loop {
                let address = range.nth(*cursor)?;
                let is_free = !self.users.contains_key(&address) && !self.reserved.contains_key(&address);
                if is_free && pool.has(address) {
                    return Some(address);
                }
                *cursor += 1;
            }
        })
    }
}
