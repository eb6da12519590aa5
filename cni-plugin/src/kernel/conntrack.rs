//! Connections that the kernel has tracked past a mapping of ports, or along one that is gone. TCP ends such
//! a connection by itself; UDP has no end, and the kernel would go on with what it has tracked.

use std::net::IpAddr;

use weft_netlink::Family;
use weft_netlink::conntrack::{ConntrackClient, Filter, Flow};

use crate::{HostPorts, Result};

/// The IP protocol number of UDP.
const UDP: u8 = 17;

/// Forgets flows to ports of the host that lead to a container from now on.
pub(crate) fn forget_before(plan: &HostPorts) -> Result<()> {
    let ports: Vec<u16> = plan
        .mappings
        .iter()
        .filter(|mapping| mapping.protocol == UDP)
        .map(|mapping| mapping.host_port)
        .collect();
    if ports.is_empty() {
        return Ok(());
    }
    forget(plan.families(), |flow| {
        let passed_by = plan.container(Family::of(flow.reply.source.ip())) != Some(flow.reply.source.ip());
        ports.contains(&flow.original.destination.port()) && passed_by
    })
}

/// Forgets the flows of containers whose ports are not mapped any more, in both directions.
pub(crate) fn forget_after(containers: &[IpAddr]) -> Result<()> {
    let families = Family::BOTH
        .into_iter()
        .filter(|family| containers.iter().any(|container| Family::of(*container) == *family));
    forget(families, |flow| {
        [flow.reply.source, flow.original.source].iter().any(|end| containers.contains(&end.ip()))
    })
}

fn forget(families: impl Iterator<Item = Family>, is_stale: impl Fn(&Flow) -> bool) -> Result<()> {
    let mut client: Option<ConntrackClient> = None;
    for family in families {
        let client = match &mut client {
            Some(client) => client,
            none => none.insert(ConntrackClient::open()?),
        };
        let filter = Filter { protocol: Some(UDP), ..Filter::default() };
        client.delete_where(family, &filter, &is_stale)?;
    }
    Ok(())
}
