//! Which tracked connections a change of policies is about, and what becomes of them. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_netlink::Family;
use weft_netlink::conntrack::{Filter, Flow};
use weft_policy::plan::{Decision, Delta, Packet, PolicyPlan, Verdict};
use weft_policy::ruleset::refused::Connection;
use weft_types::Protocol;

/// Up to so many addresses of a family are read for one by one: the kernel walks through its whole table
/// twice for each, which costs it less than to tell of all that is in it, if that is much.
const FEW: usize = 1;
/// Up to so many connections are told of sooner than the table is walked through once more.
const LITTLE: usize = 4096;

/// Whose connections a change may deny.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Concerned {
    /// Those of these addresses.
    Addresses(BTreeSet<IpAddr>),
    /// Everybody's.
    All,
}

impl Default for Concerned {
    fn default() -> Concerned {
        Concerned::Addresses(BTreeSet::new())
    }
}

impl Concerned {
    /// Whose connections a change may deny. What only allows more denies nobody's.
    pub(crate) fn by(delta: &Delta) -> Concerned {
        if !delta.networks.is_empty() {
            return Concerned::All;
        }
        let denies = |decision: &Option<Decision>| decision.is_none_or(|it| it.verdict == Verdict::Deny);
        let is_closed = |base: &Option<Decision>| base.is_some_and(|base| base.verdict == Verdict::Deny);
        let rows = delta.rows.iter().filter(|row| denies(&row.decision)).map(|row| row.address);
        let sides = delta.sides.iter().filter(|(_, _, base)| is_closed(base)).map(|(_, address, _)| *address);
        // One that is of no class any more may have lost the label by which it was let in.
        let peers = delta.peers.iter().map(|(address, _)| *address);
        Concerned::Addresses(rows.chain(sides).chain(peers).collect())
    }

    /// Nobody's.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Concerned::Addresses(addresses) if addresses.is_empty())
    }

    /// Takes in what another change is about.
    pub(crate) fn extend(&mut self, other: Concerned) {
        match (&mut *self, other) {
            (Concerned::Addresses(all), Concerned::Addresses(more)) => all.extend(more),
            _ => *self = Concerned::All,
        }
    }

    /// What has to be read of the kernel's table, in which so many connections are, to see all these.
    pub(crate) fn readings(&self, count: usize) -> Vec<(Family, Filter)> {
        if count == 0 {
            return Vec::new();
        }
        let Concerned::Addresses(addresses) = self else {
            return Family::BOTH.map(|family| (family, Filter::default())).to_vec();
        };
        let mut readings = Vec::new();
        for family in Family::BOTH {
            let of_family = || addresses.iter().filter(|address| Family::of(**address) == family);
            match of_family().count() {
                0 => {}
                // The kernel does not compare addresses of IPv6.
                1..=FEW if family == Family::Ip && count > LITTLE => {
                    readings.extend(of_family().flat_map(|&address| {
                        let source = Filter { source: Some(address), ..Filter::default() };
                        [source, Filter { answerer: Some(address), ..Filter::default() }]
                            .map(|it| (family, it))
                    }))
                }
                _ => readings.push((family, Filter::default())),
            }
        }
        readings
    }

    /// Whether it is one of these connections, and the plan denies it.
    pub(crate) fn is_denied(&self, flow: &Flow, plan: &PolicyPlan) -> bool {
        packet(flow).is_some_and(|packet| self.contains(&packet) && plan.verdict(&packet) == Verdict::Deny)
    }

    fn contains(&self, packet: &Packet) -> bool {
        match self {
            Concerned::All => true,
            Concerned::Addresses(all) => all.contains(&packet.source) || all.contains(&packet.destination),
        }
    }
}

/// The first packet of a flow behind the translation of its destination; none for protocols that have no rows
/// of their own.
fn packet(flow: &Flow) -> Option<Packet> {
    let protocol = Protocol::from_number(flow.protocol)?;
    let end = flow.reply.source;
    Some(Packet {
        source: flow.original.source.ip(),
        destination: end.ip(),
        port: Some((protocol, end.port())),
    })
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

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn addresses<const N: usize>(texts: [&str; N]) -> Concerned {
        Concerned::Addresses(texts.map(ip).into())
    }

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
        assert_eq!(packet.destination, ip("10.244.2.2"));
        assert_eq!(packet.port, Some((Protocol::Tcp, 8080)));
        assert!(addresses(["10.244.2.2"]).contains(&packet) && addresses(["10.244.1.2"]).contains(&packet));
        assert!(!addresses(["10.96.0.10"]).contains(&packet));
    }

    #[test]
    fn what_is_not_tcp_is_refused_by_its_ends_and_tcp_by_its_flags() {
        let end = |text: &str| text.parse().unwrap();
        let (client, server) = ("10.244.1.2:4000", "10.244.2.2:8080");
        let flow = |protocol| Flow {
            id: 1,
            zone: 0,
            protocol,
            original: Tuple { source: end(client), destination: end("10.96.0.10:80") },
            reply: Tuple { source: end(server), destination: end(client) },
            status: CtStatus::DST_NAT,
            tcp_state: None,
        };
        for protocol in [Protocol::Udp, Protocol::Sctp] {
            let connection = Connection { protocol, ends: [end(client), end(server)] };
            assert_eq!(refused(&flow(protocol.number())), Some(connection));
        }
        assert_eq!((refused(&flow(Protocol::Tcp.number())), refused(&flow(1))), (None, None));
    }

    #[test]
    fn a_peer_that_lost_the_label_by_which_it_was_let_in_is_judged_again() {
        let peers = |class| Delta { peers: vec![(ip("10.244.1.2"), class)], ..Delta::default() };
        for class in [None, Some(ClassId(1))] {
            assert_eq!(Concerned::by(&peers(class)), addresses(["10.244.1.2"]));
        }
        assert!(Concerned::by(&Delta::default()).is_empty());
    }

    #[test]
    fn changes_that_wait_are_judged_together() {
        let mut concerned = Concerned::default();
        concerned.extend(addresses(["10.244.1.2"]));
        concerned.extend(addresses(["fd00::2"]));
        assert_eq!(concerned, addresses(["10.244.1.2", "fd00::2"]));
        concerned.extend(Concerned::All);
        concerned.extend(addresses(["10.244.1.3"]));
        assert_eq!(concerned, Concerned::All);
    }

    #[test]
    fn little_is_read_for_few_addresses_and_the_table_once_for_many() {
        let few = addresses(["10.244.1.2"]);
        let address = Some(ip("10.244.1.2"));
        let (source, answerer) = (
            Filter { source: address, ..Filter::default() },
            Filter { answerer: address, ..Filter::default() },
        );
        assert_eq!(few.readings(LITTLE + 1), [(Family::Ip, source), (Family::Ip, answerer)]);
        let whole = |family| (family, Filter::default());
        assert_eq!(few.readings(LITTLE), [whole(Family::Ip)], "the whole is little, too");
        assert_eq!(few.readings(0), []);
        assert_eq!(addresses(["fd00::2"]).readings(LITTLE + 1), [whole(Family::Ip6)]);
        let many = (1..=9).map(|last| IpAddr::from([10, 244, 1, last])).collect();
        assert_eq!(Concerned::Addresses(many).readings(LITTLE + 1), [whole(Family::Ip)]);
        assert_eq!(Concerned::All.readings(1), Family::BOTH.map(whole));
        assert_eq!(Concerned::default().readings(1), []);
    }
}
