//! Puts the plan of a node-local server into the kernel, and takes it away. Doing either twice changes
//! nothing.

use std::net::IpAddr;

use nix::errno::Errno;
use weft_netlink::rtnl::{Address, Bridge, LinkChange, RtnetlinkClient};
use weft_netlink::{Error, Result};
use weft_nftables::{Change, Client, Observed, Table, Transaction, diff};
use weft_types::IpNetwork;

use super::{HELD, NAME, Plan, left};

/// The rules of a server. The kernel has them for as long as this value lives: they go with the process,
/// however it ends.
#[derive(Debug)]
pub struct Rules(Client);

/// Gives the planned addresses to the interface, and removes what others a server before this one had. Nobody
/// is led to the server by that where a service proxy rewrites what goes to them.
///
/// # Errors
/// What the kernel refuses.
pub fn give_addresses(plan: &Plan) -> Result<()> {
    let mut route = RtnetlinkClient::open()?;
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

/// Leads what is asked at the planned addresses to this server, untracked, in place of those that a service
/// proxy leads to.
///
/// # Errors
/// What the kernel refuses.
pub fn take_questions(plan: &Plan) -> Result<Rules> {
    let mut client = Client::open()?;
    let mut refusal = None;
    // The server before this one has its own tables, until it ends.
    for name in HELD {
        match hold(&mut client, plan, name) {
            Ok(()) => return Ok(Rules(client)),
            Err(error) if matches!(error.errno(), Some(Errno::EPERM | Errno::EEXIST)) => {
                refusal = Some(error);
            }
            // Linux before 5.12 has no tables that belong to a socket.
            Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::EOPNOTSUPP)) => {
                tracing::warn!(%error, "this kernel keeps the rules of a killed server: DNS of this node fails then until the next start");
                let transaction = diff(&plan.tables, &client.observe(&left())?);
                return client.commit(&transaction).map(|()| Rules(client));
            }
            Err(error) => return Err(error),
        }
    }
    refusal.map_or_else(|| Ok(Rules(client)), Err)
}

fn hold(client: &mut Client, plan: &Plan, name: &str) -> Result<()> {
    let mut transaction = without_left(&client.observe(&left())?);
    plan.tables
        .iter()
        .for_each(|table| transaction.hold_table(&Table { name: name.into(), ..table.clone() }));
    client.commit(&transaction)
}

/// Deletes the tables that belong to nobody, which a server of an earlier version left.
fn without_left(observed: &Observed) -> Transaction {
    let left = observed.tables.iter().filter(|(_, table)| !table.is_held());
    Transaction { changes: left.map(|(key, _)| Change::DeleteTable(key.clone())).collect() }
}

impl Rules {
    /// Leaves what is asked to whom a service proxy leads it to.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn give_back(self) -> Result<()> {
        drop(self.0);
        remove_left()
    }
}

/// Removes the interface, its addresses with it, and rules that belong to no server.
///
/// # Errors
/// What the kernel refuses.
pub fn remove() -> Result<()> {
    let mut route = RtnetlinkClient::open()?;
    if route.find_link(NAME)?.is_some() {
        route.delete_link_named(NAME)?;
    }
    remove_left()
}

fn remove_left() -> Result<()> {
    let mut client = Client::open()?;
    let transaction = without_left(&client.observe(&left())?);
    match client.commit(&transaction) {
        // Another has removed them by now.
        Err(error) if Error::is_missing(&error) => Ok(()),
        result => result,
    }
}
