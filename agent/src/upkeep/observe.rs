//! The bridge of the pods and its ports, in the kernel.

use tracing::info;
use weft_netlink::rtnl::{self, LinkChange, RtnetlinkClient};

use crate::Result;
use crate::upkeep::plan::{Link, Observed, PortSettings};

/// Asks the kernel, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct BridgeObserver {
    route: RtnetlinkClient,
}

impl BridgeObserver {
    /// Opens it in the calling thread's network namespace.
    pub fn open() -> Result<BridgeObserver> {
        Ok(BridgeObserver { route: RtnetlinkClient::open()? })
    }

    /// What the kernel has of what pods rely on.
    pub fn observe(&mut self, bridge: &str) -> Result<Observed> {
        let links = self.route.links()?;
        let bridge = links.iter().find(|link| link.name == bridge).map(|link| link.index);
        let addresses = match bridge {
            Some(index) => self.route.addresses(Some(index))?,
            None => Vec::new(),
        };
        let addresses = addresses.into_iter().map(|address| address.address).collect();
        Ok(Observed { links: links.into_iter().map(seen).collect(), addresses })
    }

    /// Gives the bridge, if it is there, the MTU, in bytes, that new pods get.
    pub(crate) fn set_mtu(&mut self, bridge: &str, mtu: u32) -> Result<()> {
        let Some(link) = self.route.find_link(bridge)?.filter(|link| link.mtu != mtu) else { return Ok(()) };
        self.route.change_link(link.index, &LinkChange { mtu: Some(mtu), ..LinkChange::default() })?;
        info!(bridge, mtu, "changed the bridge's MTU");
        Ok(())
    }
}

fn seen(link: rtnl::Link) -> Link {
    let port = link.port.map(|port| PortSettings { hairpin: port.hairpin, isolated: port.isolated });
    Link {
        index: link.index,
        name: link.name,
        alias: link.alias,
        up: link.up,
        carrier: link.carrier,
        master: link.master,
        port,
    }
}
