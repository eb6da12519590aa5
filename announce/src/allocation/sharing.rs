//! Who may share an address with whom: Services with the same key, no port in common, and, where a node sends
//! traffic to its own pods only, the same pods.

use std::fmt;

use weft_types::{LoadBalancer, NamespacedName, Protocol, Service, TrafficPolicy};

/// Who has an address.
#[derive(Clone, Debug)]
pub(super) struct User<'a> {
    pub(super) service: NamespacedName,
    /// The key by which it shares; none where it does not.
    key: Option<&'a str>,
    /// The pods that each node needs to have some of (`externalTrafficPolicy: Local`); none where any node
    /// will do.
    pods: Option<&'a str>,
    ports: Vec<(Protocol, u16)>,
}

/// Why two Services cannot share an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// One of them does not share at all.
    NotShared,
    /// They have different keys.
    OtherKey,
    /// They have a port in common.
    Port(Protocol, u16),
    /// Their pods are not on the same nodes.
    OtherPods,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conflict::NotShared => f.write_str(
                "they do not both allow sharing it (annotation metallb.io/allow-shared-ip, the same for both)",
            ),
            Conflict::OtherKey => f.write_str("their annotations metallb.io/allow-shared-ip differ"),
            Conflict::Port(protocol, port) => write!(f, "both have the port {protocol}/{port}"),
            Conflict::OtherPods => f.write_str(
                "they do not have the same pods, as those with externalTrafficPolicy Local must to share an address",
            ),
        }
    }
}

impl<'a> User<'a> {
    /// One that shares with nobody.
    pub(super) fn alone(service: &NamespacedName) -> User<'a> {
        User { service: service.clone(), key: None, pods: None, ports: Vec::new() }
    }

    pub(super) fn of(service: &'a Service, asks: &'a LoadBalancer) -> User<'a> {
        User {
            service: service.key.clone(),
            key: asks.sharing_key.as_deref(),
            pods: (service.external_policy == TrafficPolicy::Local).then_some(&*asks.selector),
            ports: service.ports.iter().map(|port| (port.protocol, port.port.get())).collect(),
        }
    }

    /// Whether it shares with anybody.
    pub(super) fn shares(&self) -> bool {
        self.key.is_some()
    }

    /// Whether two may have one address.
    pub(super) fn may_share(&self, other: &User<'_>) -> Result<(), Conflict> {
        if self.service == other.service {
            return Ok(());
        }
        match (self.key, other.key) {
            (Some(one), Some(another)) if one == another => {}
            (Some(_), Some(_)) => return Err(Conflict::OtherKey),
            _ => return Err(Conflict::NotShared),
        }
        if let Some((protocol, port)) = self.ports.iter().find(|port| other.ports.contains(port)) {
            return Err(Conflict::Port(*protocol, *port));
        }
        if self.pods != other.pods { Err(Conflict::OtherPods) } else { Ok(()) }
    }
}
