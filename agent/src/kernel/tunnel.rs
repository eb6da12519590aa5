//! The VXLAN device in the kernel: made, told of the other nodes, and taken away, each as planned in `overlay`.

use std::collections::BTreeMap;

use nix::errno::Errno;
use tracing::info;
use weft_netlink::route::{Address, FdbEntry, Link, LinkChange, Neighbour, Route};
use weft_types::IpNetwork;

use crate::overlay::{DEVICE, Overlay};
use crate::{Error, Result};

/// The kind of the device, as the kernel names it.
const KIND: &str = "vxlan";

/// Brings the device to the plan, and takes it away where none is planned. Returns its index.
pub(super) fn apply(route: &mut Route, planned: Option<&Overlay>) -> Result<Option<u32>> {
    let held = route.find_link(DEVICE)?;
    if let Some(link) = held.as_ref().filter(|link| link.kind.as_deref() != Some(KIND)) {
        // Somebody else's by that name is in the way only where one of ours is wanted.
        return match planned {
            Some(_) => Err(Error::ForeignDevice { name: link.name.clone() }),
            None => Ok(None),
        };
    }
    let Some(overlay) = planned else {
        if let Some(link) = held {
            route.delete_link(link.index)?;
            info!("deleted the device {DEVICE}");
        }
        return Ok(None);
    };
    let link = device(route, overlay, held)?;
    apply_settings(route, overlay, &link)?;
    apply_addresses(route, &overlay.addresses, link.index)?;
    apply_remotes(route, overlay, link.index)?;
    apply_neighbours(route, overlay, link.index)?;
    Ok(Some(link.index))
}

/// The device as it is, or made anew where it cannot be changed to what is planned.
fn device(route: &mut Route, overlay: &Overlay, held: Option<Link>) -> Result<Link> {
    if let Some(link) = held {
        if route.tunnel(link.index)? == Some(overlay.device.tunnel) {
            return Ok(link);
        }
        route.delete_link(link.index)?;
    }
    route.add_vxlan(&overlay.device).map_err(|problem| match problem.errno() {
        Some(Errno::EEXIST) => Error::ForeignTunnel { problem },
        _ => problem.into(),
    })?;
    info!(vni = overlay.device.tunnel.vni, local = %overlay.device.tunnel.local, "made the device {DEVICE}");
    Ok(route.link(DEVICE)?)
}

fn apply_settings(route: &mut Route, overlay: &Overlay, link: &Link) -> Result<()> {
    let device = &overlay.device;
    let change = LinkChange {
        up: (!link.up).then_some(true),
        mac: (link.mac != Some(device.mac)).then_some(device.mac),
        mtu: (link.mtu != device.mtu).then_some(device.mtu),
        ..LinkChange::default()
    };
    if change != LinkChange::default() {
        route.change_link(link.index, &change)?;
    }
    Ok(())
}

fn apply_addresses(route: &mut Route, planned: &[IpNetwork], link: u32) -> Result<()> {
    let held = route.addresses(Some(link))?;
    for &address in planned {
        if !held.iter().any(|held| held.address == address) {
            route.add_address(Address { link, address })?;
        }
    }
    // The kernel gives every device a link-local address of its own.
    for stale in
        held.into_iter().filter(|held| !is_link_local(&held.address) && !planned.contains(&held.address))
    {
        route.delete_address(stale)?;
    }
    Ok(())
}

fn apply_remotes(route: &mut Route, overlay: &Overlay, link: u32) -> Result<()> {
    let mut held: BTreeMap<_, _> = route.fdb(link)?.into_iter().map(|entry| (entry.mac, entry)).collect();
    for (&mac, &remote) in &overlay.remotes {
        let entry = FdbEntry { link, mac, remote };
        if held.remove(&mac) != Some(entry) {
            route.replace_fdb(entry)?;
        }
    }
    held.into_values().try_for_each(|stale| unless_gone(route.delete_fdb(stale)))
}

fn apply_neighbours(route: &mut Route, overlay: &Overlay, link: u32) -> Result<()> {
    let of_ours = |neighbour: &Neighbour| neighbour.permanent && !neighbour.address.is_multicast();
    let held = route.neighbours(Some(link))?.into_iter().filter(of_ours);
    let mut held: BTreeMap<_, _> = held.map(|neighbour| (neighbour.address, neighbour)).collect();
    for (&address, &mac) in &overlay.neighbours {
        let neighbour = Neighbour { link, address, mac: Some(mac), permanent: true };
        if held.remove(&address) != Some(neighbour) {
            route.replace_neighbour(neighbour)?;
        }
    }
    held.into_keys().try_for_each(|stale| unless_gone(route.delete_neighbour(link, stale)))
}

/// Somebody may have been faster.
fn unless_gone(deleted: weft_netlink::Result<()>) -> Result<()> {
    match deleted {
        Err(error) if !error.is_missing() => Err(error.into()),
        _ => Ok(()),
    }
}

fn is_link_local(address: &IpNetwork) -> bool {
    match address {
        IpNetwork::V4(address) => address.ip().is_link_local(),
        IpNetwork::V6(address) => address.ip().is_unicast_link_local(),
    }
}
