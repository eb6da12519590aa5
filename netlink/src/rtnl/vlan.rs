//! VLANs of bridges (`bridge vlan`): filtering, and which of them a port is a member of.

use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoData, InfoKind, LinkAttribute,
    LinkExtentMask, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::RtnetlinkClient;
use crate::Result;

/// How a port is a member of VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeVlan {
    /// Frames without a tag are of this one VLAN, in both directions.
    Untagged(u16),
    /// Frames carry the tag of one of these VLANs, the first and the last among them.
    Tagged(u16, u16),
}

impl BridgeVlan {
    /// Whether it is one in this VLAN.
    pub fn contains(self, vlan: u16) -> bool {
        match self {
            BridgeVlan::Untagged(own) => own == vlan,
            BridgeVlan::Tagged(first, last) => (first..=last).contains(&vlan),
        }
    }
}

impl RtnetlinkClient {
    /// Makes a bridge tell VLANs apart.
    ///
    /// # Errors
    /// EOPNOTSUPP where the kernel was built without CONFIG_BRIDGE_VLAN_FILTERING.
    pub fn set_vlan_filtering(&mut self, bridge: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = bridge;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)])),
        ]));
        self.ask(&RouteNetlinkMessage::NewLink(message), 0)
            .map_err(|error| error.during(format!("filter VLANs on bridge #{bridge}")))
    }

    /// Makes a bridge's port a member of VLANs.
    pub fn add_bridge_vlan(&mut self, port: u32, membership: BridgeVlan) -> Result<()> {
        self.ask(&RouteNetlinkMessage::SetLink(message(port, membership)), 0)
            .map_err(|error| error.during(format!("join VLANs ({membership:?}) with bridge port #{port}")))
    }

    /// The VLANs that a bridge's port is a member of, each by itself: all with a tag but the one of frames
    /// without.
    pub fn bridge_vlans(&mut self, port: u32) -> Result<Vec<BridgeVlan>> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Brvlan]));
        let answers = self
            .dump(&RouteNetlinkMessage::GetLink(message))
            .map_err(|error| error.during(format!("list the VLANs of bridge port #{port}")))?;
        let of_port = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) if link.header.index == port => Some(link.attributes),
            _ => None,
        });
        Ok(of_port.flatten().flat_map(memberships).collect())
    }

    /// Ends a port's membership in one VLAN.
    pub fn delete_bridge_vlan(&mut self, port: u32, vlan: u16) -> Result<()> {
        self.ask(&RouteNetlinkMessage::DelLink(message(port, BridgeVlan::Tagged(vlan, vlan))), 0)
            .map_err(|error| error.during(format!("leave VLAN {vlan} with bridge port #{port}")))
    }
}

fn message(port: u32, membership: BridgeVlan) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = port;
    message.attributes.push(LinkAttribute::AfSpecBridge(infos(membership)));
    message
}

fn memberships(attribute: LinkAttribute) -> Vec<BridgeVlan> {
    let LinkAttribute::AfSpecBridge(infos) = attribute else { return Vec::new() };
    let membership = |info: AfSpecBridge| match info {
        AfSpecBridge::VlanInfo(info) if info.flags.contains(BridgeVlanInfoFlags::Pvid) => {
            Some(BridgeVlan::Untagged(info.vid))
        }
        AfSpecBridge::VlanInfo(info) => Some(BridgeVlan::Tagged(info.vid, info.vid)),
        _ => None,
    };
    infos.into_iter().filter_map(membership).collect()
}

/// A range is told by its two ends.
fn infos(membership: BridgeVlan) -> Vec<AfSpecBridge> {
    use BridgeVlanInfoFlags as Flags;
    let infos = match membership {
        BridgeVlan::Untagged(vid) => vec![(Flags::Pvid | Flags::Untagged, vid)],
        BridgeVlan::Tagged(first, last) if first == last => vec![(Flags::empty(), first)],
        BridgeVlan::Tagged(first, last) => vec![(Flags::RangeBegin, first), (Flags::RangeEnd, last)],
    };
    infos.into_iter().map(|(flags, vid)| AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;

    /// As `bridge vlan add dev PORT vid 5 pvid untagged` and `vid 10-20` send it.
    #[test]
    fn memberships_are_sent_as_by_the_bridge_program() {
        let sent = |membership| {
            let message = RouteNetlinkMessage::SetLink(message(7, membership));
            Request::new(&message, 0).payload[16..].to_vec()
        };
        let words = |words: &[u16]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        // Length and type (IFLA_AF_SPEC 26, IFLA_BRIDGE_VLAN_INFO 2), then flags and number.
        assert_eq!(sent(BridgeVlan::Untagged(5)), words(&[12, 26, 8, 2, 6, 5]));
        assert_eq!(sent(BridgeVlan::Tagged(10, 20)), words(&[20, 26, 8, 2, 8, 10, 8, 2, 16, 20]));
        assert_eq!(sent(BridgeVlan::Tagged(10, 10)), words(&[12, 26, 8, 2, 0, 10]));
    }
}
