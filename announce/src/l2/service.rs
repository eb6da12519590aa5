//! The thread that speaks for this node's addresses. It decides by itself, from the newest plan, what BFD
//! hears and what the kernel has of links: when a node dies, its addresses do not wait for the agent's
//! rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{info, warn};
use weft_netlink::notifications::Source;
use weft_netlink::realtime::prefer_this_thread;
use weft_netlink::rtnl::{Group, Mac, Monitor};
use weft_types::Family;

use super::choose::{Choice, Known, Liveness, choose};
use super::links::Links;
use super::place::place;
use super::plan::Plan;
use super::sockets::Sockets;
use super::speaker::{Heard, Speaker};
use crate::bfd::service::Bfd;
use crate::bfd::session::Timing;
use crate::bfd::sessions::{Health, Peer, Wanted as WantedSession};
use crate::waker::{Wakened, Waker, locked, waker};

/// By this name BFD knows who wants sessions.
const USER: &str = "l2";
/// Links change in flocks, as when a pod starts: what follows the first within this time counts as one.
const GATHER: Duration = Duration::from_millis(20);
/// How often everything is looked at without cause, while there are addresses.
const RECHECK: Duration = Duration::from_secs(1);
/// The time between two packets of BFD, and how many may be lost: a node is dead after 0.9 s of silence.
const INTERVAL: Duration = Duration::from_millis(300);
const MULTIPLIER: u8 = 3;
/// With more than a hundred peers the packets of all together stay as many.
const INTERVAL_PER_PEER: Duration = Duration::from_millis(3);
/// A claim of somebody else is a problem once it is older than this, so that it was no address on its way.
const CLAIM_COUNTS: Duration = Duration::from_secs(2);
/// And until it is older than this.
const CLAIM_ENDS: Duration = Duration::from_secs(120);

/// What the thread goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// This node's name.
    pub node: String,
    /// The addresses by which the other nodes know it.
    pub addresses: Vec<IpAddr>,
    /// Who may have which address.
    pub plan: Plan,
    /// The other nodes.
    pub peers: BTreeMap<Arc<str>, PeerNode>,
    /// The interfaces to answer on, where no advertisement names others; none: those that suit.
    pub interfaces: Option<BTreeSet<String>>,
}

/// Another node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNode {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its Node's condition Ready.
    pub is_ready: bool,
}

/// How things are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Who has each address, as this node sees it; nobody where no candidate is alive.
    pub holders: BTreeMap<IpAddr, Option<Arc<str>>>,
    /// The addresses that this node answers for, with the names of the interfaces.
    pub ours: BTreeMap<IpAddr, Vec<String>>,
    /// What is wrong, with the remedy.
    pub problems: BTreeSet<String>,
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Questions that were answered.
    pub answers: AtomicU64,
    /// Announcements that nobody asked for.
    pub announcements: AtomicU64,
    /// Addresses that were taken over.
    pub takeovers: AtomicU64,
    /// How many times somebody else claimed an address of this node.
    pub claims: AtomicU64,
}

/// The way to the thread. It ends when this is dropped; then nobody answers here any more.
#[derive(Debug)]
pub struct L2 {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    mailbox: Mutex<Mailbox>,
    waker: Waker,
    report: Mutex<Report>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Mailbox {
    wanted: Option<Wanted>,
    is_heard: bool,
    is_over: bool,
}

impl L2 {
    /// Starts the thread, for the calling thread's network namespace. It has no address yet.
    ///
    /// # Errors
    /// Where the kernel gives no notifications, or there is no thread to be had.
    pub fn start(bfd: Arc<Bfd>) -> io::Result<L2> {
        let (waker, wakened) = waker()?;
        let (mailbox, report) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { mailbox, waker, report, counters: Counters::default() });
        let told = shared.clone();
        bfd.listen(Box::new(move |_, _| {
            locked(&told.mailbox).is_heard = true;
            told.waker.wake();
        }));
        let worker = Worker::open(shared.clone(), bfd).map_err(io::Error::other)?;
        let thread = thread::Builder::new().name("l2".into()).spawn(move || worker.run(&wakened))?;
        Ok(L2 { shared, thread: Some(thread) })
    }

    /// Goes by this from now on.
    pub fn set(&self, wanted: Wanted) {
        locked(&self.shared.mailbox).wanted = Some(wanted);
        self.shared.waker.wake();
    }

    /// How things are.
    pub fn report(&self) -> Report {
        locked(&self.shared.report).clone()
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Drop for L2 {
    fn drop(&mut self) {
        locked(&self.shared.mailbox).is_over = true;
        self.shared.waker.wake();
        // A panic of the thread was told of by itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The thread's own.
struct Worker {
    shared: Arc<Shared>,
    bfd: Arc<Bfd>,
    monitor: Monitor,
    links: Links,
    sockets: Sockets,
    speaker: Speaker,
    wanted: Wanted,
    choices: BTreeMap<IpAddr, Choice>,
    /// The peers that were alive when it was decided last.
    alive: BTreeSet<Arc<str>>,
    /// Who else claimed an address, where, and when first.
    claims: BTreeMap<IpAddr, (Mac, String, Instant)>,
    /// When links are to be read again.
    refresh: Option<Instant>,
    decided: Instant,
}

impl Worker {
    fn open(shared: Arc<Shared>, bfd: Arc<Bfd>) -> weft_netlink::Result<Worker> {
        let monitor = Monitor::open(&[Group::Link, Group::Ipv4Address, Group::Ipv6Address])?;
        let now = Instant::now();
        Ok(Worker {
            shared,
            bfd,
            monitor,
            links: Links::open()?,
            sockets: Sockets::default(),
            speaker: Speaker::default(),
            wanted: Wanted::default(),
            choices: BTreeMap::new(),
            alive: BTreeSet::new(),
            claims: BTreeMap::new(),
            refresh: Some(now),
            decided: now,
        })
    }

    fn run(mut self, wakened: &Wakened) {
        if let Err(error) = prefer_this_thread() {
            info!(%error, "load balancer addresses are answered with ordinary priority");
        }
        loop {
            wakened.clear();
            let (is_changed, is_over) = self.take_mail();
            if is_over {
                self.bfd.want(USER, BTreeMap::new());
                return;
            }
            let is_moved = self.follow_links();
            self.read();
            let now = Instant::now();
            let again = self.choices.values().filter_map(|choice| choice.again).min();
            let is_due = again.is_some_and(|again| again <= now)
                || !self.wanted.plan.addresses.is_empty() && self.decided + RECHECK <= now;
            if is_changed || is_moved || is_due {
                self.decide(now);
            }
            self.announce(Instant::now());
            self.wait(wakened);
        }
    }

    /// Returns whether there is something new, and whether it is over.
    fn take_mail(&mut self) -> (bool, bool) {
        let mut mailbox = locked(&self.shared.mailbox);
        let is_heard = std::mem::take(&mut mailbox.is_heard);
        let wanted = mailbox.wanted.take();
        let is_over = mailbox.is_over;
        drop(mailbox);
        let is_new = wanted.as_ref().is_some_and(|wanted| *wanted != self.wanted);
        if let Some(wanted) = wanted {
            self.wanted = wanted;
        }
        (is_heard || is_new, is_over)
    }

    /// Reads links where the kernel told of changes; returns whether something changed.
    fn follow_links(&mut self) -> bool {
        let now = Instant::now();
        // What exactly changed does not matter, nor does it where some of it was not told.
        if !matches!(self.monitor.read(), Ok(events) if events.is_empty()) {
            self.refresh = Some(self.refresh.unwrap_or(now + GATHER));
        }
        if self.refresh.is_none_or(|at| at > now) {
            return false;
        }
        self.refresh = None;
        self.links.read().unwrap_or_else(|error| {
            warn!(%error, "cannot read the links; trying again");
            self.refresh = Some(now + RECHECK);
            false
        })
    }

    fn read(&mut self) {
        let now = Instant::now();
        for heard in self.sockets.read(&mut self.speaker, now) {
            match heard {
                Heard::Asked(frame) => {
                    self.sockets.send(&frame);
                    self.shared.counters.answers.fetch_add(1, Ordering::Relaxed);
                }
                Heard::Claimed { address, by, on } => {
                    self.shared.counters.claims.fetch_add(1, Ordering::Relaxed);
                    let first = match self.claims.get(&address) {
                        Some((before, _, first)) if *before == by && now < *first + CLAIM_ENDS => *first,
                        _ => now,
                    };
                    self.claims.insert(address, (by, on, first));
                }
            }
        }
    }

    fn decide(&mut self, now: Instant) {
        self.decided = now;
        let places = self.places();
        let sessions = self.want_sessions(places.values().any(|places| !places.is_empty()));
        let health = self.bfd.health();
        let liveness = |peer: &PeerNode| match self.path(peer) {
            // The session is about to begin.
            Some((path, _)) if sessions.contains(&path) && !health.contains_key(&path) => {
                Liveness::Unsure(now + GATHER)
            }
            _ => self.known(peer, &health).liveness(now),
        };
        let known: BTreeMap<&Arc<str>, Liveness> =
            self.wanted.peers.iter().map(|(name, peer)| (name, liveness(peer))).collect();
        let alive: BTreeSet<Arc<str>> = known
            .iter()
            .filter(|(_, liveness)| **liveness == Liveness::Alive)
            .map(|(name, _)| Arc::clone(name))
            .collect();
        let liveness = |name: &str| known.get(&Arc::from(name)).copied().unwrap_or(Liveness::Dead);
        let choices = choose(&self.wanted.plan, &self.wanted.node, liveness);
        let ours: BTreeMap<IpAddr, BTreeSet<u32>> = places
            .iter()
            .filter(|(address, _)| choices[*address].is_ours)
            .map(|(address, places)| (*address, places.clone()))
            .collect();
        self.log_moves(&choices);
        self.speaker.set(self.links.ports().clone(), &ours, now);
        // Whoever was dead for this node may have lived on, and taken its addresses meanwhile.
        let back: BTreeSet<Arc<str>> = alive.difference(&self.alive).cloned().collect();
        let disputed = |address: &&IpAddr| {
            let candidates = self.wanted.plan.addresses.get(address);
            candidates.is_some_and(|candidates| candidates.nodes.iter().any(|name| back.contains(name)))
        };
        self.speaker.announce(ours.keys().filter(disputed), now);
        self.claims.retain(|address, (.., first)| ours.contains_key(address) && now < *first + CLAIM_ENDS);
        let mut problems = self.sockets.follow(&self.speaker);
        problems.extend(self.problems(&ours, &health, now));
        (self.choices, self.alive) = (choices, alive);
        self.report(problems);
    }

    /// Where each address of the plan would be answered here.
    fn places(&self) -> BTreeMap<IpAddr, BTreeSet<u32>> {
        let Wanted { plan, interfaces, addresses, .. } = &self.wanted;
        let of = |(address, candidates): (&IpAddr, &super::plan::Candidates)| {
            let named = candidates.interfaces.as_ref().or(interfaces.as_ref());
            (*address, place(*address, self.links.ports(), named, addresses))
        };
        plan.addresses.iter().map(of).collect()
    }

    /// Keeps sessions with all that may have an address that this node may have, too. A node whose interfaces
    /// are down keeps none, by which the others know.
    fn want_sessions(&self, has_places: bool) -> BTreeSet<Peer> {
        let Wanted { plan, node, peers, .. } = &self.wanted;
        let shared = plan.addresses.values().filter(|it| it.nodes.iter().any(|name| **name == **node));
        let names: BTreeSet<&Arc<str>> = shared.flat_map(|it| &it.nodes).filter(|_| has_places).collect();
        let addresses: Vec<(Peer, IpAddr)> =
            names.iter().filter_map(|name| self.path(peers.get(*name)?)).collect();
        let interval = INTERVAL.max(INTERVAL_PER_PEER * u32::try_from(addresses.len()).unwrap_or(u32::MAX));
        let timing =
            Timing { transmit: interval, receive: interval, multiplier: MULTIPLIER, is_passive: false };
        let session = |(peer, local): (Peer, IpAddr)| {
            let is_multihop = !self.links.is_on_link(peer.address);
            (peer, WantedSession { local: Some(local), is_multihop, timing })
        };
        let peers = addresses.iter().map(|(peer, _)| *peer).collect();
        self.bfd.want(USER, addresses.into_iter().map(session).collect());
        peers
    }

    /// The addresses between which a session with a peer is kept: of IPv4 where both have one, so that both
    /// ends mean the same.
    fn path(&self, peer: &PeerNode) -> Option<(Peer, IpAddr)> {
        [Family::V4, Family::V6].into_iter().find_map(|family| {
            let of = |addresses: &[IpAddr]| addresses.iter().copied().find(|it| Family::of(*it) == family);
            let (local, address) = (of(&self.wanted.addresses)?, of(&peer.addresses)?);
            Some((Peer { address, interface: None }, local))
        })
    }

    fn known(&self, peer: &PeerNode, health: &BTreeMap<Peer, Health>) -> Known {
        let health = self.path(peer).and_then(|(peer, _)| health.get(&peer)).copied();
        Known { health, is_ready: peer.is_ready }
    }

    fn log_moves(&self, choices: &BTreeMap<IpAddr, Choice>) {
        for (address, choice) in choices {
            let before = self.choices.get(address).is_some_and(|before| before.is_ours);
            let holder = choice.holder.as_deref().unwrap_or("nobody");
            if choice.is_ours && !before {
                self.shared.counters.takeovers.fetch_add(1, Ordering::Relaxed);
                info!(%address, "this node answers for the load balancer address now");
            } else if before && !choice.is_ours {
                info!(%address, holder, "this node answers for the load balancer address no more");
            }
        }
    }

    fn problems(
        &self,
        ours: &BTreeMap<IpAddr, BTreeSet<u32>>,
        health: &BTreeMap<Peer, Health>,
        now: Instant,
    ) -> Vec<String> {
        let nowhere = ours.iter().filter(|(_, places)| places.is_empty()).map(|(address, _)| {
            format!(
                "no interface of this node is fit to answer for the load balancer address {address}: none that is up has \
                 its network or a name that was given; see --lb-interface"
            )
        });
        let claimed = self.claims.iter().filter(|(_, (.., first))| now >= *first + CLAIM_COUNTS);
        let claimed = claimed.map(|(address, (by, on, _))| {
            format!(
                "{by} on {on} says to have the load balancer address {address}, too: take it from that machine; if it \
                 is another node, allow UDP port {} between nodes",
                weft_types::well_known::port::BFD
            )
        });
        let unheard = self.wanted.peers.iter().filter(|(_, peer)| peer.is_ready).filter_map(|(name, peer)| {
            let known = self.known(peer, health).health?;
            let is_silent = !known.was_up && known.refused.is_none();
            (is_silent && known.since + super::choose::GRACE <= now).then(|| {
                format!(
                    "BFD hears nothing of Node {name}: allow UDP port {} between nodes; until then its death is known \
                     only from its Node",
                    weft_types::well_known::port::BFD
                )
            })
        });
        nowhere.chain(claimed).chain(unheard).chain(self.bfd.problem()).collect()
    }

    fn report(&self, problems: BTreeSet<String>) {
        let name = |index: &u32| Some(self.links.ports().get(index)?.name.clone());
        let placed = self.speaker.held().filter(|(_, places)| !places.is_empty());
        let ours = placed.map(|(address, places)| (address, places.iter().filter_map(name).collect()));
        let holders = self.choices.iter().map(|(address, choice)| (*address, choice.holder.clone()));
        let problems = problems.into_iter().chain(self.wanted.plan.problems.iter().cloned()).collect();
        *locked(&self.shared.report) = Report { holders: holders.collect(), ours: ours.collect(), problems };
    }

    fn announce(&mut self, now: Instant) {
        for frame in self.speaker.due(now) {
            self.sockets.send(&frame);
            self.shared.counters.announcements.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wait(&self, wakened: &Wakened) {
        let again = self.choices.values().filter_map(|choice| choice.again);
        let recheck = (!self.wanted.plan.addresses.is_empty()).then_some(self.decided + RECHECK);
        let deadline = again.chain(recheck).chain(self.refresh).chain(self.speaker.deadline()).min();
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            // A millisecond too late is better than turning round for nothing.
            PollTimeout::try_from(left.saturating_add(1).min(60_000) as i32).unwrap_or(PollTimeout::ZERO)
        });
        let fixed = [wakened.as_fd(), self.monitor.as_fd()];
        let mut descriptors: Vec<PollFd<'_>> = fixed
            .into_iter()
            .chain(self.sockets.descriptors())
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // Interrupted or not: everything is looked at.
        let _ = poll(&mut descriptors, timeout);
    }
}
