//! One peer in the speaker: its session, its connections, what it was told and what it told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{info, warn};
use weft_types::Family;

use crate::bgp::fsm::Fsm;
use crate::bgp::peer::Peer;
use crate::bgp::rib::{AdjIn, AdjOut, Announcements, Path, Source};
use crate::bgp::session::{Action, Event, Id, Session, Side, State};
use crate::bgp::status::{PeerStatus, RouteStatus, SessionStatus};
use crate::bgp::transport::{self, Told, What};
use crate::bgp::wire::{self, Attributes, Notification, Refresh};

/// One peer.
pub(super) struct Neighbour {
    peer: Arc<Peer>,
    fsm: Fsm,
    started: Instant,
    told: mpsc::Sender<Told>,
    connections: BTreeMap<Id, Connection>,
    connecting: Option<AbortHandle>,
    next: Id,
    /// The connection that the session uses.
    up: Option<Id>,
    announcements: Arc<Announcements>,
    out: AdjOut,
    taken: AdjIn,
    has_changed: bool,
    downs: u64,
    /// Why the session is not up, or was not the last time.
    problem: Option<String>,
}

struct Connection {
    orders: mpsc::UnboundedSender<Vec<u8>>,
    /// Our end.
    local: IpAddr,
    /// What came and is no whole message yet.
    received: Vec<u8>,
}

impl Neighbour {
    /// Begins to connect at the next tick. `started` is when this program did.
    pub(super) fn new(
        peer: Arc<Peer>,
        started: Instant,
        told: mpsc::Sender<Told>,
        now: Instant,
    ) -> Neighbour {
        Neighbour {
            fsm: Fsm::new(peer.clone(), started, now),
            peer,
            started,
            told,
            connections: BTreeMap::new(),
            connecting: None,
            next: 1,
            up: None,
            announcements: Arc::default(),
            out: AdjOut::default(),
            taken: AdjIn::default(),
            has_changed: false,
            downs: 0,
            problem: None,
        }
    }

    /// Its settings.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Other settings, and other routes. The session goes on where it can.
    pub(super) fn change(&mut self, peer: Arc<Peer>, announcements: Arc<Announcements>, now: Instant) {
        if !peer.is_same_session(&self.peer) {
            info!("BGP peer {peer}: its settings changed, so the session begins anew");
            self.handle(Event::Stop(Some(Notification::OTHER_CONFIGURATION)), now);
            self.fsm = Fsm::new(peer.clone(), self.started, now);
        } else if peer.imports != self.peer.imports {
            self.taken.filter(&peer);
            self.has_changed = true;
            self.ask_again();
        }
        self.peer = peer;
        self.announcements = announcements;
        self.sync();
    }

    /// It is no peer any more.
    pub(super) fn dismiss(&mut self, now: Instant) {
        info!("BGP peer {}: it is none any more", self.peer);
        self.handle(Event::Stop(Some(Notification::DECONFIGURED)), now);
    }

    /// A connection was made.
    pub(super) fn connected(&mut self, stream: TcpStream, side: Side, now: Instant) {
        if side == Side::Outgoing {
            self.connecting = None;
        }
        let set = match side {
            Side::Outgoing => Ok(()),
            Side::Incoming => transport::keep_near(&stream, &self.peer),
        };
        let local = stream.local_addr().map_err(|error| error.to_string());
        let local = match set.and(local) {
            Ok(local) => local.ip(),
            Err(why) => return self.not_connected(why, now),
        };
        let id = self.next;
        self.next += 1;
        let (orders, ordered) = mpsc::unbounded_channel();
        self.connections.insert(id, Connection { orders, local, received: Vec::new() });
        tokio::spawn(transport::serve(stream, self.peer.address, id, ordered, self.told.clone()));
        self.handle(Event::Connected(id, side), now);
    }

    /// An attempt came to nothing.
    pub(super) fn not_connected(&mut self, why: String, now: Instant) {
        self.connecting = None;
        self.handle(Event::NotConnected(why), now);
    }

    /// Bytes came.
    pub(super) fn received(&mut self, id: Id, bytes: &[u8], now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.received.extend(bytes);
        // Whatever a message leads to may close the connection.
        while let Some(connection) = self.connections.get_mut(&id) {
            let dialect = self.fsm.dialect(id);
            match wire::take(&mut connection.received, dialect) {
                Ok(None) => break,
                Ok(Some(message)) => self.handle(Event::Received(id, message), now),
                Err(told) => self.handle(Event::Malformed(id, told), now),
            }
        }
    }

    /// A connection is no more.
    pub(super) fn lost(&mut self, id: Id, why: String, now: Instant) {
        if self.connections.contains_key(&id) {
            self.handle(Event::Lost(id, why), now);
        }
    }

    /// BFD says that it is gone: no need to wait for the hold time.
    pub(super) fn gone(&mut self, now: Instant) {
        if let Some(id) = self.up.filter(|_| self.peer.is_watched) {
            self.handle(Event::Malformed(id, Notification::BFD_DOWN), now);
        }
    }

    /// Time passed.
    pub(super) fn tick(&mut self, now: Instant) {
        self.has_changed |= self.taken.tick(now);
        self.handle(Event::Tick, now);
    }

    /// When time must pass at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.fsm.deadline().into_iter().chain(self.taken.deadline()).min()
    }

    fn handle(&mut self, event: Event, now: Instant) {
        for action in self.fsm.handle(event, now) {
            self.act(action, now);
        }
    }

    fn act(&mut self, action: Action, now: Instant) {
        match action {
            Action::Connect => {
                let (peer, told) = (self.peer.clone(), self.told.clone());
                let connecting = tokio::spawn(async move {
                    let what = What::Connected(transport::connect(&peer).await);
                    // Whoever does not listen is about to end.
                    let _ = told.send(Told { peer: peer.address, what }).await;
                });
                self.connecting = Some(connecting.abort_handle());
            }
            Action::Cancel => {
                if let Some(connecting) = self.connecting.take() {
                    connecting.abort();
                }
            }
            Action::Send(id, bytes) => self.send(id, bytes),
            Action::Close(id) => drop(self.connections.remove(&id)),
            Action::Up(id, session) => self.up(id, &session, now),
            Action::Down(why, kept) => {
                let kept_for = kept.as_ref().map(|it| format!("; its routes are kept for {} s", it.seconds));
                let kept_for = kept_for.filter(|_| !self.taken.paths().is_empty()).unwrap_or_default();
                warn!("BGP peer {}: the session is down: {why}{kept_for}", self.peer);
                self.up = None;
                self.downs += 1;
                self.problem = Some(why);
                self.taken.down(kept.as_ref(), now);
                self.has_changed = true;
            }
            Action::Failed(why) => {
                if self.problem.as_ref() != Some(&why) {
                    warn!("BGP peer {}: no session: {why}; trying on", self.peer);
                }
                self.problem = Some(why);
            }
            Action::Routes(update) => {
                for fault in &update.faults {
                    warn!("BGP peer {}: some of its routes are ignored: {fault}", self.peer);
                }
                self.has_changed = true;
                if self.taken.update(update, &self.peer).is_err()
                    && let Some(id) = self.up
                {
                    self.handle(Event::Malformed(id, Notification::TOO_MANY_PREFIXES), now);
                }
            }
            Action::Refresh(family, Refresh::Request) => {
                let session = self.fsm.session().cloned();
                if let (Some(session), Some(id)) = (session, self.up) {
                    self.send(id, self.out.refresh(family, &session));
                }
            }
            Action::Refresh(family, Refresh::Begin) => self.taken.refresh_begins(family, now),
            Action::Refresh(family, Refresh::End) => {
                self.has_changed = true;
                self.taken.refresh_ends(family);
            }
        }
    }

    fn up(&mut self, id: Id, session: &Session, now: Instant) {
        let families: Vec<String> = session.families.iter().map(Family::to_string).collect();
        let (asn, hold) = (session.open.asn, session.hold_time);
        info!("BGP peer {}: up with AS {asn}, {}, hold time {hold} s", self.peer, families.join(" and "));
        self.problem = None;
        self.up = Some(id);
        self.out = AdjOut::default();
        self.taken.up(session, now);
        self.has_changed = true;
        self.sync();
    }

    /// Tells the peer what it has not been told yet.
    fn sync(&mut self) {
        let (Some(id), Some(session)) = (self.up, self.fsm.session().cloned()) else { return };
        let Some(local) = self.connections.get(&id).map(|connection| connection.local) else { return };
        let bytes = self.out.sync(&self.announcements, &self.peer, &session, local);
        if !bytes.is_empty() {
            self.send(id, bytes);
        }
    }

    /// Asks for all routes once more: what was not taken may be now.
    fn ask_again(&mut self) {
        let Some(session) = self.fsm.session().filter(|it| it.open.capabilities.route_refresh) else {
            return;
        };
        let asked = session.families.iter().flat_map(|&it| wire::route_refresh(it, Refresh::Request));
        let asked: Vec<u8> = asked.collect();
        if let Some(id) = self.up {
            self.send(id, asked);
        }
    }

    fn send(&self, id: Id, bytes: Vec<u8>) {
        if let Some(connection) = self.connections.get(&id) {
            // A task that ended tells so itself.
            let _ = connection.orders.send(bytes);
        }
    }

    /// What to tell people: nothing of a session that is only about to come up.
    pub(super) fn problem(&self) -> Option<String> {
        let problem = self.problem.as_ref().filter(|_| self.up.is_none())?;
        Some(format!("no BGP session with peer {}: {problem}", self.peer))
    }

    /// Its routes.
    pub(super) fn source(&self) -> Source<'_> {
        let is_external = self.fsm.session().map_or(self.peer.is_external(), |it| it.dialect.is_external);
        (&self.peer, &self.taken, is_external)
    }

    /// Whether it has told all that it had at first. One that does not say so is believed at once.
    pub(super) fn is_settled(&self) -> bool {
        self.fsm.session().is_some_and(|session| {
            let all: &BTreeSet<Family> = &session.families;
            session.open.capabilities.graceful_restart.is_none() || all.is_subset(self.taken.ended())
        })
    }

    /// Whether its routes are not those that were seen.
    pub(super) fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// Its routes were seen.
    pub(super) fn seen(&mut self) {
        self.has_changed = false;
    }

    /// Whether the session is up.
    pub(super) fn is_established(&self) -> bool {
        self.up.is_some()
    }

    /// How many prefixes it was told of.
    pub(super) fn announced(&self) -> usize {
        if self.up.is_some() { self.out.routes().count() } else { 0 }
    }

    /// How it is.
    pub(super) fn status(&self, now: Instant) -> PeerStatus {
        let (state, since) = self.fsm.state();
        let session = self.fsm.session();
        let restart_time =
            |session: &Session| session.open.capabilities.graceful_restart.as_ref().map(|it| it.seconds);
        let is_up = state == State::Established;
        let announced = self.out.routes().filter(|_| is_up);
        PeerStatus {
            name: self.peer.name.clone(),
            address: self.peer.address,
            asn: self.peer.asn,
            router_id: self.peer.router_id,
            remote: session.map_or_else(|| self.peer.remote.to_string(), |it| format!("AS {}", it.open.asn)),
            state: state.to_string(),
            seconds: now.saturating_duration_since(since).as_secs(),
            downs: self.downs,
            problem: self.problem.clone().filter(|_| !is_up),
            session: session.map(|session| SessionStatus {
                router_id: session.open.router_id,
                hold_time: session.hold_time,
                families: session.families.iter().map(Family::to_string).collect(),
                restart_time: restart_time(session),
            }),
            announced: announced.map(|(prefix, hop, all)| route(*prefix, *hop, all, false)).collect(),
            received: self.taken.paths().iter().map(|(prefix, path)| received(*prefix, path)).collect(),
            refused: self.taken.refused(),
        }
    }
}

fn received(prefix: weft_types::IpNetwork, path: &Path) -> RouteStatus {
    route(prefix, path.next_hop, &path.attributes, path.is_stale)
}

fn route(prefix: weft_types::IpNetwork, next_hop: IpAddr, all: &Attributes, stale: bool) -> RouteStatus {
    let path: Vec<String> = all.as_path.iter().map(ToString::to_string).collect();
    let communities = all.communities.iter().map(ToString::to_string);
    RouteStatus {
        prefix,
        next_hop,
        path: path.join(" "),
        local_pref: all.local_pref,
        med: all.med,
        communities: communities.chain(all.large_communities.iter().map(ToString::to_string)).collect(),
        stale,
    }
}
