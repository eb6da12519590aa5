//! Which number stands for which Service port in the kernel, where its clients keep their endpoints. Pure;
//! the rules are in `ruleset/affinity.rs`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_types::{NamespacedName, Protocol, SmolStr, fnv1a_32};

use crate::services::plan::{FrontendPlan, ServicePlan};

/// The bit that no endpoint's number has, so that a Service port's is never taken for one.
const SERVICE_PORT: u32 = 1 << 31;
/// The bits that are a Service port's own. The lowest is 0: the number of all ones has a meaning of its own
/// to nft.
const OWN_BITS: u32 = SERVICE_PORT - 2;

/// A port of a Service, by which clients know it: its name and protocol.
type PortName = (SmolStr, Protocol);

/// The numbers of a Service's ports.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PortNumbers(BTreeMap<PortName, u32>);

/// Those of a Service without session affinity.
static NONE: PortNumbers = PortNumbers(BTreeMap::new());

impl PortNumbers {
    /// The number of a frontend's port, if its clients keep their endpoints.
    pub(super) fn of(&self, plan: &FrontendPlan) -> Option<u32> {
        plan.affinity?;
        self.0.get(&port_name(plan)).copied()
    }
}

fn port_name(plan: &FrontendPlan) -> PortName {
    (plan.port.clone(), plan.frontend.protocol())
}

/// The numbers of all Service ports with affinity.
#[derive(Debug, Default)]
pub(super) struct AffinityNumbers {
    services: BTreeMap<Arc<NamespacedName>, PortNumbers>,
    taken: BTreeSet<u32>,
}

impl AffinityNumbers {
    /// The numbers of a Service's ports.
    pub(super) fn of(&self, service: &NamespacedName) -> &PortNumbers {
        self.services.get(service).unwrap_or(&NONE)
    }

    /// Gives each port with affinity a number, and returns those that were before. A number depends on the
    /// port's name, so that it is the same after a restart; only where two ports come to the same one does it
    /// depend on who came first.
    pub(super) fn replace(&mut self, service: &Arc<NamespacedName>, plan: &ServicePlan) -> PortNumbers {
        let old = self.services.remove(service).unwrap_or_default();
        let mut new = PortNumbers::default();
        for name in plan.frontends.iter().filter(|plan| plan.affinity.is_some()).map(port_name) {
            if let Entry::Vacant(place) = new.0.entry(name) {
                let known = old.0.get(place.key()).copied();
                let number = known.unwrap_or_else(|| self.free_number(service, place.key()));
                place.insert(number);
            }
        }
        for (_, number) in old.0.iter().filter(|(name, _)| !new.0.contains_key(name)) {
            self.taken.remove(number);
        }
        if !new.0.is_empty() {
            self.services.insert(service.clone(), new);
        }
        old
    }

    fn free_number(&mut self, service: &NamespacedName, (port, protocol): &PortName) -> u32 {
        let start = fnv1a_32(format!("{service}/{port}/{protocol}").bytes());
        // There are a billion numbers: one of them is free.
        let candidates = (0..).step_by(2).map(|step: u32| start.wrapping_add(step) & OWN_BITS | SERVICE_PORT);
        let mut free = candidates.skip_while(|number| self.taken.contains(number));
        let number = free.next().unwrap_or(SERVICE_PORT);
        self.taken.insert(number);
        number
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::services::plan::{Frontend, Scope, Target};

    fn key(name: &str) -> Arc<NamespacedName> {
        Arc::new(NamespacedName::new("shop", name))
    }

    /// A plan with these ports.
    fn plan(ports: &[&str], affinity: Option<u32>) -> ServicePlan {
        let frontend = |(index, port): (usize, &&str)| FrontendPlan {
            frontend: Frontend::Address([10, 96, 0, 1].into(), Protocol::Tcp, 80 + index as u16),
            port: (*port).into(),
            scope: Scope::Internal,
            is_load_balancer: false,
            policy: weft_types::TrafficPolicy::Cluster,
            target: Target::Reject,
            outside: None,
            hairpins: [].into(),
            sources: [].into(),
            affinity: affinity.and_then(NonZeroU32::new),
        };
        ServicePlan { frontends: ports.iter().enumerate().map(frontend).collect(), health_check: None }
    }

    /// The numbers that these ports get.
    fn numbers(all: &mut AffinityNumbers, ports: &[&str]) -> Vec<u32> {
        let plan = plan(ports, Some(30));
        all.replace(&key("web"), &plan);
        let numbers = all.of(&key("web"));
        plan.frontends.iter().map(|plan| numbers.of(plan).unwrap()).collect()
    }

    #[test]
    fn a_port_keeps_its_number_while_others_come_and_go_and_after_a_restart() {
        let mut all = AffinityNumbers::default();
        let [http, metrics] = numbers(&mut all, &["http", "metrics"])[..] else { panic!() };
        assert_ne!(http, metrics);
        assert_eq!(numbers(&mut all, &["metrics"]), [metrics]);
        let restarted = numbers(&mut AffinityNumbers::default(), &["metrics", "http"]);
        assert_eq!(restarted, [metrics, http]);
        assert!(restarted.iter().all(|number| number & SERVICE_PORT != 0));
    }

    #[test]
    fn no_two_ports_have_the_same_number_and_a_number_is_free_again_when_its_port_goes() {
        let mut all = AffinityNumbers::default();
        let [first] = numbers(&mut all, &["http"])[..] else { panic!() };
        // As if another port's name had come to the same number.
        let mut other = AffinityNumbers { taken: BTreeSet::from([first]), ..AffinityNumbers::default() };
        assert_eq!(numbers(&mut other, &["http"]), [(first + 2) | SERVICE_PORT]);
        all.replace(&key("web"), &ServicePlan::default());
        assert!(all.taken.is_empty() && all.services.is_empty());
    }

    #[test]
    fn a_service_without_affinity_has_no_number() {
        let mut all = AffinityNumbers::default();
        let without = plan(&["http"], None);
        all.replace(&key("web"), &without);
        assert_eq!(all.of(&key("web")).of(&without.frontends[0]), None);
        assert!(all.taken.is_empty());
    }
}
