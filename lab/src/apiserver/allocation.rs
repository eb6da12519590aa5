//! Addresses and ports that the server hands out to Services. What is taken follows from the stored objects
//! alone: assigning reads it, and every committed change is observed.

mod address_pool;
mod node_ports;
mod services;

use std::ops::RangeInclusive;

use serde_json::Value;
use weft_types::IpNetwork;

use self::address_pool::AddressPool;
use self::node_ports::NodePorts;
use super::error::Result;
use super::object::{items, text};
use super::resource::Resource;

/// What Services hold of the cluster's ranges.
#[derive(Debug)]
pub(crate) struct Allocations {
    /// One pool of each family, the cluster's primary family first; then those of further ServiceCIDRs.
    pools: Vec<AddressPool>,
    /// How many of them the cluster is configured with: those stay.
    configured: usize,
    node_ports: NodePorts,
}

impl Allocations {
    /// Nothing taken yet of those ranges.
    pub(crate) fn new(service_cidrs: &[IpNetwork], node_ports: RangeInclusive<u16>) -> Self {
        let pools: Vec<_> = service_cidrs.iter().map(|cidr| AddressPool::new(*cidr)).collect();
        Self { configured: pools.len(), pools, node_ports: NodePorts::new(node_ports) }
    }

    /// Gives a new or changed object what it needs; what the old one had stays. Takes nothing yet.
    pub(crate) fn assign(&self, resource: &Resource, old: Option<&Value>, object: &mut Value) -> Result<()> {
        match resource.plural {
            "services" => services::assign(&self.pools, &self.node_ports, old, object),
            _ => Ok(()),
        }
    }

    /// Learns what a change took and freed.
    pub(crate) fn observe(&mut self, old: Option<&Value>, new: Option<&Value>) {
        if old.or(new).is_some_and(|object| object["kind"] == "ServiceCIDR") {
            return self.observe_ranges(old, new);
        }
        for (object, is_taken) in [(old, false), (new, true)] {
            let Some(service) = object.filter(|object| object["kind"] == "Service") else { continue };
            for address in services::addresses(service) {
                self.pools.iter_mut().for_each(|pool| pool.mark(address, is_taken));
            }
            services::node_ports(service).for_each(|port| self.node_ports.mark(port, is_taken));
        }
    }

    fn observe_ranges(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let ranges = |object: &Value| -> Vec<IpNetwork> {
            items(&object["spec"]["cidrs"]).iter().filter_map(|cidr| text(cidr).parse().ok()).collect()
        };
        let (old, new) = (old.map(ranges).unwrap_or_default(), new.map(ranges).unwrap_or_default());
        for gone in old.into_iter().filter(|cidr| !new.contains(cidr)) {
            let at = self.pools.iter().skip(self.configured).position(|pool| pool.cidr() == gone);
            at.map(|at| self.pools.remove(self.configured + at));
        }
        for cidr in new {
            if self.pools.iter().all(|pool| pool.cidr() != cidr) {
                self.pools.push(AddressPool::new(cidr));
            }
        }
    }
}
