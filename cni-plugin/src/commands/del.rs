//! DEL: everything of a container's is taken away. Works from names alone: what ADD made is found by them.

use std::net::IpAddr;

use weft_cni_spec::{Attachment, BridgeOptions, Invocation, decode};
use weft_netlink::Error as NetlinkError;
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::RtnetlinkClient;

use super::ipam::Source;
use super::pending;
use super::record::Records;
use crate::kernel::conntrack;
use crate::nft::Tables;
use crate::plan::DEFAULT_BRIDGE;
use crate::{Result, host_name};

/// Disconnects a container. `namespace` is its own, where that is still there.
///
/// The mappings of its ports go first: nobody is to be led to a link that is gone. The address is freed last:
/// one whose link could not be deleted must not be another's.
pub(crate) fn del(
    invocation: &Invocation,
    attachment: &Attachment,
    namespace: Option<&Namespace>,
) -> Result<()> {
    let name = host_name(attachment);
    // Before all else, so that nothing is put back from now on.
    let had_record = Records::of(invocation).forget(&name);
    let unmapped = unmap_ports(&name, had_record);
    let mut host = RtnetlinkClient::open()?;
    let source = Source::of(invocation);
    // By the container's interface, which so must be there.
    let is_early = source.as_ref().is_ok_and(Source::needs_interface);
    let early = source.as_ref().ok().filter(|_| is_early).map(|ipam| ipam.del(invocation, attachment));
    match (delete(&mut host, &name), namespace) {
        (Ok(()), _) => {}
        // Made by another plugin, with another name on the host: found from the inside.
        (Err(error), Some(namespace)) if error.is_missing() => {
            namespace.run(|| delete_inside(attachment.ifname.as_str()))??;
        }
        (Err(error), None) if error.is_missing() => {}
        (Err(error), _) => return Err(error.into()),
    }
    // What ADD could not read, it did not do.
    let options: BridgeOptions = decode(&invocation.json).unwrap_or_default();
    // Whatever the configuration says of ipMasq now: it may have said something else when ADD was called.
    let released = release_masquerade(&mut host, bridge(&options), options.vlan.is_some());
    // While the address is the container's still.
    let opened = pending::release(invocation, attachment);
    // Each is tried, whatever became of the others; the first error is reported.
    let freed = early.unwrap_or_else(|| source.and_then(|ipam| ipam.del(invocation, attachment)));
    unmapped.and(released).and(opened).and(freed.map_err(Into::into))
}

/// Ends the masquerading of a bridge's networks, unless the bridge has a container. The gateway of a VLAN is
/// a port that is always up.
pub(crate) fn release_masquerade(
    host: &mut RtnetlinkClient,
    bridge: &str,
    has_vlan_gateway: bool,
) -> Result<()> {
    // Some port is up. Which kind of ports there are only a list of them says, which is to be read again and
    // again as long as others delete theirs: that is left to the last DEL, and to GC.
    if !has_vlan_gateway && host.find_link(bridge)?.is_some_and(|bridge| bridge.carrier) {
        return Ok(());
    }
    Tables::open()?.map_or(Ok(()), |mut tables| tables.release_masquerade(host, bridge))
}

pub(super) fn bridge(options: &BridgeOptions) -> &str {
    options.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE)
}

fn unmap_ports(owner: &str, had_record: bool) -> Result<()> {
    let Some(mut tables) = Tables::open()? else { return Ok(()) };
    let containers: Vec<IpAddr> = tables.unmap_ports(owner, had_record)?;
    conntrack::forget_after(&containers)
}

/// By its index: however late the kernel comes to it, it is never another container's.
fn delete(host: &mut RtnetlinkClient, name: &str) -> Result<(), NetlinkError> {
    let link = host.link(name)?;
    host.delete_link_detached(link.index)
}

fn delete_inside(ifname: &str) -> Result<()> {
    unless_missing(RtnetlinkClient::open()?.delete_link_named(ifname))
}

pub(super) fn unless_missing(outcome: Result<(), NetlinkError>) -> Result<()> {
    match outcome {
        Err(error) if !error.is_missing() => Err(error.into()),
        _ => Ok(()),
    }
}
