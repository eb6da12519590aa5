//! From a name to the pool of upstreams that knows it: the stub domain with the longest suffix, or else the
//! pool for all names. Pure and immutable; new settings make new routes.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::pool::Pool;
use super::settings::{Case, Manner, Settings};
use super::upstream::Upstream;
use crate::wire::name::QueryName;

/// All pools.
#[derive(Debug)]
pub(super) struct Routes {
    settings: Settings,
    /// None where nobody is asked for a domain.
    stub_domains: HashMap<Box<[u8]>, Option<Arc<Pool>>>,
    /// For all other names; none where there is no upstream.
    all: Option<Arc<Pool>>,
    /// By address, and whether over TCP alone.
    upstreams: BTreeMap<(SocketAddr, bool), Arc<Upstream>>,
}

impl Routes {
    /// Routes by these settings; `case` is for upstreams that are new. What `before` knew of an upstream
    /// stays known.
    pub(super) fn new(settings: Settings, case: Case, before: Option<&Routes>) -> Routes {
        let mut upstreams = BTreeMap::new();
        let mut pool = |addresses: &[SocketAddr], manner: &Manner| {
            let known = |address: &SocketAddr| {
                let key = (*address, manner.tcp);
                let old = before.and_then(|before| before.upstreams.get(&key)).cloned();
                let fresh =
                    || old.unwrap_or_else(|| Arc::new(Upstream::new(*address, case).over_tcp(manner.tcp)));
                upstreams.entry(key).or_insert_with(fresh).clone()
            };
            (!addresses.is_empty()).then(|| Arc::new(Pool::new(addresses.iter().map(known), manner.clone())))
        };
        let all = pool(&settings.upstreams, &settings.manner);
        let stubs = settings.stub_domains.iter();
        let stub_domains =
            stubs.map(|(domain, route)| (domain.clone(), pool(&route.upstreams, &route.manner))).collect();
        Routes { settings, stub_domains, all, upstreams }
    }

    /// What they were made of.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Each upstream, once.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// Whether any name can be asked anywhere.
    pub(super) fn is_any(&self) -> bool {
        !self.upstreams.is_empty()
    }

    /// The pool of the stub domain that covers a name; it may have nobody to ask.
    pub(super) fn stub_domain(&self, name: &QueryName) -> Option<Option<&Arc<Pool>>> {
        if self.stub_domains.is_empty() {
            return None;
        }
        (0..name.len())
            .find_map(|start| self.stub_domains.get(name.wire(start, name.len())).map(Option::as_ref))
    }

    /// Who knows a name.
    pub(super) fn of(&self, name: &QueryName) -> Option<&Arc<Pool>> {
        self.stub_domain(name).unwrap_or(self.all.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Route;
    use super::*;
    use crate::wire::name::wire_name;

    fn settings() -> Settings {
        let stub = |domain: &str, address: &str| {
            (wire_name(domain).unwrap(), Route::from(vec![address.parse::<SocketAddr>().unwrap()]))
        };
        Settings {
            upstreams: vec!["192.0.2.1:53".parse().unwrap()],
            stub_domains: [stub("example.com", "192.0.2.2:53"), stub("corp.example.com", "192.0.2.3:53")]
                .into(),
            ..Settings::default()
        }
    }

    fn asked(routes: &Routes, name: &str) -> String {
        let name = QueryName::from_wire(&wire_name(name).unwrap()).unwrap();
        routes.of(&name).unwrap().upstreams()[0].address().ip().to_string()
    }

    #[test]
    fn the_longest_suffix_wins_label_by_label() {
        let routes = Routes::new(settings(), Case::Random, None);
        assert_eq!(asked(&routes, "example.com"), "192.0.2.2");
        assert_eq!(asked(&routes, "www.Example.com"), "192.0.2.2");
        assert_eq!(asked(&routes, "a.b.corp.example.com"), "192.0.2.3");
        assert_eq!(asked(&routes, "notexample.com"), "192.0.2.1");
        assert_eq!(asked(&routes, "com"), "192.0.2.1");
    }

    #[test]
    fn what_is_known_of_an_upstream_outlives_new_settings() {
        let before = Routes::new(settings(), Case::Random, None);
        before.upstreams().for_each(|upstream| assert!(upstream.note_failure()));
        let mut changed = settings();
        changed.upstreams.push("192.0.2.9:53".parse().unwrap());
        let after = Routes::new(changed, Case::Random, Some(&before));
        let well: Vec<bool> = after.upstreams().map(|upstream| upstream.is_healthy()).collect();
        assert_eq!(well, [false, false, false, true]);
    }
}
