//! What the hooks of forwarded packets do with the first packet of a connection, by the planned tables.

use weft_netlink::Family;
use weft_nftables::Hook;
use weft_nftables::evaluator::{Facts, Fate, Ruleset};
use weft_policy::plan::{Packet, Verdict};

/// `IPPROTO_ICMP`
const ICMP: u8 = 1;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`
const NEW: u32 = 8;
const SYN: u8 = 2;

pub(crate) fn forward(tables: &Ruleset, packet: &Packet) -> Verdict {
    let facts = Facts {
        source: Some(packet.source),
        destination: Some(packet.destination),
        protocol: Some(packet.port.map_or(ICMP, |(protocol, _)| protocol.number())),
        // Where there are no ports, other bytes stand there, and no row is for the protocol.
        source_port: Some(0),
        destination_port: Some(packet.port.map_or(0, |(_, port)| port)),
        tcp_flags: Some(SYN),
        priority: Some(6),
        state: Some(NEW),
        source_is_local: Some(false),
        ..Facts::default()
    };
    let at = |hook| {
        let mut walk = tables.follow(Family::of(packet.source), facts.clone());
        match walk.hook(hook).unwrap_or_else(|lost| panic!("{packet:?}: {lost}")) {
            Fate::Accepted => Verdict::Accept,
            Fate::Dropped | Fate::Rejected => Verdict::Deny,
        }
    };
    let verdict = at(Hook::Forward);
    assert_eq!(at(Hook::Output), verdict, "what IPVS forwards is judged alike: {packet:?}");
    verdict
}
