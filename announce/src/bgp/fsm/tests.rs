//! Sessions with a clock of their own: one end against messages, and two ends against each other.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::bgp::peer::RemoteAs;
use crate::bgp::wire::Update;

fn peer(id: u8, asn: u32, remote: u32) -> Peer {
    let address = IpAddr::from([10, 0, 0, 3 - id]);
    Peer::new(address, RemoteAs::Number(remote), asn, Ipv4Addr::new(10, 0, 0, id))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the other end says first, where it is of AS 65001.
fn open(change: impl FnOnce(&mut Open)) -> Message {
    let router_id = Ipv4Addr::new(10, 0, 0, 2);
    let mut open = Open { asn: 65001, hold_time: 30, router_id, capabilities: Capabilities::default() };
    change(&mut open);
    Message::Open(open)
}

/// One end of AS 65000, and its clock.
struct One {
    fsm: Fsm,
    now: Instant,
}

impl One {
    fn new(change: impl FnOnce(&mut Peer)) -> One {
        let now = Instant::now();
        let mut settings = peer(1, 65000, 65001);
        change(&mut settings);
        One { fsm: Fsm::new(Arc::new(settings), now, now), now }
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.fsm.handle(event, self.now)
    }

    fn after(&mut self, pause: Duration) -> Vec<Action> {
        self.now += pause;
        self.on(Event::Tick)
    }

    /// As far as the session.
    fn established(change: impl FnOnce(&mut Open)) -> One {
        let mut one = One::new(|_| {});
        assert_eq!(one.on(Event::Tick), [Action::Connect]);
        one.on(Event::Connected(1, Side::Outgoing));
        one.on(Event::Received(1, open(change)));
        let up = one.on(Event::Received(1, Message::Keepalive));
        assert!(matches!(up[..], [Action::Up(1, _)]), "{up:?}");
        one
    }
}

/// What the peer is told, where it is told that something is wrong.
fn told(actions: &[Action]) -> Option<Notification> {
    actions.iter().find_map(|action| {
        let Action::Send(_, bytes) = action else { return None };
        match wire::take(&mut bytes.clone(), Dialect::default()) {
            Ok(Some(Message::Notification(told))) => Some(told),
            _ => None,
        }
    })
}

fn downs(actions: &[Action]) -> Vec<&Action> {
    actions.iter().filter(|action| matches!(action, Action::Down(..) | Action::Failed(_))).collect()
}

#[test]
fn a_session_comes_up_and_lives_by_keepalives() {
    let mut one = One::established(|_| {});
    let session = one.fsm.session().unwrap().clone();
    assert_eq!((session.hold_time, session.dialect.is_external), (30, true));
    assert_eq!(session.families, [Family::V4].into(), "who says nothing speaks of IPv4");
    for _ in 0..5 {
        let actions = one.after(seconds(10));
        assert_eq!(actions, [Action::Send(1, wire::keepalive())]);
        one.on(Event::Received(1, Message::Keepalive));
    }
    let silence: Vec<Action> = (0..3).flat_map(|_| one.after(seconds(10))).collect();
    assert_eq!(told(&silence), Some(Notification::HOLD_TIMER_EXPIRED));
    assert!(silence.iter().any(|action| matches!(action, Action::Down(_, None))), "{silence:?}");
    assert_eq!(one.fsm.state().0, State::Active);
}

#[test]
fn a_hold_time_of_zero_means_for_ever() {
    let mut one = One::established(|open| open.hold_time = 0);
    assert_eq!((one.fsm.deadline(), one.after(seconds(100_000))), (None, vec![]));
}

#[test]
fn who_is_not_the_peer_is_refused_by_name() {
    for (change, code, words) in [
        (&(|open: &mut Open| open.asn = 65009) as &dyn Fn(&mut Open), Notification::BAD_PEER_AS, "65009"),
        (
            &|open: &mut Open| (open.asn, open.router_id) = (65000, Ipv4Addr::new(10, 0, 0, 1)),
            Notification::BAD_IDENTIFIER,
            "router ID",
        ),
    ] {
        let mut one = One::new(|peer| {
            if code == Notification::BAD_IDENTIFIER {
                peer.remote = RemoteAs::Internal;
            }
        });
        one.on(Event::Tick);
        one.on(Event::Connected(1, Side::Outgoing));
        let actions = one.on(Event::Received(1, open(change)));
        assert_eq!(told(&actions), Some(code));
        assert!(actions.contains(&Action::Close(1)));
        assert!(matches!(downs(&actions)[..], [Action::Failed(why)] if why.contains(words)), "{actions:?}");
    }
}

#[test]
fn what_has_no_place_ends_the_session() {
    for (messages, code) in [
        (vec![Message::Keepalive], Notification::unexpected(1)),
        (vec![open(|_| {}), Message::Update(Update::default())], Notification::unexpected(2)),
        (vec![open(|_| {}), Message::Keepalive, open(|_| {})], Notification::unexpected(3)),
    ] {
        let mut one = One::new(|_| {});
        one.on(Event::Tick);
        one.on(Event::Connected(1, Side::Outgoing));
        let actions: Vec<Action> =
            messages.into_iter().flat_map(|message| one.on(Event::Received(1, message))).collect();
        assert_eq!(told(&actions), Some(code));
        assert_eq!(downs(&actions).len(), 1);
    }
}

#[test]
fn pauses_between_tries_grow_up_to_the_longest() {
    let mut one = One::new(|peer| peer.connect_retry = seconds(8));
    let mut pauses = Vec::new();
    for _ in 0..6 {
        assert!(one.on(Event::Tick).contains(&Action::Connect));
        one.on(Event::NotConnected("refused".to_owned()));
        let pause = one.fsm.deadline().unwrap() - one.now;
        one.now += pause;
        pauses.push(pause.as_millis());
    }
    let expected = [1000, 2000, 4000, 8000, 8000, 8000];
    for (pause, longest) in pauses.iter().zip(expected) {
        assert!((longest * 3 / 4..=longest).contains(pause), "{pauses:?}");
    }
}

#[test]
fn a_passive_end_waits_for_the_other() {
    let mut one = One::new(|peer| peer.passive = true);
    assert_eq!((one.fsm.deadline(), one.after(seconds(1000))), (None, vec![]));
    one.on(Event::Connected(1, Side::Incoming));
    one.on(Event::Received(1, open(|_| {})));
    assert!(matches!(one.on(Event::Received(1, Message::Keepalive))[..], [Action::Up(1, _)]));
    one.on(Event::Lost(1, "gone".to_owned()));
    assert_eq!(one.fsm.deadline(), None);
}

#[test]
fn nobody_who_is_silent_is_waited_for_long() {
    let mut one = One::new(|_| {});
    one.on(Event::Tick);
    let late = one.after(CONNECT_PATIENCE);
    assert_eq!((&late[0], downs(&late).len()), (&Action::Cancel, 1));
    one.on(Event::Connected(1, Side::Incoming));
    let late = one.after(OPEN_PATIENCE);
    assert_eq!(told(&late), Some(Notification::HOLD_TIMER_EXPIRED));
}

#[test]
fn a_peer_that_restarts_gracefully_has_its_routes_kept_unless_it_says_goodbye() {
    let graceful = |open: &mut Open| {
        let families = [(Family::V4, true)].into();
        let restart = GracefulRestart { restarting: false, seconds: 60, families };
        open.capabilities.graceful_restart = Some(restart);
    };
    let kept = |actions: &[Action]| matches!(downs(actions)[..], [Action::Down(_, Some(_))]);
    assert!(kept(&One::established(graceful).on(Event::Lost(1, "reset".to_owned()))));
    let goodbye = Message::Notification(Notification::shutdown("maintenance"));
    assert!(!kept(&One::established(graceful).on(Event::Received(1, goodbye))));
    assert!(!kept(&One::established(|_| {}).on(Event::Lost(1, "reset".to_owned()))));

    // Its old connection died with it, without a word.
    let mut one = One::established(graceful);
    one.now += seconds(10);
    one.on(Event::Connected(2, Side::Incoming));
    let actions = one.on(Event::Received(2, open(graceful)));
    assert!(kept(&actions) && actions.contains(&Action::Close(1)), "{actions:?}");
    assert!(matches!(one.on(Event::Received(2, Message::Keepalive))[..], [Action::Up(2, _)]));
}

#[test]
fn an_end_without_graceful_restart_sticks_to_its_session() {
    let mut one = One::established(|_| {});
    one.now += seconds(10);
    one.on(Event::Connected(2, Side::Incoming));
    let actions = one.on(Event::Received(2, open(|_| {})));
    assert_eq!((told(&actions), downs(&actions).len()), (Some(Notification::COLLISION), 0));
    assert_eq!(one.fsm.state().0, State::Established);
}

#[test]
fn an_open_says_that_we_restarted_until_the_first_session() {
    let said = |one: &mut One, id| {
        let actions = one.on(Event::Connected(id, Side::Incoming));
        let Some(Action::Send(_, bytes)) = actions.into_iter().last() else { panic!("no OPEN") };
        let Ok(Some(Message::Open(open))) = wire::take(&mut bytes.clone(), Dialect::default()) else {
            panic!()
        };
        open.capabilities.graceful_restart.unwrap().restarting
    };
    let mut one = One::new(|peer| peer.passive = true);
    assert!(said(&mut one, 1));
    one.on(Event::Received(1, open(|_| {})));
    one.on(Event::Received(1, Message::Keepalive));
    one.on(Event::Lost(1, "reset".to_owned()));
    assert!(!said(&mut one, 2));
}

#[test]
fn a_session_ends_with_words_or_without() {
    let mut one = One::established(|_| {});
    let actions = one.on(Event::Stop(Some(Notification::DECONFIGURED)));
    assert_eq!((told(&actions), one.fsm.deadline()), (Some(Notification::DECONFIGURED), None));
    assert_eq!(one.on(Event::Connected(7, Side::Incoming)), [Action::Close(7)]);
    let actions = One::established(|_| {}).on(Event::Stop(None));
    assert_eq!(told(&actions), None);
}

/// Two ends, and what is under way between them, in order for each connection and direction.
struct Two {
    ends: [Fsm; 2],
    now: Instant,
    /// By connection and the end that receives.
    wires: Vec<(Id, usize, Vec<u8>)>,
    next: Id,
    up: [Option<Id>; 2],
}

impl Two {
    fn new() -> Two {
        let now = Instant::now();
        let end = |id, asn, remote| Fsm::new(Arc::new(peer(id, asn, remote)), now, now);
        Two {
            ends: [end(1, 65000, 65001), end(2, 65001, 65000)],
            now,
            wires: Vec::new(),
            next: 1,
            up: [None; 2],
        }
    }

    fn act(&mut self, end: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Connect => {
                    let id = self.next;
                    self.next += 1;
                    let theirs = self.ends[1 - end].handle(Event::Connected(id, Side::Incoming), self.now);
                    let ours = self.ends[end].handle(Event::Connected(id, Side::Outgoing), self.now);
                    self.act(1 - end, theirs);
                    self.act(end, ours);
                }
                Action::Send(id, bytes) => self.wires.push((id, 1 - end, bytes)),
                // The other end reads what is under way, and then the end.
                Action::Close(id) => self.wires.push((id, 1 - end, Vec::new())),
                Action::Up(id, _) => self.up[end] = Some(id),
                Action::Down(..) => self.up[end] = None,
                _ => {}
            }
        }
    }

    /// Delivers one of the things that can be delivered now.
    fn deliver(&mut self, pick: usize) -> bool {
        let first = |place: &usize| {
            let (id, end, _) = self.wires[*place];
            !self.wires[..*place].iter().any(|(other, to, _)| (*other, *to) == (id, end))
        };
        let fronts: Vec<usize> = (0..self.wires.len()).filter(first).collect();
        let Some(&place) = fronts.get(pick % fronts.len().max(1)) else { return false };
        let (id, end, mut bytes) = self.wires.remove(place);
        let event = match wire::take(&mut bytes, Dialect::default()) {
            Ok(Some(message)) => Event::Received(id, message),
            _ => Event::Lost(id, "closed".to_owned()),
        };
        let actions = self.ends[end].handle(event, self.now);
        self.act(end, actions);
        true
    }

    fn tick(&mut self) {
        let next = self.ends.iter().filter_map(Fsm::deadline).min();
        self.now = self.now.max(next.unwrap_or(self.now));
        for end in 0..2 {
            let actions = self.ends[end].handle(Event::Tick, self.now);
            self.act(end, actions);
        }
    }
}

proptest! {
    /// Whatever comes first, and even where connections break, two ends agree on one connection.
    #[test]
    fn two_ends_come_to_one_session(picks in prop::collection::vec((any::<usize>(), 0u8..12), 0..120)) {
        let mut two = Two::new();
        for (pick, kind) in picks {
            match kind {
                0 => two.tick(),
                1 if !two.wires.is_empty() => {
                    let (id, ..) = two.wires[pick % two.wires.len()];
                    two.wires.retain(|(other, ..)| *other != id);
                    for end in 0..2 {
                        let actions = two.ends[end].handle(Event::Lost(id, "broken".to_owned()), two.now);
                        two.act(end, actions);
                    }
                }
                _ => drop(two.deliver(pick)),
            }
        }
        for _ in 0..60 {
            while two.deliver(0) {}
            if two.up[0].is_some() && two.up[0] == two.up[1] {
                break;
            }
            two.tick();
        }
        prop_assert!(two.up[0].is_some(), "no session: {:?}", two.ends);
        prop_assert_eq!(two.up[0], two.up[1]);
        for end in &two.ends {
            prop_assert_eq!((end.state().0, end.connections.len()), (State::Established, 1));
        }
    }
}
