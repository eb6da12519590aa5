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
use super::resource::Resource;

/// What Services hold of the cluster's ranges.
#[derive(Debug)]
pub(crate) struct Allocations {
    /// One pool of each family, the cluster's primary family first.
    pools: Vec<AddressPool>,
    node_ports: NodePorts,
}

impl Allocations {
    /// Nothing taken yet of those ranges.
    pub(crate) fn new(service_cidrs: &[IpNetwork], node_ports: RangeInclusive<u16>) -> Self {
        let pools = service_cidrs.iter().map(|cidr| AddressPool::new(*cidr)).collect();
        Self { pools, node_ports: NodePorts::new(node_ports) }
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
        for (object, is_taken) in [(old, false), (new, true)] {
            let Some(service) = object.filter(|object| object["kind"] == "Service") else { continue };
            for address in services::addresses(service) {
                self.pools.iter_mut().for_each(|pool| pool.mark(address, is_taken));
            }
            services::node_ports(service).for_each(|port| self.node_ports.mark(port, is_taken));
        }
    }
}
