//! The packet that is followed, and how a person writes it down.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use weft_nftables::Name;
use weft_types::{Family, Protocol};

use crate::error::Error;

/// The first packet of a connection. No rule asks for its source port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The client's address.
    pub source: IpAddr,
    /// What the client asks for. Of the family of the source.
    pub destination: SocketAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// How it gets to the rules.
    pub origin: Origin,
}

/// Where a packet comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This machine makes it.
    Machine,
    /// It comes through an interface, of which the name may not be known.
    Interface(Option<Name>),
}

impl Packet {
    /// Reads a packet that is written as [`PACKET_FORM`](crate::error::PACKET_FORM) says. A packet from one
    /// of this machine's `addresses` is the machine's own, unless it comes through an interface; the source
    /// `node` is the first of them in the family of the destination.
    ///
    /// # Errors
    /// What of the text is wrong.
    pub fn parse(text: &str, addresses: &[IpAddr]) -> Result<Packet, Error> {
        read(text, addresses).map_err(|problem| Error::Packet { text: text.to_owned(), problem })
    }
}

fn read(text: &str, addresses: &[IpAddr]) -> Result<Packet, String> {
    let (source, rest) = text.split_once("->").ok_or("there is no \"->\" in it")?;
    let (rest, interface) = match rest.split_once(" via ") {
        Some((rest, interface)) => (rest, Some(Name::from(interface.trim()))),
        None => (rest, None),
    };
    let (destination, protocol) = rest.trim().split_once('/').unwrap_or((rest.trim(), "tcp"));
    let destination: SocketAddr =
        destination.parse().map_err(|_| format!("{destination:?} is no address and port"))?;
    let protocol: Protocol = protocol.parse().map_err(|error| format!("{error}"))?;
    let family = Family::of(destination.ip());
    let source: IpAddr = match source.trim() {
        "node" => {
            let own = addresses.iter().copied().find(|address| Family::of(*address) == family);
            own.ok_or_else(|| format!("this node has no {family} address"))?
        }
        text => text.parse().map_err(|_| format!("{text:?} is no address"))?,
    };
    if Family::of(source) != family {
        return Err(format!("{source} and {} are of different families", destination.ip()));
    }
    let origin = match interface {
        None if addresses.contains(&source) || source.is_loopback() => Origin::Machine,
        interface => Origin::Interface(interface),
    };
    Ok(Packet { source, destination, protocol, origin })
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packet { source, destination, protocol, origin } = self;
        write!(f, "{source} -> {destination}/{protocol}")?;
        match origin {
            Origin::Machine => f.write_str(", from this machine"),
            Origin::Interface(None) => f.write_str(", to or through this machine"),
            Origin::Interface(Some(name)) => write!(f, ", by interface {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let addresses = ["172.30.0.11", "fd00:30::11"].map(|address| address.parse().unwrap());
        let error = |error: Error| error.to_string().split(';').next().unwrap_or_default().to_owned();
        Packet::parse(text, &addresses).map(|packet| packet.to_string()).map_err(error)
    }

    #[test]
    fn a_packet_is_read_as_people_write_it() {
        for (text, expected) in [
            (
                "10.244.1.5 -> 10.96.0.10:53/udp",
                "10.244.1.5 -> 10.96.0.10:53/udp, to or through this machine",
            ),
            (" 10.244.1.5->10.96.0.10:80 ", "10.244.1.5 -> 10.96.0.10:80/tcp, to or through this machine"),
            ("node -> 10.96.0.10:80/SCTP", "172.30.0.11 -> 10.96.0.10:80/sctp, from this machine"),
            ("node -> [fd00:96::1]:80", "fd00:30::11 -> [fd00:96::1]:80/tcp, from this machine"),
            ("172.30.0.11 -> 10.96.0.10:80", "172.30.0.11 -> 10.96.0.10:80/tcp, from this machine"),
            ("10.244.1.5 -> 10.96.0.10:80 via cni0", "10.244.1.5 -> 10.96.0.10:80/tcp, by interface cni0"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_packet_is_said() {
        for (text, problem) in [
            ("10.96.0.10:80", "there is no \"->\" in it"),
            ("pod -> 10.96.0.10:80", "\"pod\" is no address"),
            ("10.244.1.5 -> 10.96.0.10", "\"10.96.0.10\" is no address and port"),
            ("10.244.1.5 -> 10.96.0.10:80/icmp", "protocol \"icmp\" is none of TCP, UDP, SCTP"),
            ("10.244.1.5 -> [fd00::1]:80", "10.244.1.5 and fd00::1 are of different families"),
        ] {
            assert_eq!(parsed(text), Err(format!("cannot trace {text:?}: {problem}")));
        }
    }
}
