//! All sessions of this machine: which of them a datagram is for (RFC 5880, section 6.3; RFC 5881, section
//! 5), and when the next of them wants the time.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::packet::{ControlPacket, Diagnostic, Invalid, State};
use super::session::{Output, Session, Timing};

/// What a packet that crossed no router has left (RFC 5881, section 5).
pub const UNROUTED: u8 = 255;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The index of the interface behind which it is, where its address is of a link.
    pub interface: Option<u32>,
}

/// A session that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The address to send from; the kernel's choice where none is given.
    pub local: Option<IpAddr>,
    /// There may be routers in between.
    pub is_multihop: bool,
    /// The times.
    pub timing: Timing,
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The state of the session.
    pub state: State,
    /// Why it is not up any more.
    pub diagnostic: Diagnostic,
    /// What the other end last said of its own state.
    pub remote: State,
    /// It was up since it is watched.
    pub was_up: bool,
    /// Since when it is watched.
    pub since: Instant,
    /// After what time of silence it is taken for dead, once that is agreed on.
    pub detection_time: Option<Duration>,
    /// When its machine last said that nobody listens there, or the link that there is no such machine.
    pub refused: Option<Instant>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A packet goes out.
    Send(Peer, ControlPacket),
    /// A peer is in another state.
    Changed(Peer, Health),
}

/// A datagram, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Who sent it.
    pub source: IpAddr,
    /// By which interface it came.
    pub interface: u32,
    /// What was left of its hops, where the kernel told that.
    pub hops: Option<u8>,
    /// It came to the port for several hops.
    pub is_multihop: bool,
}

/// Why a datagram is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Discarded {
    /// It is no packet for anybody.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// It crossed a router (RFC 5082), so that anybody may have sent it.
    #[error("it crossed a router")]
    Routed,
    /// It is for no session here.
    #[error("it is for no session here")]
    Unknown,
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    peers: BTreeMap<Peer, Watched>,
    by_discriminator: HashMap<u32, Peer>,
    random: RandomState,
    made: u64,
}

#[derive(Debug)]
struct Watched {
    wanted: Wanted,
    session: Session,
    since: Instant,
    refused: Option<Instant>,
}

impl Sessions {
    /// Watches these peers from now on, and no others. Those that are known keep their sessions unless the
    /// way to them is another.
    pub fn want(&mut self, wanted: &BTreeMap<Peer, Wanted>, now: Instant) -> Vec<Effect> {
        let is_other = |peer: &Peer, watched: &Watched| {
            wanted.get(peer).is_none_or(|wanted| {
                (wanted.local, wanted.is_multihop) != (watched.wanted.local, watched.wanted.is_multihop)
            })
        };
        let gone: Vec<Peer> = self
            .peers
            .iter()
            .filter(|(peer, watched)| is_other(peer, watched))
            .map(|(peer, _)| *peer)
            .collect();
        let last = gone.into_iter().filter_map(|peer| self.remove(peer)).collect();
        for (&peer, &wanted) in wanted {
            let discriminator = self.new_discriminator();
            match self.peers.entry(peer) {
                Entry::Occupied(mut known) => {
                    known.get_mut().wanted = wanted;
                    known.get_mut().session.set_timing(wanted.timing, now);
                }
                Entry::Vacant(place) => {
                    let session = Session::new(wanted.timing, discriminator, now);
                    self.by_discriminator.insert(discriminator, peer);
                    place.insert(Watched { wanted, session, since: now, refused: None });
                }
            }
        }
        last
    }

    /// Takes in a datagram.
    ///
    /// # Errors
    /// Why it is for nobody.
    pub fn receive(&mut self, datagram: &Datagram<'_>, now: Instant) -> Result<Vec<Effect>, Discarded> {
        let packet = ControlPacket::decode(datagram.bytes)?;
        // RFC 5881, section 5. Over several hops it is the address alone that a stranger has to guess.
        if !datagram.is_multihop && datagram.hops != Some(UNROUTED) {
            return Err(Discarded::Routed);
        }
        let from = |interface| Peer { address: datagram.source, interface };
        let by_address = [from(None), from(Some(datagram.interface))];
        let by_address = by_address.into_iter().find(|peer| self.peers.contains_key(peer));
        let peer = match packet.your_discriminator {
            0 => by_address,
            number => self.by_discriminator.get(&number).copied().filter(|peer| Some(*peer) == by_address),
        };
        let peer = peer.ok_or(Discarded::Unknown)?;
        let watched = self.peers.get_mut(&peer).ok_or(Discarded::Unknown)?;
        if watched.wanted.is_multihop != datagram.is_multihop {
            return Err(Discarded::Unknown);
        }
        watched.refused = None;
        let output = watched.session.receive(&packet, now);
        Ok(watched.effects(peer, output))
    }

    /// Does what the time asks for.
    pub fn advance(&mut self, now: Instant) -> Vec<Effect> {
        let is_due = |watched: &Watched| watched.session.deadline().is_some_and(|deadline| deadline <= now);
        let due = self.peers.iter_mut().filter(|(_, watched)| is_due(watched));
        due.flat_map(|(&peer, watched)| {
            let output = watched.session.advance(now);
            watched.effects(peer, output)
        })
        .collect()
    }

    /// When [`Sessions::advance`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.peers.values().filter_map(|watched| watched.session.deadline()).min()
    }

    /// The kernel said that a packet did not get there.
    pub fn refused(&mut self, peer: Peer, now: Instant) -> Option<Effect> {
        let watched = self.peers.get_mut(&peer)?;
        watched.refused = Some(now);
        Some(Effect::Changed(peer, watched.health()))
    }

    /// How the session with a peer is to be kept.
    pub fn wanted(&self, peer: Peer) -> Option<Wanted> {
        self.peers.get(&peer).map(|watched| watched.wanted)
    }

    /// What is known of each peer.
    pub fn health(&self) -> BTreeMap<Peer, Health> {
        self.peers.iter().map(|(peer, watched)| (*peer, watched.health())).collect()
    }

    fn remove(&mut self, peer: Peer) -> Option<Effect> {
        let mut watched = self.peers.remove(&peer)?;
        self.by_discriminator.remove(&watched.session.discriminator());
        Some(Effect::Send(peer, watched.session.shut_down()))
    }

    /// A number that nobody guesses and no session has.
    fn new_discriminator(&mut self) -> u32 {
        loop {
            self.made += 1;
            let number = self.random.hash_one(self.made) as u32;
            if number != 0 && !self.by_discriminator.contains_key(&number) {
                return number;
            }
        }
    }
}

impl Effect {
    /// Whom it is about.
    pub fn peer(&self) -> Peer {
        match self {
            Effect::Send(peer, _) | Effect::Changed(peer, _) => *peer,
        }
    }
}

impl Watched {
    fn health(&self) -> Health {
        Health {
            state: self.session.state(),
            diagnostic: self.session.diagnostic(),
            remote: self.session.remote_state(),
            was_up: self.session.was_up(),
            since: self.since,
            detection_time: self.session.detection_time(),
            refused: self.refused,
        }
    }

    fn effects(&self, peer: Peer, output: Output) -> Vec<Effect> {
        let changed = output.is_changed.then(|| Effect::Changed(peer, self.health()));
        let sent = output.packets.into_iter().map(|packet| Effect::Send(peer, packet));
        sent.chain(changed).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn peer(last: u8) -> Peer {
        Peer { address: IpAddr::from([192, 0, 2, last]), interface: None }
    }

    fn wanted() -> Wanted {
        let timing = Timing { transmit: 300 * MS, receive: 300 * MS, multiplier: 3, is_passive: false };
        Wanted { local: None, is_multihop: false, timing }
    }

    fn sessions(peers: &[Peer], now: Instant) -> Sessions {
        let mut sessions = Sessions::default();
        sessions.want(&peers.iter().map(|peer| (*peer, wanted())).collect(), now);
        sessions
    }

    fn datagram(bytes: &[u8], source: Peer) -> Datagram<'_> {
        Datagram { bytes, source: source.address, interface: 2, hops: Some(255), is_multihop: false }
    }

    fn hello(state: State, mine: u32, yours: u32) -> [u8; 24] {
        let packet = ControlPacket {
            diagnostic: Diagnostic::None,
            state,
            is_poll: false,
            is_final: false,
            is_control_plane_independent: false,
            is_demand: false,
            multiplier: 3,
            my_discriminator: mine,
            your_discriminator: yours,
            desired_min_tx: 300_000,
            required_min_rx: 300_000,
            required_min_echo_rx: 0,
        };
        packet.encode()
    }

    fn state(sessions: &Sessions, peer: Peer) -> State {
        sessions.health()[&peer].state
    }

    /// Brings a session up and gives its number here.
    fn bring_up(sessions: &mut Sessions, peer: Peer, now: Instant) -> u32 {
        let told = sessions.receive(&datagram(&hello(State::Down, 5, 0), peer), now).unwrap();
        let Effect::Send(_, answer) = told[0] else { panic!("{told:?}") };
        let number = answer.my_discriminator;
        sessions.receive(&datagram(&hello(State::Init, 5, number), peer), now).unwrap();
        assert_eq!(state(sessions, peer), State::Up);
        number
    }

    #[test]
    fn a_session_is_found_by_the_address_first_and_by_its_number_then() {
        let now = Instant::now();
        let mut sessions = sessions(&[peer(1), peer(2)], now);
        bring_up(&mut sessions, peer(1), now);
        assert_eq!(state(&sessions, peer(2)), State::Down);
    }

    #[test]
    fn what_crossed_a_router_or_names_another_session_is_not_looked_at() {
        let now = Instant::now();
        let mut sessions = sessions(&[peer(1), peer(2)], now);
        let number = bring_up(&mut sessions, peer(1), now);
        let down = hello(State::Down, 5, number);
        for hops in [Some(254), Some(1), None] {
            let routed = Datagram { hops, ..datagram(&down, peer(1)) };
            assert_eq!(sessions.receive(&routed, now), Err(Discarded::Routed));
        }
        for (bytes, from) in [
            (down, peer(2)),
            (down, peer(9)),
            (hello(State::Down, 5, number.wrapping_add(1)), peer(1)),
            (hello(State::Down, 5, 0), peer(9)),
        ] {
            assert_eq!(sessions.receive(&datagram(&bytes, from), now), Err(Discarded::Unknown));
        }
        let other_port = Datagram { is_multihop: true, ..datagram(&down, peer(1)) };
        assert_eq!(sessions.receive(&other_port, now), Err(Discarded::Unknown));
        assert_eq!(state(&sessions, peer(1)), State::Up, "none of them did any harm");
    }

    #[test]
    fn a_peer_that_is_not_wanted_any_more_is_told_and_others_are_not_touched() {
        let now = Instant::now();
        let mut sessions = sessions(&[peer(1), peer(2)], now);
        bring_up(&mut sessions, peer(1), now);
        bring_up(&mut sessions, peer(2), now);
        let told = sessions.want(&[(peer(2), wanted())].into(), now);
        let [Effect::Send(to, last)] = told[..] else { panic!("{told:?}") };
        assert_eq!((to, last.state, last.diagnostic), (peer(1), State::AdminDown, Diagnostic::AdminDown));
        assert_eq!(sessions.health().keys().collect::<Vec<_>>(), [&peer(2)]);
        assert_eq!(state(&sessions, peer(2)), State::Up);
    }

    #[test]
    fn a_peer_of_a_link_is_told_from_one_of_the_same_address_behind_another() {
        let now = Instant::now();
        let address: IpAddr = "fe80::1".parse().unwrap();
        let of = |interface| Peer { address, interface: Some(interface) };
        let mut sessions = sessions(&[of(2), of(3)], now);
        bring_up(&mut sessions, of(2), now);
        assert_eq!(state(&sessions, of(3)), State::Down);
    }

    #[test]
    fn a_change_is_told_once() {
        let now = Instant::now();
        let mut sessions = sessions(&[peer(1)], now);
        bring_up(&mut sessions, peer(1), now);
        let later = now + 5000 * MS;
        let changes = sessions.advance(later);
        let changed: Vec<State> = changes
            .iter()
            .filter_map(|effect| match effect {
                Effect::Changed(_, health) => Some(health.state),
                Effect::Send(..) => None,
            })
            .collect();
        assert_eq!(changed, [State::Down]);
        assert!(sessions.advance(later).is_empty());
        assert!(sessions.deadline().is_some_and(|deadline| deadline > later));
    }

    proptest! {
        #[test]
        fn no_datagram_of_a_stranger_changes_anything(
            bytes in prop::collection::vec(any::<u8>(), 0..40), last in 1_u8..5, hops in any::<u8>(), your in any::<u32>(),
        ) {
            let now = Instant::now();
            let mut sessions = sessions(&[peer(1)], now);
            let number = bring_up(&mut sessions, peer(1), now);
            prop_assume!(your != number);
            let forged = hello(State::Down, 99, your.max(1));
            for bytes in [&bytes[..], &forged] {
                let source = if bytes.len() == 24 { last } else { last.max(2) };
                let it = Datagram { hops: Some(hops), ..datagram(bytes, peer(source)) };
                let _ = sessions.receive(&it, now);
            }
            prop_assert_eq!(state(&sessions, peer(1)), State::Up);
        }
    }
}
