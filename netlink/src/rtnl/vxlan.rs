//! VXLAN devices (RFC 7348) of the kind that learns nothing: each remote is told to it (see `fdb`).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};

use super::RtnetlinkClient;
use super::link::named;
use super::mac::Mac;
use crate::Result;

/// What a VXLAN device is made with, and cannot be changed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The VXLAN network identifier, of 24 bits.
    pub vni: u32,
    /// The UDP port, here and at the remotes.
    pub port: u16,
    /// The address that it sends from. Remotes are of the same family.
    pub local: IpAddr,
}

/// A VXLAN device to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The interface name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The largest inner packet, in bytes.
    pub mtu: u32,
    /// What cannot be changed later.
    pub tunnel: Tunnel,
}

impl RtnetlinkClient {
    /// Makes a VXLAN device. It is down at first.
    ///
    /// # Errors
    /// EEXIST where the name is taken, or another device without a lower one has the same VNI and port.
    pub fn add_vxlan(&mut self, vxlan: &Vxlan) -> Result<()> {
        let Tunnel { vni, port, local } = vxlan.tunnel;
        let local = match local {
            IpAddr::V4(local) => InfoVxlan::Local(local),
            IpAddr::V6(local) => InfoVxlan::Local6(local),
        };
        let settings = vec![InfoVxlan::Id(vni), InfoVxlan::Port(port), local, InfoVxlan::Learning(false)];
        let mut message = LinkMessage::default();
        message.attributes = named(&vxlan.name, Some(vxlan.mac), Some(vxlan.mtu));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(settings)),
        ]));
        self.ask(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|error| error.during(format!("create VXLAN device {} (VNI {vni})", vxlan.name)))
    }

    /// What a VXLAN device was made with; `None` where that interface is none, or one of another make: with a
    /// multicast group, with learning, or bound to no address.
    pub fn tunnel(&mut self, index: u32) -> Result<Option<Tunnel>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let answers = self
            .get(&RouteNetlinkMessage::GetLink(message))
            .map_err(|error| error.during(format!("read VXLAN device #{index}")))?;
        Ok(answers.iter().find_map(settings).and_then(tunnel))
    }
}

fn settings(message: &RouteNetlinkMessage) -> Option<&[InfoVxlan]> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::Vxlan(settings)) => Some(settings.as_slice()),
            _ => None,
        }),
        _ => None,
    })
}

fn tunnel(settings: &[InfoVxlan]) -> Option<Tunnel> {
    let (mut vni, mut port, mut local) = (None, None, None);
    for setting in settings {
        match setting {
            InfoVxlan::Id(id) => vni = Some(*id),
            InfoVxlan::Port(number) => port = Some(*number),
            InfoVxlan::Local(address) => local = Some(IpAddr::from(*address)),
            InfoVxlan::Local6(address) => local = Some(IpAddr::from(*address)),
            InfoVxlan::Learning(true) | InfoVxlan::Group(_) | InfoVxlan::Group6(_) => return None,
            _ => {}
        }
    }
    Some(Tunnel { vni: vni?, port: port?, local: local? })
}
