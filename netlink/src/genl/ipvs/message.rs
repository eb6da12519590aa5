//! IPVS as messages, and back (`linux/ip_vs.h`). Pure. Numbers are in the machine's own byte order, but for
//! ports and netmasks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use super::{
    Change, Destination, MARK, SCHEDULER_FLAG_1, SCHEDULER_FLAG_2, SCHEDULER_FLAG_3, Scheduling, Service,
    Statistics, Timeouts, VirtualServer,
};
use crate::attribute::{Attributes, Writer};
use crate::genl::Family;
use crate::{Error, Request, Result};

/// `IPVS_GENL_NAME`
pub(super) const NAME: &str = "IPVS";
/// `IPVS_GENL_VERSION`
pub(super) const VERSION: u8 = 1;

// IPVS_CMD_*
const NEW_SERVICE: u8 = 1;
const SET_SERVICE: u8 = 2;
const DEL_SERVICE: u8 = 3;
const GET_SERVICE: u8 = 4;
const NEW_DEST: u8 = 5;
const SET_DEST: u8 = 6;
const DEL_DEST: u8 = 7;
const GET_DEST: u8 = 8;
const SET_CONFIG: u8 = 12;
pub(super) const GET_CONFIG: u8 = 13;

// IPVS_CMD_ATTR_*
const SERVICE: u16 = 1;
const DEST: u16 = 2;
const TIMEOUT_TCP: u16 = 4;
const TIMEOUT_TCP_FIN: u16 = 5;
const TIMEOUT_UDP: u16 = 6;

// IPVS_SVC_ATTR_*
const SVC_AF: u16 = 1;
const SVC_PROTOCOL: u16 = 2;
const SVC_ADDR: u16 = 3;
const SVC_PORT: u16 = 4;
const SVC_FWMARK: u16 = 5;
const SVC_SCHED_NAME: u16 = 6;
const SVC_FLAGS: u16 = 7;
const SVC_TIMEOUT: u16 = 8;
const SVC_NETMASK: u16 = 9;
const SVC_STATS: u16 = 10;
const SVC_STATS64: u16 = 12;

// IPVS_DEST_ATTR_*
const DEST_ADDR: u16 = 1;
const DEST_PORT: u16 = 2;
const DEST_FWD_METHOD: u16 = 3;
const DEST_WEIGHT: u16 = 4;
const DEST_U_THRESH: u16 = 5;
const DEST_L_THRESH: u16 = 6;
const DEST_ACTIVE_CONNS: u16 = 7;
const DEST_INACT_CONNS: u16 = 8;

// IPVS_STATS_ATTR_*
const STATS_CONNS: u16 = 1;
const STATS_INPKTS: u16 = 2;
const STATS_OUTPKTS: u16 = 3;
const STATS_INBYTES: u16 = 4;
const STATS_OUTBYTES: u16 = 5;

/// `IP_VS_SVC_F_PERSISTENT`
const PERSISTENT: u32 = 1;
/// What of a service's flags is ours to set; the others are the kernel's own.
const FLAGS: u32 = PERSISTENT | SCHEDULER_FLAG_1 | SCHEDULER_FLAG_2 | SCHEDULER_FLAG_3 | MARK;
/// `IP_VS_CONN_F_FWD_MASK`, within which NAT (`IP_VS_CONN_F_MASQ`) is 0.
const FORWARD_MASK: u32 = 7;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

pub(super) fn get_services(family: &Family) -> Request {
    family.request(GET_SERVICE, |_| {})
}

pub(super) fn get_destinations(family: &Family, server: &VirtualServer) -> Request {
    family.request(GET_DEST, |writer| writer.nest(SERVICE, |service| identify(service, server)))
}

/// The request for a change.
pub(super) fn change(family: &Family, change: &Change) -> Request {
    let service = |command, server, scheduling: Option<&Scheduling>| {
        family.request(command, |writer| {
            writer.nest(SERVICE, |service| {
                identify(service, server);
                scheduling.iter().for_each(|scheduling| schedule(service, server, scheduling));
            });
        })
    };
    let destination = |command, server, destination, weight| {
        family.request(command, |writer| {
            writer.nest(SERVICE, |service| identify(service, server));
            writer.nest(DEST, |dest| describe(dest, destination, weight));
        })
    };
    match change {
        Change::AddService(server, scheduling) => service(NEW_SERVICE, server, Some(scheduling)),
        Change::SetService(server, scheduling) => service(SET_SERVICE, server, Some(scheduling)),
        Change::DeleteService(server) => service(DEL_SERVICE, server, None),
        Change::AddDestination(server, address, weight) => {
            destination(NEW_DEST, server, address, Some(*weight))
        }
        Change::SetWeight(server, address, weight) => destination(SET_DEST, server, address, Some(*weight)),
        Change::DeleteDestination(server, address) => destination(DEL_DEST, server, address, None),
    }
}

pub(super) fn set_timeouts(family: &Family, timeouts: &Timeouts) -> Request {
    family.request(SET_CONFIG, |writer| {
        writer.u32_native(TIMEOUT_TCP, timeouts.tcp);
        writer.u32_native(TIMEOUT_TCP_FIN, timeouts.tcp_fin);
        writer.u32_native(TIMEOUT_UDP, timeouts.udp);
    })
}

fn identify(service: &mut Writer<'_>, server: &VirtualServer) {
    service.u16_native(SVC_AF, if server.address.is_ipv4() { AF_INET } else { AF_INET6 });
    service.u16_native(SVC_PROTOCOL, server.protocol.into());
    service.bytes(SVC_ADDR, &octets(server.address.ip()));
    service.bytes(SVC_PORT, &server.address.port().to_be_bytes());
}

fn schedule(service: &mut Writer<'_>, server: &VirtualServer, scheduling: &Scheduling) {
    let persistent = scheduling.persistence.map_or(0, |_| PERSISTENT);
    service.string(SVC_SCHED_NAME, &scheduling.scheduler);
    // struct ip_vs_flags: the flags, and which of them count.
    let flags = scheduling.flags & FLAGS | persistent;
    service.bytes(SVC_FLAGS, &[flags.to_ne_bytes(), FLAGS.to_ne_bytes()].concat());
    service.u32_native(SVC_TIMEOUT, scheduling.persistence.map_or(0, NonZeroU32::get));
    // All bits of the client's address tell clients apart: of IPv6 they are counted.
    let netmask = if server.address.is_ipv4() { u32::MAX } else { 128 };
    service.u32_native(SVC_NETMASK, netmask);
}

fn describe(dest: &mut Writer<'_>, address: &SocketAddr, weight: Option<u32>) {
    dest.bytes(DEST_ADDR, &octets(address.ip()));
    dest.bytes(DEST_PORT, &address.port().to_be_bytes());
    if let Some(weight) = weight {
        dest.u32_native(DEST_FWD_METHOD, 0);
        dest.u32_native(DEST_WEIGHT, weight);
        dest.u32_native(DEST_U_THRESH, 0);
        dest.u32_native(DEST_L_THRESH, 0);
    }
}

/// `union nf_inet_addr`: sixteen bytes, of which an IPv4 address has the first four.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// The virtual server that a message tells of; `None` of one by a firewall mark.
pub(super) fn service(message: &Attributes<'_>) -> Result<Option<Service>> {
    let service = message.nested(SERVICE);
    if service.get(SVC_FWMARK).is_some() {
        return Ok(None);
    }
    let read = || {
        let address = address(service.get(SVC_ADDR)?, service.u16_native(SVC_AF)? == AF_INET)?;
        let flags = u32::from_ne_bytes(*service.get(SVC_FLAGS)?.first_chunk()?);
        let timeout = NonZeroU32::new(service.u32_native(SVC_TIMEOUT)?);
        let statistics = match service.get(SVC_STATS64) {
            Some(_) => statistics(&service.nested(SVC_STATS64)),
            None => statistics(&service.nested(SVC_STATS)),
        };
        Some(Service {
            server: VirtualServer {
                protocol: service.u16_native(SVC_PROTOCOL)?.try_into().ok()?,
                address: SocketAddr::new(address, port(service.get(SVC_PORT)?)?),
            },
            scheduling: Scheduling {
                scheduler: service.string(SVC_SCHED_NAME)?.to_owned(),
                flags: flags & FLAGS & !PERSISTENT,
                persistence: timeout.filter(|_| flags & PERSISTENT != 0),
            },
            statistics,
        })
    };
    read().map(Some).ok_or_else(|| Error::Malformed("an IPVS service".into()))
}

/// The destination of a virtual server that a message tells of.
pub(super) fn destination(message: &Attributes<'_>, server: &VirtualServer) -> Result<Destination> {
    let dest = message.nested(DEST);
    let read = || {
        // Of another family only through tunnels.
        let address = address(dest.get(DEST_ADDR)?, server.address.is_ipv4())?;
        let method = dest.u32_native(DEST_FWD_METHOD)?;
        let [active, inactive] = [DEST_ACTIVE_CONNS, DEST_INACT_CONNS].map(|kind| dest.u32_native(kind));
        Some(Destination {
            address: SocketAddr::new(address, port(dest.get(DEST_PORT)?)?),
            weight: dest.u32_native(DEST_WEIGHT)?,
            is_nat: method & FORWARD_MASK == 0,
            connections: active?.saturating_add(inactive?),
        })
    };
    read().ok_or_else(|| Error::Malformed("an IPVS destination".into()))
}

pub(super) fn timeouts(message: &Attributes<'_>) -> Timeouts {
    let timeout = |kind| message.u32_native(kind).unwrap_or_default();
    Timeouts { tcp: timeout(TIMEOUT_TCP), tcp_fin: timeout(TIMEOUT_TCP_FIN), udp: timeout(TIMEOUT_UDP) }
}

/// The older statistics count connections and packets by 32 bits.
fn statistics(stats: &Attributes<'_>) -> Statistics {
    let number = |kind| match stats.get(kind) {
        Some(&[a, b, c, d]) => u32::from_ne_bytes([a, b, c, d]).into(),
        Some(&[a, b, c, d, e, f, g, h]) => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    };
    Statistics {
        connections: number(STATS_CONNS),
        received: (number(STATS_INPKTS), number(STATS_INBYTES)),
        sent: (number(STATS_OUTPKTS), number(STATS_OUTBYTES)),
    }
}

fn address(octets: &[u8], is_v4: bool) -> Option<IpAddr> {
    Some(match is_v4 {
        true => Ipv4Addr::from(*octets.first_chunk::<4>()?).into(),
        false => Ipv6Addr::from(*octets.first_chunk::<16>()?).into(),
    })
}

fn port(payload: &[u8]) -> Option<u16> {
    payload.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests;
