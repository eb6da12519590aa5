//! What is known of a packet when it meets a rule. What expressions find in it stands with each of them.

use std::net::{IpAddr, SocketAddr};

/// What is known of a packet that begins a connection, and of the machine that it is on.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its source address.
    pub source: Option<IpAddr>,
    /// Its destination address, as it is by now.
    pub destination: Option<IpAddr>,
    /// The number of its transport protocol.
    pub protocol: Option<u8>,
    /// Its transport source port.
    pub source_port: Option<u16>,
    /// Its transport destination port, as it is by now.
    pub destination_port: Option<u16>,
    /// The type in its ICMP or ICMPv6 header.
    pub icmp_type: Option<u8>,
    /// The flags of its TCP header.
    pub tcp_flags: Option<u8>,
    /// Where it was sent to before a rule rewrote that.
    pub original_destination: Option<SocketAddr>,
    /// The name of the interface that it came in by; empty where there is none.
    pub input: Option<String>,
    /// The first address of that interface: where `redirect` sends the packet.
    pub input_address: Option<IpAddr>,
    /// The name of the interface that it leaves by.
    pub output: Option<String>,
    /// Its priority.
    pub priority: Option<u32>,
    /// Its mark.
    pub mark: Option<u32>,
    /// Bits of `ct state` (`NF_CT_STATE_BIT`).
    pub state: Option<u32>,
    /// Bits of `ct status` (`IPS_*`).
    pub status: Option<u32>,
    /// The mark of its connection.
    pub connection_mark: Option<u32>,
    /// Its source is an address of this machine.
    pub source_is_local: Option<bool>,
    /// Its destination is an address of this machine.
    pub destination_is_local: Option<bool>,
    /// It would leave by the interface that it came by.
    pub routed_back: Option<bool>,
    /// Says which numbers are drawn: for each the remainder by its modulus; a walk goes on with the quotient.
    pub draw: Option<u32>,
}
