//! GC: everything is taken away of containers that the runtime does not know any more. Works from names and
//! notes alone.

use std::collections::BTreeSet;

use weft_cni_spec::{Attachment, BridgeOptions, Invocation, decode};
use weft_netlink::rtnl::{Link, RtnetlinkClient};

use super::del::{bridge, unless_missing};
use super::record::Records;
use crate::nft::Tables;
use crate::plan::names::{DOOMED, alias_prefix, group};
use crate::{Result, host_name};

/// Deletes what this network made for attachments that are not valid any more: its links all at once, since
/// for each by itself the kernel would wait. Goes on after an error and reports the first.
pub(crate) fn gc(invocation: &Invocation) -> Result<()> {
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
