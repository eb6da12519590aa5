//! What a node is asked: a packet, and how it comes there.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How a packet comes to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// A pod of the node sends it.
    Pod,
    /// The node makes it, or a pod on its network.
    Here,
    /// It comes from another machine.
    Link,
}

/// A packet, and how it comes to a node. As the query of an URL it has these names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// How it comes.
    pub entry: Entry,
    /// Its source. The unspecified address stands for the one that a machine gives to what it makes.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// The number of its protocol.
    pub protocol: u8,
    /// Its source port, where the protocol has ports.
    pub source_port: Option<u16>,
    /// Its destination port.
    pub port: Option<u16>,
    /// Where it comes from another machine: the address of that one, as the nodes know it.
    pub via: Option<IpAddr>,
    /// Where it comes by a tunnel: the name of its device.
    pub tunnel: Option<String>,
    /// To which of a Service's endpoints it is to be led, where there are several.
    pub endpoint: Option<SocketAddr>,
    /// It answers a connection. `Some(true)`: the node has seen the packet that it answers.
    pub answers: Option<bool>,
    /// What connection tracking puts in the place of the source of an answer.
    pub source_becomes: Option<SocketAddr>,
    /// What connection tracking puts in the place of its destination.
    pub destination_becomes: Option<SocketAddr>,
}

/// What a node rewrote in the first packet of a connection, and undoes in its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// The packet as it came.
    pub before: crate::Tuple,
    /// The packet as it left.
    pub after: crate::Tuple,
}

impl Question {
    /// A packet that begins a connection.
    pub fn new(entry: Entry, packet: crate::Tuple, protocol: u8) -> Question {
        Question {
            entry,
            source: packet.source,
            destination: packet.destination,
            protocol,
            source_port: packet.source_port,
            port: packet.port,
            via: None,
            tunnel: None,
            endpoint: None,
            answers: None,
            source_becomes: None,
            destination_becomes: None,
        }
    }

    /// The packet.
    pub fn packet(&self) -> crate::Tuple {
        crate::Tuple {
            source: self.source,
            source_port: self.source_port,
            destination: self.destination,
            port: self.port,
        }
    }

    /// The query of an URL by which an agent is asked.
    pub fn query(&self) -> String {
        let entry = match self.entry {
            Entry::Pod => "pod",
            Entry::Here => "here",
            Entry::Link => "link",
        };
        let mut query = format!(
            "entry={entry}&source={}&destination={}&protocol={}",
            self.source, self.destination, self.protocol
        );
        let mut add = |name: &str, value: Option<String>| {
            query.extend(
                value.map(|value| format!("&{name}={}", value.replace('[', "%5B").replace(']', "%5D"))),
            );
        };
        add("source_port", self.source_port.map(|port| port.to_string()));
        add("port", self.port.map(|port| port.to_string()));
        add("via", self.via.map(|address| address.to_string()));
        add("tunnel", self.tunnel.clone());
        add("endpoint", self.endpoint.map(|to| to.to_string()));
        add("answers", self.answers.map(|seen| seen.to_string()));
        add("source_becomes", self.source_becomes.map(|to| to.to_string()));
        add("destination_becomes", self.destination_becomes.map(|to| to.to_string()));
        query
    }
}

impl Translation {
    /// What a packet is that answers one which was rewritten so, on its way back through the node.
    pub fn undone(&self, answer: &crate::Tuple) -> Option<crate::Tuple> {
        (*answer == self.after.reversed()).then(|| self.before.reversed())
    }
}
