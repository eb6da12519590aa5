//! Ending tracked connections that a change of policies denies: the rules let through what conntrack knows.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_netlink::Family;
use weft_netlink::conntrack::{ConntrackClient, Filter, Flow};
use weft_policy::plan::{Delta, Packet, PolicyPlan, Verdict};
use weft_policy::ruleset::refused::Connection;
use weft_types::Protocol;

use crate::Result;

/// Whose connections a change may deny.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Concerned {
    /// Those of these addresses.
    Addresses(BTreeSet<IpAddr>),
    /// Everybody's.
    All,
}

/// Whose connections a change may deny. What only allows more denies nobody's.
pub(crate) fn concerned(delta: &Delta) -> Concerned {
    if !delta.networks.is_empty() {
        return Concerned::All;
    }
    let denies = |verdict: Option<Verdict>| verdict != Some(Verdict::Accept);
    let rows = delta.rows.iter().filter(|row| denies(row.decision.map(|it| it.verdict)));
    let is_closed =
        |base: &Option<weft_policy::plan::Decision>| base.is_some_and(|base| base.verdict == Verdict::Deny);
    let sides = delta.sides.iter().filter(|(_, _, base)| is_closed(base));
    let peers = delta.peers.iter().filter(|(_, class)| class.is_some());
    let addresses = rows.map(|row| row.address).chain(sides.map(|(_, address, _)| *address));
    Concerned::Addresses(addresses.chain(peers.map(|(address, _)| *address)).collect())
}

impl Concerned {
    fn is_empty(&self) -> bool {
        matches!(self, Concerned::Addresses(addresses) if addresses.is_empty())
    }

    fn contains(&self, packet: &Packet) -> bool {
        match self {
            Concerned::All => true,
            Concerned::Addresses(all) => all.contains(&packet.source) || all.contains(&packet.destination),
        }
    }
}

/// The first packet of a flow behind the translation of its destination; none for protocols that have no rows of their own.
fn packet(flow: &Flow) -> Option<Packet> {
    let protocol = Protocol::from_number(flow.protocol)?;
    let end = flow.reply.source;
    Some(Packet {
        source: flow.original.source.ip(),
        destination: end.ip(),
        port: Some((protocol, end.port())),
    })
}

/// Ends connections, in the network namespace in which it was opened.
pub(crate) struct Cutter(ConntrackClient);

impl Cutter {
    /// In the calling thread's network namespace.
    pub(crate) fn open() -> Result<Cutter> {
        Ok(Cutter(ConntrackClient::open()?))
    }

    /// The connections that the plan denies.
    pub(crate) fn denied(&mut self, plan: &PolicyPlan, concerned: &Concerned) -> Result<Vec<Flow>> {
        let mut denied = Vec::new();
        if concerned.is_empty() {
            return Ok(denied);
        }
        let is_denied = |flow: &Flow| {
            let packet = packet(flow).filter(|packet| concerned.contains(packet));
            packet.is_some_and(|packet| plan.verdict(&packet) == Verdict::Deny)
        };
        for family in Family::BOTH {
            // Nothing is deleted while it is read: first what is sent next must be refused.
            self.0
                .for_each(family, &Filter::default(), |flow| denied.extend(Some(flow).filter(is_denied)))?;
        }
        Ok(denied)
    }

    /// Has conntrack forget connections: what comes of them next is judged as if it was new.
    pub(crate) fn forget(&mut self, flows: &[Flow]) -> Result<()> {
        Ok(self.0.delete(flows).map(drop)?)
    }
}

/// A flow whose next packets must be refused by themselves.
pub(crate) fn refused(flow: &Flow) -> Option<Connection> {
    let protocol = Protocol::from_number(flow.protocol).filter(|protocol| *protocol != Protocol::Tcp)?;
    Some(Connection { protocol, ends: [flow.original.source, flow.reply.source] })
}

#[cfg(test)]
mod tests {
    use weft_netlink::conntrack::{CtStatus, Tuple};
    use weft_policy::plan::ClassId;

    use super::*;

    #[test]
    fn a_connection_to_a_service_is_judged_by_the_pod_that_answers() {
        let end = |text: &str| text.parse().unwrap();
        let flow = Flow {
            id: 1,
            zone: 0,
            protocol: 6,
            original: Tuple { source: end("10.244.1.2:4000"), destination: end("10.96.0.10:80") },
            reply: Tuple { source: end("10.244.2.2:8080"), destination: end("10.244.1.2:4000") },
            status: CtStatus::DST_NAT,
            tcp_state: None,
        };
        let packet = packet(&flow).unwrap();
        assert_eq!(packet.destination, "10.244.2.2".parse::<IpAddr>().unwrap());
        assert_eq!(packet.port, Some((Protocol::Tcp, 8080)));
    }

    #[test]
    fn peers_that_are_gone_concern_nobody() {
        let address: IpAddr = "10.244.1.2".parse().unwrap();
        let peers = |class| Delta { peers: vec![(address, class)], ..Delta::default() };
        assert!(concerned(&peers(None)).is_empty());
        assert_eq!(concerned(&peers(Some(ClassId(1)))), Concerned::Addresses([address].into()));
    }
}
