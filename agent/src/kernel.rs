//! The kernel's side of a node: what it holds now, and how to bring it to the plan. What is planned is not decided
//! here. Everything concerns the network namespace in which the [`Kernel`] was opened.

use std::net::IpAddr;

use nix::errno::Errno;
use tracing::info;
use weft_netlink::nft;
use weft_netlink::route::{LinkChange, PathFilter, Route};

use crate::masquerade::TABLE;
use crate::plan::NodePlan;
use crate::ports;
use crate::routes::{self, NodeRoute, PROTOCOL, RouteChange};
use crate::{Error, Result};

/// Connections to the kernel's routes and rules.
#[derive(Debug)]
pub struct Kernel {
    route: Route,
    nft: nft::Client,
}

impl Kernel {
    /// Opens them in the calling thread's network namespace.
    pub fn open() -> Result<Kernel> {
        Ok(Kernel { route: Route::open()?, nft: nft::Client::open()? })
    }

    /// The smallest MTU, in bytes, of the interfaces that hold one of these addresses; nothing if none does.
    pub fn mtu(&mut self, addresses: &[IpAddr]) -> Result<Option<u32>> {
        let held = self.route.addresses(None)?;
        let mut mtu = None;
        for address in held.iter().filter(|held| addresses.contains(&held.address.ip())) {
            let link = self.route.link_by_index(address.link)?;
            mtu = Some(mtu.map_or(link.mtu, |least: u32| least.min(link.mtu)));
        }
        Ok(mtu)
    }

    /// Brings Weft's own routes to the plan. A route that fails keeps no other from being set.
    pub fn apply_routes(&mut self, plan: &NodePlan) -> Vec<Error> {
        let filter = PathFilter { protocol: Some(PROTOCOL), ..PathFilter::default() };
        let observed = match self.route.paths(filter) {
            Ok(observed) => observed,
            Err(error) => return vec![error.into()],
        };
        let changes = routes::diff(&plan.routes, &observed);
        changes.iter().filter_map(|change| self.apply_route(change).err()).collect()
    }

    /// Brings Weft's own nf_tables tables to the plan.
    pub fn apply_masquerade(&mut self, plan: &NodePlan) -> Result<()> {
        let tables = nft::Family::BOTH.map(|family| (family, TABLE.into()));
        let transaction = nft::diff(&plan.masquerade, &self.nft.observe(&tables)?);
        if !transaction.is_empty() {
            self.nft.commit(&transaction)?;
            info!("set the masquerade rules");
        }
        Ok(())
    }

    /// Makes the ports of the network's pods fit br_netfilter, on or off.
    pub fn apply_ports(&mut self, bridge: &str, network: &str, bridge_netfilter: bool) -> Result<()> {
        let wanted = ports::port(bridge_netfilter);
        let links = self.route.links()?;
        for link in ports::of_pods(&links, bridge, network) {
            if self.route.bridge_port(link.index)? == Some(wanted) {
                continue;
            }
            let change = LinkChange { port: Some(wanted), ..LinkChange::default() };
            match self.route.change_link(link.index, &change) {
                Ok(()) => info!(link = link.name, bridge_netfilter, "made a bridge port fit br_netfilter"),
                // The pod went meanwhile.
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn apply_route(&mut self, change: &RouteChange) -> Result<()> {
        match change {
            RouteChange::Add(route) => {
                self.route.add_path(&route.path()).map_err(|problem| refused(route, problem))?;
                info!(%route, "added a route");
            }
            RouteChange::Replace(route) => {
                self.route.replace_path(&route.path()).map_err(|problem| Error::Route { problem })?;
                info!(%route, "changed a route");
            }
            RouteChange::Delete(path) => match self.route.delete_path(path) {
                Ok(()) => info!(route = %path, "deleted a route"),
                // Somebody was faster.
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            },
        }
        Ok(())
    }
}

fn refused(route: &NodeRoute, problem: weft_netlink::Error) -> Error {
    match problem.errno() {
        Some(Errno::EEXIST) => Error::ForeignRoute { destination: route.destination, problem },
        _ => Error::Route { problem },
    }
}
