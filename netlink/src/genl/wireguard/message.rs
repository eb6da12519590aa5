//! WireGuard as messages, and back (`linux/wireguard.h`). Pure. Numbers are in the machine's own byte order, but
//! for ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use ipnetwork::IpNetwork;

use super::{Device, Key, Peer, PeerChange, Settings};
use crate::attribute::{Attributes, Writer};
use crate::genl::{Family, attributes};
use crate::{Error, Frame, Request, Result};

/// `WG_GENL_NAME`
pub(super) const NAME: &str = "wireguard";
/// `WG_GENL_VERSION`
pub(super) const VERSION: u8 = 1;

// WG_CMD_*
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;

// WGDEVICE_A_*
const IFNAME: u16 = 2;
const PRIVATE_KEY: u16 = 3;
const PUBLIC_KEY: u16 = 4;
const LISTEN_PORT: u16 = 6;
const PEERS: u16 = 8;

// WGPEER_A_*
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_LAST_HANDSHAKE: u16 = 6;
const PEER_RX_BYTES: u16 = 7;
const PEER_TX_BYTES: u16 = 8;
const PEER_ALLOWED_IPS: u16 = 9;

// WGALLOWEDIP_A_*
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_PREFIX: u16 = 3;

/// `WGPEER_F_REMOVE_ME`
const REMOVE: u32 = 1;
/// `WGPEER_F_REPLACE_ALLOWEDIPS`
const REPLACE_ALLOWED: u32 = 2;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// How many peers and networks one message has at the most: an attribute ends at 64 KiB, and neither takes more
/// than a hundred bytes.
const MOST: usize = 400;

pub(super) fn get(family: &Family, name: &str) -> Request {
    family.request(GET_DEVICE, |writer| writer.string(IFNAME, name))
}

/// The requests that bring these changes about. Without any, there are none.
pub(super) fn set(family: &Family, name: &str, settings: &Settings, peers: &[PeerChange]) -> Vec<Request> {
    let parts: Vec<PeerChange> = peers.iter().flat_map(divided).collect();
    let mut groups: Vec<&[PeerChange]> = Vec::new();
    let mut rest = parts.as_slice();
    while !rest.is_empty() {
        let mut room = MOST;
        let fits = |part: &&PeerChange| {
            room = room.saturating_sub(1 + part.allowed.len());
            room > 0
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (group, others) = rest.split_at(count);
        groups.push(group);
        rest = others;
    }
    if groups.is_empty() && *settings != Settings::default() {
        groups.push(&[]);
    }
    let request = |(index, group): (usize, &[PeerChange])| {
        family.request(SET_DEVICE, |writer| {
            writer.string(IFNAME, name);
            if index == 0 {
                settings.private_key.iter().for_each(|key| writer.bytes(PRIVATE_KEY, key));
                settings.port.iter().for_each(|port| writer.u16_native(LISTEN_PORT, *port));
            }
            writer.nest(PEERS, |peers| group.iter().for_each(|peer| peers.nest(0, |to| write(to, peer))));
        })
    };
    groups.into_iter().enumerate().map(request).collect()
}

/// A change as several where it names more networks than a message has room for.
fn divided(change: &PeerChange) -> Vec<PeerChange> {
    let mut chunks = change.allowed.chunks(MOST / 2);
    let first = PeerChange { allowed: chunks.next().unwrap_or_default().to_vec(), ..change.clone() };
    let further = chunks.map(|allowed| PeerChange {
        public_key: change.public_key,
        allowed: allowed.to_vec(),
        ..PeerChange::default()
    });
    [first].into_iter().chain(further).collect()
}

fn write(writer: &mut Writer<'_>, change: &PeerChange) {
    writer.bytes(PEER_PUBLIC_KEY, &change.public_key);
    let flags =
        if change.remove { REMOVE } else { 0 } | if change.replace_allowed { REPLACE_ALLOWED } else { 0 };
    writer.u32_native(PEER_FLAGS, flags);
    change.endpoint.iter().for_each(|endpoint| writer.bytes(PEER_ENDPOINT, &socket_address(endpoint)));
    change.keepalive.iter().for_each(|seconds| writer.u16_native(PEER_KEEPALIVE, *seconds));
    writer.nest(PEER_ALLOWED_IPS, |list| {
        for network in &change.allowed {
            list.nest(0, |entry| {
                entry.u16_native(ALLOWED_FAMILY, if network.is_ipv4() { AF_INET } else { AF_INET6 });
                match network.network() {
                    IpAddr::V4(address) => entry.bytes(ALLOWED_ADDRESS, &address.octets()),
                    IpAddr::V6(address) => entry.bytes(ALLOWED_ADDRESS, &address.octets()),
                }
                entry.u8(ALLOWED_PREFIX, network.prefix());
            });
        }
    });
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn socket_address(address: &SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(address) => {
            [&AF_INET.to_ne_bytes()[..], &port, &address.ip().octets(), &[0; 8]].concat()
        }
        SocketAddr::V6(address) => [
            &AF_INET6.to_ne_bytes()[..],
            &port,
            &address.flowinfo().to_be_bytes(),
            &address.ip().octets(),
            &address.scope_id().to_ne_bytes(),
        ]
        .concat(),
    }
}

/// One message of the answer: a device with many peers comes in several.
pub(super) fn device(frame: Frame<'_>) -> Result<Device> {
    let message = attributes(frame)?;
    let peers = message.nested(PEERS).map(|(_, peer)| self::peer(&Attributes(peer)));
    Ok(Device {
        private_key: key(&message, PRIVATE_KEY).filter(|key| *key != Key::default()),
        public_key: key(&message, PUBLIC_KEY),
        port: message.u16_native(LISTEN_PORT).unwrap_or_default(),
        peers: peers.collect::<Result<_>>()?,
    })
}

/// The device of those messages. The first has what is its own; a peer that was cut off goes on in the next one.
pub(super) fn join(parts: Vec<Device>) -> Device {
    let mut parts = parts.into_iter();
    let mut device = parts.next().unwrap_or_default();
    for peer in parts.flat_map(|part| part.peers) {
        match device.peers.last_mut() {
            Some(last) if last.public_key == peer.public_key => last.allowed.extend(peer.allowed),
            _ => device.peers.push(peer),
        }
    }
    device
}

fn peer(attributes: &Attributes<'_>) -> Result<Peer> {
    let malformed = |what: &str| Error::Malformed(format!("a WireGuard peer {what}"));
    let allowed = attributes.nested(PEER_ALLOWED_IPS).map(|(_, entry)| network(&Attributes(entry)));
    Ok(Peer {
        public_key: key(attributes, PEER_PUBLIC_KEY).ok_or_else(|| malformed("without a key"))?,
        endpoint: attributes.get(PEER_ENDPOINT).and_then(endpoint),
        keepalive: attributes.u16_native(PEER_KEEPALIVE).filter(|seconds| *seconds != 0),
        last_handshake: attributes.get(PEER_LAST_HANDSHAKE).and_then(moment),
        allowed: allowed
            .collect::<Option<_>>()
            .ok_or_else(|| malformed("with something that is no network"))?,
        received: attributes.get(PEER_RX_BYTES).and_then(number).unwrap_or_default(),
        sent: attributes.get(PEER_TX_BYTES).and_then(number).unwrap_or_default(),
    })
}

fn key(attributes: &Attributes<'_>, kind: u16) -> Option<Key> {
    attributes.get(kind)?.try_into().ok()
}

fn number(payload: &[u8]) -> Option<u64> {
    payload.try_into().ok().map(u64::from_ne_bytes)
}

/// `struct __kernel_timespec`: seconds since 1970, and nanoseconds; zero for never.
fn moment(payload: &[u8]) -> Option<SystemTime> {
    let seconds = number(payload.get(..8)?)?;
    let nanoseconds = u32::try_from(number(payload.get(8..16)?)?).ok()?;
    (seconds != 0).then(|| SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)))?
}

fn endpoint(payload: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*payload.first_chunk()?);
    let port = u16::from_be_bytes(payload.get(2..4)?.try_into().ok()?);
    let address: IpAddr = match family {
        AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(payload.get(4..8)?).ok()?).into(),
        AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(payload.get(8..24)?).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

fn network(entry: &Attributes<'_>) -> Option<IpNetwork> {
    let octets = entry.get(ALLOWED_ADDRESS)?;
    let address: IpAddr = match entry.u16_native(ALLOWED_FAMILY)? {
        AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into(),
        AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into(),
        _ => return None,
    };
    IpNetwork::new(address, *entry.get(ALLOWED_PREFIX)?.first()?).ok()
}

#[cfg(test)]
mod tests;
