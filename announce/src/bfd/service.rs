//! The thread that keeps the sessions. It runs before ordinary threads where it may, so that a machine that
//! has much to do is not taken for dead, and takes none for dead whose packets wait in its own sockets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{debug, info};
use weft_netlink::realtime::prefer_this_thread;

use super::packet::{ControlPacket, State};
use super::sessions::{Discarded, Effect, Health, Peer, Sessions, Wanted};
use super::socket::{Listeners, Sender, is_refusal};
use crate::waker::{Wakened, Waker, locked, waker};

/// How many datagrams of a socket are read before timers are looked at.
const BATCH: usize = 1024;
/// How long to wait before trying again to have the ports.
const PAUSE: Duration = Duration::from_secs(5);

/// Whoever wants to know of changes. Called within the thread, so it must be quick.
pub type Listener = Box<dyn Fn(Peer, Health) + Send>;

/// The way to the thread. It ends when this is dropped, and tells all peers.
#[derive(Debug)]
pub struct Bfd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What it counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets that were sent.
    pub sent: AtomicU64,
    /// Packets that were for a session.
    pub received: AtomicU64,
    /// Datagrams that were for nobody.
    pub discarded: AtomicU64,
    /// How many times a session that was up went down.
    pub lost: AtomicU64,
}

struct Shared {
    mailbox: Mutex<Mailbox>,
    waker: Waker,
    health: Mutex<BTreeMap<Peer, Health>>,
    problem: Mutex<Option<String>>,
    counters: Counters,
}

#[derive(Default)]
struct Mailbox {
    /// Who wants which peers.
    wanted: BTreeMap<&'static str, BTreeMap<Peer, Wanted>>,
    is_new: bool,
    listeners: Vec<Listener>,
    is_over: bool,
}

impl Bfd {
    /// Starts the thread, for the calling thread's network namespace. Nobody is watched yet.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn start() -> io::Result<Bfd> {
        let (waker, wakened) = waker()?;
        let shared = Arc::new(Shared {
            mailbox: Mutex::default(),
            waker,
            health: Mutex::default(),
            problem: Mutex::default(),
            counters: Counters::default(),
        });
        let thread = Keeper::new(shared.clone());
        let thread = thread::Builder::new().name("bfd".into()).spawn(move || thread.run(&wakened))?;
        Ok(Bfd { shared, thread: Some(thread) })
    }

    /// Watches these peers for that user from now on, besides those that others want. Where two want the same
    /// peer, the times are those of the one whose name comes first.
    pub fn want(&self, user: &'static str, peers: BTreeMap<Peer, Wanted>) {
        let mut mailbox = locked(&self.shared.mailbox);
        if mailbox.wanted.get(user) != Some(&peers) {
            mailbox.wanted.insert(user, peers);
            mailbox.is_new = true;
            self.shared.waker.wake();
        }
    }

    /// Tells this one of each change from now on.
    pub fn listen(&self, listener: Listener) {
        locked(&self.shared.mailbox).listeners.push(listener);
    }

    /// What is known of each peer.
    pub fn health(&self) -> BTreeMap<Peer, Health> {
        locked(&self.shared.health).clone()
    }

    /// Why no peer can be heard.
    pub fn problem(&self) -> Option<String> {
        locked(&self.shared.problem).clone()
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Drop for Bfd {
    fn drop(&mut self) {
        locked(&self.shared.mailbox).is_over = true;
        self.shared.waker.wake();
        // A panic of the thread was told of by itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The thread's own.
struct Keeper {
    shared: Arc<Shared>,
    sessions: Sessions,
    listeners: Option<Listeners>,
    try_again: Instant,
    senders: HashMap<Peer, Sender>,
    /// Those of which others were told that they are up.
    up: HashSet<Peer>,
    random: RandomState,
}

impl Keeper {
    fn new(shared: Arc<Shared>) -> Keeper {
        Keeper {
            shared,
            sessions: Sessions::default(),
            listeners: None,
            try_again: Instant::now(),
            senders: HashMap::new(),
            up: HashSet::new(),
            random: RandomState::new(),
        }
    }

    fn run(mut self, wakened: &Wakened) {
        if let Err(error) = prefer_this_thread() {
            info!(%error, "BFD runs with ordinary priority; on a very busy machine peers may take it for dead");
        }
        loop {
            wakened.clear();
            if self.take_mail() {
                let gone = self.sessions.want(&BTreeMap::new(), Instant::now());
                self.perform(gone);
                return;
            }
            self.listen();
            self.read();
            let due = self.sessions.advance(Instant::now());
            self.perform(due);
            self.wait(wakened);
        }
    }

    /// Returns whether it is over.
    fn take_mail(&mut self) -> bool {
        let (wanted, is_over) = {
            let mut mailbox = locked(&self.shared.mailbox);
            let is_new = std::mem::take(&mut mailbox.is_new);
            let mut wanted = BTreeMap::new();
            for (peer, how) in mailbox.wanted.values().filter(|_| is_new).flatten() {
                wanted.entry(*peer).or_insert(*how);
            }
            (is_new.then_some(wanted), mailbox.is_over)
        };
        if let Some(wanted) = wanted {
            let gone = self.sessions.want(&wanted, Instant::now());
            let peers: Vec<Peer> = gone.iter().map(Effect::peer).collect();
            self.perform(gone);
            for peer in peers {
                self.senders.remove(&peer);
                self.up.remove(&peer);
            }
            self.publish();
        }
        is_over
    }

    fn listen(&mut self) {
        if self.listeners.is_some() || Instant::now() < self.try_again {
            return;
        }
        let opened = Listeners::open();
        self.try_again = Instant::now() + PAUSE;
        *locked(&self.shared.problem) = opened.as_ref().err().cloned();
        self.listeners = opened.ok();
    }

    fn read(&mut self) {
        let Some(listeners) = &self.listeners else { return };
        let (sessions, counters) = (&mut self.sessions, &self.shared.counters);
        let mut effects = Vec::new();
        listeners.read(BATCH, |datagram| match sessions.receive(datagram, Instant::now()) {
            Ok(more) => {
                counters.received.fetch_add(1, Ordering::Relaxed);
                effects.extend(more);
            }
            Err(reason) => {
                counters.discarded.fetch_add(1, Ordering::Relaxed);
                if reason != Discarded::Unknown {
                    debug!(source = %datagram.source, %reason, "a packet of BFD is not looked at");
                }
            }
        });
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(peer, packet) => self.send(peer, &packet),
                Effect::Changed(peer, health) => self.tell(peer, health),
            }
        }
    }

    fn send(&mut self, peer: Peer, packet: &ControlPacket) {
        let bytes = packet.encode();
        let Err(error) = self.sender(peer).and_then(|sender| sender.send(&bytes)) else {
            self.shared.counters.sent.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if !is_refusal(&error) {
            debug!(peer = %peer.address, %error, "cannot send a packet of BFD");
            // The address to send from may be another one by now.
            self.senders.remove(&peer);
            return;
        }
        if let Some(Effect::Changed(peer, health)) = self.sessions.refused(peer, Instant::now()) {
            self.tell(peer, health);
        }
        // The error was that of a packet before this one.
        if self.sender(peer).and_then(|sender| sender.send(&bytes)).is_ok() {
            self.shared.counters.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn sender(&mut self, peer: Peer) -> io::Result<&Sender> {
        if !self.senders.contains_key(&peer) {
            let wanted = self.sessions.wanted(peer).ok_or(io::ErrorKind::NotFound)?;
            let sender = Sender::open(peer, &wanted, self.random.hash_one(peer))?;
            self.senders.insert(peer, sender);
        }
        self.senders.get(&peer).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn tell(&mut self, peer: Peer, health: Health) {
        if health.state == State::Up {
            if self.up.insert(peer) {
                info!(peer = %peer.address, "BFD: the peer is up");
            }
        } else if self.up.remove(&peer) {
            self.shared.counters.lost.fetch_add(1, Ordering::Relaxed);
            info!(peer = %peer.address, reason = %health.diagnostic, "BFD: the peer is down");
        }
        self.publish();
        locked(&self.shared.mailbox).listeners.iter().for_each(|listener| listener(peer, health));
    }

    fn publish(&self) {
        *locked(&self.shared.health) = self.sessions.health();
    }

    fn wait(&self, wakened: &Wakened) {
        let try_again = self.listeners.is_none().then_some(self.try_again);
        let deadline = self.sessions.deadline().into_iter().chain(try_again).min();
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // A millisecond too late is better than turning round for nothing.
        let timeout = timeout.map_or(Ok(PollTimeout::NONE), |left| {
            PollTimeout::try_from(left.as_millis().saturating_add(1).min(60_000) as i32)
        });
        let listeners = self.listeners.iter().flat_map(Listeners::descriptors);
        let mut descriptors: Vec<PollFd<'_>> = [wakened.as_fd()]
            .into_iter()
            .chain(listeners)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // Interrupted or not: everything is looked at.
        let _ = poll(&mut descriptors, timeout.unwrap_or(PollTimeout::ZERO));
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("health", &self.health).finish_non_exhaustive()
    }
}
