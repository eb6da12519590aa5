//! What agents tell of who talks with whom (`/flows`), as they see it: addresses, and what the kernel said of
//! them. Whose addresses these are is for whoever asks. What one release does not know of another's is left
//! out, so that both can be read.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What an agent remembers, from a place in its memory on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FlowPage {
    /// Where to go on reading, to be given back as `from`.
    pub cursor: String,
    /// Since when the agent listens, in milliseconds since 1970.
    pub since: u64,
    /// How many events were forgotten, for others, before they could be read from that place on.
    pub lost: u64,
    /// How often the kernel could not tell of everything (ENOBUFS), since the agent listens.
    pub overruns: u64,
    /// Whether the kernel counts packets and bytes of connections that begin now
    /// (`net.netfilter.nf_conntrack_acct`).
    pub counts_traffic: bool,
    /// Whether DNS questions are seen.
    pub sees_questions: bool,
    /// What cannot be seen, and why.
    pub problems: Vec<String>,
    /// The events, in order.
    pub flows: Vec<FlowEvent>,
}

/// Something that happened between two ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowEvent {
    /// When the agent heard of it, in milliseconds since 1970.
    pub time: u64,
    /// The IANA number of the protocol.
    pub protocol: u8,
    /// Who began.
    pub source: FlowEnd,
    /// Whom it was for, as the one who began knows it: the Service's address, for instance.
    pub destination: FlowEnd,
    /// Who really answers, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<FlowEnd>,
    /// What happened.
    #[serde(flatten)]
    pub event: Happening,
}

/// One end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowEnd {
    /// Its address.
    pub address: IpAddr,
    /// Its port, where the protocol has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Happening {
    /// The first packet passed.
    Begins,
    /// The kernel has forgotten the connection, as its ends closed it or nothing came for long.
    Ends {
        /// Whether anything ever came back.
        answered: bool,
        /// What was sent, where that was counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent: Option<Traffic>,
        /// What came back, where that was counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        received: Option<Traffic>,
    },
    /// Network policies denied a packet.
    Denied {
        /// Seen from the pod whose policies denied it: `ingress` or `egress`.
        direction: String,
        /// These policies: `NetworkPolicy shop/closed`.
        policies: Vec<String>,
        /// Why, in words.
        reason: String,
    },
    /// A DNS server, which is the destination, answered a question.
    Asked {
        /// The name, with a dot at its end.
        name: String,
        /// The type of records: `AAAA`.
        record_type: String,
        /// What the answer is: `NOERROR`, `NXDOMAIN`.
        code: String,
    },
    /// Something that this release does not know.
    #[serde(other)]
    Unknown,
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// How many packets.
    pub packets: u64,
    /// How many bytes, from the IP header on.
    pub bytes: u64,
}

impl Happening {
    /// Whether it was let through.
    pub fn is_allowed(&self) -> bool {
        !matches!(self, Happening::Denied { .. })
    }
}

impl From<SocketAddr> for FlowEnd {
    /// Port 0 stands for none.
    fn from(end: SocketAddr) -> FlowEnd {
        FlowEnd { address: end.ip(), port: Some(end.port()).filter(|port| *port != 0) }
    }
}

impl fmt::Display for FlowEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

/// How people call a protocol: `TCP`, `protocol 47`.
pub fn protocol_name(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_written_as_people_write_it() {
        let end = |text: &str| FlowEnd::from(text.parse::<SocketAddr>().unwrap()).to_string();
        assert_eq!(
            ["10.0.0.1:80", "[fd00::1]:80", "10.0.0.1:0", "[fd00::1]:0"].map(end),
            ["10.0.0.1:80", "[fd00::1]:80", "10.0.0.1", "fd00::1"]
        );
        assert_eq!([6, 58, 47].map(protocol_name), ["TCP", "ICMPv6", "protocol 47"]);
    }
}
