//! What this node says on its links: answers to those who ask for an address that it has, and announcements,
//! unasked, when it takes one over and whenever others may have learnt something else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use weft_netlink::rtnl::Mac;

use super::arp::{ArpPacket, Operation};
use super::ndp::{self, Message};
use super::place::Port;

/// Between two announcements: a little more than a second, as some neighbours take no notice of a second one
/// within that (RFC 826 knows no limit; Linux has `locktime`, of one second).
pub const REPEAT: Duration = Duration::from_millis(1100);
/// For how long an address is announced.
pub const ANNOUNCE: Duration = Duration::from_secs(5);
/// How often, at most, a claim of somebody else is answered by an announcement (RFC 5227, section 2.4,
/// DEFEND_INTERVAL).
pub const DEFEND: Duration = Duration::from_secs(10);
/// How long that waits: where an address just moves, its former holder hears of the new one a moment before it
/// lets go.
const HESITATE: Duration = Duration::from_millis(300);

const BROADCAST: Mac = Mac([0xff; 6]);

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The index of the interface.
    pub port: u32,
    /// Of ARP; of IPv6 otherwise.
    pub is_arp: bool,
    /// Whom it goes to.
    pub to: Mac,
    /// All behind the link's header.
    pub bytes: Vec<u8>,
}

/// What a frame that came leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody asked for an address of ours.
    Asked(Frame),
    /// Somebody else says to have an address of ours.
    Claimed {
        /// The address.
        address: IpAddr,
        /// Who.
        by: Mac,
        /// Where, by the interface's name.
        on: String,
    },
}

/// What this node has, and where.
#[derive(Debug, Default)]
pub struct Speaker {
    ports: BTreeMap<u32, Port>,
    held: BTreeMap<IpAddr, Held>,
}

#[derive(Debug, Default)]
struct Held {
    ports: BTreeSet<u32>,
    /// When it is announced next, where it still is.
    next: Option<Instant>,
    until: Option<Instant>,
    defended: Option<Instant>,
}

impl Speaker {
    /// These are the interfaces, and the addresses that are to be answered on each, from now on. What is new
    /// on an interface, or whose interface has another Ethernet address or is up again, is announced.
    pub fn set(
        &mut self,
        ports: BTreeMap<u32, Port>,
        wanted: &BTreeMap<IpAddr, BTreeSet<u32>>,
        now: Instant,
    ) {
        let mac = |ports: &BTreeMap<u32, Port>, index: &u32| ports.get(index).map(|port| port.mac);
        self.held.retain(|address, _| wanted.contains_key(address));
        for (&address, places) in wanted {
            let held = self.held.entry(address).or_default();
            let is_new =
                |index: &u32| !held.ports.contains(index) || mac(&self.ports, index) != mac(&ports, index);
            let has_new = places.iter().any(is_new);
            held.ports.clone_from(places);
            if has_new {
                held.announce(now);
            }
        }
        self.ports = ports;
    }

    /// Others may have heard something else of these addresses meanwhile: they are announced again.
    pub fn announce<'a>(&mut self, addresses: impl IntoIterator<Item = &'a IpAddr>, now: Instant) {
        for address in addresses {
            if let Some(held) = self.held.get_mut(address) {
                held.announce(now);
            }
        }
    }

    /// The addresses that are answered on an interface.
    pub fn addresses(&self, port: u32) -> impl Iterator<Item = IpAddr> {
        self.held.iter().filter(move |(_, held)| held.ports.contains(&port)).map(|(address, _)| *address)
    }

    /// All that is answered, with the interfaces.
    pub fn held(&self) -> impl Iterator<Item = (IpAddr, &BTreeSet<u32>)> {
        self.held.iter().map(|(address, held)| (*address, &held.ports))
    }

    /// The frames that are due.
    pub fn due(&mut self, now: Instant) -> Vec<Frame> {
        let mut frames = Vec::new();
        for (&address, held) in &mut self.held {
            if held.next.is_none_or(|next| next > now) {
                continue;
            }
            let places = held.ports.iter().filter_map(|index| Some((*index, self.ports.get(index)?)));
            places.for_each(|(index, port)| frames.extend(announcements(address, index, port.mac)));
            held.next = Some(now + REPEAT).filter(|next| held.until.is_some_and(|until| *next <= until));
        }
        frames
    }

    /// When [`Speaker::due`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.held.values().filter_map(|held| held.next).min()
    }

    /// Takes in a frame of ARP that came by that interface.
    pub fn arp(&mut self, index: u32, bytes: &[u8], now: Instant) -> Option<Heard> {
        let packet = ArpPacket::decode(bytes)?;
        let mac = self.ports.get(&index)?.mac;
        if packet.sender_mac == mac {
            return None;
        }
        // Whoever announces an address asks for it, too.
        if self.has(packet.sender.into(), index) {
            return self.claimed(packet.sender.into(), packet.sender_mac, index, now);
        }
        let is_asked = packet.operation == Operation::Request && self.has(packet.target.into(), index);
        let answer = || packet.answer(mac).encode().to_vec();
        is_asked.then(|| {
            Heard::Asked(Frame { port: index, is_arp: true, to: packet.sender_mac, bytes: answer() })
        })
    }

    /// Takes in an IPv6 packet that came by that interface, from that Ethernet address.
    pub fn ndp(&mut self, index: u32, source: Option<Mac>, bytes: &[u8], now: Instant) -> Option<Heard> {
        let mac = self.ports.get(&index)?.mac;
        if source == Some(mac) {
            return None;
        }
        match ndp::decode(bytes)? {
            Message::Solicitation(asked) if self.has(asked.target.into(), index) => {
                let (bytes, to) = ndp::answer(&asked, source, mac)?;
                Some(Heard::Asked(Frame { port: index, is_arp: false, to, bytes }))
            }
            Message::Advertisement(told) if self.has(told.target.into(), index) => {
                let by = told.link_address.or(source).filter(|by| *by != mac)?;
                self.claimed(told.target.into(), by, index, now)
            }
            _ => None,
        }
    }

    fn has(&self, address: IpAddr, index: u32) -> bool {
        self.held.get(&address).is_some_and(|held| held.ports.contains(&index))
    }

    /// Somebody else says to have an address of ours: whoever listened is told otherwise, but the two do not
    /// go on about it for ever.
    fn claimed(&mut self, address: IpAddr, by: Mac, index: u32, now: Instant) -> Option<Heard> {
        let held = self.held.get_mut(&address)?;
        if held.defended.is_none_or(|last| now >= last + DEFEND) {
            held.defended = Some(now);
            held.next = Some(held.next.map_or(now + HESITATE, |next| next.min(now + HESITATE)));
        }
        Some(Heard::Claimed { address, by, on: self.ports.get(&index)?.name.clone() })
    }
}

impl Held {
    fn announce(&mut self, now: Instant) {
        (self.next, self.until) = (Some(now), Some(now + ANNOUNCE));
    }
}

fn announcements(address: IpAddr, port: u32, mac: Mac) -> Vec<Frame> {
    match address {
        IpAddr::V4(address) => ArpPacket::announcements(address, mac)
            .map(|packet| Frame { port, is_arp: true, to: BROADCAST, bytes: packet.encode().to_vec() })
            .to_vec(),
        IpAddr::V6(address) => {
            let (bytes, to) = ndp::announcement(address, mac);
            vec![Frame { port, is_arp: false, to, bytes }]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn ports(mac: Mac) -> BTreeMap<u32, Port> {
        let port = |name: &str| Port { name: name.to_owned(), mac, networks: Vec::new(), has_master: false };
        [(2, port("eth0")), (3, port("eth1"))].into()
    }

    fn wanted(address: &str, places: &[u32]) -> BTreeMap<IpAddr, BTreeSet<u32>> {
        [(address.parse().unwrap(), places.iter().copied().collect())].into()
    }

    fn speaker(now: Instant) -> Speaker {
        let mut speaker = Speaker::default();
        speaker.set(ports(OURS), &wanted("192.0.2.10", &[2]), now);
        speaker
    }

    fn arp(sender: Ipv4Addr, sender_mac: Mac, target: Ipv4Addr) -> Vec<u8> {
        let target_mac = Mac([0; 6]);
        ArpPacket { operation: Operation::Request, sender_mac, sender, target_mac, target }.encode().to_vec()
    }

    /// How many frames go out until nothing more is due, and how long that takes.
    fn burst(speaker: &mut Speaker, now: Instant) -> (Vec<Frame>, Duration) {
        let (mut frames, mut at) = (Vec::new(), now);
        while let Some(deadline) = speaker.deadline() {
            at = deadline.max(at);
            frames.extend(speaker.due(at));
        }
        (frames, at - now)
    }

    #[test]
    fn who_asks_is_answered_where_the_address_is_and_nowhere_else() {
        let now = Instant::now();
        let mut speaker = speaker(now);
        let asks = arp(CLIENT, THEIRS, ADDRESS);
        let Some(Heard::Asked(frame)) = speaker.arp(2, &asks, now) else { panic!() };
        assert_eq!((frame.port, frame.to), (2, THEIRS));
        assert_eq!(ArpPacket::decode(&frame.bytes).unwrap().sender_mac, OURS);
        assert_eq!(speaker.arp(3, &asks, now), None, "the address is not of this link");
        assert_eq!(speaker.arp(2, &arp(CLIENT, THEIRS, CLIENT), now), None);
        let probe = arp(Ipv4Addr::UNSPECIFIED, THEIRS, ADDRESS);
        assert!(
            matches!(speaker.arp(2, &probe, now), Some(Heard::Asked(_))),
            "who probes learns that it is taken"
        );
        speaker.set(ports(OURS), &BTreeMap::new(), now);
        assert_eq!(speaker.arp(2, &asks, now), None, "not any more");
    }

    #[test]
    fn what_is_taken_over_is_announced_at_once_and_for_five_seconds() {
        let now = Instant::now();
        let mut speaker = speaker(now);
        assert_eq!(speaker.due(now).len(), 2, "in both ways of ARP");
        let (frames, time) = burst(&mut speaker, now);
        assert_eq!((frames.len(), time), (8, REPEAT * 4));
        assert!(frames.iter().all(|frame| frame.to == BROADCAST && frame.port == 2));
        speaker.set(ports(OURS), &wanted("192.0.2.10", &[2]), now + ANNOUNCE);
        assert_eq!(speaker.deadline(), None, "what stays is not announced again");
        speaker.set(ports(OURS), &wanted("2001:db8::10", &[2]), now);
        assert_eq!(speaker.due(now).len(), 1);
    }

    #[test]
    fn another_ethernet_address_another_interface_and_a_link_that_comes_back_are_announced() {
        let now = Instant::now();
        let mut speaker = speaker(now);
        burst(&mut speaker, now);
        speaker.set(ports(THEIRS), &wanted("192.0.2.10", &[2]), now);
        let (frames, _) = burst(&mut speaker, now);
        assert_eq!(ArpPacket::decode(&frames[0].bytes).unwrap().sender_mac, THEIRS);
        speaker.set(ports(THEIRS), &wanted("192.0.2.10", &[2, 3]), now);
        assert_eq!(burst(&mut speaker, now).0.len(), 20);
        // While its link is down an address has no place.
        speaker.set(BTreeMap::new(), &wanted("192.0.2.10", &[]), now);
        assert_eq!(burst(&mut speaker, now).0.len(), 0);
        speaker.set(ports(THEIRS), &wanted("192.0.2.10", &[2]), now);
        assert_eq!(burst(&mut speaker, now).0.len(), 10);
    }

    #[test]
    fn what_others_heard_of_somebody_else_is_put_right() {
        let now = Instant::now();
        let mut speaker = speaker(now);
        burst(&mut speaker, now);
        speaker.announce(&[ADDRESS.into(), CLIENT.into()], now);
        assert_eq!(burst(&mut speaker, now).0.len(), 10);
    }

    #[test]
    fn a_claim_of_somebody_else_is_told_and_answered_but_not_for_ever() {
        let before = Instant::now();
        let mut speaker = speaker(before);
        burst(&mut speaker, before);
        let now = before + ANNOUNCE;
        let claim = arp(ADDRESS, THEIRS, ADDRESS);
        let told = Heard::Claimed { address: ADDRESS.into(), by: THEIRS, on: "eth0".into() };
        assert_eq!(speaker.arp(2, &claim, now), Some(told.clone()));
        assert_eq!(burst(&mut speaker, now).0.len(), 2);
        assert_eq!(speaker.arp(2, &claim, now), Some(told));
        assert_eq!(speaker.deadline(), None, "once in a while");
        speaker.arp(2, &claim, now + DEFEND);
        assert!(speaker.deadline().is_some());
        assert_eq!(speaker.arp(2, &arp(ADDRESS, OURS, ADDRESS), now), None, "our own words");
    }

    #[test]
    fn neighbours_of_ipv6_are_answered_and_heard() {
        let now = Instant::now();
        let address = "2001:db8::10".parse().unwrap();
        let mut speaker = Speaker::default();
        speaker.set(ports(OURS), &wanted("2001:db8::10", &[2]), now);
        burst(&mut speaker, now);
        let claim = ndp::announcement(address, THEIRS).0;
        assert!(matches!(speaker.ndp(2, Some(THEIRS), &claim, now), Some(Heard::Claimed { .. })));
        assert_eq!(speaker.ndp(3, Some(THEIRS), &claim, now), None);
        let own = ndp::announcement(address, OURS).0;
        assert_eq!(speaker.ndp(2, Some(OURS), &own, now), None);
    }
}
