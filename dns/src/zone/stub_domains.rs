//! Domains below the cluster's own whose names others know: stub domains. The most specific domain wins, so
//! they are not answered from the zone. Which those are may change at any time, unlike all else in a zone's
//! settings.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::ZoneName;
use crate::wire::name::QueryName;

/// The domains, in wire form.
#[derive(Debug, Default)]
pub struct StubDomains(ArcSwap<HashSet<Box<[u8]>>>);

impl StubDomains {
    /// Takes those of `domains` that are below `zone`, and forgets all others.
    pub fn set<'d>(&self, zone: &ZoneName, domains: impl Iterator<Item = &'d Box<[u8]>>) {
        self.0.store(Arc::new(domains.filter(|domain| is_below(domain, zone)).cloned().collect()));
    }

    /// Whether one of them covers a name of the zone, which has so many labels before the zone's.
    pub(crate) fn covers(&self, name: &QueryName, inner: usize) -> bool {
        let domains = self.0.load();
        !domains.is_empty() && (0..inner).any(|start| domains.contains(name.wire(start, name.len())))
    }
}

fn is_below(domain: &[u8], zone: &ZoneName) -> bool {
    QueryName::from_wire(domain).is_ok_and(|name| {
        let inner = name.len().checked_sub(zone.label_count());
        inner.is_some_and(|inner| inner > 0 && name.wire(inner, name.len()) == zone.wire())
    })
}
