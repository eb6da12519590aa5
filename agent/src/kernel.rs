//! The kernel's side of a node: what it holds now, and how to bring it to the plan. What is planned is not decided
//! here. Everything concerns the network namespace in which the [`Kernel`] was opened.

pub use crate::routing::vxlan::checksum_test::test_tunnel;

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::errno::Errno;
use tracing::info;
use weft_netlink::rtnl::{LinkChange, Route, RouteFilter, RtnetlinkClient};
use weft_nftables as nft;

use crate::masquerade::TABLE;
use crate::plan::NodePlan;
use crate::routing::plan::{self as routes, PROTOCOL, RouteChange};
use crate::routing::probe::plan::DirectPath;
use crate::routing::vxlan::checksum_test::OffloadTest;
use crate::routing::vxlan::device;
use crate::routing::vxlan::plan::DEVICE;
use crate::upkeep::plan::Observed;
use crate::uplink::source;
use crate::uplink::{LeaveBy, Uplink};
use crate::{Error, Result};

/// The protocol of routes from router advertisements (`RTPROT_RA`, linux/rtnetlink.h).
const ADVERTISED: u8 = 9;

/// Connections to the kernel's routes and rules.
#[derive(Debug)]
pub struct Kernel {
    route: RtnetlinkClient,
    nft: nft::Client,
    offload: OffloadTest,
}

impl Kernel {
    /// Opens them in the calling thread's network namespace.
    pub fn open() -> Result<Kernel> {
        Ok(Kernel {
            route: RtnetlinkClient::open()?,
            nft: nft::Client::open()?,
            offload: OffloadTest::default(),
        })
    }

    /// What this machine's interfaces say of the network between the nodes. `node` are the addresses under which it is known
    /// there, `others` those of other nodes.
    pub fn uplink(&mut self, node: &[IpAddr], others: &[IpAddr], leave_by: &LeaveBy) -> Result<Uplink> {
        let held = self.route.addresses(None)?;
        let (chosen, foreign) = source::choose(&held, node, others, leave_by, |name| {
            Ok(self.route.find_link(name)?.map(|link| link.index))
        })?;
        let mut uplink = Uplink { foreign, advertised: self.advertised()?, ..Uplink::default() };
        for address in chosen {
            let link = self.route.link_by_index(address.link)?;
            uplink.mtu = Some(uplink.mtu.map_or(link.mtu, |least| least.min(link.mtu)));
            uplink.locals.push(address.address.ip());
            if !uplink.links.contains(&link.name) {
                uplink.links.push(link.name);
            }
            if !link.point_to_point {
                uplink.networks.push(address.address);
            }
        }
        Ok(uplink)
    }

    /// The interfaces that have a default route from a router's advertisement.
    fn advertised(&mut self) -> Result<BTreeSet<String>> {
        let filter = RouteFilter { protocol: Some(ADVERTISED), ..RouteFilter::default() };
        let routes = self.route.routes(filter)?.into_iter().filter(|path| path.destination.prefix() == 0);
        let links: BTreeSet<u32> = routes.filter_map(|path| path.link).collect();
        links.into_iter().map(|link| Ok(self.route.link_by_index(link)?.name)).collect()
    }

    /// The straight ways to other nodes' pods that there are.
    pub fn direct_paths(&mut self) -> Result<BTreeSet<DirectPath>> {
        let filter = RouteFilter { protocol: Some(PROTOCOL), ..RouteFilter::default() };
        let straight = self.route.routes(filter)?.into_iter().filter(|path| !path.onlink);
        Ok(straight
            .filter_map(|path| Some(DirectPath { cidr: path.destination, node: path.gateway? }))
            .collect())
    }

    /// Brings the tunnel and Weft's own routes to the plan. A route that fails keeps no other from being set.
    pub fn apply_routes(&mut self, plan: &NodePlan) -> Vec<Error> {
        let (tunnel, problem) = match device::make(&mut self.route, plan.overlay.as_ref()) {
            Ok(tunnel) => (tunnel, None),
            Err(problem) => (None, Some(problem)),
        };
        let filter = RouteFilter { protocol: Some(PROTOCOL), ..RouteFilter::default() };
        let observed = match self.route.routes(filter) {
            Ok(observed) => observed,
            Err(error) => return problem.into_iter().chain([error.into()]).collect(),
        };
        let planned: Vec<Route> = plan.routes.iter().filter_map(|route| route.path(tunnel)).collect();
        let changes = routes::diff(&planned, &observed);
        let failed: Vec<Error> = changes.iter().filter_map(|change| self.apply_route(change).err()).collect();
        // Only now nothing leads there any more.
        let pruned = device::prune(&mut self.route, plan.overlay.as_ref()).err();
        problem.into_iter().chain(failed).chain(pruned).collect()
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
    pub fn held(&mut self, bridge: &str) -> Result<Observed> {
        let links = self.route.links()?;
        let bridge = links.iter().find(|link| link.name == bridge).map(|link| link.index);
        let addresses = match bridge {
            Some(index) => self.route.addresses(Some(index))?,
            None => Vec::new(),
        };
        Ok(Observed { links, addresses: addresses.into_iter().map(|address| address.address).collect() })
    }

    fn apply_route(&mut self, change: &RouteChange) -> Result<()> {
        match change {
            RouteChange::Add(path) => {
                self.route.add_route(path).map_err(|problem| refused(path, problem))?;
                info!(route = %path, "added a route");
            }
            RouteChange::Replace(path) => {
                self.route.replace_route(path).map_err(|problem| Error::Route { problem })?;
                info!(route = %path, "changed a route");
            }
            RouteChange::Delete(path) => match self.route.delete_route(path) {
                Ok(()) => info!(route = %path, "deleted a route"),
                // Somebody was faster.
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            },
        }
        Ok(())
    }
}

fn refused(path: &Route, problem: weft_netlink::Error) -> Error {
    match problem.errno() {
        Some(Errno::EEXIST) => Error::ForeignRoute { destination: path.destination, problem },
        _ => Error::Route { problem },
    }
}
