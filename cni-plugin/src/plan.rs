//! What a container's connection consists of: bridge, veth pair, addresses, routes, settings. Pure: options,
//! a lease and state in, a [`PodPlan`] out, which prints as `ip` commands. Doing it is for `apply`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::interface::{Bridge, BridgePort, Link, Mac, Route, TokenBucket, Veth, VethEnd};
use ipnetwork::IpNetwork;
use weft_cni_spec::{Attachment, ContainerId, Interface, IpConfig, NetworkName, Success};
use weft_policy::pending::WaitingPod;

mod bandwidth;
mod mac;
pub(crate) mod names;
mod nat;
mod options;
mod pending;
pub(crate) mod port_mapping;
mod state;
mod sysctl;
mod text;
mod vlan;

pub use bandwidth::Limits;
pub use names::host_name;
pub(crate) use nat::network;
pub use nat::{HostPorts, Masquerade};
pub(crate) use options::DEFAULT_BRIDGE;
pub use options::Options;
pub use pending::Pending;
pub use port_mapping::PortMapping;
pub use state::{BridgeState, HostState};
pub use sysctl::Sysctl;
pub(crate) use vlan::DEFAULT as DEFAULT_VLAN;
pub use vlan::{VlanGateway, Vlans};

use crate::{Error, Result};

/// The container to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The network.
    pub network: NetworkName,
    /// The container and the name of its interface.
    pub attachment: Attachment,
    /// Its namespace's file.
    pub netns: PathBuf,
    /// The pod that it is, where policies may select that: then it starts closed, until it has them.
    pub waits: Option<WaitingPod>,
}

/// Everything that ADD does to the kernel for one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlan {
    /// The addresses that are closed before they can be used, where the pod is to wait for its policies.
    pub pending: Option<Pending>,
    /// The bridge, which other containers share.
    pub bridge: BridgePlan,
    /// The veth pair.
    pub veth: VethPlan,
    /// What is done inside the container.
    pub pod: PodSide,
    /// The networks that the host masquerades, where it is to.
    pub masquerade: Option<Masquerade>,
    /// The ports of the host that lead to the container, where some do.
    pub host_ports: Option<HostPorts>,
    /// The result so far: addresses, routes and name resolution, without interfaces.
    lease: Success,
}

/// The bridge as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgePlan {
    /// The network's name, noted on a bridge that is made for it: by it an uninstall knows whose it is.
    pub alias: String,
    /// How to make it where it does not exist.
    pub link: Bridge,
    /// Whether it receives all frames.
    pub promiscuous: bool,
    /// The VLANs for which it must tell VLANs apart, where it must.
    pub vlans: Option<Vlans>,
    /// The gateway within a VLAN, where there is one; otherwise the bridge is the gateway, if any is.
    pub vlan_gateway: Option<VlanGateway>,
    /// Addresses that the gateway lacks.
    pub add: Vec<IpNetwork>,
    /// Addresses that it must not have.
    pub delete: Vec<IpNetwork>,
    /// Settings of the host.
    pub sysctls: Vec<Sysctl>,
}

/// The veth pair as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VethPlan {
    /// The container's id.
    pub container: ContainerId,
    /// Its two ends; the host end is to become a port of the bridge.
    pub link: Veth,
    /// `network/container/interface`, noted on the host's end, as much of it as fits: by it people, and
    /// garbage collection, know whose it is.
    pub alias: String,
    /// How the bridge treats the port.
    pub port: BridgePort,
    /// The VLANs of the port, where the bridge is to tell them apart.
    pub vlans: Option<Vlans>,
    /// The only Ethernet address from which frames are taken, where one is.
    pub only_from: Option<Mac>,
    /// The limit of what the container receives: of what the host's end sends.
    pub limit: Option<TokenBucket>,
}

/// The container's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSide {
    /// The namespace's file.
    pub netns: PathBuf,
    /// The interface's name.
    pub ifname: String,
    /// Settings inside the namespace.
    pub sysctls: Vec<Sysctl>,
    /// Whether to set the interface up; without that it gets neither addresses nor routes.
    pub up: bool,
    /// The limit of what the container sends.
    pub limit: Option<TokenBucket>,
    /// Its addresses.
    pub addresses: Vec<IpNetwork>,
    /// Whether IPv6 ones are used only once nobody else on the link is known to have them.
    pub detect_duplicates: bool,
    /// Whether the networks of its addresses count as being on the link. Otherwise only the gateway is.
    pub prefix_routes: bool,
    /// Its routes, of that interface.
    pub routes: Vec<Route>,
}

/// Plans the connection of a container that got the addresses of `lease`.
///
/// # Errors
/// Where the bridge has an address that is in the way and may not be replaced.
pub fn plan(pod: &Pod, options: &Options, mut lease: Success, state: &HostState) -> Result<PodPlan> {
    if !options.up && !lease.ips.is_empty() {
        return Err(Error::Invalid {
            network: pod.network.to_string(),
            option: "disableContainerInterface".into(),
            reason: "an interface that stays down cannot have addresses; leave out ipam".into(),
        });
    }
    if options.gateway {
        fill_gateways(&mut lease.ips);
    }
    if options.default_route {
        add_default_routes(&mut lease);
    }
    if !options.dns.is_empty() {
        lease.dns = options.dns.clone();
    }
    let host_ports = host_ports(&pod.attachment, options, &lease);
    if !options.ports.is_empty() && lease.ips.is_empty() {
        return Err(Error::Invalid {
            network: pod.network.to_string(),
            option: "portMappings".into(),
            reason: "a container without an address has no ports".into(),
        });
    }
    Ok(PodPlan {
        pending: pod.waits.clone().and_then(|pod| Pending::of(pod, &lease)),
        bridge: bridge(&pod.network, options, &lease, state, host_ports.as_ref())?,
        veth: veth(pod, options, &lease, state),
        pod: pod_side(pod, options, &lease),
        masquerade: masquerade(options, &lease, &state.gateways),
        host_ports,
        lease,
    })
}

impl PodPlan {
    /// The result that tells of it, now that the interfaces are there: bridge, host's end, container's end,
    /// gateway within a VLAN, in the reference plugin's order.
    pub fn result(&self, bridge: &Link, vlan_gateway: Option<&Link>, host: &Link, pod: &Link) -> Success {
        let interface = |link: &Link, sandbox: Option<String>| Interface {
            name: link.name.clone(),
            mac: link.mac.map(|mac| mac.to_string()),
            mtu: Some(link.mtu),
            sandbox,
            ..Interface::default()
        };
        let sandbox = self.pod.netns.to_string_lossy().into_owned();
        let mut result = self.lease.clone();
        result.interfaces =
            vec![interface(bridge, None), interface(host, None), interface(pod, Some(sandbox))];
        result.interfaces.extend(vlan_gateway.map(|link| interface(link, None)));
        for ip in &mut result.ips {
            ip.interface = Some(2);
        }
        result
    }
}

/// Whether the host routes between the containers of the bridge: then Services and policies hold between
/// them, whether bridged packets pass netfilter (br_netfilter) or not.
fn routed(options: &Options) -> bool {
    options.isolated && options.gateway
}

/// A gateway that IPAM does not name is the first address of the network.
fn fill_gateways(ips: &mut [IpConfig]) {
    for ip in ips {
        ip.gateway = ip.gateway.or_else(|| ip.address.iter().nth(1));
    }
}

/// One for each family that has a gateway and no default route from IPAM.
fn add_default_routes(lease: &mut Success) {
    for family in [true, false] {
        let gateway = lease.ips.iter().filter(|ip| ip.address.is_ipv4() == family).find_map(|ip| ip.gateway);
        let of_family = |dst: &IpNetwork| dst.is_ipv4() == family && dst.prefix() == 0;
        let there = lease.routes.iter().any(|route| of_family(&route.dst));
        if let (Some(gateway), false) = (gateway, there) {
            let path = Route::default_via(gateway);
            lease.routes.push(weft_cni_spec::Route::new(path.destination, path.gateway));
        }
    }
}

/// The networks to masquerade: those of the container's addresses, and of all ranges that others of the same
/// network get theirs from.
fn masquerade(options: &Options, lease: &Success, gateways: &[IpNetwork]) -> Option<Masquerade> {
    let own = lease.ips.iter().map(|ip| ip.address);
    let addresses = own.chain(gateways.iter().copied());
    options.masquerade.then(|| Masquerade::of(options.bridge.as_str(), addresses))
}

/// The host's ports that lead to a container with these addresses: to the first of each family.
fn host_ports(attachment: &Attachment, options: &Options, lease: &Success) -> Option<HostPorts> {
    let first = |ipv4: bool| lease.ips.iter().map(|ip| ip.address).find(|address| address.is_ipv4() == ipv4);
    let containers = [first(true), first(false)].into_iter().flatten().map(|address| {
        // Neighbours that a container reaches past the host would get its answers past the host too.
        let neighbours = if routed(options) { IpNetwork::from(address.ip()) } else { address };
        (address.ip(), network(neighbours.ip(), neighbours.prefix()))
    });
    (!options.ports.is_empty()).then(|| HostPorts {
        container: attachment.container.clone(),
        owner: host_name(attachment),
        mappings: options.ports.clone(),
        containers: containers.collect(),
    })
}

fn bridge(
    network: &NetworkName,
    options: &Options,
    lease: &Success,
    state: &HostState,
    host_ports: Option<&HostPorts>,
) -> Result<BridgePlan> {
    let (name, link) = (options.bridge.to_string(), options.gateway_link.as_str());
    let wanted = if options.gateway { gateways(lease) } else { Vec::new() };
    let empty = Vec::new();
    let found = state.bridge.as_ref().map_or(&empty, |bridge| &bridge.addresses);
    let delete = addresses_to_delete(options, &wanted, state)?;
    let mac = wanted.first().map(|gateway| mac::of_gateway(gateway.ip()));
    let mut sysctls = bridge_sysctls(&name, options, lease);
    if host_ports.is_some_and(HostPorts::needs_local_routes) {
        sysctls.push(Sysctl::new(format!("net/ipv4/conf/{link}/route_localnet"), "1"));
    }
    let vlan =
        options.vlans.as_ref().filter(|_| options.gateway).and_then(|vlans| Some((vlans, vlans.own()?)));
    let vlan_gateway =
        vlan.map(|(vlans, vlan)| VlanGateway::new(&name, vlan, vlans.keep_default, mac, options.mtu));
    Ok(BridgePlan {
        alias: names::bridge_alias(network),
        promiscuous: options.promiscuous,
        sysctls,
        vlans: options.vlans.clone(),
        // Two interfaces of one Ethernet address would not both be reached.
        link: Bridge { name, mac: mac.filter(|_| vlan_gateway.is_none()), mtu: options.mtu },
        vlan_gateway,
        add: wanted.into_iter().filter(|gateway| !found.contains(gateway)).collect(),
        delete,
    })
}

/// The addresses that are in the way of these gateways'.
///
/// # Errors
/// Where they may not be deleted.
pub(crate) fn addresses_to_delete(
    options: &Options,
    wanted: &[IpNetwork],
    state: &HostState,
) -> Result<Vec<IpNetwork>> {
    let found = state.bridge.iter().filter(|_| options.gateway).flat_map(|bridge| &bridge.addresses);
    let mut delete = Vec::new();
    for found in found.copied() {
        let Some(wanted) = wanted.iter().find(|wanted| conflicts(&found, wanted, state)) else { continue };
        if !options.force_address {
            let bridge = options.gateway_link.to_string();
            return Err(Error::BridgeAddress { bridge, wanted: *wanted, found });
        }
        delete.push(found);
    }
    Ok(delete)
}

/// The gateways of the lease, with their networks' prefixes.
fn gateways(lease: &Success) -> Vec<IpNetwork> {
    let of = |ip: &IpConfig| IpNetwork::new(ip.gateway?, ip.address.prefix()).ok();
    lease.ips.iter().filter_map(of).collect()
}

/// Whether a bridge's address cannot stay beside the gateway's: another IPv4 address, or an IPv6 one of an
/// overlapping network, as with the reference plugin; but other gateways of the same network go together.
fn conflicts(address: &IpNetwork, gateway: &IpNetwork, state: &HostState) -> bool {
    let same_family = address.is_ipv4() == gateway.is_ipv4();
    let overlap = address.contains(gateway.network()) || gateway.contains(address.network());
    let friendly = address == gateway || state.gateways.contains(address);
    same_family && !friendly && (address.is_ipv4() || overlap)
}

fn bridge_sysctls(bridge: &str, options: &Options, lease: &Success) -> Vec<Sysctl> {
    // The host takes no orders from its own containers. (What comes in by a port is the bridge's from the
    // first frame on, so that the port itself needs no such setting.)
    let accept_ra = |name: &str| Sysctl::optional(format!("net/ipv6/conf/{name}/accept_ra"), "0");
    let (mut sysctls, name) = (vec![accept_ra(bridge)], options.gateway_link.as_str());
    if !options.gateway {
        return sysctls;
    }
    if name != bridge {
        sysctls.push(accept_ra(name));
    }
    let has = |ipv4: bool| lease.ips.iter().any(|ip| ip.address.is_ipv4() == ipv4);
    if has(true) {
        sysctls.push(Sysctl::of_machine("net/ipv4/ip_forward", "1"));
    }
    if has(false) {
        sysctls.push(Sysctl::of_machine("net/ipv6/conf/all/forwarding", "1"));
        // While a new bridge makes sure that nobody else has its link-local address, the host cannot ask for
        // its containers' Ethernet addresses: what is for the first of them would be lost for seconds.
        sysctls.push(Sysctl::optional(format!("net/ipv6/conf/{name}/accept_dad"), "0"));
    }
    if routed(options) && has(true) {
        // A packet that leaves by the bridge that it came in by is the rule here, and no reason to tell the
        // container of a shorter way. The setting is the logical or of `all` and the interface's own.
        sysctls.push(Sysctl::of_machine("net/ipv4/conf/all/send_redirects", "0"));
        sysctls.push(Sysctl::new(format!("net/ipv4/conf/{name}/send_redirects"), "0"));
    }
    sysctls
}

fn veth(pod: &Pod, options: &Options, lease: &Success, state: &HostState) -> VethPlan {
    let name = host_name(&pod.attachment);
    let mac = options.mac.or_else(|| lease.ips.first().map(|ip| mac::of_container(ip.address.ip())));
    // The kernel's own choice would be known too late.
    let mac = mac.or_else(|| options.spoof_check.then(|| mac::of_attachment(&pod.attachment)));
    let ifname = pod.attachment.ifname.to_string();
    // br_netfilter hands a packet for a Service straight to the backend's port: isolation would drop it
    // there, and without hairpin nothing goes back out of the port that it came from. What crosses the bridge
    // passes netfilter then, so that policies hold all the same.
    let bridged = routed(options) && state.bridge_netfilter;
    // The same goes for a container that calls itself by a port of the host. (A bridge that receives all
    // frames sends them to the host too, so nothing is to go back from there: the reference forbids both
    // together.)
    let calls_itself = !options.ports.is_empty() && state.bridge_netfilter && !options.promiscuous;
    let hairpin = options.hairpin || bridged || calls_itself;
    let port = BridgePort { hairpin, isolated: options.isolated && !bridged };
    VethPlan {
        container: pod.attachment.container.clone(),
        alias: names::alias(&pod.network, &pod.attachment),
        port,
        vlans: options.vlans.clone(),
        only_from: mac.filter(|_| options.spoof_check),
        limit: options.limits.ingress,
        link: Veth {
            // The highest, so that a bridge which has the lowest of its ports' does not take it.
            host: VethEnd { name, mac: Some(mac::of_port(&pod.attachment)), mtu: options.mtu },
            host_group: names::group(&pod.network),
            host_up: true,
            master: None,
            peer: VethEnd { name: ifname, mac, mtu: options.mtu },
        },
    }
}

fn pod_side(pod: &Pod, options: &Options, lease: &Success) -> PodSide {
    let ifname = pod.attachment.ifname.to_string();
    let prefix_routes = !routed(options);
    let off_link = lease.ips.iter().filter(|ip| !(prefix_routes && gateway_is_inside(ip)));
    let gateways = off_link.filter_map(|ip| ip.gateway);
    let mut routes: Vec<Route> = gateways.map(|gateway| Route::to(IpNetwork::from(gateway))).collect();
    // An IPAM plugin may tell an address twice, of which the kernel would refuse the second.
    let mut seen = BTreeSet::new();
    let addresses = lease.ips.iter().map(|ip| ip.address).filter(|address| seen.insert(*address)).collect();
    routes.extend(lease.routes.iter().map(|route| path(route, lease)));
    PodSide {
        netns: pod.netns.clone(),
        sysctls: pod_sysctls(&ifname, options, lease),
        ifname,
        up: options.up,
        limit: options.limits.egress,
        addresses,
        detect_duplicates: options.detect_duplicates,
        prefix_routes,
        routes,
    }
}

fn gateway_is_inside(ip: &IpConfig) -> bool {
    ip.gateway.is_none_or(|gateway| ip.address.contains(gateway))
}

/// A route without a next hop goes by the gateway of its family, and where there is none it is on the link.
fn path(route: &weft_cni_spec::Route, lease: &Success) -> Route {
    let of_family = lease.ips.iter().filter(|ip| ip.address.is_ipv4() == route.dst.is_ipv4());
    // What is said to be on the link, or the host itself, has none.
    let is_near = route.scope.is_some_and(|scope| scope >= Route::LINK_SCOPE);
    let gateway = route.gw.or_else(|| of_family.filter_map(|ip| ip.gateway).find(|_| !is_near));
    Route {
        gateway,
        scope: route.scope,
        metric: route.priority,
        mtu: route.mtu,
        advmss: route.advmss,
        table: route.table.unwrap_or(Route::MAIN_TABLE),
        ..Route::to(route.dst)
    }
}

fn pod_sysctls(ifname: &str, options: &Options, lease: &Success) -> Vec<Sysctl> {
    // IPAM has made sure that addresses are unique; the link-local one follows from the Ethernet address.
    let accept_dad = if options.detect_duplicates { "1" } else { "0" };
    let mut sysctls = vec![Sysctl::optional(format!("net/ipv6/conf/{ifname}/accept_dad"), accept_dad)];
    let has_ipv6 = lease.ips.iter().any(|ip| ip.address.is_ipv6());
    if options.gateway || has_ipv6 {
        // The way out is known, and nobody else on the link may show another. On a link where addresses come
        // from elsewhere, routers may be that too.
        sysctls.push(Sysctl::optional(format!("net/ipv6/conf/{ifname}/accept_ra"), "0"));
    }
    if has_ipv6 {
        // Runtimes make namespaces with IPv6 switched off.
        sysctls.push(Sysctl::new(format!("net/ipv6/conf/{ifname}/disable_ipv6"), "0"));
        sysctls.push(Sysctl::optional("net/ipv6/conf/lo/disable_ipv6", "0"));
        // As with IPv4, and as the reference has it.
        sysctls.push(Sysctl::optional(format!("net/ipv6/conf/{ifname}/keep_addr_on_down"), "1"));
    }
    if routed(options) {
        // Everything goes by the gateway, whatever the host says of shorter ways. For IPv4 the setting is the
        // logical or of `all` and the interface's own.
        for key in ["net/ipv4/conf/all", &format!("net/ipv4/conf/{ifname}")] {
            sysctls.push(Sysctl::new(format!("{key}/accept_redirects"), "0"));
        }
        sysctls.push(Sysctl::optional(format!("net/ipv6/conf/{ifname}/accept_redirects"), "0"));
    }
    sysctls
}

#[cfg(test)]
mod tests;
