//! Flows as ctnetlink messages, and back (`linux/netfilter/nfnetlink_conntrack.h`). Pure.

use std::net::{IpAddr, SocketAddr};

use super::flow::{CtStatus, Event, Filter, Flow, TcpState, Traffic, Tuple};
use crate::Family;
use crate::attribute::{Attributes, Writer};
use crate::{Error, Frame, Request, Result};

/// `NFNL_SUBSYS_CTNETLINK`
const SUBSYSTEM: u16 = 1;
/// `IPCTNL_MSG_CT_GET`
const GET: u16 = 1;
/// `IPCTNL_MSG_CT_DELETE`
const DELETE: u16 = 2;
/// `IPCTNL_MSG_CT_GET_STATS`
const GET_STATS: u16 = 5;
/// The length of `struct nfgenmsg`.
const GENERIC_HEADER: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_STATUS_MASK: u16 = 26;

const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

const CTA_COUNTERS_PACKETS: u16 = 1;
const CTA_COUNTERS_BYTES: u16 = 2;

const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;

const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// What the filter compares of a tuple (`CTA_FILTER_F_CTA_IP_SRC` and so on).
const BY_SOURCE: u32 = 1;
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_PORT: u32 = 1 << 5;

/// The request for all flows that pass the filter. A kernel that does not know an attribute passes over it.
pub(super) fn dump(family: Family, filter: &Filter) -> Request {
    let mut payload = header(family);
    let mut writer = Writer(&mut payload);
    let original = write_original(&mut writer, filter);
    let reply = write_reply(&mut writer, filter);
    if original | reply != 0 {
        writer.nest(CTA_FILTER, |flags| {
            // These two are in the machine's own byte order.
            flags.bytes(CTA_FILTER_ORIG_FLAGS, &original.to_ne_bytes());
            flags.bytes(CTA_FILTER_REPLY_FLAGS, &reply.to_ne_bytes());
        });
    }
    let looked_at = filter.status | filter.without;
    if looked_at != CtStatus::default() {
        writer.u32(CTA_STATUS, filter.status.0);
        writer.u32(CTA_STATUS_MASK, looked_at.0);
    }
    Request { kind: SUBSYSTEM << 8 | GET, flags: 0, payload }
}

/// The request for how many flows there are, of all families.
pub(super) fn count() -> Request {
    // The family is not looked at.
    Request { kind: SUBSYSTEM << 8 | GET_STATS, flags: 0, payload: header(Family::Ip) }
}

/// The answer to [`count`].
pub(super) fn read_count(frame: Frame<'_>) -> Result<usize> {
    let attributes = Attributes(frame.payload.get(GENERIC_HEADER..).unwrap_or_default());
    let count = attributes.get(CTA_STATS_GLOBAL_ENTRIES).and_then(|count| count.try_into().ok());
    let malformed = || Error::Malformed("the count of tracked connections".to_owned());
    Ok(u32::from_be_bytes(count.ok_or_else(malformed)?) as usize)
}

/// Writes what is compared of first packets. Returns which parts these are.
fn write_original(writer: &mut Writer<'_>, filter: &Filter) -> u32 {
    let (source, destination) = (comparable(filter.source), comparable(filter.destination));
    // The kernel compares a port only of a known protocol.
    let port = filter.port.filter(|_| filter.protocol.is_some());
    let compared = flag(source, BY_SOURCE)
        | flag(destination, BY_DESTINATION)
        | flag(filter.protocol, BY_PROTOCOL)
        | flag(port, BY_PORT);
    if compared == 0 {
        return 0;
    }
    writer.nest(CTA_TUPLE_ORIG, |tuple| {
        if source.or(destination).is_some() {
            tuple.nest(CTA_TUPLE_IP, |ip| {
                source.iter().for_each(|address| write_address(ip, CTA_IP_V4_SRC, CTA_IP_V6_SRC, *address));
                destination
                    .iter()
                    .for_each(|address| write_address(ip, CTA_IP_V4_DST, CTA_IP_V6_DST, *address));
            });
        }
        if let Some(protocol) = filter.protocol {
            tuple.nest(CTA_TUPLE_PROTO, |proto| {
                proto.u8(CTA_PROTO_NUM, protocol);
                port.iter().for_each(|port| proto.bytes(CTA_PROTO_DST_PORT, &port.to_be_bytes()));
            });
        }
    });
    compared
}

/// Writes what is compared of answers. Returns which parts these are.
fn write_reply(writer: &mut Writer<'_>, filter: &Filter) -> u32 {
    let Some(address) = comparable(filter.answerer) else { return 0 };
    writer.nest(CTA_TUPLE_REPLY, |tuple| {
        tuple.nest(CTA_TUPLE_IP, |ip| write_address(ip, CTA_IP_V4_SRC, CTA_IP_V6_SRC, address));
    });
    BY_SOURCE
}

/// Of IPv6 addresses the kernel leaves out those that are equal (seen on Linux 6.18): the reader alone
/// compares these.
fn comparable(address: Option<IpAddr>) -> Option<IpAddr> {
    address.filter(IpAddr::is_ipv4)
}

fn flag<T>(part: Option<T>, flag: u32) -> u32 {
    part.map_or(0, |_| flag)
}

/// The request to delete a flow. Without a tuple it would delete all of them.
pub(super) fn delete(flow: &Flow) -> Request {
    let mut payload = header(Family::of(flow.original.source.ip()));
    let mut writer = Writer(&mut payload);
    writer.nest(CTA_TUPLE_ORIG, |tuple| write_tuple(tuple, flow.protocol, &flow.original));
    writer.u32(CTA_ID, flow.id);
    if flow.zone != 0 {
        writer.bytes(CTA_ZONE, &flow.zone.to_be_bytes());
    }
    Request { kind: SUBSYSTEM << 8 | DELETE, flags: 0, payload }
}

fn header(family: Family) -> Vec<u8> {
    vec![family.number(), 0, 0, 0]
}

fn write_tuple(writer: &mut Writer<'_>, protocol: u8, tuple: &Tuple) {
    writer.nest(CTA_TUPLE_IP, |ip| {
        for (v4, v6, address) in [
            (CTA_IP_V4_SRC, CTA_IP_V6_SRC, tuple.source.ip()),
            (CTA_IP_V4_DST, CTA_IP_V6_DST, tuple.destination.ip()),
        ] {
            write_address(ip, v4, v6, address);
        }
    });
    writer.nest(CTA_TUPLE_PROTO, |proto| {
        proto.u8(CTA_PROTO_NUM, protocol);
        proto.bytes(CTA_PROTO_SRC_PORT, &tuple.source.port().to_be_bytes());
        proto.bytes(CTA_PROTO_DST_PORT, &tuple.destination.port().to_be_bytes());
    });
}

fn write_address(writer: &mut Writer<'_>, v4: u16, v6: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => writer.bytes(v4, &address.octets()),
        IpAddr::V6(address) => writer.bytes(v6, &address.octets()),
    }
}

/// Reads the frames of a dump, and gives `keep` the flows that pass the filter.
pub(super) fn reader<T>(
    filter: &Filter,
    mut keep: impl FnMut(Flow) -> Result<T>,
) -> impl FnMut(Frame<'_>) -> Result<()> {
    let filter = *filter;
    move |frame| {
        let malformed = || Error::Malformed(format!("a conntrack message of type {:#x}", frame.kind));
        let attributes = Attributes(frame.payload.get(GENERIC_HEADER..).ok_or_else(malformed)?);
        if has_ports(&attributes).ok_or_else(malformed)? {
            let flow = read(&attributes).ok_or_else(malformed)?;
            if filter.passes(&flow) {
                keep(flow)?;
            }
        }
        Ok(())
    }
}

/// What a notification tells.
pub(super) fn event(frame: Frame<'_>) -> Result<Event> {
    let malformed = || Error::Malformed(format!("a conntrack message of type {:#x}", frame.kind));
    let attributes = Attributes(frame.payload.get(GENERIC_HEADER..).ok_or_else(malformed)?);
    let flow = read(&attributes).ok_or_else(malformed)?;
    Ok(match frame.kind & 0xff {
        DELETE => Event::Destroyed { flow, traffic: read_traffic(&attributes) },
        _ => Event::New(flow),
    })
}

fn read_traffic(flow: &Attributes<'_>) -> Option<[Traffic; 2]> {
    let one = |kind| {
        let counters = flow.nested(kind);
        let number = |kind| counters.get(kind)?.try_into().ok().map(u64::from_be_bytes);
        Some(Traffic { packets: number(CTA_COUNTERS_PACKETS)?, bytes: number(CTA_COUNTERS_BYTES)? })
    };
    Some([one(CTA_COUNTERS_ORIG)?, one(CTA_COUNTERS_REPLY)?])
}

/// ICMP, for instance, has a type and a number in place of ports.
fn has_ports(flow: &Attributes<'_>) -> Option<bool> {
    let proto = Attributes(flow.nested(CTA_TUPLE_ORIG).get(CTA_TUPLE_PROTO)?);
    proto.get(CTA_PROTO_NUM)?;
    Some(proto.get(CTA_PROTO_SRC_PORT).is_some())
}

fn read(flow: &Attributes<'_>) -> Option<Flow> {
    let (protocol, original) = read_tuple(&flow.nested(CTA_TUPLE_ORIG))?;
    let (_, reply) = read_tuple(&flow.nested(CTA_TUPLE_REPLY))?;
    let tcp = flow.nested(CTA_PROTOINFO).nested(CTA_PROTOINFO_TCP);
    let state = tcp.get(CTA_PROTOINFO_TCP_STATE).and_then(|state| state.first().copied());
    Some(Flow {
        id: flow.u32(CTA_ID)?,
        zone: flow.get(CTA_ZONE).and_then(number).unwrap_or_default(),
        protocol,
        original,
        reply,
        status: CtStatus(flow.u32(CTA_STATUS)?),
        tcp_state: state.and_then(TcpState::read),
    })
}

fn read_tuple(tuple: &Attributes<'_>) -> Option<(u8, Tuple)> {
    let (ip, proto) = (tuple.nested(CTA_TUPLE_IP), tuple.nested(CTA_TUPLE_PROTO));
    // ICMP, for instance, has none.
    let port = |kind| proto.get(kind).map_or(Some(0), number);
    let end = |v4, v6, kind| Some(SocketAddr::new(address(&ip, v4, v6)?, port(kind)?));
    let source = end(CTA_IP_V4_SRC, CTA_IP_V6_SRC, CTA_PROTO_SRC_PORT)?;
    let destination = end(CTA_IP_V4_DST, CTA_IP_V6_DST, CTA_PROTO_DST_PORT)?;
    let &protocol = proto.get(CTA_PROTO_NUM)?.first()?;
    Some((protocol, Tuple { source, destination }))
}

fn address(ip: &Attributes<'_>, v4: u16, v6: u16) -> Option<IpAddr> {
    match (ip.get(v4), ip.get(v6)) {
        (Some(octets), _) => Some(<[u8; 4]>::try_from(octets).ok()?.into()),
        (None, Some(octets)) => Some(<[u8; 16]>::try_from(octets).ok()?.into()),
        (None, None) => None,
    }
}

fn number(payload: &[u8]) -> Option<u16> {
    payload.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flow() -> Flow {
        let end = |text: &str| text.parse().unwrap();
        Flow {
            id: 0xfeed_beef,
            zone: 7,
            protocol: 6,
            original: Tuple { source: end("[fd00::2]:4000"), destination: end("[fd00:96::10]:53") },
            reply: Tuple { source: end("[fd00::3]:5353"), destination: end("[fd00::2]:4000") },
            status: CtStatus::SEEN_REPLY | CtStatus::DST_NAT,
            tcp_state: Some(TcpState::Established),
        }
    }

    fn told(flow: &Flow) -> Vec<u8> {
        let mut payload = delete(flow).payload;
        let mut writer = Writer(&mut payload);
        writer.nest(CTA_TUPLE_REPLY, |tuple| write_tuple(tuple, flow.protocol, &flow.reply));
        writer.u32(CTA_STATUS, flow.status.0);
        writer.nest(CTA_PROTOINFO, |info| {
            info.nest(CTA_PROTOINFO_TCP, |tcp| tcp.u8(CTA_PROTOINFO_TCP_STATE, 3));
        });
        payload
    }

    fn read_all(payload: &[u8]) -> (Result<()>, Vec<Flow>) {
        let mut flows = Vec::new();
        let frame = Frame { kind: SUBSYSTEM << 8, flags: 0, sequence: 1, payload };
        let keep = |flow| {
            flows.push(flow);
            Ok(())
        };
        let result = reader(&Filter::default(), keep)(frame);
        (result, flows)
    }

    #[test]
    fn a_flow_reads_back_as_it_was_told() {
        let (result, flows) = read_all(&told(&flow()));
        assert!(result.is_ok());
        assert_eq!(flows, [flow()]);
    }

    #[test]
    fn a_flow_without_ports_is_passed_over() {
        let mut payload = header(Family::Ip);
        Writer(&mut payload).nest(CTA_TUPLE_ORIG, |tuple| {
            tuple.nest(CTA_TUPLE_PROTO, |proto| proto.u8(CTA_PROTO_NUM, 1));
        });
        let (result, flows) = read_all(&payload);
        assert!(result.is_ok() && flows.is_empty());
    }

    #[test]
    fn the_end_of_a_flow_has_what_the_kernel_counted() {
        let mut payload = told(&flow());
        let ended = |payload: &[u8]| {
            event(Frame { kind: SUBSYSTEM << 8 | DELETE, flags: 0, sequence: 0, payload }).unwrap()
        };
        assert_eq!(ended(&payload), Event::Destroyed { flow: flow(), traffic: None });
        let mut writer = Writer(&mut payload);
        for (kind, packets, bytes) in [(CTA_COUNTERS_ORIG, 3_u64, 180_u64), (CTA_COUNTERS_REPLY, 2, u64::MAX)]
        {
            writer.nest(kind, |counters| {
                counters.bytes(CTA_COUNTERS_PACKETS, &packets.to_be_bytes());
                counters.bytes(CTA_COUNTERS_BYTES, &bytes.to_be_bytes());
            });
        }
        let traffic = [(3, 180), (2, u64::MAX)].map(|(packets, bytes)| Traffic { packets, bytes });
        assert_eq!(ended(&payload), Event::Destroyed { flow: flow(), traffic: Some(traffic) });
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(cut in 0usize..200, at in 0usize..200, byte: u8) {
            let mut payload = told(&flow());
            let length = payload.len();
            payload[at % length] = byte;
            payload.truncate(cut.max(1));
            let _ = read_all(&payload);
            let _ = event(Frame { kind: SUBSYSTEM << 8 | DELETE, flags: 0, sequence: 0, payload: &payload });
        }
    }
}
