//! How sessions and routes are, for whoever asks: as routers show it.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use weft_types::IpNetwork;

/// All sessions of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The node; empty where nobody filled it in.
    #[serde(default)]
    pub node: String,
    /// The peers, in the order of their names.
    pub peers: Vec<PeerStatus>,
    /// What is wrong beside them.
    pub problems: Vec<String>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// What the peer is called.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Our own AS number towards it.
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// The peer's AS number: the one that it told, or else the one that is expected, in words.
    pub remote: String,
    /// The state of the session, as RFC 4271 calls it.
    pub state: String,
    /// For how many seconds it is so.
    pub seconds: u64,
    /// How often it went down since the start.
    pub downs: u64,
    /// Why it is not up, or was not the last time.
    pub problem: Option<String>,
    /// While it is up: what was agreed.
    pub session: Option<SessionStatus>,
    /// What the peer was told.
    pub announced: Vec<RouteStatus>,
    /// What it told, as far as that is taken.
    pub received: Vec<RouteStatus>,
    /// How many prefixes it told of that are not taken.
    pub refused: u64,
}

/// What was agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// After how many seconds of silence it ends.
    pub hold_time: u16,
    /// The families that both know.
    pub families: Vec<String>,
    /// For how many seconds the peer's routes are kept while it restarts.
    pub restart_time: Option<u16>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// Where it leads.
    pub prefix: IpNetwork,
    /// By whom.
    pub next_hop: IpAddr,
    /// The systems that it passed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// How well it is liked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// The metric between systems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// Its communities, large ones included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// It is kept while the peer restarts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}
