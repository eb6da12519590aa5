//! What this machine's interfaces and routes say of the network between the nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_netlink::rtnl::{RouteFilter, RtnetlinkClient};

use crate::Result;
use crate::uplink::{LeaveBy, Uplink, source};

/// The protocol of routes from router advertisements (`RTPROT_RA`, linux/rtnetlink.h).
const ADVERTISED: u8 = 9;

/// Asks the kernel, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct UplinkObserver {
    route: RtnetlinkClient,
}

impl UplinkObserver {
    /// Opens it in the calling thread's network namespace.
    pub fn open() -> Result<UplinkObserver> {
        Ok(UplinkObserver { route: RtnetlinkClient::open()? })
    }

    /// What this machine's interfaces say of the network between the nodes. `node` are the addresses under
    /// which it is known there, `others` those of other nodes.
    pub fn observe(&mut self, node: &[IpAddr], others: &[IpAddr], leave_by: &LeaveBy) -> Result<Uplink> {
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
}
