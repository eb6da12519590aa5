//! The speaker: one task that has all sessions, listens for peers, and holds what they told. The states are
//! `fsm`'s, the routes `rib`'s, the bytes `transport`'s.

use std::collections::{BTreeMap, HashSet};
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info};
use weft_types::Family;

use crate::bfd::packet::State;
use crate::bfd::service::Listener;
use crate::bfd::sessions::{Health, Peer as Watched};
use crate::bgp::neighbour::Neighbour;
use crate::bgp::peer::{Password, Peer};
use crate::bgp::rib::{self, Announcements, Routes};
use crate::bgp::session::Side;
use crate::bgp::status::Status;
use crate::bgp::transport::{self, Told, What};
use crate::waker::locked;

/// How many words of connections may wait.
const WAITING: usize = 64;
/// How long after a failure to listen it is tried again.
const LISTEN_RETRY: Duration = Duration::from_secs(5);
/// How long nothing more is taken where that fails: there are no descriptors left.
const BREATH: Duration = Duration::from_millis(100);

/// Whom to speak with, and of what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// The peers, each with what is announced to it. Of two with one address the first counts.
    pub peers: Vec<(Peer, Arc<Announcements>)>,
    /// The port to listen at; none to take no connections.
    pub listen: Option<u16>,
}

/// What the speaker knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The best ways to each prefix that was taken.
    pub routes: Arc<Routes>,
    /// All peers that routes are taken from have told all that they had at first.
    pub is_settled: bool,
    /// What is wrong.
    pub problems: Vec<String>,
    /// How many sessions are up.
    pub established: usize,
    /// How many prefixes all peers together were told of.
    pub announced: usize,
}

/// A running speaker. Its sessions end with it, without a word: peers with graceful restart keep the routes.
#[derive(Debug)]
pub struct Speaker {
    wanted: watch::Sender<Wanted>,
    view: watch::Receiver<View>,
    ask: mpsc::Sender<oneshot::Sender<Status>>,
    gone: mpsc::UnboundedSender<IpAddr>,
}

/// To ask a speaker how its sessions are, from anywhere.
#[derive(Clone, Debug)]
pub struct Asker(mpsc::Sender<oneshot::Sender<Status>>);

impl Speaker {
    /// Starts with no peers, in the calling task's runtime. `on_news` is called whenever there is another
    /// [`View`].
    pub fn start(on_news: impl Fn() + Send + 'static) -> Speaker {
        let (wanted, asked) = watch::channel(Wanted::default());
        let (shown, view) = watch::channel(View::default());
        let (ask, questions) = mpsc::channel(WAITING);
        let (gone, missed) = mpsc::unbounded_channel();
        let (told, heard) = mpsc::channel(WAITING);
        let running = Running {
            started: Instant::now(),
            neighbours: BTreeMap::new(),
            listeners: BTreeMap::new(),
            port: None,
            listen_problem: None,
            listen_at: None,
            told,
            shown,
            on_news: Box::new(on_news),
            has_changed: false,
        };
        tokio::spawn(running.run(asked, heard, missed, questions));
        Speaker { wanted, view, ask, gone }
    }

    /// From now on, these peers.
    pub fn set(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|now| {
            let is_new = *now != wanted;
            *now = wanted;
            is_new
        });
    }

    /// What is known.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// What BFD is to tell of peers: sessions with those that are watched end as soon as one that was up is
    /// down. One that its other end stopped on purpose says nothing of the way there (RFC 5882 section 4.2).
    pub fn watcher(&self) -> Listener {
        let (gone, heard) = (self.gone.clone(), Mutex::new(Heard::default()));
        Box::new(move |peer, health| {
            if locked(&heard).is_gone(peer, &health) {
                // A speaker that ended has no sessions.
                let _ = gone.send(peer.address);
            }
        })
    }

    /// To ask for the state of sessions.
    pub fn asker(&self) -> Asker {
        Asker(self.ask.clone())
    }
}

/// The peers that BFD hears.
#[derive(Debug, Default)]
struct Heard(HashSet<Watched>);

impl Heard {
    /// Takes in how a peer is by now. Whether it was there, and is not any more.
    fn is_gone(&mut self, peer: Watched, health: &Health) -> bool {
        match health.state {
            State::Up => {
                self.0.insert(peer);
                false
            }
            _ => self.0.remove(&peer) && health.remote != State::AdminDown,
        }
    }
}

impl Asker {
    /// How sessions and routes are; none where the speaker is no more.
    pub async fn status(&self) -> Option<Status> {
        let (answer, status) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        status.await.ok()
    }
}

struct Running {
    started: Instant,
    neighbours: BTreeMap<IpAddr, Neighbour>,
    listeners: Listeners,
    port: Option<u16>,
    listen_problem: Option<String>,
    listen_at: Option<Instant>,
    told: mpsc::Sender<Told>,
    shown: watch::Sender<View>,
    on_news: Box<dyn Fn() + Send>,
    /// A peer went with its routes.
    has_changed: bool,
}

/// Who listens for each family, and which passwords it has.
type Listeners = BTreeMap<Family, (TcpListener, Vec<(IpAddr, Password)>)>;

impl Running {
    async fn run(
        mut self,
        mut asked: watch::Receiver<Wanted>,
        mut heard: mpsc::Receiver<Told>,
        mut missed: mpsc::UnboundedReceiver<IpAddr>,
        mut questions: mpsc::Receiver<oneshot::Sender<Status>>,
    ) {
        loop {
            tokio::select! {
                changed = asked.changed() => match changed {
                    Ok(()) => {
                        let wanted = asked.borrow_and_update().clone();
                        self.apply(wanted);
                    }
                    Err(_) => return,
                },
                Some(Told { peer, what }) = heard.recv() => self.hear(peer, what),
                Some(peer) = missed.recv() => {
                    if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                        neighbour.gone(Instant::now());
                    }
                }
                (taken, from) = take(&self.listeners) => match taken {
                    Ok(stream) => self.take(stream, from),
                    Err(error) => {
                        debug!("cannot take a connection: {error}");
                        sleep(BREATH).await;
                    }
                },
                Some(answer) = questions.recv() => {
                    // Whoever asked may be gone.
                    let _ = answer.send(self.status());
                    continue;
                }
                () = until(self.deadline()) => self.tick(),
            }
            self.show();
        }
    }

    fn apply(&mut self, wanted: Wanted) {
        let now = Instant::now();
        let mut peers = BTreeMap::new();
        for (peer, announcements) in wanted.peers {
            peers.entry(peer.address).or_insert((Arc::new(peer), announcements));
        }
        let gone: Vec<IpAddr> =
            self.neighbours.keys().filter(|address| !peers.contains_key(address)).copied().collect();
        for mut neighbour in gone.iter().filter_map(|address| self.neighbours.remove(address)) {
            neighbour.dismiss(now);
            self.has_changed = true;
        }
        for (address, (peer, announcements)) in peers {
            let told = &self.told;
            let started = self.started;
            let neighbour = self
                .neighbours
                .entry(address)
                .or_insert_with(|| Neighbour::new(peer.clone(), started, told.clone(), now));
            neighbour.change(peer, announcements, now);
        }
        if self.port != wanted.listen {
            self.port = wanted.listen;
            self.listeners.clear();
        }
        self.listen(now);
    }

    /// Listens, where somebody may come, and has segments signed.
    fn listen(&mut self, now: Instant) {
        self.listen_at = None;
        self.listen_problem = None;
        for family in Family::BOTH {
            let peers = || {
                self.neighbours.values().map(Neighbour::peer).filter(|it| Family::of(it.address) == family)
            };
            let Some(port) = self.port.filter(|_| peers().next().is_some()) else {
                self.listeners.remove(&family);
                continue;
            };
            let secrets: Vec<(IpAddr, Password)> =
                peers().filter_map(|peer| Some((peer.address, peer.password.clone()?))).collect();
            if self.listeners.get(&family).is_some_and(|(_, given)| *given == secrets) {
                continue;
            }
            // One that is there keeps the passwords of peers that are gone.
            self.listeners.remove(&family);
            match listener(family, port, &secrets) {
                Ok(listener) => drop(self.listeners.insert(family, (listener, secrets))),
                Err(problem) => {
                    self.listen_problem = Some(problem);
                    self.listen_at = Some(now + LISTEN_RETRY);
                }
            }
        }
    }

    fn hear(&mut self, peer: IpAddr, what: What) {
        let now = Instant::now();
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        match what {
            What::Connected(Ok(stream)) => neighbour.connected(stream, Side::Outgoing, now),
            What::Connected(Err(why)) => neighbour.not_connected(why, now),
            What::Bytes(id, bytes) => neighbour.received(id, &bytes, now),
            What::Lost(id, why) => neighbour.lost(id, why, now),
        }
    }

    fn take(&mut self, stream: TcpStream, from: SocketAddr) {
        match self.neighbours.get_mut(&from.ip()) {
            Some(neighbour) => neighbour.connected(stream, Side::Incoming, Instant::now()),
            // No word to strangers: whoever scans ports learns nothing.
            None => info!(
                "closed a BGP connection from {}, which is no peer; if it is to be one, configure it with that \
                 address",
                from.ip()
            ),
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.neighbours.values_mut().for_each(|neighbour| neighbour.tick(now));
        if self.listen_at.is_some_and(|at| at <= now) {
            self.listen(now);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.neighbours.values().filter_map(Neighbour::deadline).chain(self.listen_at).min()
    }

    fn show(&mut self) {
        let mut problems: Vec<String> = self.neighbours.values().filter_map(Neighbour::problem).collect();
        // Whom peers must connect to, they must be able to.
        problems.extend(self.listen_problem.clone());
        let importing = || self.neighbours.values().filter(|it| !it.peer().imports.is_empty());
        let routes = match self.has_changed || importing().any(Neighbour::has_changed) {
            true => Arc::new(rib::best(importing().map(Neighbour::source))),
            false if importing().next().is_none() => Arc::default(),
            false => self.shown.borrow().routes.clone(),
        };
        let view = View {
            routes,
            is_settled: importing().all(Neighbour::is_settled),
            problems,
            established: self.neighbours.values().filter(|it| it.is_established()).count(),
            announced: self.neighbours.values().map(Neighbour::announced).sum(),
        };
        self.has_changed = false;
        self.neighbours.values_mut().for_each(Neighbour::seen);
        let problems = view.problems.clone();
        let is_new = self.shown.send_if_modified(|shown| {
            let is_new = *shown != view;
            if shown.problems != problems {
                debug!(?problems, "what is wrong with BGP changed");
            }
            *shown = view;
            is_new
        });
        if is_new {
            (self.on_news)();
        }
    }

    fn status(&self) -> Status {
        let now = Instant::now();
        let mut peers: Vec<_> = self.neighbours.values().map(|neighbour| neighbour.status(now)).collect();
        peers.sort_by(|one, other| one.name.cmp(&other.name));
        Status { node: String::new(), peers, problems: self.listen_problem.clone().into_iter().collect() }
    }
}

fn listener(family: Family, port: u16, secrets: &[(IpAddr, Password)]) -> Result<TcpListener, String> {
    let listener = transport::listen(family, port).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => "another program has it, such as BIRD or FRR".to_owned(),
            _ => error.to_string(),
        };
        format!("BGP peers cannot connect to this node: no listening at TCP port {port} of {family}: {why}")
    })?;
    for (address, password) in secrets {
        transport::sign(&listener, *address, password)?;
    }
    Ok(listener)
}

/// The next connection to any of the listeners.
async fn take(listeners: &Listeners) -> (io::Result<TcpStream>, SocketAddr) {
    let of = |family| async move {
        match listeners.get(&family) {
            Some((listener, _)) => listener.accept().await,
            None => pending().await,
        }
    };
    let taken = tokio::select! {
        taken = of(Family::V4) => taken,
        taken = of(Family::V6) => taken,
    };
    match taken {
        Ok((stream, from)) => (Ok(stream), from),
        Err(error) => (Err(error), SocketAddr::from(([0; 4], 0))),
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bfd::packet::Diagnostic;

    #[test]
    fn a_peer_is_gone_when_bfd_lost_it_and_not_when_its_bfd_ended_on_purpose_or_never_began() {
        let peer = Watched { address: IpAddr::from([192, 0, 2, 1]), interface: None };
        let health = |state, remote| Health {
            state,
            diagnostic: Diagnostic::None,
            remote,
            was_up: true,
            since: Instant::now(),
            detection_time: None,
            refused: None,
        };
        let after = |changes: &[(State, State)]| -> Vec<bool> {
            let mut heard = Heard::default();
            changes.iter().map(|&(state, remote)| heard.is_gone(peer, &health(state, remote))).collect()
        };
        use State::{AdminDown, Down, Init, Up};
        assert_eq!(after(&[(Init, Down), (Up, Up), (Down, Up), (Init, Down)]), [false, false, true, false]);
        assert_eq!(after(&[(Up, Up), (Down, AdminDown)]), [false, false]);
        assert_eq!(after(&[(Down, Down)]), [false]);
    }
}
