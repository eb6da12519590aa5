//! The kernel settings that a node needs.

use weft_types::{Family, Node};

use crate::uplink::Uplink;

/// A kernel setting of the network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Its name, as sysctl(8) has it.
    pub name: String,
    /// The value that it must have.
    pub value: &'static str,
}

/// Forwarding, for each family that the node has pods of. With IPv6 it also makes the kernel ignore router
/// advertisements (RFC 4861 section 6.2.8), and forget a default route that it has from one: an interface
/// that has such a route must be told before to take them all the same (ip-sysctl, accept_ra).
pub(crate) fn plan(node: &Node, uplink: &Uplink) -> Vec<Sysctl> {
    let has = |family| node.pod_cidrs.iter().any(|cidr| Family::of_network(cidr) == family);
    let set = |name: String, value| Sysctl { name, value };
    let mut sysctls = Vec::new();
    if has(Family::V4) {
        sysctls.push(set("net.ipv4.ip_forward".to_owned(), "1"));
    }
    if has(Family::V6) {
        let told = uplink.advertised.iter().map(|link| written(link));
        sysctls.extend(told.map(|link| set(format!("net.ipv6.conf.{link}.accept_ra"), "2")));
        sysctls.push(set("net.ipv6.conf.all.forwarding".to_owned(), "1"));
    }
    sysctls
}

/// An interface's name as part of a setting's: sysctl(8) has a slash where it has a dot.
pub(crate) fn written(link: &str) -> String {
    link.replace('.', "/")
}
