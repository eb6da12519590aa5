//! The plan of one Service: what each of its ports leads to. Pure; how it becomes elements is in `layout.rs`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use weft_types::{EndpointSlice, Family, Protocol, Service};

use crate::endpoints::{assign_slots, backends};

/// What all ports of a Service lead to, in both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// One for each port and family.
    pub ports: Vec<PortPlan>,
}

/// What one port of a Service leads to, in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// The address and port that clients know.
    pub frontend: Frontend,
    /// The port on the node's own addresses.
    pub node_port: Option<NonZeroU16>,
    /// The endpoints, each in its slot. New connections are spread over them evenly; without any they are rejected.
    pub slots: Vec<SocketAddr>,
    /// Addresses of endpoints that may reach themselves through this port.
    pub hairpins: Vec<IpAddr>,
}

/// A virtual address, protocol and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The ClusterIP.
    pub address: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The Service's own port.
    pub port: u16,
}

/// Where the endpoints of a frontend stand now, so that they can stay there.
pub trait Slots {
    /// The slots of a frontend; none where it is new.
    fn slots(&self, frontend: &Frontend) -> &[SocketAddr];
}

impl Slots for ServicePlan {
    fn slots(&self, frontend: &Frontend) -> &[SocketAddr] {
        let port = self.ports.iter().find(|port| port.frontend == *frontend);
        port.map(|port| &port.slots[..]).unwrap_or_default()
    }
}

/// Plans one Service for the node of that name, with its endpoints left in the slots of `previous` where possible.
pub fn plan(service: &Service, slices: &[&EndpointSlice], node: &str, previous: &dyn Slots) -> ServicePlan {
    let mut plan = ServicePlan::default();
    for &address in service.cluster_ips() {
        for port in &service.ports {
            let frontend = Frontend { address, protocol: port.protocol, port: port.port.get() };
            let backends = backends(slices, port, Family::of(address), node);
            plan.ports.push(PortPlan {
                frontend,
                node_port: port.node_port,
                slots: assign_slots(previous.slots(&frontend), &backends.sockets),
                hairpins: backends.hairpins.into_iter().collect(),
            });
        }
    }
    plan
}
