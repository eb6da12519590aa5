//! What is known of a flow, as plain values. How the kernel tells it is in `message.rs`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::BitOr;

/// A connection, or an exchange of datagrams, as the kernel tracks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The kernel's own number of the entry. A later flow between the same ends mostly has another one.
    pub id: u32,
    /// The conntrack zone; 0 nearly always.
    pub zone: u16,
    /// The IANA protocol number.
    pub protocol: u8,
    /// The ends as the first packet had them.
    pub original: Tuple,
    /// The ends of answers as they come from the one who gives them, before addresses are translated back.
    pub reply: Tuple,
    /// What has happened to it.
    pub status: CtStatus,
    /// How far it has come, for TCP.
    pub tcp_state: Option<TcpState>,
}

/// The two ends of a flow in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Who sends.
    pub source: SocketAddr,
    /// Who receives.
    pub destination: SocketAddr,
}

/// A set of `IPS_*` bits (`linux/netfilter/nf_conntrack_common.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CtStatus(pub u32);

impl CtStatus {
    /// There were answers (`IPS_SEEN_REPLY`).
    pub const SEEN_REPLY: CtStatus = CtStatus(1 << 1);
    /// It is not given up early when the table is full (`IPS_ASSURED`).
    pub const ASSURED: CtStatus = CtStatus(1 << 2);
    /// The source address or port is translated (`IPS_SRC_NAT`).
    pub const SRC_NAT: CtStatus = CtStatus(1 << 4);
    /// The destination address or port is translated (`IPS_DST_NAT`).
    pub const DST_NAT: CtStatus = CtStatus(1 << 5);

    /// Whether all bits of the other are set.
    pub fn contains(self, other: CtStatus) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for CtStatus {
    type Output = CtStatus;

    fn bitor(self, other: CtStatus) -> CtStatus {
        CtStatus(self.0 | other.0)
    }
}

/// How far a TCP connection has come (`enum tcp_conntrack`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// SYN seen.
    SynSent,
    /// SYN and ACK seen.
    SynReceived,
    /// Open.
    Established,
    /// One end has closed.
    FinWait,
    /// The first FIN was acknowledged.
    CloseWait,
    /// Both ends have closed.
    LastAck,
    /// Closed, and remembered for late packets.
    TimeWait,
    /// Reset.
    Close,
    /// SYN seen from both ends.
    SynSent2,
}

impl TcpState {
    pub(super) fn read(number: u8) -> Option<TcpState> {
        Some(match number {
            1 => TcpState::SynSent,
            2 => TcpState::SynReceived,
            3 => TcpState::Established,
            4 => TcpState::FinWait,
            5 => TcpState::CloseWait,
            6 => TcpState::LastAck,
            7 => TcpState::TimeWait,
            8 => TcpState::Close,
            9 => TcpState::SynSent2,
            _ => return None,
        })
    }

    /// Whether both ends may still send.
    pub fn is_open(self) -> bool {
        matches!(self, TcpState::SynSent | TcpState::SynSent2 | TcpState::SynReceived | TcpState::Established)
    }
}

/// Which flows are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those of this IANA protocol number.
    pub protocol: Option<u8>,
    /// Only those whose first packet came from this address.
    pub source: Option<IpAddr>,
    /// Only those whose first packet went to this address.
    pub destination: Option<IpAddr>,
    /// Only those that this address answers, behind any translation of the destination.
    pub answerer: Option<IpAddr>,
    /// Only those whose first packet went to this port.
    pub port: Option<u16>,
    /// Only those that have all these bits set.
    pub status: CtStatus,
    /// Only those that have none of these bits set.
    pub without: CtStatus,
}

impl Filter {
    /// Whether that flow is wanted.
    pub fn passes(&self, flow: &Flow) -> bool {
        let destination = flow.original.destination;
        self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && self.source.is_none_or(|address| address == flow.original.source.ip())
            && self.destination.is_none_or(|address| address == destination.ip())
            && self.answerer.is_none_or(|address| address == flow.reply.source.ip())
            && self.port.is_none_or(|port| port == destination.port())
            && flow.status.contains(self.status)
            && flow.status.0 & self.without.0 == 0
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.source, self.destination)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            6 => f.write_str("tcp")?,
            17 => f.write_str("udp")?,
            132 => f.write_str("sctp")?,
            other => write!(f, "protocol {other}")?,
        }
        write!(f, " {}, answered by {}", self.original, self.reply.source)
    }
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many packets.
    pub packets: u64,
    /// How many bytes, from the IP header on.
    pub bytes: u64,
}

/// A notification about a flow. Of protocols without ports both ports are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is new, or changed.
    New(Flow),
    /// It has ended.
    Destroyed {
        /// As it was at its end.
        flow: Flow,
        /// What was sent, and what was answered; nothing where the kernel does not count
        /// (`net.netfilter.nf_conntrack_acct` was 0 when the flow began).
        traffic: Option<[Traffic; 2]>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_passes_flows_with_all_that_is_wanted() {
        let end = |text: &str| text.parse().unwrap();
        let flow = Flow {
            id: 1,
            zone: 0,
            protocol: 17,
            original: Tuple { source: end("10.244.1.2:4000"), destination: end("10.96.0.10:53") },
            reply: Tuple { source: end("10.244.2.2:53"), destination: end("10.244.1.2:4000") },
            status: CtStatus::SEEN_REPLY | CtStatus::DST_NAT,
            tcp_state: None,
        };
        assert_eq!(flow.to_string(), "udp 10.244.1.2:4000 -> 10.96.0.10:53, answered by 10.244.2.2:53");
        let filter = |protocol, status| Filter { protocol, status, ..Filter::default() };
        assert!(Filter::default().passes(&flow));
        assert!(filter(Some(17), CtStatus::DST_NAT).passes(&flow));
        assert!(!filter(Some(6), CtStatus::DST_NAT).passes(&flow));
        assert!(!filter(None, CtStatus::DST_NAT | CtStatus::SRC_NAT).passes(&flow));
        let without = |without| Filter { without, ..Filter::default() };
        assert!(without(CtStatus::SRC_NAT).passes(&flow));
        assert!(!without(CtStatus::SEEN_REPLY | CtStatus::SRC_NAT).passes(&flow));
        let to = |destination, port| Filter {
            destination: Some(destination),
            port: Some(port),
            ..Filter::default()
        };
        assert!(to([10, 96, 0, 10].into(), 53).passes(&flow));
        assert!(!to([10, 96, 0, 10].into(), 54).passes(&flow));
        assert!(!to([10, 96, 0, 11].into(), 53).passes(&flow));
        let [client, server] = [IpAddr::from([10, 244, 1, 2]), IpAddr::from([10, 244, 2, 2])];
        let by = |source, answerer| Filter { source, answerer, ..Filter::default() };
        assert!(by(Some(client), Some(server)).passes(&flow));
        assert!(!by(Some(server), None).passes(&flow) && !by(None, Some(client)).passes(&flow));
    }
}
