//! What a runtime asks for by `portMappings`, checked and in a form that cannot be wrong.

use std::net::IpAddr;

use crate::interface::Family;
use weft_cni_spec::PortMapping as Asked;

/// A port of the host that leads to a port of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortMapping {
    /// The IP protocol number of TCP, UDP or SCTP.
    pub protocol: u8,
    /// The one address of the host that it is for; all where none is given.
    pub host: Option<IpAddr>,
    /// The port on the host.
    pub host_port: u16,
    /// The port in the container.
    pub container_port: u16,
}

impl PortMapping {
    /// Whether it is for addresses of that family.
    pub(crate) fn is_of(&self, family: Family) -> bool {
        self.host.is_none_or(|host| Family::of(host) == family)
    }

    /// Whether the host's programs may use it under 127.0.0.1.
    pub(crate) fn is_reachable_by_loopback(&self) -> bool {
        self.host.is_none_or(|host| host.is_loopback() || host.is_unspecified())
    }
}

/// Checks what a runtime asks for. Of mappings that lead to the same place the widest is left.
///
/// # Errors
/// Says what is wrong with which mapping.
pub(crate) fn read(asked: &[Asked]) -> Result<Vec<PortMapping>, String> {
    let mut mappings: Vec<PortMapping> = Vec::new();
    for asked in asked {
        let mapping = check(asked)?;
        let mut clashes = mappings.iter().filter(|other| overlap(other, &mapping));
        if clashes.any(|other| other.container_port != mapping.container_port) {
            return Err(format!("hostPort {} is mapped twice", asked.host_port));
        }
        if !mappings.iter().any(|other| covers(other, &mapping)) {
            mappings.retain(|other| !covers(&mapping, other));
            mappings.push(mapping);
        }
    }
    Ok(mappings)
}

fn check(asked: &Asked) -> Result<PortMapping, String> {
    let port = |what: &str, number: i64| {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        port.ok_or_else(|| format!("{what} {number} is not a port number"))
    };
    let protocol = match asked.protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => 6,
        "udp" => 17,
        "sctp" => 132,
        other => return Err(format!("protocol {other:?} is not supported: use tcp, udp or sctp")),
    };
    let host = match asked.host_ip.as_str() {
        "" => None,
        text => Some(text.parse::<IpAddr>().map_err(|_| format!("hostIP {text:?} is not an IP address"))?),
    };
    Ok(PortMapping {
        protocol,
        // An IPv4 address written as an IPv6 one is what the host has as IPv4 (RFC 4291, section 2.5.5.2).
        host: host.map(|host| host.to_canonical()),
        host_port: port("hostPort", asked.host_port)?,
        container_port: port("containerPort", asked.container_port)?,
    })
}

/// Whether some packet is meant for both.
fn overlap(one: &PortMapping, other: &PortMapping) -> bool {
    let hosts = match (one.host, other.host) {
        (Some(one), Some(other)) if one.is_ipv4() == other.is_ipv4() => {
            one == other || one.is_unspecified() || other.is_unspecified()
        }
        (Some(_), Some(_)) => false,
        _ => true,
    };
    hosts && (one.protocol, one.host_port) == (other.protocol, other.host_port)
}

/// Whether every packet that is meant for the other is meant for this one.
fn covers(one: &PortMapping, other: &PortMapping) -> bool {
    let wide = one.host.is_none_or(|host| host.is_unspecified());
    overlap(one, other) && (one.host.is_none() || one.host == other.host || (wide && other.host.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host_port: i64, protocol: &str, host_ip: &str) -> Asked {
        Asked { host_port, container_port: 80, protocol: protocol.into(), host_ip: host_ip.into() }
    }

    #[test]
    fn protocols_in_either_case_and_addresses_of_either_family() {
        let read =
            read(&[asked(1, "TCP", ""), asked(1, "udp", "fd00::1"), asked(1, "Sctp", "10.0.0.1")]).unwrap();
        let told: Vec<_> = read.iter().map(|mapping| (mapping.protocol, mapping.host)).collect();
        assert_eq!(told, [(6, None), (17, "fd00::1".parse().ok()), (132, "10.0.0.1".parse().ok())]);
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_that_ipv4_address() {
        let mapped = read(&[asked(80, "tcp", "::ffff:192.0.2.1"), asked(80, "tcp", "192.0.2.1")]).unwrap();
        assert_eq!(mapped, read(&[asked(80, "tcp", "192.0.2.1")]).unwrap());
    }

    #[test]
    fn what_is_no_mapping_is_named() {
        for (wrong, words) in [
            (asked(0, "tcp", ""), "hostPort 0 is not a port number"),
            (asked(65536, "tcp", ""), "hostPort 65536 is not a port number"),
            (asked(80, "icmp", ""), "protocol \"icmp\" is not supported: use tcp, udp or sctp"),
            (asked(80, "tcp", "here"), "hostIP \"here\" is not an IP address"),
            (Asked { container_port: -1, ..asked(80, "tcp", "") }, "containerPort -1 is not a port number"),
        ] {
            assert_eq!(read(&[wrong]), Err(words.to_owned()));
        }
    }

    #[test]
    fn one_port_can_lead_to_one_place_only() {
        let port = asked(80, "tcp", "");
        assert_eq!(read(&[port.clone(), port.clone()]).unwrap().len(), 1);
        let other = Asked { container_port: 81, ..port.clone() };
        assert_eq!(read(&[port.clone(), other]), Err("hostPort 80 is mapped twice".into()));
        let wide = read(std::slice::from_ref(&port)).unwrap();
        assert_eq!(read(&[port.clone(), asked(80, "tcp", "10.0.0.1")]).unwrap(), wide);
        assert_eq!(read(&[asked(80, "tcp", "10.0.0.1"), port.clone()]).unwrap(), wide);
        assert_eq!(read(&[port, asked(80, "udp", "")]).unwrap().len(), 2);
        assert_eq!(read(&[asked(80, "tcp", "10.0.0.1"), asked(80, "tcp", "10.0.0.2")]).unwrap().len(), 2);
        assert_eq!(read(&[asked(80, "tcp", "10.0.0.1"), asked(80, "tcp", "0.0.0.0")]).unwrap().len(), 1);
    }
}
