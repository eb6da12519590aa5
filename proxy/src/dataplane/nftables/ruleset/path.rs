//! The ways from a frontend to its endpoints: which maps and chains a connection goes through.

use weft_nftables::{Expression, Family};

use super::{SetName, frontend_key, nodeport_key};
use crate::services::plan::{Frontend, TrafficSource};

/// The way from a kind of frontend, for a source of traffic, to its endpoints: a map of frontends, chains
/// that balance, and a map of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// From an address.
    Address,
    /// From a NodePort.
    NodePort,
    /// From an address under an external policy Local, for those from outside.
    LocalAddress,
    /// From a NodePort under an external policy Local, for those from outside.
    LocalNodePort,
}

impl Path {
    /// All of them.
    pub const ALL: [Path; 4] = [Path::Address, Path::NodePort, Path::LocalAddress, Path::LocalNodePort];

    /// The way of a frontend's connections.
    pub fn of(frontend: &Frontend, source: TrafficSource) -> Path {
        match (frontend, source) {
            (Frontend::Address(..), TrafficSource::Anywhere) => Path::Address,
            (Frontend::NodePort(..), TrafficSource::Anywhere) => Path::NodePort,
            (Frontend::Address(..), TrafficSource::Outside) => Path::LocalAddress,
            (Frontend::NodePort(..), TrafficSource::Outside) => Path::LocalNodePort,
        }
    }

    /// Who goes that way.
    pub fn source(self) -> TrafficSource {
        match self {
            Path::Address | Path::NodePort => TrafficSource::Anywhere,
            Path::LocalAddress | Path::LocalNodePort => TrafficSource::Outside,
        }
    }

    /// The map that it begins with.
    pub fn frontends(self) -> SetName {
        match self {
            Path::Address => SetName::Frontends,
            Path::NodePort => SetName::NodePorts,
            Path::LocalAddress => SetName::LocalFrontends,
            Path::LocalNodePort => SetName::LocalNodePorts,
        }
    }

    /// The map that it ends with.
    pub fn endpoints(self) -> SetName {
        match self {
            Path::Address => SetName::Endpoints,
            Path::NodePort => SetName::NodePortEndpoints,
            Path::LocalAddress => SetName::LocalEndpoints,
            Path::LocalNodePort => SetName::LocalNodePortEndpoints,
        }
    }

    /// The map in which it finds the endpoint that a client has affinity to.
    pub fn affinity_endpoints(self) -> SetName {
        match self {
            Path::Address => SetName::AffinityEndpoints,
            Path::NodePort => SetName::AffinityNodePortEndpoints,
            Path::LocalAddress => SetName::LocalAffinityEndpoints,
            Path::LocalNodePort => SetName::LocalAffinityNodePortEndpoints,
        }
    }

    /// The map that says which Service port's clients have affinity there.
    pub fn affinity_numbers(self) -> SetName {
        match self {
            Path::Address | Path::LocalAddress => SetName::AffinityFrontends,
            Path::NodePort | Path::LocalNodePort => SetName::AffinityNodePorts,
        }
    }

    /// The chain that leads clients to the endpoints that they have affinity to.
    pub(super) fn use_affinity(self) -> &'static str {
        match self {
            Path::Address => "use-affinity",
            Path::NodePort => "use-affinity-nodeport",
            Path::LocalAddress => "use-affinity-local",
            Path::LocalNodePort => "use-affinity-local-nodeport",
        }
    }

    /// What the names of the chains begin with that spread its connections.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Path::Address => "lb-",
            Path::NodePort => "nodeport-lb-",
            Path::LocalAddress => "local-lb-",
            Path::LocalNodePort => "local-nodeport-lb-",
        }
    }

    pub(super) fn key(self, family: Family) -> Vec<Expression> {
        match self {
            Path::Address | Path::LocalAddress => frontend_key(family),
            Path::NodePort | Path::LocalNodePort => nodeport_key(),
        }
    }
}
