//! A plan becomes the kernel's state, or nothing of the container's stays. What the plan is, is decided
//! elsewhere.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use weft_cni_spec::{ContainerId, Success};
use weft_netlink::Error as NetlinkError;
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{
    Address, DadState, Link, LinkChange, Mac, Route, RouteFilter, RtnetlinkClient, TokenBucket, Veth,
};
use weft_netlink::sysctl::Originals;

use crate::plan::DEFAULT_VLAN;
use crate::{BridgePlan, Error, PodPlan, PodSide, Result, Sysctl, VethPlan, VlanGateway, Vlans};

/// What switches forwarding of IPv6 on.
const FORWARDING: &str = "net/ipv6/conf/all/forwarding";
/// The protocol of routes from router advertisements (`RTPROT_RA`, linux/rtnetlink.h).
const ADVERTISED: u8 = 9;
/// How long the kernel may take to notice a carrier.
const OPERATION: Duration = Duration::from_secs(2);
/// How long duplicate address detection may take.
const DETECTION: Duration = Duration::from_secs(10);

/// Makes what the plan says and tells the result. `host` is a client in the host's namespace, `bridge` the
/// bridge where there is one.
///
/// # Errors
/// The first thing that went wrong; the veth pair is gone then. The bridge stays, for it is other containers'
/// too.
pub(crate) fn apply(
    host: &mut RtnetlinkClient,
    netns: &Namespace,
    plan: &PodPlan,
    bridge: Option<Link>,
    originals: &Originals,
) -> Result<Success> {
    let (bridge, vlan_gateway) = ensure_bridge(host, &plan.bridge, bridge, originals)?;
    let host_end = add_veth(host, netns, &plan.veth, &bridge)?;
    let name = &plan.veth.link.host.name;
    let gateway = vlan_gateway.as_ref().unwrap_or(&bridge);
    let outcome = connect(host, netns, plan, gateway.index, &host_end).and_then(|peer| {
        if plan.pod.up {
            // The first container gives bridge and gateway their carriers.
            let idle = [&bridge, gateway].into_iter().filter(|link| !link.carrier);
            await_operation(host, host_end.index, idle)?;
        }
        Ok(plan.result(&bridge, vlan_gateway.as_ref(), &host_end, &peer))
    });
    outcome.inspect_err(|_| {
        // The first error is the one to report. With one end of the pair, both go, and all that is on them.
        let _ = host.delete_link_named(name);
    })
}

/// Gives a container that is connected its addresses and routes. Tells of no interfaces.
pub(crate) fn complete(host: &mut RtnetlinkClient, netns: &Namespace, plan: &PodPlan) -> Result<Success> {
    let host_end = host.link(&plan.veth.link.host.name)?;
    // Its limit stands already.
    let side = PodSide { limit: None, ..plan.pod.clone() };
    netns.run(|| configure(&side, &plan.veth, &host_end))??;
    let unused = Link::default();
    let result = plan.result(&unused, None, &unused, &unused);
    Ok(Success { interfaces: Vec::new(), ..result })
}

/// Returns the bridge and the gateway within a VLAN, where there is one.
pub(crate) fn ensure_bridge(
    host: &mut RtnetlinkClient,
    plan: &BridgePlan,
    found: Option<Link>,
    originals: &Originals,
) -> Result<(Link, Option<Link>)> {
    let (link, alias) = match found {
        Some(link) => (link, None),
        None => {
            let alias = match host.add_bridge(&plan.link) {
                Ok(()) => Some(plan.alias.clone()),
                // Another call was faster.
                Err(error) if Link::exists(&error) => None,
                Err(error) => return Err(error.into()),
            };
            (host.link(&plan.link.name)?, alias)
        }
    };
    let mac = pinned_mac(host, plan, &link)?;
    if !link.up || plan.promiscuous || mac.is_some() || alias.is_some() {
        let promiscuous = plan.promiscuous.then_some(true);
        let change = LinkChange { up: Some(true), promiscuous, mac, alias, ..LinkChange::default() };
        host.change_link(link.index, &change)?;
    }
    plan.vlans.as_ref().map_or(Ok(()), |vlans| filter_vlans(host, link.index, vlans))?;
    let gateway =
        plan.vlan_gateway.as_ref().map(|gateway| ensure_gateway(host, gateway, link.index)).transpose()?;
    let index = gateway.as_ref().unwrap_or(&link).index;
    let at = |address| Address { link: index, address };
    for address in &plan.delete {
        unless_done(host.delete_address(at(*address)))?;
    }
    for address in &plan.add {
        unless_done(host.add_address(at(*address)))?;
    }
    for sysctl in &plan.sysctls {
        if sysctl.key == FORWARDING && !sysctl.is_set() {
            keep_advertised(host, originals)?;
        }
        sysctl.apply_to_host(originals)?;
    }
    Ok((link, gateway))
}

/// As soon as it forwards IPv6, the kernel forgets a default route from a router's advertisement and takes no
/// other (RFC 4861 section 6.2.8), unless the interface is told before to take them all the same (ip-sysctl,
/// accept_ra).
fn keep_advertised(host: &mut RtnetlinkClient, originals: &Originals) -> Result<()> {
    let filter = RouteFilter { protocol: Some(ADVERTISED), ..RouteFilter::default() };
    for path in host.routes(filter)?.into_iter().filter(|path| path.destination.prefix() == 0) {
        let Some(link) = path.link else { continue };
        let name = host.link_by_index(link)?.name;
        Sysctl::of_machine(format!("net/ipv6/conf/{name}/accept_ra"), "2").apply_to_host(originals)?;
    }
    Ok(())
}

/// The Ethernet address that a gateway is to keep from now on. A bridge that was made without one has the
/// lowest of its ports', another one whenever a port comes or goes, and containers lose their gateway each
/// time. Where it has the gateway's address and ports, that is done: to be told makes the kernel forget all
/// neighbours.
fn pinned_mac(host: &mut RtnetlinkClient, plan: &BridgePlan, link: &Link) -> Result<Option<Mac>> {
    let is_pinned = plan.link.mac.is_none() || link.mac == plan.link.mac;
    let is_due = !plan.add.is_empty() || (!is_pinned && !link.carrier && host.ports(link.index)?.is_empty());
    Ok(link.mac.filter(|_| !is_pinned && is_due))
}

/// Every call makes sure that the port is in its VLAN: the one that made it may have died.
fn ensure_gateway(host: &mut RtnetlinkClient, plan: &VlanGateway, bridge: u32) -> Result<Link> {
    let name = &plan.link.peer.name;
    let link = match host.find_link(name)? {
        Some(link) => link,
        None => {
            let pair = Veth { master: Some(bridge), ..plan.link.clone() };
            match host.add_veth(&pair, Namespace::current()?.as_fd()) {
                Err(error) if !Link::exists(&error) => return Err(error.into()),
                _ => host.link(name)?,
            }
        }
    };
    // Whoever made the pair, the reference plugin too, which gives the port another name.
    join_vlans(host, link.peer.unwrap_or_default(), &plan.vlans)?;
    host.change_link(link.index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
    Ok(link)
}

/// Another call that does the same may have been faster.
fn unless_done(outcome: Result<(), NetlinkError>) -> Result<()> {
    match outcome {
        Err(error) if matches!(error.errno(), Some(Errno::EEXIST | Errno::EADDRNOTAVAIL)) => Ok(()),
        outcome => Ok(outcome?),
    }
}

fn add_veth(host: &mut RtnetlinkClient, netns: &Namespace, plan: &VethPlan, bridge: &Link) -> Result<Link> {
    let mut link = plan.link.clone();
    link.master = Some(bridge.index);
    match host.add_veth(&link, netns.as_fd()) {
        Err(error) if Link::exists(&error) => {
            // One of the two names is taken.
            let (container, ifname) = (plan.container.clone(), link.peer.name);
            let inside = netns.run(|| RtnetlinkClient::open()?.find_link(&ifname))??;
            match inside {
                Some(_) => Err(Error::InterfaceExists { container, ifname }),
                None => Err(Error::InterfaceExists { container, ifname: link.host.name }),
            }
        }
        outcome => {
            let outcome = outcome.inspect_err(|_| {
                // The kernel may have made it and not told.
                let _ = host.delete_link_named(&plan.link.host.name);
            });
            outcome.map_err(|error| match error.errno() {
                Some(Errno::EXFULL) => Error::BridgeFull { bridge: bridge.name.clone() },
                _ => error.into(),
            })
        }
    }
}

/// Everything from the moment on that the pair exists. Returns the container's end.
fn connect(
    host: &mut RtnetlinkClient,
    netns: &Namespace,
    plan: &PodPlan,
    gateway: u32,
    host_end: &Link,
) -> Result<Link> {
    let veth = &plan.veth;
    settle_port(host, host_end, veth)?;
    for address in &plan.pod.addresses {
        // Who had the address before may have had another Ethernet address.
        match host.delete_neighbour(gateway, address.ip()) {
            Err(error) if !error.is_missing() => return Err(error.into()),
            _ => {}
        }
    }
    netns.run(|| configure(&plan.pod, veth, host_end))?
}

/// What the bridge is to know of the port, once it is one.
pub(crate) fn settle_port(host: &mut RtnetlinkClient, host_end: &Link, veth: &VethPlan) -> Result<()> {
    let (alias, port) = (Some(veth.alias.clone()), Some(veth.port));
    host.change_link(host_end.index, &LinkChange { alias, port, ..LinkChange::default() })?;
    veth.vlans.iter().try_for_each(|vlans| join_vlans(host, host_end.index, vlans))?;
    veth.only_from.map_or(Ok(()), |mac| lock_port(host, host_end, mac))?;
    limit(host, host_end, veth.limit.as_ref())
}

/// Waits until the host can send to the container. The kernel takes notice of a new carrier in its own time;
/// until it has, it drops what is to be sent, and the first answer comes a second late. If it has not after
/// so long it has other troubles, and the container is better off connected.
fn await_operation<'a>(
    host: &mut RtnetlinkClient,
    host_end: u32,
    idle: impl Iterator<Item = &'a Link>,
) -> Result<()> {
    let deadline = Instant::now() + OPERATION;
    while !host.link_by_index(host_end)?.carrier && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    for link in idle {
        host.link_by_index(link.index)?;
    }
    Ok(())
}

fn filter_vlans(host: &mut RtnetlinkClient, bridge: u32, vlans: &Vlans) -> Result<()> {
    match host.set_vlan_filtering(bridge) {
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
            let what = "VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)";
            Err(Error::KernelLacks { option: vlans.to_string(), what })
        }
        outcome => Ok(outcome?),
    }
}

fn join_vlans(host: &mut RtnetlinkClient, port: u32, vlans: &Vlans) -> Result<()> {
    vlans.memberships().try_for_each(|membership| host.add_bridge_vlan(port, membership))?;
    match vlans.leaves_default().then(|| host.delete_bridge_vlan(port, DEFAULT_VLAN)) {
        Some(Err(error)) if !error.is_missing() => Err(error.into()),
        _ => Ok(()),
    }
}

/// From then on the bridge drops what does not come from that Ethernet address. There is nothing to take away
/// later: all of it goes with the port.
fn lock_port(host: &mut RtnetlinkClient, host_end: &Link, mac: Mac) -> Result<()> {
    host.set_sticky_fdb(host_end.index, mac)?;
    host.change_link(host_end.index, &LinkChange { locked: Some(true), ..LinkChange::default() })?;
    match host.is_port_locked(host_end.index)? {
        true => Ok(()),
        false => Err(Error::KernelLacks {
            option: "macspoofchk true".into(),
            what: "locked bridge ports (Linux 5.18)",
        }),
    }
}

fn limit(route: &mut RtnetlinkClient, link: &Link, bucket: Option<&TokenBucket>) -> Result<()> {
    let Some(bucket) = bucket else { return Ok(()) };
    match route.set_token_bucket(link.index, bucket) {
        // The interface is there: it is the discipline that the kernel does not know.
        Err(error) if error.errno() == Some(Errno::ENOENT) => {
            let what = "the queueing discipline tbf (sch_tbf)";
            Err(Error::KernelLacks { option: format!("bandwidth {bucket}"), what })
        }
        outcome => Ok(outcome?),
    }
}

/// Runs inside the container's namespace.
fn configure(plan: &PodSide, veth: &VethPlan, host_end: &Link) -> Result<Link> {
    let mut route = RtnetlinkClient::open()?;
    let link = match peer_end(veth, host_end) {
        Some(link) => link,
        None => route.link(&plan.ifname)?,
    };
    plan.sysctls.iter().try_for_each(|sysctl| sysctl.apply())?;
    limit(&mut route, &link, plan.limit.as_ref())?;
    if plan.up {
        route.change_link(link.index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
    }
    for address in &plan.addresses {
        let address = Address { link: link.index, address: *address };
        match (plan.detect_duplicates, plan.prefix_routes) {
            (true, prefix_route) => route.add_address_with_dad(address, prefix_route)?,
            (false, true) => route.add_address(address)?,
            (false, false) => route.add_address_noprefixroute(address)?,
        }
    }
    for path in &plan.routes {
        match route.add_route(&Route { link: Some(link.index), ..path.clone() }) {
            // Of another interface, or a plugin before: the first route there stays, as with the reference
            // plugin.
            Err(error) if error.errno() == Some(Errno::EEXIST) => {}
            outcome => outcome?,
        }
    }
    if plan.detect_duplicates {
        await_detection(&mut route, link.index, plan, &veth.container)?;
    }
    Ok(link)
}

/// The container's end, without asking the kernel, which has told its index with the other end's; `None`
/// where the kernel chose the Ethernet address.
fn peer_end(plan: &VethPlan, host_end: &Link) -> Option<Link> {
    let peer = &plan.link.peer;
    let (index, mac) = (host_end.peer?, Some(peer.mac?));
    Some(Link {
        index,
        name: peer.name.clone(),
        mac,
        mtu: peer.mtu.unwrap_or(host_end.mtu),
        ..Link::default()
    })
}

/// Until all addresses can be used. The kernel asks for about a second.
fn await_detection(
    route: &mut RtnetlinkClient,
    link: u32,
    plan: &PodSide,
    container: &ContainerId,
) -> Result<()> {
    let deadline = Instant::now() + DETECTION;
    let not_usable = |address, why| Error::NotUsable {
        container: container.clone(),
        ifname: plan.ifname.clone(),
        address,
        why,
    };
    loop {
        match route.dad_state(link)? {
            DadState::Done => return Ok(()),
            DadState::Failed(address) => return Err(not_usable(address, "is another's on the link")),
            DadState::Tentative(address) if Instant::now() > deadline => {
                return Err(not_usable(address, "is still tentative after ten seconds"));
            }
            DadState::Tentative(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}
