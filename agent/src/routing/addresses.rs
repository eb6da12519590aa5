//! The addresses of a device that leads to other nodes.

use weft_netlink::rtnl::{Address, RtnetlinkClient};
use weft_types::IpNetwork;

use crate::Result;

/// Adds those that are missing. No packet has one of `probe` by itself.
pub(crate) fn add(
    route: &mut RtnetlinkClient,
    link: u32,
    planned: &[IpNetwork],
    probe: &[IpNetwork],
) -> Result<()> {
    let held = route.addresses(Some(link))?;
    let is_missing = |planned: &&IpNetwork| !held.iter().any(|held| held.address == **planned);
    for &address in planned.iter().filter(is_missing) {
        route.add_address(Address { link, address })?;
    }
    for &address in probe.iter().filter(is_missing) {
        route.add_deprecated_address(Address { link, address })?;
    }
    Ok(())
}

/// Deletes all others, but for the link-local ones that the kernel gives by itself.
pub(crate) fn delete_others(
    route: &mut RtnetlinkClient,
    link: u32,
    planned: &[IpNetwork],
    probe: &[IpNetwork],
) -> Result<()> {
    let is_planned = |address: &IpNetwork| planned.contains(address) || probe.contains(address);
    let is_stale = |held: &Address| !is_link_local(&held.address) && !is_planned(&held.address);
    let held = route.addresses(Some(link))?;
    Ok(held.into_iter().filter(is_stale).try_for_each(|stale| route.delete_address(stale))?)
}

fn is_link_local(address: &IpNetwork) -> bool {
    match address {
        IpNetwork::V4(address) => address.ip().is_link_local(),
        IpNetwork::V6(address) => address.ip().is_unicast_link_local(),
    }
}
