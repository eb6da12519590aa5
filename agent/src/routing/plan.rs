//! The way to the pods of the other nodes: which routes there must be, and what the tunnel that some of them
//! lead into must know.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use weft_types::{Family, IpNetwork, Node, Snapshot, is_subnet_of, overlap};

use crate::cidr_allocations::{CidrAllocations, Owner};
use crate::config::Config;
use crate::notice::Notice;
use crate::routing::probe::plan::{DirectPath, PathState, Probe};
use crate::routing::vxlan::plan::{self as vxlan, DEVICE, Overlay};
use crate::routing::wireguard::plan::{self as wireguard, WireGuard};
use crate::uplink::{Backend, Tunnel, Uplink};

/// The number by which Weft knows its own routes (`proto` in `ip route`). No entry of iproute2's rt_protos
/// has it.
pub const PROTOCOL: u8 = 119;

/// The number of routes that were learned by BGP (`RTPROT_BGP`). Other routing programs on the node may have
/// it too, but give their routes a metric.
pub const BGP_PROTOCOL: u8 = 186;

/// What leads to the pods of the other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingPlan {
    /// The tunnel to nodes that are not reached directly.
    pub overlay: Option<Overlay>,
    /// The encrypted tunnel.
    pub wireguard: Option<WireGuard>,
    /// The routes, in the order of their destinations.
    pub routes: Vec<NodeRoute>,
    /// The direct paths that are to be tried.
    pub probes: Vec<Probe>,
    /// The interfaces that lead to the other nodes.
    pub links: Vec<String>,
    /// The other nodes' pod CIDRs that there is a way to.
    pub destinations: Vec<IpNetwork>,
    /// The MTU, in bytes, of what some pods are reached by for good: the tunnel. A path that is still open is
    /// taken for a direct one: a Node that comes would change the MTU of all others' pods, for a moment.
    pub mtu: Option<u32>,
}

/// A route to another node's pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRoute {
    /// The other node's pod CIDR.
    pub destination: IpNetwork,
    /// How to get there.
    pub next_hop: NextHop,
    /// Others that were learned and are as good.
    pub further: Vec<IpAddr>,
    /// Where that is the tunnel: the next hop for as long as the tunnel cannot be made.
    pub fallback: Option<IpAddr>,
}

/// The next hop on the way to another node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NextHop {
    /// That node's own address, on a link of this node.
    Direct(IpAddr),
    /// Whoever was told of by BGP, on a link of this node.
    Learned(IpAddr),
    /// The far end of the VXLAN tunnel.
    Tunnel,
    /// The encrypted tunnel. As long as it cannot be made, packets are refused.
    WireGuard,
    /// Nobody: packets are refused.
    Unreachable,
}

impl NodeRoute {
    /// The address of the next hop, where it has one.
    pub fn gateway(&self) -> Option<IpAddr> {
        match self.next_hop {
            NextHop::Direct(address) | NextHop::Learned(address) => Some(address),
            NextHop::Tunnel => Some(vxlan::gateway(&self.destination)),
            NextHop::WireGuard | NextHop::Unreachable => None,
        }
    }
}

impl NodeRoute {
    /// The number by which it is known whose route it is.
    pub fn protocol(&self) -> u8 {
        if matches!(self.next_hop, NextHop::Learned(_)) { BGP_PROTOCOL } else { PROTOCOL }
    }
}

impl fmt::Display for NodeRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.next_hop == NextHop::Unreachable {
            f.write_str("unreachable ")?;
        }
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway() {
            write!(f, " via {gateway}")?;
        }
        for gateway in &self.further {
            write!(f, " nexthop via {gateway}")?;
        }
        match self.next_hop {
            NextHop::Tunnel => write!(f, " dev {DEVICE} onlink")?,
            NextHop::WireGuard => write!(f, " dev {}", wireguard::DEVICE)?,
            NextHop::Direct(_) | NextHop::Learned(_) | NextHop::Unreachable => {}
        }
        write!(f, " proto {}", self.protocol())
    }
}

impl RoutingPlan {
    /// From `own` to everybody else, and what stands in the way of some. Of Nodes that want the same
    /// addresses, the first by name gets them, and what is in `allocations` already goes before all.
    pub(crate) fn new(
        snapshot: &Snapshot,
        own: &Node,
        config: &Config,
        uplink: &Uplink,
        allocations: &mut CidrAllocations,
    ) -> (RoutingPlan, Vec<Notice>) {
        let wireguard = config.has_wireguard().then(|| WireGuard::new(snapshot, own, config, uplink));
        let (wireguard, notices) =
            wireguard.map_or((None, Vec::new()), |(plan, notices)| (Some(plan), notices));
        let overlay = match config.backend {
            Backend::HostGw | Backend::Bgp => None,
            _ if wireguard.as_ref().is_some_and(WireGuard::is_strict) => None,
            Backend::Vxlan | Backend::WireGuard => Overlay::new(own, config.vxlan, uplink),
            Backend::Auto => {
                Overlay::new(own, config.vxlan, uplink).map(|overlay| overlay.with_probe_addresses(own))
            }
        };
        let plan = RoutingPlan { overlay, wireguard, links: uplink.links.clone(), ..RoutingPlan::default() };
        let (backend, tunnel) = (config.backend, config.tunnel);
        let mut planner = Planner { own, backend, tunnel, uplink, plan, notices, is_tunnelled: false };
        for node in snapshot.nodes().filter(|node| node.name != own.name) {
            for &cidr in &node.pod_cidrs {
                let allocated = allocations.allocate(cidr, Owner::Node(node.name.clone()));
                if let Err(notice) = allocated.map_err(Notice::from).and_then(|()| planner.add(node, cidr)) {
                    planner.notices.push(notice);
                }
            }
        }
        planner.learned(config, snapshot);
        planner.hold(config, snapshot);
        planner.plan.routes.sort();
        if let Some(wireguard) = &mut planner.plan.wireguard {
            wireguard.peers.retain(|_, peer| !peer.allowed.is_empty());
            // Of the two tunnels, it takes off more.
            let is_used = config.backend == Backend::WireGuard || planner.is_tunnelled;
            planner.plan.mtu = is_used.then_some(wireguard.mtu);
        } else if planner.is_tunnelled {
            planner.plan.mtu = planner.plan.overlay.as_ref().map(|overlay| overlay.device.mtu);
        }
        (planner.plan, planner.notices)
    }

    /// The pod CIDRs to which a tunnel leads without a direct path being tried. Where their node comes to this
    /// one's link, the tunnel leads there until the direct path is proved.
    pub(crate) fn held(&self) -> BTreeSet<IpNetwork> {
        let tried: BTreeSet<IpNetwork> = self.probes.iter().map(|probe| probe.path.cidr).collect();
        let is_tunnel = |route: &&NodeRoute| matches!(route.next_hop, NextHop::Tunnel | NextHop::WireGuard);
        let tunnelled = self.routes.iter().filter(is_tunnel);
        tunnelled.map(|route| route.destination).filter(|cidr| !tried.contains(cidr)).collect()
    }
}

/// A plan in the making.
struct Planner<'a> {
    own: &'a Node,
    backend: Backend,
    tunnel: Tunnel,
    uplink: &'a Uplink,
    plan: RoutingPlan,
    notices: Vec<Notice>,
    /// Some pods are behind the tunnel for good.
    is_tunnelled: bool,
}

impl Planner<'_> {
    /// Plans the ways that were learned: those to pods of other nodes, and to ranges that were asked for.
    fn learned(&mut self, config: &Config, snapshot: &Snapshot) {
        let others = snapshot.nodes().filter(|node| node.name != self.own.name);
        let of_pods = others.flat_map(|node| &node.pod_cidrs).chain(&config.cluster_cidrs);
        let ranges: Vec<&IpNetwork> = match self.backend {
            Backend::Bgp => of_pods.chain(&config.bgp_imports).collect(),
            _ => config.bgp_imports.iter().collect(),
        };
        let is_wanted = |range: &IpNetwork| {
            ranges.iter().any(|wanted| is_subnet_of(range, wanted))
                && !self.own.pod_cidrs.iter().any(|own| overlap(own, range))
        };
        let kept = self.uplink.kept.iter();
        let known = self
            .uplink
            .learned
            .iter()
            .chain(kept.filter(|(range, _)| !self.uplink.learned.contains_key(range)));
        let known: Vec<_> = known.filter(|(range, _)| is_wanted(range)).collect();
        for (&destination, next_hops) in known {
            // The kernel has next hops of one family.
            let mut next_hops = next_hops.iter().copied().filter(|it| it.is_ipv4() == destination.is_ipv4());
            let Some(next_hop) = next_hops.next() else { continue };
            let (next_hop, further) = (NextHop::Learned(next_hop), next_hops.collect());
            self.plan.destinations.push(destination);
            self.plan.routes.push(NodeRoute { destination, next_hop, further, fallback: None });
        }
    }

    /// What is no Node's of the cluster's ranges might be a pod's all the same, of a Node that is not known yet
    /// or any more: it must not leave unencrypted.
    fn hold(&mut self, config: &Config, snapshot: &Snapshot) {
        if !self.plan.wireguard.as_ref().is_some_and(WireGuard::is_strict) {
            return;
        }
        for &range in &config.cluster_cidrs {
            let routes = self.plan.routes.iter().map(|route| route.destination);
            if routes.chain(self.own.pod_cidrs.iter().copied()).any(|taken| is_subnet_of(&range, &taken)) {
                continue;
            }
            let mut nodes = snapshot.nodes();
            let inside = nodes.find(|node| node.addresses.iter().any(|address| range.contains(*address)));
            let services = config.service_cidrs.iter().any(|services| overlap(services, &range));
            let owner = inside.map(|node| Owner::Address(node.name.clone()));
            match owner.or(services.then_some(Owner::Services)) {
                Some(owner) => self.notices.push(Notice::NotHeld { range, owner }),
                None => {
                    let (destination, next_hop) = (range, NextHop::Unreachable);
                    self.plan.routes.push(NodeRoute {
                        destination,
                        next_hop,
                        further: Vec::new(),
                        fallback: None,
                    });
                }
            }
        }
    }

    /// Plans the way to the pods of one range.
    fn add(&mut self, node: &Node, cidr: IpNetwork) -> Result<(), Notice> {
        let family = Family::of_network(&cidr);
        let address = node.address(family);
        // Where the direct path is used, too: the other node may still send through the tunnel.
        let wireguard = self.plan.wireguard.as_mut();
        let is_encrypted =
            wireguard.is_some_and(|wireguard| wireguard.add(&node.name, cidr) || wireguard.is_strict());
        if is_encrypted && self.backend == Backend::WireGuard {
            self.route(cidr, NextHop::WireGuard, None);
            return Ok(());
        }
        if self.backend == Backend::Bgp {
            // Whether there is a way or not, pods keep their addresses on it.
            self.plan.destinations.push(cidr);
            let is_told = |range: &IpNetwork| is_subnet_of(&cidr, range) || is_subnet_of(range, &cidr);
            let is_known = self.uplink.learned.keys().any(is_told) || !self.uplink.is_settled;
            let node = node.name.clone();
            return if is_known { Ok(()) } else { Err(Notice::NotLearned { node, cidr }) };
        }
        if self.backend == Backend::HostGw {
            let name = node.name.clone();
            let address = address.ok_or(Notice::NoAddress { node: name, cidr, family })?;
            self.route(cidr, NextHop::Direct(address), None);
            return Ok(());
        }
        let neighbour =
            address.filter(|address| self.backend == Backend::Auto && self.uplink.shares_link(*address));
        let path = neighbour.map(|node| DirectPath { cidr, node });
        let state = path.map(|path| self.tried(node, path));
        self.is_tunnelled |= matches!(state, None | Some(PathState::Fails));
        if let (Some(path), Some(PathState::Works)) = (path, state) {
            self.route(cidr, NextHop::Direct(path.node), None);
            return Ok(());
        }
        if is_encrypted {
            self.encrypted(cidr, state);
            return Ok(());
        }
        let overlay = self.plan.overlay.as_mut();
        let overlay = overlay.ok_or_else(|| Notice::NoTunnel { node: node.name.clone(), cidr })?;
        if !overlay.add(node, &cidr) {
            let (node, family) = (node.name.clone(), overlay.family());
            return Err(Notice::NoAddress { node, cidr, family });
        }
        match state {
            // Pods keep their addresses on the way there all the same.
            Some(PathState::FirstContact) => self.plan.destinations.push(cidr),
            _ => self.route(cidr, NextHop::Tunnel, neighbour),
        }
        Ok(())
    }

    /// Plans the way through the encrypted tunnel, where the direct path is not used. Unencrypted packets take
    /// none but that.
    fn encrypted(&mut self, cidr: IpNetwork, state: Option<PathState>) {
        let is_strict = self.plan.wireguard.as_ref().is_some_and(WireGuard::is_strict);
        match state {
            Some(PathState::FirstContact) if is_strict => self.route(cidr, NextHop::Unreachable, None),
            Some(PathState::FirstContact) => self.plan.destinations.push(cidr),
            _ => self.route(cidr, NextHop::WireGuard, None),
        }
    }

    fn route(&mut self, destination: IpNetwork, next_hop: NextHop, fallback: Option<IpAddr>) {
        self.plan.destinations.push(destination);
        self.plan.routes.push(NodeRoute { destination, next_hop, further: Vec::new(), fallback });
    }

    /// What is known of a path. Has it tried, for which one address must be reached directly in any case.
    fn tried(&mut self, node: &Node, path: DirectPath) -> PathState {
        let probe = self.own.pod_cidrs.iter().find_map(|own| probe(own, path));
        self.plan.probes.extend(probe);
        let state = match self.uplink.path_states.get(path) {
            // There is no way to try it.
            PathState::FirstContact if probe.is_none() => PathState::Unknown,
            state => state,
        };
        let (node, DirectPath { cidr, node: address }, tunnel) = (node.name.clone(), path, self.tunnel);
        match state {
            PathState::Fails => self.notices.push(Notice::NotDirect { node, address, cidr, tunnel }),
            PathState::Unreachable => self.notices.push(Notice::Unreachable { node, address, cidr, tunnel }),
            PathState::Unknown | PathState::FirstContact | PathState::Works => {}
        }
        if let Some(probe) = probe.filter(|_| state != PathState::Works) {
            let (destination, next_hop) = (probe.direct.1.into(), NextHop::Direct(address));
            self.plan.routes.push(NodeRoute { destination, next_hop, further: Vec::new(), fallback: None });
        }
        state
    }
}

/// How to try a path from a node with that pod CIDR, where both are of one family and have room.
fn probe(own: &IpNetwork, path: DirectPath) -> Option<Probe> {
    let is_fitting = own.is_ipv4() == path.cidr.is_ipv4();
    let direct = (vxlan::probe_address(own)?, vxlan::probe_address(&path.cidr)?);
    let routed = (vxlan::gateway(own), vxlan::gateway(&path.cidr));
    is_fitting.then_some(Probe { path, direct, routed })
}
