//! The states of a session with one peer (RFC 4271 section 8). Time and events are given, and what is to be
//! done comes back: nothing is sent, read or waited for here.
//!
//! Both ends may connect at once, so that there may be two connections for a moment; of two that came as far
//! as OPEN, one stays (RFC 4271 section 6.8). A pause between two tries begins with a second and doubles up to
//! [`Peer::connect_retry`]: what somebody mended shows within that time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_types::{Family, fnv1a};

use crate::bgp::peer::Peer;
use crate::bgp::session::{Action, Event, Id, Session, Side, State};
use crate::bgp::wire::{self, Capabilities, Dialect, GracefulRestart, Message, Notification, Open};

/// How long an OPEN may take. RFC 4271 (section 8.2.2) suggests four minutes, which nobody wants to watch.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection attempt may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// The first pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A session that lasted so long was a good one: after it, pauses begin anew.
const GOOD: Duration = Duration::from_secs(30);
/// A session that is younger is no remnant of a peer that died since: a second connection is its other half.
const YOUNG: Duration = Duration::from_secs(5);

/// A connection.
#[derive(Debug)]
struct Connection {
    id: Id,
    side: Side,
    state: State,
    /// When it is given up.
    hold_until: Option<Instant>,
    /// When the peer is to hear that we live.
    keepalive_at: Option<Instant>,
    /// Once the peer's OPEN came.
    session: Option<Arc<Session>>,
    since: Instant,
}

/// The session with one peer.
#[derive(Debug)]
pub struct Fsm {
    peer: Arc<Peer>,
    /// At most one that is established, and one in the making from each end.
    connections: Vec<Connection>,
    /// Until when an attempt may take, while there is one.
    connecting: Option<Instant>,
    retry_at: Option<Instant>,
    failures: u32,
    /// Until when an OPEN says that we restarted.
    restarting_until: Instant,
    since: Instant,
    is_stopped: bool,
}

impl Fsm {
    /// Tries to connect at once. `started` is when this program did.
    pub fn new(peer: Arc<Peer>, started: Instant, now: Instant) -> Fsm {
        let restart = Duration::from_secs(peer.restart_time.unwrap_or_default().into());
        Fsm {
            retry_at: (!peer.passive).then_some(now),
            peer,
            connections: Vec::new(),
            connecting: None,
            failures: 0,
            restarting_until: started + restart,
            since: now,
            is_stopped: false,
        }
    }

    /// How far it is, and since when.
    pub fn state(&self) -> (State, Instant) {
        let best = self.connections.iter().map(|connection| (connection.state, connection.since)).max();
        let waiting = if self.connecting.is_some() { State::Connect } else { State::Active };
        best.unwrap_or((waiting, self.since))
    }

    /// What was agreed, while the session is up.
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.established()?.session.as_ref()
    }

    /// How the ends of a connection speak, as far as they agreed.
    pub fn dialect(&self, id: Id) -> Dialect {
        let session = self.connection(id).and_then(|connection| connection.session.as_ref());
        session.map_or_else(Dialect::default, |session| session.dialect)
    }

    /// When time must pass at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let of = |connection: &Connection| [connection.hold_until, connection.keepalive_at];
        let connections = self.connections.iter().flat_map(of);
        connections.chain([self.connecting, self.retry_at]).flatten().min()
    }

    /// Takes an event in.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let to = &mut actions;
        match event {
            Event::Tick => self.tick(now, to),
            Event::Connected(id, side) => self.connected(id, side, now, to),
            Event::NotConnected(why) if self.connecting.take().is_some() => self.failed(why, now, to),
            Event::NotConnected(_) => {}
            Event::Lost(id, why) => self.lost(id, why, now, to),
            Event::Received(id, message) => self.received(id, message, now, to),
            Event::Malformed(id, told) => self.refuse(id, &told, now, to),
            Event::Stop(told) => self.stop(told.as_ref(), to),
        }
        actions
    }

    fn established(&self) -> Option<&Connection> {
        self.connections.iter().find(|connection| connection.state == State::Established)
    }

    fn connection(&self, id: Id) -> Option<&Connection> {
        self.connections.iter().find(|connection| connection.id == id)
    }

    fn connection_mut(&mut self, id: Id) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    fn take(&mut self, id: Id) -> Option<Connection> {
        let place = self.connections.iter().position(|connection| connection.id == id)?;
        Some(self.connections.swap_remove(place))
    }

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let is_past = |moment: Option<Instant>| moment.is_some_and(|moment| moment <= now);
        let silent: Vec<Id> =
            self.connections.iter().filter(|it| is_past(it.hold_until)).map(|it| it.id).collect();
        for id in silent {
            self.refuse(id, &Notification::HOLD_TIMER_EXPIRED, now, actions);
        }
        let own = self.peer.keepalive;
        for connection in self.connections.iter_mut().filter(|it| is_past(it.keepalive_at)) {
            let hold_time = connection.session.as_ref().map(|session| session.hold_time);
            connection.keepalive_at = keepalive_after(own, hold_time.unwrap_or_default(), now);
            actions.push(Action::Send(connection.id, wire::keepalive()));
        }
        if is_past(self.connecting) {
            self.connecting = None;
            actions.push(Action::Cancel);
            let why = format!(
                "nobody answers at its port {}; see that it is up, that no firewall is in between, and that both \
                 ends have the same password, or none",
                self.peer.port
            );
            self.failed(why, now, actions);
        }
        if is_past(self.retry_at) {
            // One that the peer opened may become the session.
            let is_busy = !self.connections.is_empty();
            self.retry_at = is_busy.then(|| now + FIRST_PAUSE);
            if !is_busy {
                self.connecting = Some(now + CONNECT_PATIENCE);
                self.since = now;
                actions.push(Action::Connect);
            }
        }
    }

    fn connected(&mut self, id: Id, side: Side, now: Instant, actions: &mut Vec<Action>) {
        if side == Side::Outgoing && self.connecting.take().is_none() || self.is_stopped {
            actions.push(Action::Close(id));
            return;
        }
        // Who connects again gave the first one up.
        let former = self.connections.iter().find(|it| it.side == side && it.state != State::Established);
        if let Some(former) = former.map(|former| former.id) {
            actions.push(Action::Close(former));
            self.take(former);
        }
        actions.push(Action::Send(id, wire::open(&self.open(now))));
        self.connections.push(Connection {
            id,
            side,
            state: State::OpenSent,
            hold_until: Some(now + OPEN_PATIENCE),
            keepalive_at: None,
            session: None,
            since: now,
        });
    }

    /// Our own OPEN.
    fn open(&self, now: Instant) -> Open {
        let peer = &self.peer;
        let families: BTreeSet<Family> = Family::BOTH.into();
        // What the kernel has stays in it whatever happens to this program.
        let forwarding = families.iter().map(|&family| (family, true)).collect();
        let restart = |seconds| GracefulRestart {
            restarting: now < self.restarting_until,
            seconds,
            families: forwarding,
        };
        let capabilities = Capabilities {
            families,
            route_refresh: true,
            enhanced_refresh: true,
            extended_next_hop: true,
            four_octet_as: true,
            graceful_restart: peer.restart_time.map(restart),
        };
        Open { asn: peer.asn, hold_time: peer.hold_time, router_id: peer.router_id, capabilities }
    }

    fn received(&mut self, id: Id, message: Message, now: Instant, actions: &mut Vec<Action>) {
        let Some(state) = self.connection(id).map(|connection| connection.state) else { return };
        match (state, message) {
            (_, Message::Notification(told)) => {
                actions.push(Action::Close(id));
                match told == Notification::COLLISION && state != State::Established {
                    true => self.forget(id, now),
                    false => self.ended(id, &format!("the peer says: {told}"), None, now, actions),
                }
            }
            (State::OpenSent, Message::Open(open)) => self.opened(id, open, now, actions),
            (State::OpenConfirm, Message::Keepalive) => self.up(id, now, actions),
            (State::Established, Message::Keepalive) => self.heard(id, now),
            (State::Established, Message::Update(update)) => {
                self.heard(id, now);
                actions.push(Action::Routes(update));
            }
            (State::Established, Message::RouteRefresh(asked)) => {
                self.heard(id, now);
                actions.extend(asked.map(|(family, refresh)| Action::Refresh(family, refresh)));
            }
            (State::OpenSent, _) => self.refuse(id, &Notification::unexpected(1), now, actions),
            (State::OpenConfirm, _) => self.refuse(id, &Notification::unexpected(2), now, actions),
            _ => self.refuse(id, &Notification::unexpected(3), now, actions),
        }
    }

    /// The peer's OPEN came.
    fn opened(&mut self, id: Id, open: Open, now: Instant, actions: &mut Vec<Action>) {
        let ours = self.open(now);
        if !self.peer.admits(open.asn) {
            let why = format!("it is of AS {}, not of {}", open.asn, self.peer.remote);
            return self.refuse_for(id, &Notification::BAD_PEER_AS, &why, now, actions);
        }
        // Between systems, identifiers need not differ (RFC 6286 section 2.1).
        if open.router_id == ours.router_id && open.asn == ours.asn {
            let why = format!("it has our own router ID, {}", open.router_id);
            return self.refuse_for(id, &Notification::BAD_IDENTIFIER, &why, now, actions);
        }
        let others: Vec<(Id, State)> = self.connections.iter().map(|it| (it.id, it.state)).collect();
        for (other, state) in others.into_iter().filter(|&(other, _)| other != id) {
            let gives_way = match state {
                State::Established => self.is_replaced(other, id, &open, now),
                State::OpenConfirm => self.loses(other, &open),
                _ => continue,
            };
            if !gives_way {
                actions.push(Action::Send(id, wire::notification(&Notification::COLLISION)));
                actions.push(Action::Close(id));
                return self.forget(id, now);
            }
            self.give_up(other, now, actions);
        }
        let session = Arc::new(Session::new(&ours, open));
        let hold_time = session.hold_time;
        let keepalive_at = keepalive_after(self.peer.keepalive, hold_time, now);
        if let Some(connection) = self.connection_mut(id) {
            connection.state = State::OpenConfirm;
            connection.session = Some(session);
            connection.hold_until = hold_until(hold_time, now);
            connection.keepalive_at = keepalive_at;
        }
        actions.push(Action::Send(id, wire::keepalive()));
    }

    /// Whether an established connection gives way to a new one: the peer restarted, and the old one died
    /// with it (RFC 4724 section 4.2).
    fn is_replaced(&self, old: Id, new: Id, open: &Open, now: Instant) -> bool {
        let (Some(old), Some(new)) = (self.connection(old), self.connection(new)) else { return false };
        let restarts = |open: &Open| open.capabilities.graceful_restart.is_some();
        let did = old.session.as_ref().is_some_and(|session| restarts(&session.open));
        new.side == Side::Incoming && did && restarts(open) && now.duration_since(old.since) >= YOUNG
    }

    /// Whether a connection gives way to one that came equally far: that stays which the end with the higher
    /// identifier opened, or of two with the same one that of the higher system (RFC 4271 section 6.8,
    /// RFC 6286 section 2.3).
    fn loses(&self, other: Id, open: &Open) -> bool {
        let ours_stays = (self.peer.router_id, self.peer.asn) > (open.router_id, open.asn);
        self.connection(other).is_some_and(|other| ours_stays != (other.side == Side::Outgoing))
    }

    /// Another connection takes this one's place.
    fn give_up(&mut self, id: Id, now: Instant, actions: &mut Vec<Action>) {
        let Some(connection) = self.connection(id) else { return };
        if connection.state == State::Established {
            let kept = kept(connection);
            self.ended(id, "the peer connected again", kept, now, actions);
        } else {
            actions.push(Action::Send(id, wire::notification(&Notification::COLLISION)));
            self.take(id);
        }
        actions.push(Action::Close(id));
    }

    fn up(&mut self, id: Id, now: Instant, actions: &mut Vec<Action>) {
        let others: Vec<Id> = self.connections.iter().map(|it| it.id).filter(|&it| it != id).collect();
        for other in others {
            self.give_up(other, now, actions);
        }
        if self.connecting.take().is_some() {
            actions.push(Action::Cancel);
        }
        self.retry_at = None;
        self.restarting_until = now;
        let Some(connection) = self.connection_mut(id) else { return };
        connection.state = State::Established;
        connection.since = now;
        actions.extend(connection.session.clone().map(|session| Action::Up(id, session)));
        self.heard(id, now);
    }

    fn heard(&mut self, id: Id, now: Instant) {
        if let Some(connection) = self.connection_mut(id)
            && let Some(session) = &connection.session
        {
            connection.hold_until = hold_until(session.hold_time, now);
        }
    }

    /// Tells the peer what is wrong, and closes.
    fn refuse(&mut self, id: Id, told: &Notification, now: Instant, actions: &mut Vec<Action>) {
        self.refuse_for(id, told, &format!("it was told: {told}"), now, actions);
    }

    fn refuse_for(
        &mut self,
        id: Id,
        told: &Notification,
        why: &str,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        if self.connection(id).is_some() {
            actions.push(Action::Send(id, wire::notification(told)));
            actions.push(Action::Close(id));
            self.ended(id, why, None, now, actions);
        }
    }

    fn lost(&mut self, id: Id, why: String, now: Instant, actions: &mut Vec<Action>) {
        let Some(connection) = self.connection(id) else { return };
        let why = match connection.state {
            // Routers say no by closing without a word.
            State::OpenSent => format!("{why} before its OPEN; see that it expects {}", self.as_it_sees_us()),
            _ => why,
        };
        let kept = kept(connection);
        actions.push(Action::Close(id));
        self.ended(id, &why, kept, now, actions);
    }

    fn as_it_sees_us(&self) -> String {
        let from = self.peer.source.map(|source| format!(" from {source}")).unwrap_or_default();
        format!("AS {}{from}", self.peer.asn)
    }

    /// A connection is over.
    fn ended(
        &mut self,
        id: Id,
        why: &str,
        kept: Option<GracefulRestart>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(connection) = self.take(id) else { return };
        if connection.state == State::Established {
            if now.duration_since(connection.since) >= GOOD {
                self.failures = 0;
            }
            // Who does not restart gracefully itself keeps nothing for others.
            let kept = kept.filter(|_| self.peer.restart_time.is_some());
            actions.push(Action::Down(why.to_owned(), kept));
            self.retry(now);
        } else {
            self.failed(why.to_owned(), now, actions);
        }
    }

    fn failed(&mut self, why: String, now: Instant, actions: &mut Vec<Action>) {
        actions.push(Action::Failed(why));
        self.retry(now);
    }

    /// A connection is over, and there is no more to say of it.
    fn forget(&mut self, id: Id, now: Instant) {
        self.take(id);
        if self.connections.is_empty() {
            self.retry(now);
        }
    }

    fn retry(&mut self, now: Instant) {
        self.since = now;
        self.failures = self.failures.saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(16));
        let pause = pause.min(self.peer.connect_retry.max(FIRST_PAUSE));
        // RFC 4271 section 10: not all at once, and not both ends at the same time.
        let ends = format!("{}/{}/{}", self.peer.router_id, self.peer.address, self.failures);
        let less = Duration::from_millis(fnv1a(ends.as_bytes()) % 250)
            * (u32::try_from(pause.as_secs()).unwrap_or(u32::MAX)).max(1);
        let may_connect = !self.peer.passive && !self.is_stopped && self.established().is_none();
        self.retry_at = may_connect.then(|| now + pause.saturating_sub(less));
    }

    fn stop(&mut self, told: Option<&Notification>, actions: &mut Vec<Action>) {
        self.is_stopped = true;
        let is_up = self.established().is_some();
        for connection in self.connections.drain(..) {
            actions.extend(told.map(|told| Action::Send(connection.id, wire::notification(told))));
            actions.push(Action::Close(connection.id));
        }
        if self.connecting.take().is_some() {
            actions.push(Action::Cancel);
        }
        self.retry_at = None;
        if is_up {
            actions.push(Action::Down("it was ended here".to_owned(), None));
        }
    }
}

/// How the peer's routes are kept while it restarts.
fn kept(connection: &Connection) -> Option<GracefulRestart> {
    connection.session.as_ref()?.open.capabilities.graceful_restart.clone()
}

/// When the next KEEPALIVE is due: by a third of the hold time at the latest (RFC 4271 section 4.4).
fn keepalive_after(own: Option<u16>, hold_time: u16, now: Instant) -> Option<Instant> {
    let third = (hold_time / 3).max(1);
    let pause = own.map_or(third, |own| own.clamp(1, third));
    (hold_time > 0).then(|| now + Duration::from_secs(pause.into()))
}

fn hold_until(hold_time: u16, now: Instant) -> Option<Instant> {
    (hold_time > 0).then(|| now + Duration::from_secs(hold_time.into()))
}

#[cfg(test)]
mod tests;
