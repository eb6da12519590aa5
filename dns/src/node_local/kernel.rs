//! Puts the plan of a node-local server into the kernel, and takes it away. Doing either twice changes nothing.

use std::net::IpAddr;

use weft_netlink::Result;
use weft_netlink::nft::{Client, diff};
use weft_netlink::route::{Address, Bridge, LinkChange, Route};
use weft_types::IpNetwork;

use super::{NAME, Plan, tables};

/// Makes what the plan has, and removes what else a server before this one had.
///
/// # Errors
/// What the kernel refuses.
pub fn apply(plan: &Plan) -> Result<()> {
    // The rules first: no connection must be tracked that began before them.
    let mut nft = Client::open()?;
    let transaction = diff(&plan.tables, &nft.observe(&tables())?);
    nft.commit(&transaction)?;
    let mut route = Route::open()?;
    let link = match route.find_link(NAME)? {
        Some(link) => link,
        None => {
            // A bridge without ports: unlike dummy interfaces, every kernel that has containers knows it.
            route.add_bridge(&Bridge { name: NAME.to_owned(), mac: None, mtu: None })?;
            route.link(NAME)?
        }
    };
    route.change_link(link.index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
    let planned: Vec<IpNetwork> = plan.addresses.iter().map(|&address| IpNetwork::from(address)).collect();
    let held = route.addresses(Some(link.index))?;
    for &address in planned.iter().filter(|planned| !held.iter().any(|held| held.address == **planned)) {
        route.add_address(Address { link: link.index, address })?;
    }
    for other in
        held.into_iter().filter(|held| is_ours(held.address.ip()) && !planned.contains(&held.address))
    {
        route.delete_address(other)?;
    }
    Ok(())
}

/// The kernel gives the interface an address of its own, for IPv6.
fn is_ours(address: IpAddr) -> bool {
    !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Removes the interface, its addresses with it, and the rules.
///
/// # Errors
/// What the kernel refuses.
pub fn remove() -> Result<()> {
    let mut route = Route::open()?;
    if route.find_link(NAME)?.is_some() {
        route.delete_link_named(NAME)?;
    }
    let mut nft = Client::open()?;
    let transaction = diff(&[], &nft.observe(&tables())?);
    nft.commit(&transaction)
}
