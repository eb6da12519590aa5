//! At which addresses NodePorts are served now: connection tracking knows them by these.

use std::net::IpAddr;

use tracing::warn;
use weft_netlink::rtnl::RtnetlinkClient;
use weft_types::IpNetwork;

use crate::config::NodePortAddresses;
use crate::error::Error;

/// What tells them.
#[derive(Debug)]
pub struct NodePorts(Option<(RtnetlinkClient, Vec<IpNetwork>)>);

impl NodePorts {
    /// Opens rtnetlink in the network namespace of the calling thread, where networks are asked for.
    ///
    /// # Errors
    /// Where it cannot be used.
    pub fn open(addresses: &NodePortAddresses) -> Result<NodePorts, Error> {
        Ok(NodePorts(match addresses {
            NodePortAddresses::Primary => None,
            NodePortAddresses::Networks(networks) => Some((RtnetlinkClient::open()?, networks.clone())),
        }))
    }

    /// The Node's first address of each family, which are `primary`, or those of the machine that lie in the
    /// networks.
    pub fn addresses(&mut self, primary: &[IpAddr]) -> Vec<IpAddr> {
        let Some((route, networks)) = &mut self.0 else { return primary.to_vec() };
        let serves = |address: &IpAddr| {
            !address.is_loopback() && networks.iter().any(|network| network.contains(*address))
        };
        match route.addresses(None) {
            Ok(addresses) => addresses.iter().map(|address| address.address.ip()).filter(serves).collect(),
            Err(error) => {
                warn!("{error}; UDP clients of NodePorts may be stuck");
                Vec::new()
            }
        }
    }
}
