//! Between whom packets take the fast path: decided from the node's interfaces, who has which address, and
//! the routes to other nodes' pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_types::IpNetwork;

use crate::garbage_collection::plan::Attachment;

/// An interface of the node, as far as it counts here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Whose end of the host it is.
    pub(crate) attachment: Option<Attachment>,
    /// It is one of a pair, so that packets can be handed to its other end.
    pub(crate) is_pair: bool,
    /// Its packets have the header of Ethernet.
    pub(crate) is_ethernet: bool,
    /// What it sends waits in a queue, as where the bandwidth of a pod is limited.
    pub(crate) queues: bool,
}

/// A route to other nodes' pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelRoute {
    pub(crate) destination: IpNetwork,
    pub(crate) gateway: IpAddr,
    pub(crate) interface: u32,
}

/// What the programs are told, and where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FastPathPlan {
    /// The addresses of this node's pods, and the index of the host's end of the pair of each.
    pub pods: BTreeMap<IpAddr, u32>,
    /// The ranges of other nodes' pods.
    pub ways: BTreeMap<IpNetwork, Way>,
    /// The interfaces by which packets come from other nodes.
    pub uplinks: BTreeSet<u32>,
}

/// How packets get to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The index of the interface that they leave by.
    pub interface: u32,
    /// The next hop.
    pub gateway: IpAddr,
}

impl FastPathPlan {
    /// `holders` are the reserved addresses, `uplinks` the names of the interfaces that lead to other nodes.
    pub(crate) fn new(
        interfaces: &[Interface],
        holders: &BTreeMap<IpAddr, Attachment>,
        routes: &[KernelRoute],
        uplinks: &BTreeSet<&str>,
    ) -> FastPathPlan {
        // What is handed to a pod is in no queue: a limit of what it receives would have no effect.
        let ends = interfaces.iter().filter(|it| it.is_pair && !it.queues);
        let ends: BTreeMap<&Attachment, u32> =
            ends.filter_map(|it| Some((it.attachment.as_ref()?, it.index))).collect();
        let ethernet: BTreeMap<u32, &str> =
            interfaces.iter().filter(|it| it.is_ethernet).map(|it| (it.index, &*it.name)).collect();
        let pods = holders.iter().filter_map(|(address, holder)| Some((*address, *ends.get(holder)?)));
        let ways = routes.iter().filter(|route| ethernet.contains_key(&route.interface));
        let ways = ways.map(|&KernelRoute { destination, gateway, interface }| {
            (destination, Way { interface, gateway })
        });
        let uplinks = ethernet.iter().filter(|(_, name)| uplinks.contains(*name)).map(|(index, _)| *index);
        FastPathPlan { pods: pods.collect(), ways: ways.collect(), uplinks: uplinks.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container: &str) -> Attachment {
        Attachment { container: container.to_owned(), ifname: "eth0".to_owned() }
    }

    fn end(index: u32, container: &str) -> Interface {
        let attachment = Some(attachment(container));
        Interface { index, attachment, is_pair: true, is_ethernet: true, ..Interface::default() }
    }

    fn uplink(index: u32, name: &str) -> Interface {
        Interface { index, name: name.to_owned(), is_ethernet: true, ..Interface::default() }
    }

    fn route(destination: &str, gateway: &str, interface: u32) -> KernelRoute {
        let (destination, gateway) = (destination.parse().unwrap(), gateway.parse().unwrap());
        KernelRoute { destination, gateway, interface }
    }

    fn plan(interfaces: &[Interface], routes: &[KernelRoute]) -> FastPathPlan {
        let holders = [("10.244.1.2", "a"), ("fd00::2", "a"), ("10.244.1.3", "b"), ("10.244.1.4", "gone")];
        let holders = holders.map(|(address, pod)| (address.parse().unwrap(), attachment(pod))).into();
        FastPathPlan::new(interfaces, &holders, routes, &["eth0", "weft-vxlan"].into())
    }

    #[test]
    fn every_address_of_a_pod_leads_to_its_interface() {
        let pods = plan(&[end(7, "a"), end(8, "b"), end(9, "c")], &[]).pods;
        let expected = [("10.244.1.2", 7), ("fd00::2", 7), ("10.244.1.3", 8)];
        assert_eq!(pods, expected.map(|(address, index)| (address.parse().unwrap(), index)).into());
    }

    #[test]
    fn a_pod_whose_bandwidth_is_limited_takes_no_part() {
        let limited = Interface { queues: true, ..end(7, "a") };
        let pods = plan(&[limited, end(8, "b")], &[]).pods;
        assert_eq!(pods.into_values().collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn ways_lead_through_the_link_or_the_tunnel_and_never_through_what_has_no_ethernet() {
        let tun = Interface { is_ethernet: false, ..uplink(4, "tun0") };
        let routes = [
            route("10.244.2.0/24", "172.30.0.12", 2),
            route("10.244.3.0/24", "10.244.3.0", 3),
            route("10.244.4.0/24", "172.31.0.14", 4),
        ];
        let plan = plan(&[uplink(2, "eth0"), uplink(3, "weft-vxlan"), tun, uplink(5, "eth1")], &routes);
        let ways: Vec<_> = plan.ways.iter().map(|(to, way)| (to.to_string(), way.interface)).collect();
        assert_eq!(ways, [("10.244.2.0/24".to_owned(), 2), ("10.244.3.0/24".to_owned(), 3)]);
        assert_eq!(plan.uplinks, [2, 3].into());
    }
}
