//! IPAddressPools: the addresses that LoadBalancer Services may get, and which Services those are.

use std::collections::BTreeSet;

use crate::{AddressRange, LabelSelector, Labels, NamespacedName, Resource};

/// An IPAddressPool (metallb.io/v1beta1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpAddressPool {
    /// Namespace and name. Services and advertisements go by the name alone.
    pub key: NamespacedName,
    /// Its labels, by which advertisements select it; none unless they were asked for.
    pub labels: Labels,
    /// Its addresses, of both families, in the order of the object.
    pub ranges: Box<[AddressRange]>,
    /// Services that do not ask for it get addresses of it, too.
    pub auto_assign: bool,
    /// IPv4 addresses that end in .0 or .255 stay unused.
    pub avoid_buggy_ips: bool,
    /// Which Services it is for; all where there is nothing.
    pub allocation: Option<ServiceAllocation>,
}

/// Which Services an address pool is for (`spec.serviceAllocation`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAllocation {
    /// Lower ones come first; 0 comes last.
    pub priority: i64,
    /// Those of these namespaces, or of those that one of the selectors matches. Where there are neither,
    /// those of all namespaces.
    pub namespaces: Box<[Box<str>]>,
    /// By the namespaces' labels.
    pub namespace_selectors: Box<[LabelSelector]>,
    /// Those that one of these matches; all where there is none.
    pub service_selectors: Box<[LabelSelector]>,
}

/// Which address pools an advertisement is about (`spec.ipAddressPools` and `spec.ipAddressPoolSelectors`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolSelection {
    /// Those of these names.
    pub names: Box<[Box<str>]>,
    /// Those that one of these matches.
    pub selectors: Box<[LabelSelector]>,
}

impl PoolSelection {
    /// Whether a pool of that name and these labels is selected. Without names and selectors, all are.
    pub fn selects(&self, name: &str, labels: &Labels) -> bool {
        let is_named = || self.names.iter().any(|it| **it == *name);
        let is_matched = || self.selectors.iter().any(|selector| selector.matches(labels));
        (self.names.is_empty() && self.selectors.is_empty()) || is_named() || is_matched()
    }
}

impl Resource for IpAddressPool {
    const NAME: &'static str = "IPAddressPool";

    type Key = NamespacedName;
    type Stored = Box<IpAddressPool>;
    type Index = ();
    type Changes = BTreeSet<NamespacedName>;

    fn key(&self) -> &NamespacedName {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Requirement;

    #[test]
    fn an_advertisement_without_pools_is_about_all() {
        let labels: Labels = [("zone", "a")].into_iter().collect();
        let selector: LabelSelector = [Requirement::equals("zone", "a").unwrap()].into_iter().collect();
        let by_name = PoolSelection { names: ["one".into()].into(), ..PoolSelection::default() };
        let by_label = PoolSelection { selectors: [selector].into(), ..PoolSelection::default() };
        let of = |selection: &PoolSelection| {
            (selection.selects("one", &Labels::default()), selection.selects("two", &labels))
        };
        assert_eq!(of(&PoolSelection::default()), (true, true));
        assert_eq!((of(&by_name), of(&by_label)), ((true, false), (false, true)));
    }
}
