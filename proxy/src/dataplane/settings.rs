//! What the parts of a data plane that are the same for all Services depend on: flags, and what the cluster
//! says of this node.

use std::net::IpAddr;

use weft_types::{Family, IpNetwork};

use crate::config::{Config, DetectLocal, NodePortAddresses, ProxyMode, of_family};
use crate::services::node::NodeConfig;

/// The settings of a data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::dataplane) struct Settings {
    /// The flags; of which the networks of pods are those of the Node where these are asked for.
    pub(in crate::dataplane) config: Config,
    /// This node, as it was staged last.
    pub(in crate::dataplane) node: NodeConfig,
}

impl Settings {
    pub(in crate::dataplane) fn new(config: &Config) -> Settings {
        Settings { config: config.clone(), node: NodeConfig::default() }
    }

    /// Whether connections are spread over endpoints by IPVS.
    pub(in crate::dataplane) fn is_ipvs(&self) -> bool {
        self.config.mode == ProxyMode::Ipvs
    }

    /// Takes over what the cluster says of this node. Returns whether what fixed rules name of it is
    /// other ones.
    pub(in crate::dataplane) fn follow(&mut self, node: &NodeConfig) -> bool {
        let changed = self.node.pod_cidrs != node.pod_cidrs
            || self.node.service_cidrs != node.service_cidrs
            || (self.is_ipvs() && self.node.addresses != node.addresses);
        self.node = node.clone();
        if self.config.detect_local == DetectLocal::NodeCidr {
            self.config.cluster_cidrs.clone_from(&self.node.pod_cidrs);
        }
        changed
    }

    /// The addresses that the set of those that serve NodePorts holds; none where the rules name networks
    /// instead.
    pub(in crate::dataplane) fn nodeport_addresses(&self) -> Vec<IpAddr> {
        match self.config.nodeport_addresses {
            NodePortAddresses::Primary => self.node.primary_addresses(),
            NodePortAddresses::Networks(_) => Vec::new(),
        }
    }

    /// The networks of ClusterIPs, of one family.
    pub(in crate::dataplane) fn service_cidrs(&self, family: Family) -> impl Iterator<Item = IpNetwork> {
        of_family(&self.node.service_cidrs, family)
    }

    /// The networks of pods, of one family.
    pub(in crate::dataplane) fn cluster_cidrs(&self, family: Family) -> impl Iterator<Item = IpNetwork> {
        of_family(&self.config.cluster_cidrs, family)
    }

    /// The networks of this Node's pods, of one family.
    pub(in crate::dataplane) fn pod_cidrs(&self, family: Family) -> impl Iterator<Item = IpNetwork> {
        of_family(&self.node.pod_cidrs, family)
    }
}
