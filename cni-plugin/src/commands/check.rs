//! CHECK: whether everything is as ADD told and made it. The plan is made once more, from what ADD told, and
//! compared with what is. Changes nothing.
//!
//! What a plugin later in the list may have changed is let be: the container's own Ethernet address where the
//! result tells it, its MTU and settings, and whatever there is besides (SPEC section 2, "CHECK").

use weft_cni_spec::{Args, Attachment, Code, Failure, Invocation, Success};
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{Link, RtnetlinkClient};

use super::ipam::Source;
use crate::kernel::ContainerInterface;
use crate::nft::Tables;
use crate::{BridgePlan, Error, HostState, Options, Pod, PodPlan, Result, VethPlan, host_name, plan};

/// Compares what is with `previous`, the result of ADD.
pub(crate) fn check(
    invocation: &Invocation,
    attachment: &Attachment,
    namespace: &Namespace,
    previous: &Success,
) -> Result<()> {
    // An address that is in the way of the gateway's is one that the gateway lacks.
    let options = Options { force_address: true, ..Options::read(invocation, &Args::default())? };
    let ipam = Source::of(invocation)?;
    let leased = ipam.check(invocation, attachment, namespace.path(), previous);
    let mut host = RtnetlinkClient::open()?;
    let host_end = host.find_link(&host_name(attachment))?;
    let host_end = host_end.ok_or_else(|| missing(invocation, attachment, &ipam, leased.as_ref().err()))?;
    leased?;
    let wrong = |what: String| Error::Check { container: attachment.container.clone(), what };
    let ifname = attachment.ifname.as_str();
    let found = namespace.run(|| ContainerInterface::read(ifname))??;
    found.compare(previous, namespace.path()).map_err(wrong)?;
    // The one that ADD gave it, in whichever version of this program.
    let options = Options { mac: found.mac(), ..options };
    let gateways = options.gateways(ipam.gateways(invocation)?);
    let state = HostState::read(&mut host, &options, gateways)?;
    let pod = Pod {
        network: invocation.network.clone(),
        attachment: attachment.clone(),
        netns: namespace.path().to_owned(),
        waits: None,
    };
    let plan = plan(&pod, &options, found.told(previous), &state)?;
    let difference = match bridge(&mut host, &plan.bridge)? {
        None => port(&mut host, &host_end, &plan, previous)?,
        found => found,
    };
    let difference = difference.or_else(|| found.difference(&plan.pod));
    let difference = difference.map_or_else(|| tables(&plan), |found| Ok(Some(found)))?;
    difference.map_or(Ok(()), |what| Err(wrong(what)))
}

/// The host's end is gone. Where IPAM, as far as it is known here, has no address of the container's either,
/// there is nothing.
fn missing(
    invocation: &Invocation,
    attachment: &Attachment,
    ipam: &Source,
    leased: Option<&Failure>,
) -> Error {
    let container = attachment.container.clone();
    match (ipam, leased) {
        (Source::None, _) => Error::NotAttached { container, network: invocation.network.to_string() },
        (Source::BuiltIn, Some(failure)) if failure.code == Code::CheckFailed => {
            Error::NotAttached { container, network: invocation.network.to_string() }
        }
        (_, Some(failure)) => Error::Failure(failure.clone()),
        _ => Error::Check { container, what: format!("{} is gone", host_name(attachment)) },
    }
}

/// What is wrong with the bridge, in words.
fn bridge(host: &mut RtnetlinkClient, plan: &BridgePlan) -> Result<Option<String>> {
    let name = &plan.link.name;
    let Some(link) = host.find_link(name)? else { return Ok(Some(format!("bridge {name} is gone"))) };
    let gateway = plan.vlan_gateway.as_ref().map_or(name, |gateway| &gateway.link.peer.name);
    let lacking = plan.add.first().map(|address| format!("gateway {gateway} lacks address {address}"));
    let unset = plan.sysctls.iter().find(|sysctl| !sysctl.is_set());
    Ok((!link.up)
        .then(|| format!("bridge {name} is down"))
        .or_else(|| (plan.promiscuous && !link.promiscuous).then(|| format!("{name} is not promiscuous")))
        .or(lacking)
        .or_else(|| unset.map(|sysctl| format!("/proc/sys/{} is not {}", sysctl.key, sysctl.value))))
}

/// What is wrong with the host's end of the pair as a port of the bridge.
pub(crate) fn port(
    host: &mut RtnetlinkClient,
    host_end: &Link,
    plan: &PodPlan,
    previous: &Success,
) -> Result<Option<String>> {
    let (name, veth) = (&host_end.name, &plan.veth);
    let bridge = &plan.bridge.link.name;
    if host_end.master != Some(host.link(bridge)?.index) {
        return Ok(Some(format!("{name} is not a port of bridge {bridge}")));
    }
    if !host_end.up {
        return Ok(Some(format!("{name} is down")));
    }
    let told = previous.interfaces.iter().find(|told| told.name == *name && told.sandbox.is_none());
    let mtu = told.and_then(|told| told.mtu).or(veth.link.host.mtu);
    if let Some(mtu) = mtu.filter(|mtu| *mtu != host_end.mtu) {
        return Ok(Some(format!("{name} has MTU {} instead of {mtu}", host_end.mtu)));
    }
    let flags = host.bridge_port(host_end.index)?.unwrap_or_default();
    let on = |is_on: bool| if is_on { "on" } else { "off" };
    let flags =
        [("hairpin", flags.hairpin, veth.port.hairpin), ("isolated", flags.isolated, veth.port.isolated)];
    if let Some((flag, is, wanted)) = flags.into_iter().find(|(_, is, wanted)| is != wanted) {
        return Ok(Some(format!("port {name} has {flag} {} instead of {}", on(is), on(wanted))));
    }
    match station(host, host_end, veth)? {
        None => Ok(vlans(host, host_end, veth)?.or(limit(host, host_end, veth)?)),
        found => Ok(found),
    }
}

fn station(host: &mut RtnetlinkClient, host_end: &Link, veth: &VethPlan) -> Result<Option<String>> {
    let Some(mac) = veth.only_from else { return Ok(None) };
    let name = &host_end.name;
    if !host.is_port_locked(host_end.index)? {
        return Ok(Some(format!("{name} accepts frames from any MAC address")));
    }
    let is_pinned = host.sticky_fdb(host_end.index)?.contains(&mac);
    Ok((!is_pinned).then(|| format!("{name} does not accept frames from {mac}")))
}

fn vlans(host: &mut RtnetlinkClient, host_end: &Link, veth: &VethPlan) -> Result<Option<String>> {
    let Some(wanted) = &veth.vlans else { return Ok(None) };
    let difference = wanted.difference(&host.bridge_vlans(host_end.index)?);
    Ok(difference.map(|what| format!("port {} {what}", host_end.name)))
}

fn limit(host: &mut RtnetlinkClient, host_end: &Link, veth: &VethPlan) -> Result<Option<String>> {
    let Some(wanted) = veth.limit else { return Ok(None) };
    let is_limited = host.token_bucket(host_end.index)? == Some((wanted.rate, wanted.limit));
    Ok((!is_limited).then(|| format!("{} does not limit what the container receives", host_end.name)))
}

/// What nf_tables lacks.
fn tables(plan: &PodPlan) -> Result<Option<String>> {
    if let Some(networks) = &plan.masquerade
        && let Some(missing) = Tables::open_for(|| "ipMasq true".into())?.check_masquerade(networks)?
    {
        return Ok(Some(missing));
    }
    match &plan.host_ports {
        Some(ports) => Tables::open_for(|| "portMappings".into())?.check_ports(ports),
        None => Ok(None),
    }
}
