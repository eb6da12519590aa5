//! The kernel's side of a node: what it holds now, and how to bring it to the plan. What is planned is not decided
//! here. Everything concerns the network namespace in which the [`Kernel`] was opened.

mod offload;
mod tunnel;

pub use offload::test_tunnel;

use std::net::IpAddr;

use nix::errno::Errno;
use tracing::info;
use weft_netlink::nft;
use weft_netlink::route::{LinkChange, Path, PathFilter, Route};

use self::offload::OffloadTest;
use crate::backend::Uplink;
use crate::masquerade::TABLE;
use crate::overlay::DEVICE;
use crate::plan::NodePlan;
use crate::routes::{self, PROTOCOL, RouteChange};
use crate::upkeep::Held;
use crate::{Error, Result};

/// Connections to the kernel's routes and rules.
#[derive(Debug)]
pub struct Kernel {
    route: Route,
    nft: nft::Client,
    offload: OffloadTest,
}

impl Kernel {
    /// Opens them in the calling thread's network namespace.
    pub fn open() -> Result<Kernel> {
        Ok(Kernel { route: Route::open()?, nft: nft::Client::open()?, offload: OffloadTest::default() })
    }

    /// What the interfaces that hold these addresses, the node's own, say of the network between the nodes.
    pub fn uplink(&mut self, addresses: &[IpAddr]) -> Result<Uplink> {
        let held = self.route.addresses(None)?;
        let mut uplink = Uplink::default();
        for address in held.iter().filter(|held| addresses.contains(&held.address.ip())) {
            let link = self.route.link_by_index(address.link)?;
            uplink.mtu = Some(uplink.mtu.map_or(link.mtu, |least| least.min(link.mtu)));
            uplink.networks.push(address.address);
        }
        Ok(uplink)
    }

    /// Brings the tunnel and Weft's own routes to the plan. A route that fails keeps no other from being set.
    pub fn apply_routes(&mut self, plan: &NodePlan) -> Vec<Error> {
        let (tunnel, problem) = match tunnel::apply(&mut self.route, plan.overlay.as_ref()) {
            Ok(tunnel) => (tunnel, None),
            Err(problem) => (None, Some(problem)),
        };
        let filter = PathFilter { protocol: Some(PROTOCOL), ..PathFilter::default() };
        let observed = match self.route.paths(filter) {
            Ok(observed) => observed,
            Err(error) => return problem.into_iter().chain([error.into()]).collect(),
        };
        let planned: Vec<Path> = plan.routes.iter().filter_map(|route| route.path(tunnel)).collect();
        let changes = routes::diff(&planned, &observed);
        problem
            .into_iter()
            .chain(changes.iter().filter_map(|change| self.apply_route(change).err()))
            .collect()
    }

    /// Has the tunnel's checksums tested where that was not done yet, beside everything else.
    pub fn test_offload(&mut self, plan: &NodePlan) -> Result<()> {
        let link = self.route.find_link(DEVICE)?.map(|link| link.index);
        self.offload.look(link, plan.overlay.as_ref());
        Ok(())
    }

    /// Gives the bridge, if it is there, the MTU that new pods get.
    pub fn apply_bridge_mtu(&mut self, bridge: &str, plan: &NodePlan) -> Result<()> {
        let (Some(mtu), Some(link)) = (plan.bridge_mtu(), self.route.find_link(bridge)?) else {
            return Ok(());
        };
        if link.mtu != mtu {
            self.route.change_link(link.index, &LinkChange { mtu: Some(mtu), ..LinkChange::default() })?;
            info!(bridge, mtu, "changed the bridge's MTU");
        }
        Ok(())
    }

    /// Brings Weft's own nf_tables tables to the plan.
    pub fn apply_masquerade(&mut self, plan: &NodePlan) -> Result<()> {
        let tables = nft::Family::BOTH.map(|family| (family, TABLE.into()));
        let transaction = nft::diff(&plan.masquerade, &self.nft.observe(&tables)?);
        if !transaction.is_empty() {
            self.nft.commit(&transaction)?;
            info!("{} the masquerade rules", if plan.masquerade.is_empty() { "removed" } else { "set" });
        }
        Ok(())
    }

    /// What the kernel has of what pods rely on.
    pub fn held(&mut self, bridge: &str) -> Result<Held> {
        let links = self.route.links()?;
        let bridge = links.iter().find(|link| link.name == bridge).map(|link| link.index);
        let addresses = match bridge {
            Some(index) => self.route.addresses(Some(index))?,
            None => Vec::new(),
        };
        Ok(Held { links, addresses: addresses.into_iter().map(|address| address.address).collect() })
    }

    fn apply_route(&mut self, change: &RouteChange) -> Result<()> {
        match change {
            RouteChange::Add(path) => {
                self.route.add_path(path).map_err(|problem| refused(path, problem))?;
                info!(route = %path, "added a route");
            }
            RouteChange::Replace(path) => {
                self.route.replace_path(path).map_err(|problem| Error::Route { problem })?;
                info!(route = %path, "changed a route");
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

fn refused(path: &Path, problem: weft_netlink::Error) -> Error {
    match problem.errno() {
        Some(Errno::EEXIST) => Error::ForeignRoute { destination: path.destination, problem },
        _ => Error::Route { problem },
    }
}
