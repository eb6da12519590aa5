//! The families of packets that Weft carries.

use std::fmt;
use std::net::IpAddr;

/// A family of packets, and of what sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4: `ip`
    Ip,
    /// IPv6: `ip6`
    Ip6,
}

impl Family {
    /// Both families.
    pub const BOTH: [Family; 2] = [Family::Ip, Family::Ip6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::Ip } else { Family::Ip6 }
    }

    /// The number by which the kernel knows it (`NFPROTO_*`).
    pub fn number(self) -> u8 {
        match self {
            Family::Ip => 2,
            Family::Ip6 => 10,
        }
    }

    /// The family of that number; none for any other than these.
    pub fn from_number(number: u8) -> Option<Family> {
        Family::BOTH.into_iter().find(|family| family.number() == number)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
        })
    }
}
