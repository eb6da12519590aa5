//! The VXLAN device in the kernel: made, told of the other nodes, and taken away, each as planned in `plan`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nix::errno::Errno;
use tracing::info;
use weft_netlink::rtnl::{FdbEntry, Link, LinkChange, Mac, Neighbour, RtnetlinkClient, Tunnel, Vxlan};

use crate::routing::addresses;
use crate::routing::vxlan::plan::{DEVICE, Device, EthernetAddress, Overlay};
use crate::{Error, Result};

/// The kind of the device, as the kernel names it.
const KIND: &str = "vxlan";

/// Makes the device as planned, with all that it must know, and takes nothing away yet. Returns its index.
pub(crate) fn make(route: &mut RtnetlinkClient, planned: Option<&Overlay>) -> Result<Option<u32>> {
    let Some(overlay) = planned else { return Ok(None) };
    let held = route.find_link(DEVICE)?;
    if let Some(link) = held.as_ref().filter(|link| !is_ours(link)) {
        return Err(Error::ForeignDevice { name: link.name.clone(), kind: "VXLAN" });
    }
    let link = device(route, overlay, held)?;
    apply_settings(route, overlay, &link)?;
    addresses::add(route, link.index, &overlay.addresses, &overlay.probe_addresses)?;
    add_remotes(route, overlay, link.index)?;
    add_neighbours(route, overlay, link.index)?;
    Ok(Some(link.index))
}

/// Takes away what is not planned any more: last of all, so that nothing is lost on the way to a change.
pub(crate) fn prune(route: &mut RtnetlinkClient, planned: Option<&Overlay>) -> Result<()> {
    // Somebody else's by that name stays.
    let Some(link) = route.find_link(DEVICE)?.filter(is_ours) else { return Ok(()) };
    let Some(overlay) = planned else {
        route.delete_link(link.index)?;
        info!("deleted the device {DEVICE}");
        return Ok(());
    };
    addresses::delete_others(route, link.index, &overlay.addresses, &overlay.probe_addresses)?;
    let stale = route
        .fdb(link.index)?
        .into_iter()
        .filter(|entry| !overlay.remotes.contains_key(&EthernetAddress(entry.mac.0)));
    stale.into_iter().try_for_each(|stale| unless_gone(route.delete_fdb(stale)))?;
    let stale = neighbours(route, link.index)?;
    let stale = stale.into_keys().filter(|address| !overlay.neighbours.contains_key(address));
    stale.into_iter().try_for_each(|stale| unless_gone(route.delete_neighbour(link.index, stale)))
}

fn is_ours(link: &Link) -> bool {
    link.kind.as_deref() == Some(KIND)
}

/// The device as the kernel is asked for it.
fn vxlan(device: &Device) -> Vxlan {
    let Device { mac, mtu, settings, local } = *device;
    let tunnel = Tunnel { vni: settings.vni, port: settings.port, local };
    Vxlan { name: DEVICE.to_owned(), mac: Mac(mac.0), mtu, tunnel }
}

/// The device as it is, or made anew where it cannot be changed to what is planned.
fn device(route: &mut RtnetlinkClient, overlay: &Overlay, held: Option<Link>) -> Result<Link> {
    if let Some(link) = held {
        if route.tunnel(link.index)? == Some(vxlan(&overlay.device).tunnel) {
            return Ok(link);
        }
        route.delete_link(link.index)?;
    }
    route.add_vxlan(&vxlan(&overlay.device)).map_err(|problem| match problem.errno() {
        Some(Errno::EEXIST) => Error::ForeignTunnel { problem },
        _ => problem.into(),
    })?;
    info!(vni = overlay.device.settings.vni, local = %overlay.device.local, "made the device {DEVICE}");
    Ok(route.link(DEVICE)?)
}

fn apply_settings(route: &mut RtnetlinkClient, overlay: &Overlay, link: &Link) -> Result<()> {
    let device = vxlan(&overlay.device);
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

fn add_remotes(route: &mut RtnetlinkClient, overlay: &Overlay, link: u32) -> Result<()> {
    let held: BTreeMap<_, _> = route.fdb(link)?.into_iter().map(|entry| (entry.mac, entry)).collect();
    for (mac, &remote) in &overlay.remotes {
        let mac = Mac(mac.0);
        let entry = FdbEntry { link, mac, remote };
        if held.get(&mac) != Some(&entry) {
            route.replace_fdb(entry)?;
        }
    }
    Ok(())
}

fn add_neighbours(route: &mut RtnetlinkClient, overlay: &Overlay, link: u32) -> Result<()> {
    let held = neighbours(route, link)?;
    for (&address, mac) in &overlay.neighbours {
        let neighbour = Neighbour { link, address, mac: Some(Mac(mac.0)), permanent: true };
        if held.get(&address) != Some(&neighbour) {
            route.replace_neighbour(neighbour)?;
        }
    }
    Ok(())
}

/// Those that somebody set.
fn neighbours(route: &mut RtnetlinkClient, link: u32) -> Result<BTreeMap<IpAddr, Neighbour>> {
    let is_set = |neighbour: &Neighbour| neighbour.permanent && !neighbour.address.is_multicast();
    let held = route.neighbours(Some(link))?.into_iter().filter(is_set);
    Ok(held.map(|neighbour| (neighbour.address, neighbour)).collect())
}

/// Somebody may have been faster.
fn unless_gone(deleted: weft_netlink::Result<()>) -> Result<()> {
    match deleted {
        Err(error) if !error.is_missing() => Err(error.into()),
        _ => Ok(()),
    }
}
