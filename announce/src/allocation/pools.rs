//! Pools of addresses: which Services they are for, in which order they are asked, and how full they are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_types::{
    AddressRange, Family, IpAddressPool, LabelSelector, Labels, LoadBalancer, Service, ServiceAllocation,
};

/// The name of the pool that the agent's flag `--lb-pool` makes.
pub const FLAG_POOL: &str = "default";

/// All pools, in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub struct Pools(Vec<Pool>);

/// A pool.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    name: String,
    ranges: Box<[AddressRange]>,
    auto_assign: bool,
    avoid_buggy_ips: bool,
    allocation: Option<ServiceAllocation>,
}

/// How full a pool is, in addresses. What goes beyond the numbers is as many as they can say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Those that Services have.
    pub in_use: u64,
    /// Those that there are.
    pub total: u64,
}

impl Pools {
    /// The pool of a flag, where it has ranges, and those of the cluster.
    pub fn new<'a>(flag: &[AddressRange], objects: impl Iterator<Item = &'a IpAddressPool>) -> Pools {
        let of_flag = Pool {
            name: FLAG_POOL.to_owned(),
            ranges: flag.into(),
            auto_assign: true,
            avoid_buggy_ips: false,
            allocation: None,
        };
        let mut pools: Vec<Pool> = objects.map(Pool::from).collect();
        pools.extend((!flag.is_empty()).then_some(of_flag));
        pools.sort_by(|one, other| one.order().cmp(&other.order()));
        Pools(pools)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pool that an address is of.
    pub(super) fn of(&self, address: IpAddr) -> Option<&Pool> {
        self.0.iter().find(|pool| pool.has(address))
    }

    /// The pools of a name: objects of several namespaces may have the same.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = &Pool> {
        self.0.iter().filter(move |pool| pool.name == name)
    }

    /// The pools that a Service gets addresses of, in order.
    pub(super) fn candidates(
        &self,
        namespace: &str,
        asks: &LoadBalancer,
        namespaces: &BTreeMap<String, Labels>,
    ) -> Vec<&Pool> {
        let is_meant = |pool: &&Pool| match asks.requested_pool.as_deref() {
            Some(name) => pool.name == name,
            None => pool.auto_assign,
        };
        let is_for = |pool: &&Pool| pool.is_for(namespace, &asks.labels, namespaces);
        self.0.iter().filter(is_meant).filter(is_for).collect()
    }

    /// Whether a Service that asks for an address may have it of some pool, and if not, why.
    pub(super) fn offers(
        &self,
        address: IpAddr,
        service: &Service,
        asks: &LoadBalancer,
        namespaces: &BTreeMap<String, Labels>,
    ) -> Result<(), String> {
        let Some(of) = self.of(address) else {
            return Err(format!("it asks for {address}, which is of no pool ({})", self.names()));
        };
        let mut having = self.0.iter().filter(|pool| pool.has(address));
        if let Some(name) = &asks.requested_pool
            && !having.clone().any(|pool| pool.name == **name)
        {
            return Err(format!(
                "it asks for {address} of the pool {name}, but it is of the pool {}",
                of.name
            ));
        }
        match having.any(|pool| pool.is_for(&service.key.namespace, &asks.labels, namespaces)) {
            true => Ok(()),
            false => {
                Err(format!("it asks for {address} of the pool {}, which is for other Services", of.name))
            }
        }
    }

    /// Why these pools have no address of these families.
    pub(super) fn lack(&self, asked: &[&Pool], families: &[Family], asks: &LoadBalancer) -> String {
        let families: Vec<String> = families.iter().map(ToString::to_string).collect();
        let families = families.join(" and ");
        let names: Vec<&str> = asked.iter().map(|pool| pool.name.as_str()).collect();
        match (names.is_empty(), &asks.requested_pool) {
            (false, _) => format!("no {families} address is free in {}", named(&names)),
            (true, Some(name)) if self.named(name).next().is_none() => {
                format!("it asks for the pool {name}, which there is not ({})", self.names())
            }
            (true, Some(name)) => format!("it asks for the pool {name}, which is for other Services"),
            (true, None) => format!("no pool is for it ({})", self.names()),
        }
    }

    /// How full each pool is.
    pub(super) fn usage(&self, addresses: impl Iterator<Item = IpAddr>) -> BTreeMap<String, Usage> {
        let mut usage: BTreeMap<String, Usage> = BTreeMap::new();
        for pool in &self.0 {
            let total = &mut usage.entry(pool.name.clone()).or_default().total;
            *total = total.saturating_add(pool.size());
        }
        for pool in addresses.filter_map(|address| self.of(address)) {
            usage.entry(pool.name.clone()).or_default().in_use += 1;
        }
        usage
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|pool| pool.name.as_str()).collect();
        match names.is_empty() {
            true => "there is none".to_owned(),
            false => format!("there is {}", named(&names)),
        }
    }
}

fn named(names: &[&str]) -> String {
    let noun = if names.len() == 1 { "the pool" } else { "the pools" };
    format!("{noun} {}", names.join(", "))
}

impl From<&IpAddressPool> for Pool {
    fn from(object: &IpAddressPool) -> Pool {
        Pool {
            name: object.key.name.to_string(),
            ranges: object.ranges.clone(),
            auto_assign: object.auto_assign,
            avoid_buggy_ips: object.avoid_buggy_ips,
            allocation: object.allocation.clone(),
        }
    }
}

impl Pool {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }

    pub(super) fn avoids_buggy_ips(&self) -> bool {
        self.avoid_buggy_ips
    }

    /// Those that are for some Services come before those for all, by priority, and then by name.
    fn order(&self) -> (bool, bool, i64, &str) {
        let priority = self.allocation.as_ref().map_or(0, |allocation| allocation.priority);
        (self.allocation.is_none(), priority == 0, priority, &self.name)
    }

    /// Whether an address is of this pool, and may be used.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let is_avoided = self.avoid_buggy_ips && is_buggy(address);
        !is_avoided && self.ranges.iter().any(|range| range.contains(address))
    }

    /// Whether it is for a Service of that namespace and with these labels.
    fn is_for(&self, namespace: &str, labels: &Labels, namespaces: &BTreeMap<String, Labels>) -> bool {
        let Some(ServiceAllocation { namespaces: names, namespace_selectors, service_selectors, .. }) =
            &self.allocation
        else {
            return true;
        };
        let of_namespace = namespaces.get(namespace);
        let is_named = || names.iter().any(|name| **name == *namespace);
        let is_selected = || {
            of_namespace
                .is_some_and(|labels| namespace_selectors.iter().any(|selector| selector.matches(labels)))
        };
        let has_namespace =
            (names.is_empty() && namespace_selectors.is_empty()) || is_named() || is_selected();
        has_namespace && LabelSelector::any_matches(service_selectors, labels)
    }

    /// How many addresses may be used. Ranges that overlap count twice.
    fn size(&self) -> u64 {
        let sizes = self.ranges.iter().map(|range| {
            let avoided = if self.avoid_buggy_ips { buggy(range) } else { 0 };
            u64::try_from(range.count() - avoided).unwrap_or(u64::MAX)
        });
        sizes.fold(0, u64::saturating_add)
    }
}

/// Whether an address is one that some routers take for a network's own or for everybody's, though it is
/// neither.
fn is_buggy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if matches!(address.octets()[3], 0 | 255))
}

/// How many of a range are.
fn buggy(range: &AddressRange) -> u128 {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (range.first(), range.last()) else { return 0 };
    // Those up to a number that end in 0, and in 255.
    let zeros = |number: u64| number / 256 + 1;
    let ones = |number: u64| (number + 1) / 256;
    let (first, last) = (u64::from(first.to_bits()), u64::from(last.to_bits()));
    let before = first.checked_sub(1).map_or(0, |number| zeros(number) + ones(number));
    u128::from(zeros(last) + ones(last) - before)
}

#[cfg(test)]
mod tests {
    use weft_types::NamespacedName;

    use super::*;

    fn pool(name: &str, addresses: &str) -> Pool {
        Pool {
            name: name.to_owned(),
            ranges: addresses.split(',').map(|range| range.parse().unwrap()).collect(),
            auto_assign: true,
            avoid_buggy_ips: true,
            allocation: None,
        }
    }

    #[test]
    fn the_size_of_a_pool_leaves_out_what_it_avoids() {
        for (addresses, size) in [
            ("192.0.2.0/24", 254),
            ("192.0.2.0/23", 508),
            ("192.0.2.1-192.0.2.254", 254),
            ("192.0.2.255-192.0.3.1", 1),
            ("0.0.0.0-0.0.0.0", 0),
            ("192.0.2.0/28,2001:db8::/126", 19),
            ("2001:db8::/32,2001:db9::/32", u64::MAX),
        ] {
            assert_eq!(pool("p", addresses).size(), size, "{addresses}");
        }
        let all = pool("p", "10.0.0.0/8");
        let counted = (0..=u32::from(u16::MAX)).map(|low| IpAddr::from((0x0a00_0000 | low).to_be_bytes()));
        assert_eq!(counted.filter(|address| all.has(*address)).count(), 256 * 254);
    }

    #[test]
    fn pools_for_some_come_before_those_for_all_by_priority() {
        let of = |name: &str, priority: Option<i64>| IpAddressPool {
            key: NamespacedName::new("metallb-system", name),
            labels: Labels::default(),
            ranges: ["192.0.2.1".parse().unwrap()].into(),
            auto_assign: true,
            avoid_buggy_ips: false,
            allocation: priority.map(|priority| ServiceAllocation { priority, ..Default::default() }),
        };
        let objects = [of("z", None), of("b", Some(0)), of("c", Some(20)), of("d", Some(3)), of("a", None)];
        let pools = Pools::new(&["192.0.2.9".parse().unwrap()], objects.iter());
        let names: Vec<&str> = pools.0.iter().map(Pool::name).collect();
        assert_eq!(names, ["d", "c", "b", "a", "default", "z"]);
    }
}
