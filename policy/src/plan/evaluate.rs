//! What the rows of a plan say about a packet, looked up as the kernel does.

use std::net::IpAddr;

use weft_types::{Family, Protocol};

use super::{ClassId, Direction, FamilyPlan, PolicyPlan, Row, RowPorts, Side, Verdict};

/// The first packet of a connection, as it stands behind address translation of its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Who sends it.
    pub source: IpAddr,
    /// Who gets it.
    pub destination: IpAddr,
    /// The protocol and the port at the destination; nothing for ICMP and other protocols without ports.
    pub port: Option<(Protocol, u16)>,
}

impl FamilyPlan {
    /// The class of an address.
    pub fn class(&self, address: IpAddr) -> ClassId {
        if let Some(class) = self.peers.get(&address) {
            return *class;
        }
        let before = self.networks.range(..=address).next_back();
        before.filter(|(_, (last, _))| *last >= address).map_or(ClassId::NONE, |(_, (_, class))| *class)
    }
}

impl Side {
    /// What the rows say about traffic with a peer of that class.
    pub fn verdict(&self, class: ClassId, port: Option<(Protocol, u16)>) -> Verdict {
        let rows = |class| self.rows.get(&class).and_then(|rows| first_match(rows, port));
        rows(class).or_else(|| rows(ClassId::NONE)).unwrap_or(self.base.verdict)
    }
}

/// Exact ports before ranges, ranges before protocols, protocols before any traffic.
fn first_match(rows: &[Row], port: Option<(Protocol, u16)>) -> Option<Verdict> {
    let rank = |row: &Row| match (row.ports, port) {
        (RowPorts::Exact(protocol, number), Some(port)) if (protocol, number) == port => Some(0),
        (RowPorts::Range(protocol, first, last), Some((other, number)))
            if protocol == other && (first..=last).contains(&number) =>
        {
            Some(1)
        }
        (RowPorts::Protocol(protocol), Some((other, _))) if protocol == other => Some(2),
        (RowPorts::Any, _) => Some(3),
        _ => None,
    };
    let found = rows.iter().filter_map(|row| Some((rank(row)?, row.decision.verdict)));
    found.min_by_key(|(rank, _)| *rank).map(|(_, verdict)| verdict)
}

impl PolicyPlan {
    /// What this node does with a packet: it may have a say for the pod that sends it, for the one that gets
    /// it, and for both.
    pub fn verdict(&self, packet: &Packet) -> Verdict {
        let Packet { source, destination, port } = *packet;
        let own = |address| self.own_addresses.contains(&address);
        if source == destination || own(source) || own(destination) {
            return Verdict::Accept;
        }
        let leaves = self.verdict_at(source, destination, Direction::Egress, port);
        let enters = self.verdict_at(destination, source, Direction::Ingress, port);
        leaves.max(enters)
    }

    fn verdict_at(
        &self,
        pod: IpAddr,
        peer: IpAddr,
        direction: Direction,
        port: Option<(Protocol, u16)>,
    ) -> Verdict {
        let family = self.family(Family::of(pod));
        let side = family.endpoints.get(&pod).and_then(|endpoint| endpoint.side(direction));
        side.map_or(Verdict::Accept, |side| side.verdict(family.class(peer), port))
    }
}
