//! Trying the direct paths to other nodes, beside everything else. What follows from it is decided in `plan`.

pub mod plan;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};
use weft_types::IpNetwork;

use crate::routing::probe::plan::{DirectPath, Due, Outcome, PORT, PathStates, Probe, ProbeSchedule};
use crate::subsystem::Wake;

/// How long an answer may take, between nodes of one network.
const PATIENCE: Duration = Duration::from_millis(700);
/// How long a new node has to answer before packets to its pods go through the tunnel. Until then none do.
const FIRST_CONTACT: Duration = Duration::from_millis(600);
/// How long one of the tries within that time may take: its agent may come up at any moment of it.
const BRIEF: Duration = Duration::from_millis(150);
/// The pause between them where one ends at once.
const BREATH: Duration = Duration::from_millis(20);
/// When there is nothing to try.
const IDLE: Duration = Duration::from_secs(3600);

/// The paths that are to be tried, and the ranges to which some way leads without.
type Asked = (Vec<Probe>, BTreeSet<IpNetwork>);

/// The paths that are to be tried, and what is known of them.
#[derive(Debug)]
pub(crate) struct Prober {
    wanted: watch::Sender<Asked>,
    path_states: watch::Receiver<PathStates>,
}

impl Prober {
    /// Starts in the background, for as long as the runtime lasts. The `assumed` paths are in use already; to
    /// the `held` ranges some way leads. Asks for a round when something else is known.
    pub(crate) fn start(assumed: BTreeSet<DirectPath>, held: BTreeSet<IpNetwork>, wake: Wake) -> Prober {
        let schedule = ProbeSchedule::new(assumed, held);
        let (wanted, asked) = watch::channel(Asked::default());
        let (told, path_states) = watch::channel(schedule.path_states());
        tokio::spawn(run(schedule, asked, told, wake));
        Prober { wanted, path_states }
    }

    /// Has these paths tried, and no others. To the `held` ranges some way leads without.
    pub(crate) fn watch(&self, probes: &[Probe], held: BTreeSet<IpNetwork>) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted.0 != probes || wanted.1 != held;
            if is_new {
                *wanted = (probes.to_vec(), held);
            }
            is_new
        });
    }

    /// What is known.
    pub(crate) fn path_states(&self) -> PathStates {
        self.path_states.borrow().clone()
    }
}

async fn run(
    mut schedule: ProbeSchedule,
    mut asked: watch::Receiver<Asked>,
    told: watch::Sender<PathStates>,
    wake: Wake,
) {
    let mut running = JoinSet::new();
    loop {
        let next = schedule.next().unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            changed = asked.changed() => match changed {
                Ok(()) => {
                    let (probes, held) = asked.borrow_and_update().clone();
                    schedule.watch(&probes, held, Instant::now());
                }
                Err(_) => return,
            },
            () = sleep_until(next.into()) => {}
            Some(Ok((path, outcome))) = running.join_next() => schedule.note(path, outcome, Instant::now()),
        }
        for Due { probe, is_first_contact } in schedule.due(Instant::now()) {
            running.spawn(async move {
                let outcome =
                    if is_first_contact { first_contact(probe).await } else { attempt(probe).await };
                (probe.path, outcome)
            });
        }
        let known = schedule.path_states();
        // Where a way leads without a probe is known from the plan, so that no round need follow.
        let is_news = told.borrow().differs(&known);
        told.send_replace(known);
        if is_news {
            wake.wake();
        }
    }
}

/// Tries again and again for a moment.
async fn first_contact(Probe { direct, .. }: Probe) -> Outcome {
    let deadline = Instant::now() + FIRST_CONTACT;
    while Instant::now() < deadline {
        if answers(Some(direct.0), direct.1, BRIEF).await.unwrap_or(false) {
            return Outcome::Answered;
        }
        sleep(BREATH).await;
    }
    Outcome::NotTried
}

async fn attempt(Probe { path, direct, routed }: Probe) -> Outcome {
    // The address is not there yet, or not any more.
    let Ok(arrived) = answers(Some(direct.0), direct.1, PATIENCE).await else { return Outcome::NotTried };
    if arrived {
        return Outcome::Answered;
    }
    if answers(Some(routed.0), routed.1, PATIENCE).await.unwrap_or(false) {
        return Outcome::TunnelOnly;
    }
    match answers(None, path.node, PATIENCE).await.unwrap_or(false) {
        true => Outcome::NodeOnly,
        false => Outcome::Silent,
    }
}

/// Whether somebody takes or refuses a connection to the address.
///
/// # Errors
/// Where this machine has no such `source`.
async fn answers(source: Option<IpAddr>, target: IpAddr, patience: Duration) -> io::Result<bool> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    source.map_or(Ok(()), |source| socket.bind(SocketAddr::new(source, 0)))?;
    match timeout(patience, socket.connect(SocketAddr::new(target, PORT))).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(error)) => Ok(error.kind() == ErrorKind::ConnectionRefused),
        Err(_) => Ok(false),
    }
}
