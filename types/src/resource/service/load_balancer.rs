//! What a Service asks of its load balancer, for those who give it addresses and announce them.

use std::net::IpAddr;

use crate::Labels;

/// What a Service asks of its load balancer, and what tells it from others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    /// It is of the type LoadBalancer. Otherwise its status still has addresses, of when it was.
    pub is_wanted: bool,
    /// Who serves it (`spec.loadBalancerClass`).
    pub class: Option<Box<str>>,
    /// The addresses that it asks for, of any pool; none where it takes what it gets
    /// (`metallb.io/loadBalancerIPs`, `spec.loadBalancerIP`).
    pub requested_ips: Box<[IpAddr]>,
    /// The pool that it asks for (`metallb.io/address-pool`).
    pub requested_pool: Option<Box<str>>,
    /// What is wrong with what it asks for. Then it gets nothing.
    pub problem: Option<Box<str>>,
    /// Services with the same key may share an address (`metallb.io/allow-shared-ip`).
    pub sharing_key: Option<Box<str>>,
    /// How many addresses it gets (`spec.ipFamilyPolicy`); of which families, its ClusterIPs say.
    pub families: FamilyPolicy,
    /// The labels of its pods, in one text (`spec.selector`): equal ones have the same pods.
    pub selector: Box<str>,
    /// Its own labels.
    pub labels: Labels,
    /// Its uid, which tells it from earlier Services of its name.
    pub uid: Box<str>,
    /// The version of the object, without which its status is not written.
    pub version: Box<str>,
    /// Its status has more than addresses that traffic still bears when it comes to a node: host names, or
    /// addresses of the mode Proxy.
    pub has_other_ingress: bool,
    /// The addresses in the status of a Service that is not of the type LoadBalancer any more.
    pub left_behind: Box<[IpAddr]>,
}

/// How many addresses a Service gets, where the cluster has both families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FamilyPolicy {
    /// One.
    #[default]
    SingleStack,
    /// One of each family, or only one where there is no more.
    PreferDualStack,
    /// One of each family, or none.
    RequireDualStack,
}
