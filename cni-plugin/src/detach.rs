//! DEL and GC: everything of a container's is taken away, or of all containers that the runtime does not know any more.
//! Both work from names alone: what ADD made is found by them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_cni_spec::{Attachment, BridgeOptions, Invocation, decode};
use weft_netlink::Error as NetlinkError;
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{Link, RtnetlinkClient};

use crate::ipam::Source;
use crate::options::DEFAULT_BRIDGE;
use crate::record::Records;
use crate::shared::Tables;
use crate::veth::{DOOMED, alias_prefix, group};
use crate::{Result, flows, host_name};

/// Disconnects a container. `namespace` is its own, where that is still there.
///
/// The mappings of its ports go first: nobody is to be led to a link that is gone. The address is freed last: one whose
/// link could not be deleted must not be another's.
pub(crate) fn detach(
    invocation: &Invocation,
    attachment: &Attachment,
    namespace: Option<&Namespace>,
) -> Result<()> {
    let name = host_name(attachment);
    // Before all else, so that nothing is put back from now on.
    let had_record = Records::of(invocation).forget(&name);
    let unmapped = unmap_ports(&name, had_record);
    let mut host = RtnetlinkClient::open()?;
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
    // Each is tried, whatever became of the others; the first error is reported.
    let freed = Source::of(invocation).and_then(|ipam| ipam.del(invocation, attachment));
    unmapped.and(released).and(freed.map_err(Into::into))
}

/// Ends the masquerading of a bridge's networks, unless the bridge has a container. The gateway of a VLAN is a port that
/// is always up.
pub(crate) fn release_masquerade(
    host: &mut RtnetlinkClient,
    bridge: &str,
    has_vlan_gateway: bool,
) -> Result<()> {
    // Some port is up. Which kind of ports there are only a list of them says, which is to be read again and again as
    // long as others delete theirs: that is left to the last DEL, and to GC.
    if !has_vlan_gateway && host.find_link(bridge)?.is_some_and(|bridge| bridge.carrier) {
        return Ok(());
    }
    Tables::open()?.map_or(Ok(()), |mut tables| tables.release_masquerade(host, bridge))
}

/// Deletes what this network made for attachments that are not valid any more: its links all at once, since for each by itself
/// the kernel would wait. Goes on after an error and reports the first.
pub(crate) fn collect(invocation: &Invocation) -> Result<()> {
    let mut host = RtnetlinkClient::open()?;
    let links = collect_links(invocation, &mut host);
    let records = Records::of(invocation);
    let kept = records.all();
    // Listed after the records: a container has its link before it has a record.
    let living: BTreeSet<String> = match kept.is_empty() {
        true => BTreeSet::new(),
        false => host.links()?.into_iter().map(|link| link.name).collect(),
    };
    kept.iter().filter(|record| !living.contains(&record.owner)).for_each(|record| {
        records.forget(&record.owner);
    });
    let Some(mut tables) = Tables::open()? else { return links };
    let ports = tables.collect_ports(&mut host);
    let options: BridgeOptions = decode(&invocation.json).unwrap_or_default();
    let networks = tables.release_masquerade(&mut host, bridge(&options));
    links.and(ports).and(networks)
}

fn bridge(options: &BridgeOptions) -> &str {
    options.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE)
}

fn unmap_ports(owner: &str, had_record: bool) -> Result<()> {
    let Some(mut tables) = Tables::open()? else { return Ok(()) };
    let containers: Vec<IpAddr> = tables.unmap_ports(owner, had_record)?;
    flows::forget_after(&containers)
}

/// By its index: however late the kernel comes to it, it is never another container's.
fn delete(host: &mut RtnetlinkClient, name: &str) -> Result<(), NetlinkError> {
    let link = host.link(name)?;
    host.delete_link_detached(link.index)
}

fn delete_inside(ifname: &str) -> Result<()> {
    unless_missing(RtnetlinkClient::open()?.delete_link_named(ifname))
}

fn collect_links(invocation: &Invocation, host: &mut RtnetlinkClient) -> Result<()> {
    let (prefix, group) = (alias_prefix(&invocation.network), group(&invocation.network));
    let attachments = invocation.config.valid_attachments.iter().filter_map(|valid| {
        // What is no valid id or name is no attachment of ours.
        Some(Attachment { container: valid.container_id.parse().ok()?, ifname: valid.ifname.parse().ok()? })
    });
    let valid: Vec<String> = attachments.map(|attachment| host_name(&attachment)).collect();
    let is_ours = |link: &Link| match &link.alias {
        // A collection died before it deleted it.
        _ if link.group == DOOMED => true,
        Some(alias) => alias.starts_with(&prefix),
        // The call that made it died before it noted whose it is.
        None => link.group == group,
    };
    let is_stale =
        |link: &Link| link.kind.as_deref() == Some("veth") && is_ours(link) && !valid.contains(&link.name);
    let stale: Vec<Link> = host.links()?.into_iter().filter(is_stale).collect();
    let marked: Vec<Result<()>> =
        stale.iter().map(|link| unless_missing(host.set_group(link.index, DOOMED))).collect();
    let deleted = if stale.is_empty() { Ok(()) } else { unless_missing(host.delete_group(DOOMED)) };
    marked.into_iter().collect::<Result<()>>().and(deleted)
}

fn unless_missing(outcome: Result<(), NetlinkError>) -> Result<()> {
    match outcome {
        Err(error) if !error.is_missing() => Err(error.into()),
        _ => Ok(()),
    }
}
