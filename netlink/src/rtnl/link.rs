//! Links: network interfaces, bridges and their ports, veth pairs.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage, State,
};
use nix::errno::Errno;

use super::{Mac, RtnetlinkClient, parse};
use crate::{Error, Request, Result};

/// A veth uses one queue each way, however many it has. To be made with one for each processor, and then told
/// to use one, costs it two grace periods of RCU and a hundred kilobytes on a large machine.
const ONE_QUEUE: [LinkAttribute; 2] = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The interface index.
    pub index: u32,
    /// The interface name.
    pub name: String,
    /// The driver's name where it has one: `bridge`, `veth`, ...
    pub kind: Option<String>,
    /// The Ethernet address; none for interfaces without one.
    pub mac: Option<Mac>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether somebody asked it to receive what is meant for others too.
    pub promiscuous: bool,
    /// Whether it has a carrier, and the kernel has taken notice of that, so that it sends (operational state
    /// up, RFC 2863). The kernel does so in its own time; since Linux 6.8 to be asked for the interface makes
    /// it. A bridge has a carrier as long as a port of it is up and has one. Of one that never lost its
    /// carrier the kernel does not tell.
    pub carrier: bool,
    /// Whether its driver says that there is a carrier (IFF_LOWER_UP), also where nobody keeps an operational
    /// state.
    pub lower_up: bool,
    /// The index of the bridge (or other device) that it is a port of.
    pub master: Option<u32>,
    /// A note that somebody attached to it (`ip link set ... alias`).
    pub alias: Option<String>,
    /// The number of the group that it is in; 0 for interfaces that nobody put into one.
    pub group: u32,
    /// The index of the interface it is tied to, such as a veth's other end, in that one's own namespace.
    pub peer: Option<u32>,
    /// How the bridge that it is a port of treats it, where it is a bridge's port.
    pub port: Option<BridgePort>,
    /// The queueing discipline of what it sends: `noqueue`, `tbf`, ...
    pub qdisc: Option<String>,
    /// Whether it has no more than one neighbour, or finds none by asking (IFF_POINTOPOINT, IFF_NOARP): a
    /// packet is taken to its neighbour whatever next hop a route names.
    pub point_to_point: bool,
}

/// A bridge to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The interface name.
    pub name: String,
    /// The Ethernet address. Given one, the bridge keeps it whatever ports come and go.
    pub mac: Option<Mac>,
    /// The largest packet, in bytes; the kernel's choice where none is given.
    pub mtu: Option<u32>,
}

/// A veth pair to be made: `host` in the client's namespace, `peer` in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// The end in the namespace of the client.
    pub host: VethEnd,
    /// The number of the host end's group. Unlike an alias, the kernel takes it while it makes the pair.
    pub host_group: u32,
    /// Whether to set the host end up at once. The kernel cannot do that for the peer, which is born first.
    pub host_up: bool,
    /// The index of the bridge that the host end becomes a port of.
    pub master: Option<u32>,
    /// The end in the other namespace.
    pub peer: VethEnd,
}

/// One end of a veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VethEnd {
    /// The interface name.
    pub name: String,
    /// The Ethernet address; the kernel's choice where none is given.
    pub mac: Option<Mac>,
    /// The largest packet, in bytes; the kernel's choice where none is given.
    pub mtu: Option<u32>,
}

/// A change of an interface: what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Administratively up or down.
    pub up: Option<bool>,
    /// The Ethernet address.
    pub mac: Option<Mac>,
    /// The largest packet, in bytes.
    pub mtu: Option<u32>,
    /// The index of the bridge that it becomes a port of; 0 for none.
    pub master: Option<u32>,
    /// Receive what is meant for others too.
    pub promiscuous: Option<bool>,
    /// A note for people and programs, of at most 254 bytes.
    pub alias: Option<String>,
    /// How the bridge that it is a port of treats it.
    pub port: Option<BridgePort>,
    /// Whether that bridge takes frames from it only where its forwarding database has their sender's
    /// Ethernet address behind it ([`RtnetlinkClient::set_sticky_fdb`]). Kernels before Linux 5.18 ignore
    /// this: see [`RtnetlinkClient::is_port_locked`].
    pub locked: Option<bool>,
}

/// How a bridge treats one of its ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Send frames back out of the port that they came in by.
    pub hairpin: bool,
    /// Exchange frames with ports that are not isolated only.
    pub isolated: bool,
}

impl RtnetlinkClient {
    /// One interface, by its name.
    ///
    /// # Errors
    /// [`Error::is_missing`] where there is none.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(message).map_err(|error| error.during(format!("find link {name}")))
    }

    /// One interface, by its name; `None` where there is none.
    pub fn find_link(&mut self, name: &str) -> Result<Option<Link>> {
        match self.link(name) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One interface, by its index.
    ///
    /// # Errors
    /// [`Error::is_missing`] where there is none.
    pub fn link_by_index(&mut self, index: u32) -> Result<Link> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.get_link(message).map_err(|error| error.during(format!("find link #{index}")))
    }

    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.dump(&message).map_err(|error| error.during("list links"))?;
        Ok(answers.into_iter().filter_map(link).collect())
    }

    /// The ports of a bridge (or of another device that has ports), without their counters.
    pub fn ports(&mut self, master: u32) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Controller(master));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let message = RouteNetlinkMessage::GetLink(message);
        let answers =
            self.dump(&message).map_err(|error| error.during(format!("list the ports of link #{master}")))?;
        Ok(answers.into_iter().filter_map(link).filter(|link| link.master == Some(master)).collect())
    }

    /// Makes a bridge. It is down at first.
    ///
    /// # Errors
    /// EEXIST where an interface of that name exists.
    pub fn add_bridge(&mut self, bridge: &Bridge) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = named(&bridge.name, bridge.mac, bridge.mtu);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.ask(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|error| error.during(format!("create bridge {}", bridge.name)))
    }

    /// Makes an interface that leads nowhere, to have addresses. It is down at first, and answers no ARP.
    ///
    /// # Errors
    /// EEXIST where an interface of that name exists.
    pub fn add_dummy(&mut self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = named(name, None, None);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)]));
        self.ask(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|error| error.during(format!("create dummy interface {name}")))
    }

    /// Makes a WireGuard device. It is down at first, and has neither key nor peers
    /// ([`crate::genl::wireguard`]).
    ///
    /// # Errors
    /// EEXIST where an interface of that name exists, EOPNOTSUPP where the kernel has no WireGuard.
    pub fn add_wireguard(&mut self, name: &str, mtu: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = named(name, None, Some(mtu));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]));
        self.ask(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|error| error.during(format!("create WireGuard device {name}")))
    }

    /// Makes a veth pair whose peer is born in the namespace `peer_namespace`: it never shows in this one.
    /// Returns the host end, as it is before it becomes a port of the bridge.
    ///
    /// # Errors
    /// EEXIST where either name is taken in its namespace.
    pub fn add_veth(&mut self, veth: &Veth, peer_namespace: BorrowedFd<'_>) -> Result<Link> {
        let mut peer = LinkMessage::default();
        peer.attributes = named(&veth.peer.name, veth.peer.mac, veth.peer.mtu);
        peer.attributes.push(LinkAttribute::NetNsFd(peer_namespace.as_raw_fd()));
        peer.attributes.extend(ONE_QUEUE);

        let mut message = LinkMessage::default();
        message.header.flags.set(LinkFlags::Up, veth.host_up);
        message.header.change_mask |= LinkFlags::Up;
        message.attributes = named(&veth.host.name, veth.host.mac, veth.host.mtu);
        message.attributes.push(LinkAttribute::Group(veth.host_group));
        message.attributes.extend(ONE_QUEUE);
        message.attributes.extend(veth.master.map(LinkAttribute::Controller));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        // The kernel tells what it has made (Linux 6.2): a question of its own would make it wait until the
        // end without a carrier has come to rest.
        let request =
            Request::new(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO);
        let told = self.socket.query(request, parse).map_err(|error| {
            error.during(format!("create veth pair {} and {}", veth.host.name, veth.peer.name))
        })?;
        match told.into_iter().find_map(link) {
            Some(host) => Ok(host),
            None => self.link(&veth.host.name),
        }
    }

    /// Changes an interface.
    pub fn change_link(&mut self, index: u32, change: &LinkChange) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        for (flag, wanted) in [(LinkFlags::Up, change.up), (LinkFlags::Promisc, change.promiscuous)] {
            if let Some(wanted) = wanted {
                message.header.change_mask |= flag;
                message.header.flags.set(flag, wanted);
            }
        }
        message.attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        message.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(change.master.map(LinkAttribute::Controller));
        message.attributes.extend(change.alias.clone().map(LinkAttribute::IfAlias));
        message.attributes.extend(port_settings(change));
        // Of the two requests that change a link, only RTM_NEWLINK takes port settings.
        self.ask(&RouteNetlinkMessage::NewLink(message), 0)
            .map_err(|error| error.during(format!("change link #{index} ({change:?})")))
    }

    /// How a bridge treats its port; `None` where that interface is no bridge port.
    pub fn bridge_port(&mut self, index: u32) -> Result<Option<BridgePort>> {
        Ok(self.port_settings(index)?.as_deref().map(bridge_port))
    }

    /// Whether a bridge takes frames from its port only from Ethernet addresses that are pinned to it.
    pub fn is_port_locked(&mut self, index: u32) -> Result<bool> {
        let settings = self.port_settings(index)?.unwrap_or_default();
        Ok(settings.contains(&InfoBridgePort::Locked(true)))
    }

    fn port_settings(&mut self, index: u32) -> Result<Option<Vec<InfoBridgePort>>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let answers = self
            .get(&RouteNetlinkMessage::GetLink(message))
            .map_err(|error| error.during(format!("read bridge port #{index}")))?;
        Ok(answers.into_iter().find_map(settings_of))
    }

    /// Deletes an interface; of a veth pair, both ends go.
    ///
    /// # Errors
    /// [`Error::is_missing`] where there is none.
    pub fn delete_link(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.ask(&RouteNetlinkMessage::DelLink(message), 0)
            .map_err(|error| error.during(format!("delete link #{index}")))
    }

    /// The same, but returns as soon as the interface is gone for everybody. The kernel then still waits
    /// until nothing in it can use what it has of the interface in memory, some 15 ms: a process of its own
    /// does so with it. For programs that end soon
    /// ([`Socket::request_detached`](crate::Socket::request_detached)).
    ///
    /// # Errors
    /// [`Error::is_missing`] where there is none.
    pub fn delete_link_detached(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        // The kernel tells of the end that it was asked for as soon as that is gone (Linux 6.2).
        self.socket
            .request_detached(Request::new(&RouteNetlinkMessage::DelLink(message), NLM_F_ECHO))
            .map_err(|error| error.during(format!("delete link #{index}")))?;
        // Whatever question finds it busy with the other end still, and is answered when that is gone too.
        match self.link_by_index(index) {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes an interface by its name, in one request.
    ///
    /// # Errors
    /// [`Error::is_missing`] where there is none.
    pub fn delete_link_named(&mut self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.ask(&RouteNetlinkMessage::DelLink(message), 0)
            .map_err(|error| error.during(format!("delete link {name}")))
    }

    /// Puts an interface into a group.
    ///
    /// # Errors
    /// [`Error::is_missing`] where there is none.
    pub fn set_group(&mut self, index: u32, group: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Group(group));
        self.ask(&RouteNetlinkMessage::SetLink(message), 0)
            .map_err(|error| error.during(format!("put link #{index} into group {group}")))
    }

    /// Deletes all interfaces of a group at once: the kernel waits once for all of them.
    ///
    /// # Errors
    /// [`Error::is_missing`] where there is none.
    pub fn delete_group(&mut self, group: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        self.ask(&RouteNetlinkMessage::DelLink(message), 0)
            .map_err(|error| error.during(format!("delete the links of group {group}")))
    }

    fn get_link(&mut self, mut message: LinkMessage) -> Result<Link> {
        // Nobody here looks at the counters, and they are half of the kernel's work.
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = self.get(&RouteNetlinkMessage::GetLink(message))?;
        answers.into_iter().find_map(link).ok_or_else(|| Error::Missing("link".into()))
    }
}

impl Link {
    /// Whether an error says that the name of a link to be made is taken.
    pub fn exists(error: &Error) -> bool {
        error.errno() == Some(Errno::EEXIST)
    }
}

pub(super) fn named(name: &str, mac: Option<Mac>, mtu: Option<u32>) -> Vec<LinkAttribute> {
    let mut attributes = vec![LinkAttribute::IfName(name.to_owned())];
    attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.extend(mtu.map(LinkAttribute::Mtu));
    attributes
}

fn port_settings(change: &LinkChange) -> Option<LinkAttribute> {
    let mut settings: Vec<InfoBridgePort> = change.locked.map(InfoBridgePort::Locked).into_iter().collect();
    if let Some(port) = change.port {
        settings.extend([InfoBridgePort::HairpinMode(port.hairpin), InfoBridgePort::Isolated(port.isolated)]);
    }
    (!settings.is_empty()).then(|| {
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(settings)),
        ])
    })
}

fn link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        promiscuous: message.header.flags.contains(LinkFlags::Promisc),
        carrier: message.attributes.contains(&LinkAttribute::OperState(State::Up)),
        lower_up: message.header.flags.contains(LinkFlags::LowerUp),
        master: None,
        alias: None,
        group: 0,
        peer: None,
        port: None,
        qdisc: None,
        point_to_point: message.header.flags.intersects(LinkFlags::Pointopoint | LinkFlags::Noarp),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::Link(index) => link.peer = Some(index),
            LinkAttribute::Qdisc(name) => link.qdisc = Some(name),
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(kind);
                link.port = infos.iter().find_map(port).map(bridge_port);
            }
            _ => {}
        }
    }
    Some(link)
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn settings_of(message: RouteNetlinkMessage) -> Option<Vec<InfoBridgePort>> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let infos = message.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    infos.iter().find_map(port).map(<[InfoBridgePort]>::to_vec)
}

fn port(info: &LinkInfo) -> Option<&[InfoBridgePort]> {
    match info {
        LinkInfo::PortData(InfoPortData::BridgePort(settings)) => Some(settings),
        _ => None,
    }
}

fn bridge_port(settings: &[InfoBridgePort]) -> BridgePort {
    BridgePort {
        hairpin: settings.contains(&InfoBridgePort::HairpinMode(true)),
        isolated: settings.contains(&InfoBridgePort::Isolated(true)),
    }
}
