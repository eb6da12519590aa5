//! What the maps hold, byte by byte: programs know the places, and the elements are written and read by them.
//! Addresses of IPv4 are kept as those of IPv6 that stand for them (`::ffff:10.96.0.1`, RFC 4291, 2.5.5.2),
//! which is how sockets for both families know them; so one set of maps does for all sockets. Addresses and
//! ports are in network order.
//!
//! ```text
//! services   frontend                      -> count, affinity in seconds
//! endpoints  frontend, index below count   -> endpoint
//! members    frontend, endpoint            -> 1                  of Services with affinity only
//! affinity   frontend, 0, network namespace -> endpoint, 0, nanoseconds       written by programs
//! peers      socket, endpoint, 0           -> frontend                        written by programs
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use weft_netlink::bpf::{MapKind, MapSpec};
use weft_types::Protocol;

/// Changes when the bytes of a map mean something else than before: a later program does not take such a map
/// over.
pub(super) const VERSION: u32 = 1;

/// An address (16 bytes), a port and a protocol (2 each).
pub(super) const FRONTEND: usize = 20;
/// An address (16 bytes), a port, and 2 bytes of zero.
pub(super) const ENDPOINT: usize = 20;
/// Where in both of them the port is.
pub(super) const PORT: usize = 16;
/// Where in a frontend the protocol is.
pub(super) const PROTOCOL: usize = 18;

/// The index of an endpoint, or 0, behind a frontend.
pub(super) const INDEX: usize = FRONTEND;
/// The cookie of a network namespace behind that.
pub(super) const NAMESPACE: usize = INDEX + 4;
/// The value of a Service: how many endpoints, and for how long clients stay.
pub(super) const COUNT: usize = 0;
pub(super) const AFFINITY: usize = 4;
/// When a client came last, behind its endpoint and four bytes of zero.
pub(super) const TIME: usize = ENDPOINT + 4;
/// The endpoint behind the cookie of a socket.
pub(super) const PEER: usize = 8;

/// Most Services of a cluster by far, and their ports; what does not fit is left to the data plane beside.
pub(super) const SERVICES: MapSpec =
    MapSpec { name: "services", kind: MapKind::Hash, key: FRONTEND, value: 8, capacity: 1 << 17 };
pub(super) const ENDPOINTS: MapSpec =
    MapSpec { name: "endpoints", kind: MapKind::Hash, key: NAMESPACE, value: ENDPOINT, capacity: 1 << 19 };
pub(super) const MEMBERS: MapSpec =
    MapSpec { name: "members", kind: MapKind::Hash, key: FRONTEND + ENDPOINT, value: 4, capacity: 1 << 17 };
pub(super) const CLIENTS: MapSpec = MapSpec {
    name: "affinity",
    kind: MapKind::LruHash,
    key: NAMESPACE + 8,
    value: TIME + 8,
    capacity: 1 << 15,
};
/// As many sockets as may have connected since the oldest one that still asks for its peer.
pub(super) const PEERS: MapSpec = MapSpec {
    name: "peers",
    kind: MapKind::LruHash,
    key: PEER + ENDPOINT + 4,
    value: FRONTEND,
    capacity: 1 << 16,
};

/// An address and port of a Service, and its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Frontend {
    /// The ClusterIP and the port.
    pub(super) socket: SocketAddr,
    /// TCP or UDP.
    pub(super) protocol: Protocol,
}

/// The value of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// How many endpoints there are.
    pub(super) count: u32,
    /// For how many seconds clients stay at theirs.
    pub(super) affinity: Option<NonZeroU32>,
}

impl Frontend {
    pub(super) fn bytes(self) -> [u8; FRONTEND] {
        let mut bytes = endpoint_bytes(self.socket);
        bytes[PROTOCOL..].copy_from_slice(&u16::from(self.protocol.number()).to_ne_bytes());
        bytes
    }

    /// What such bytes mean, if anything.
    pub(super) fn read(bytes: &[u8]) -> Option<Frontend> {
        let number = u16::from_ne_bytes(*bytes.get(PROTOCOL..)?.first_chunk()?);
        let protocol = Protocol::from_number(number.try_into().ok()?)?;
        Some(Frontend { socket: read_endpoint(bytes)?, protocol })
    }
}

impl Service {
    pub(super) fn bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[COUNT..AFFINITY].copy_from_slice(&self.count.to_ne_bytes());
        let affinity = self.affinity.map_or(0, NonZeroU32::get);
        bytes[AFFINITY..].copy_from_slice(&affinity.to_ne_bytes());
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Service> {
        let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        Some(Service { count: word(COUNT)?, affinity: NonZeroU32::new(word(AFFINITY)?) })
    }
}

pub(super) fn endpoint_bytes(endpoint: SocketAddr) -> [u8; ENDPOINT] {
    let address = match endpoint.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut bytes = [0; ENDPOINT];
    bytes[..PORT].copy_from_slice(&address.octets());
    bytes[PORT..PROTOCOL].copy_from_slice(&endpoint.port().to_be_bytes());
    bytes
}

/// The endpoint in the first bytes of these.
pub(super) fn read_endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let address = Ipv6Addr::from(*bytes.first_chunk::<16>()?).to_canonical();
    let port = u16::from_be_bytes(*bytes.get(PORT..)?.first_chunk()?);
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontend_of_ipv4_is_what_a_socket_for_both_families_asks_for() {
        let frontend = Frontend { socket: "10.96.0.1:80".parse().unwrap(), protocol: Protocol::Udp };
        let mut bytes = [0; FRONTEND];
        bytes[10..18].copy_from_slice(&[0xff, 0xff, 10, 96, 0, 1, 0, 80]);
        bytes[18..].copy_from_slice(&17u16.to_ne_bytes());
        assert_eq!(frontend.bytes(), bytes);
        assert_eq!(Frontend::read(&bytes), Some(frontend));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["10.244.1.2:8080", "[fd00:244::2]:53"] {
            let endpoint = text.parse().unwrap();
            assert_eq!(read_endpoint(&endpoint_bytes(endpoint)), Some(endpoint));
        }
        for affinity in [None, NonZeroU32::new(10_800)] {
            let service = Service { count: 3, affinity };
            assert_eq!(Service::read(&service.bytes()), Some(service));
        }
        assert_eq!(Frontend::read(&[0; FRONTEND - 1]), None);
        assert_eq!(Frontend::read(&[0; FRONTEND]), None, "no protocol has the number 0");
    }
}
