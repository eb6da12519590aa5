//! Addresses of interfaces.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};

use super::{RtnetlinkClient, family};
use crate::Result;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The interface's index.
    pub link: u32,
    /// The address, with the length of its network's prefix.
    pub address: IpNetwork,
}

/// The state of duplicate address detection on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DadState {
    /// All addresses are in use.
    Done,
    /// This one, perhaps with others, waits for answers.
    Tentative(IpNetwork),
    /// Another on the link has this one.
    Failed(IpNetwork),
}

impl RtnetlinkClient {
    /// The addresses of one interface, or of all where none is given, link-local ones among them.
    pub fn addresses(&mut self, link: Option<u32>) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.index = link.unwrap_or_default();
        let answers = self
            .dump(&RouteNetlinkMessage::GetAddress(message))
            .map_err(|error| error.during("list addresses"))?;
        Ok(answers
            .iter()
            .filter_map(address)
            .filter(|address| link.is_none_or(|l| l == address.link))
            .collect())
    }

    /// Gives an interface an address. IPv6 addresses are usable at once: IPAM has made sure that they are
    /// unique, so that duplicate address detection (RFC 4862) is skipped.
    ///
    /// # Errors
    /// EEXIST where the interface has it already.
    pub fn add_address(&mut self, address: Address) -> Result<()> {
        let message = RouteNetlinkMessage::NewAddress(encode(address));
        self.ask(&message, NLM_F_CREATE | NLM_F_EXCL).map_err(|error| {
            error.during(format!("add address {} to link #{}", address.address, address.link))
        })
    }

    /// The same, but the kernel chooses it for no packet that goes further than the link: an IPv6 address is
    /// deprecated from the beginning (RFC 4862 section 5.5.4), and an IPv4 address, for which that means
    /// nothing, is of the link's scope.
    pub fn add_deprecated_address(&mut self, address: Address) -> Result<()> {
        let mut message = encode(address);
        if address.address.is_ipv4() {
            message.header.scope = AddressScope::Link;
        }
        let mut lifetime = CacheInfo::default();
        (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, u32::MAX);
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        self.ask(&RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).map_err(|error| {
            error.during(format!("add address {} to link #{}", address.address, address.link))
        })
    }

    /// The same, but the kernel adds no route to the address's network: the interface's other neighbours are
    /// not taken to be on the link (IFA_F_NOPREFIXROUTE).
    pub fn add_address_noprefixroute(&mut self, address: Address) -> Result<()> {
        let mut message = encode(address);
        let flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        message.attributes.push(AddressAttribute::Flags(flags | AddressFlags::Noprefixroute));
        self.ask(&RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).map_err(|error| {
            error.during(format!("add address {} to link #{}", address.address, address.link))
        })
    }

    /// The same again, but an IPv6 address is to be used only once the kernel has asked on the link whether
    /// another has it (RFC 4862, section 5.4): see [`RtnetlinkClient::dad_state`]. IPv4 knows no such thing.
    pub fn add_address_with_dad(&mut self, address: Address, prefix_route: bool) -> Result<()> {
        let mut message = encode(address);
        message.header.flags -= AddressHeaderFlags::Nodad;
        if !prefix_route {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
        }
        self.ask(&RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).map_err(|error| {
            error.during(format!("add address {} to link #{}", address.address, address.link))
        })
    }

    /// How far the kernel is with asking for duplicates of an interface's addresses.
    pub fn dad_state(&mut self, link: u32) -> Result<DadState> {
        let mut message = AddressMessage::default();
        message.header.index = link;
        let answers = self
            .dump(&RouteNetlinkMessage::GetAddress(message))
            .map_err(|error| error.during("list addresses"))?;
        let states = answers.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(found) if found.header.index == link => {
                Some((found.header.flags, address(message)?.address))
            }
            _ => None,
        });
        let mut state = DadState::Done;
        for (flags, address) in states {
            if flags.contains(AddressHeaderFlags::Dadfailed) {
                return Ok(DadState::Failed(address));
            }
            if flags.contains(AddressHeaderFlags::Tentative) {
                state = DadState::Tentative(address);
            }
        }
        Ok(state)
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    /// EADDRNOTAVAIL where the interface does not have it.
    pub fn delete_address(&mut self, address: Address) -> Result<()> {
        self.ask(&RouteNetlinkMessage::DelAddress(encode(address)), 0).map_err(|error| {
            error.during(format!("delete address {} of link #{}", address.address, address.link))
        })
    }
}

fn encode(address: Address) -> AddressMessage {
    let network = address.address;
    let mut message = AddressMessage::default();
    message.header.family = family(network.ip());
    message.header.prefix_len = network.prefix();
    message.header.index = address.link;
    message.header.scope = scope(network.ip());
    message.attributes.push(AddressAttribute::Local(network.ip()));
    message.attributes.push(AddressAttribute::Address(network.ip()));
    match network {
        IpNetwork::V4(network) if network.prefix() < 31 => {
            message.attributes.push(AddressAttribute::Broadcast(network.broadcast()));
        }
        IpNetwork::V4(_) => {}
        IpNetwork::V6(_) => message.header.flags |= AddressHeaderFlags::Nodad,
    }
    message
}

fn scope(address: IpAddr) -> AddressScope {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    match (address.is_loopback(), link_local) {
        (true, _) => AddressScope::Host,
        (_, true) => AddressScope::Link,
        _ => AddressScope::Universe,
    }
}

fn address(message: &RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    // The address itself is the "local" one; "address" is the other end's on point-to-point links, and all
    // there is for IPv6.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let remote = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let address = IpNetwork::new(local.or(remote)?, message.header.prefix_len).ok()?;
    Some(Address { link: message.header.index, address })
}
