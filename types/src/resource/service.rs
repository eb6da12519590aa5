//! Services: what a client asks for.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use smol_str::SmolStr;
use thiserror::Error;

use crate::{NamespacedName, Resource};

mod load_balancer;

pub use load_balancer::{FamilyPolicy, LoadBalancer};

/// The transport protocol of a port. TCP where Kubernetes leaves it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Transmission Control Protocol, number 6.
    Tcp,
    /// User Datagram Protocol, number 17.
    Udp,
    /// Stream Control Transmission Protocol, number 132.
    Sctp,
}

impl Protocol {
    /// The IANA protocol number, as it stands in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// The protocol of that number; none for any other than these.
    pub fn from_number(number: u8) -> Option<Protocol> {
        let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        known.into_iter().find(|protocol| protocol.number() == number)
    }

    /// The name in lower case, as nft prints it and as a DNS SRV label has it: `tcp`, `udp`, `sctp`.
    pub fn lower_case(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.lower_case())
    }
}

/// A protocol name other than TCP, UDP and SCTP.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("protocol {0:?} is none of TCP, UDP, SCTP")]
pub struct UnknownProtocol(pub String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text.to_ascii_uppercase().as_str() {
            "TCP" => Ok(Protocol::Tcp),
            "UDP" => Ok(Protocol::Udp),
            "SCTP" => Ok(Protocol::Sctp),
            _ => Err(UnknownProtocol(text.to_owned())),
        }
    }
}

/// A Service, as the proxy and the DNS server see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: NamespacedName,
    /// How clients reach it.
    pub kind: ServiceKind,
    /// Its ports, in the order of the object. May be empty.
    pub ports: Vec<ServicePort>,
    /// Addresses outside of the cluster that the Service answers at, whoever leads traffic for them to the
    /// nodes (`spec.externalIPs`).
    pub external_ips: Vec<IpAddr>,
    /// Addresses of its load balancer that traffic still bears when it comes to a node
    /// (`status.loadBalancer`).
    pub load_balancer_ips: Vec<IpAddr>,
    /// Which endpoints serve clients of the ClusterIPs (`spec.internalTrafficPolicy`).
    pub internal_policy: TrafficPolicy,
    /// Which endpoints serve clients of NodePorts and of external and load balancer addresses
    /// (`spec.externalTrafficPolicy`).
    pub external_policy: TrafficPolicy,
    /// Who may connect to the load balancer's addresses (`spec.loadBalancerSourceRanges`), in both families.
    /// A family of which there is no range is open to all.
    pub source_ranges: Box<[IpNetwork]>,
    /// For how long after its last new connection a client is sent to the same endpoint
    /// (`spec.sessionAffinityConfig.clientIP.timeoutSeconds`); none where `spec.sessionAffinity` is `None`.
    pub affinity: Option<Duration>,
    /// The port at which each node tells load balancers whether it has endpoints
    /// (`spec.healthCheckNodePort`).
    pub health_check_port: Option<NonZeroU16>,
    /// When it was created, in seconds since 1970; 0 where that is not known.
    pub created: i64,
    /// What it asks of its load balancer; nothing unless that was asked for.
    pub load_balancer: Option<Box<LoadBalancer>>,
}

/// Which of a Service's endpoints a node sends clients to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Those of all nodes.
    #[default]
    Cluster,
    /// Those of the node itself.
    Local,
}

/// How the clients of a Service reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Through virtual addresses: types ClusterIP, NodePort and LoadBalancer. One or two addresses, at most
    /// one of each family (`spec.clusterIPs`).
    ClusterIp(Vec<IpAddr>),
    /// Straight to the endpoints, which DNS lists (`spec.clusterIP: None`).
    Headless,
    /// By another DNS name, without a trailing dot (`spec.externalName`).
    ExternalName(String),
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name; empty where the object has none. Matched with [`crate::EndpointPort::name`].
    pub name: SmolStr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port on the Service's own addresses.
    pub port: NonZeroU16,
    /// The port on the nodes' addresses, for types NodePort and LoadBalancer.
    pub node_port: Option<NonZeroU16>,
}

impl Service {
    /// Whether the addresses of its load balancer lead to nodes with endpoints alone.
    pub fn balances_locally(&self) -> bool {
        self.external_policy == TrafficPolicy::Local && !self.load_balancer_ips.is_empty()
    }

    /// A Service without external addresses, all of whose endpoints serve everybody.
    pub fn new(key: NamespacedName, kind: ServiceKind, ports: Vec<ServicePort>) -> Service {
        Service {
            key,
            kind,
            ports,
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            source_ranges: Box::default(),
            affinity: None,
            health_check_port: None,
            created: 0,
            load_balancer: None,
        }
    }

    /// The Service's virtual addresses; none for headless and ExternalName Services.
    pub fn cluster_ips(&self) -> &[IpAddr] {
        match &self.kind {
            ServiceKind::ClusterIp(addresses) => addresses,
            ServiceKind::Headless | ServiceKind::ExternalName(_) => &[],
        }
    }
}

impl Resource for Service {
    const NAME: &'static str = "Service";

    type Key = NamespacedName;
    type Stored = Box<Service>;
    type Index = ();
    type Changes = BTreeSet<NamespacedName>;

    fn key(&self) -> &NamespacedName {
        &self.key
    }

    fn shrink(&mut self) {
        self.ports.shrink_to_fit();
        self.external_ips.shrink_to_fit();
        self.load_balancer_ips.shrink_to_fit();
        if let ServiceKind::ClusterIp(addresses) = &mut self.kind {
            addresses.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy holds thousands: what it has no use for must cost it nothing.
    #[test]
    fn a_service_takes_no_more_room_than_a_proxy_needs() {
        assert!(size_of::<Service>() <= 208, "{}", size_of::<Service>());
    }
}
