//! One container's lease, kept by a task of its own: from the first question until it is given back. What is
//! said and when is the client's business; here it gets its socket, its clock and its file.

use std::future::pending;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{info, warn};

use crate::client::{Chance, Change, Client, Identity, Loss, Transmit};
use crate::lease::Lease;
use crate::port::{Port, send_from_host};
use crate::record::{Owner, Record, Records, now};
use crate::wishes::Wishes;

/// How often it is seen whether the container is there still.
const LOOK: Duration = Duration::from_secs(10);
/// How long to wait where nothing can be heard.
const DEAF: Duration = Duration::from_secs(1);

/// What a lease is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Servers are asked.
    Asking,
    /// The container may use it.
    Leased(Lease),
    /// There is none, and why.
    Lost(String),
    /// It was given back, or never was.
    Over(String),
}

/// The way to the task.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// The file of the container's namespace.
    netns: PathBuf,
    release: mpsc::Sender<oneshot::Sender<()>>,
    state: watch::Receiver<State>,
}

/// What all keepers share.
pub(crate) struct Shared {
    pub(crate) records: Records,
    /// How long servers are asked for a first address.
    pub(crate) patience: Duration,
    /// Told of each change that people may want to hear of.
    pub(crate) changed: Box<dyn Fn() + Send + Sync>,
}

struct Task {
    owner: Owner,
    wishes: Wishes,
    netns: PathBuf,
    port: Port,
    client: Client,
    shared: Arc<Shared>,
    release: mpsc::Receiver<oneshot::Sender<()>>,
    state: watch::Sender<State>,
}

impl Keeper {
    /// Gets an address for an interface, and keeps it.
    ///
    /// # Errors
    /// Where the interface cannot be used, in words.
    pub(crate) fn acquire(
        owner: Owner,
        netns: PathBuf,
        wishes: Wishes,
        shared: Arc<Shared>,
    ) -> Result<Keeper, String> {
        let port = Port::open(&netns, owner.ifname.as_str())?;
        let start = Instant::now();
        let client = Client::new(identity(&owner, &wishes, &port), chance(), start, start + shared.patience);
        Ok(Task::start(owner, netns, wishes, port, client, shared))
    }

    /// Goes on with what an agent before left.
    ///
    /// # Errors
    /// Where the interface is gone: then the lease was given back.
    pub(crate) fn resume(owner: Owner, record: Record, shared: Arc<Shared>) -> Result<Keeper, String> {
        let port = match Port::open(&record.netns, owner.ifname.as_str()) {
            Ok(port) => port,
            Err(error) => {
                give_back(&owner, &record, &shared);
                return Err(error);
            }
        };
        let age = record.age();
        info!(%owner, address = %record.lease.address, ?age, "resuming a DHCP lease");
        let Record { netns, wishes, lease, .. } = record;
        let identity = identity(&owner, &wishes, &port);
        let client = Client::resume(identity, chance(), lease, age, Instant::now());
        Ok(Task::start(owner, netns, wishes, port, client, shared))
    }

    /// Whether it is for the container whose namespace that is.
    pub(crate) fn is_for(&self, netns: &PathBuf) -> bool {
        self.netns == *netns && !self.is_over()
    }

    /// Whether there is nothing to keep.
    pub(crate) fn is_over(&self) -> bool {
        self.release.is_closed() || matches!(*self.state.borrow(), State::Over(_))
    }

    /// What it is at.
    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Gives the lease back. What is returned is done once the server was told and the file is gone.
    pub(crate) fn release(&self) -> oneshot::Receiver<()> {
        let (done, told) = oneshot::channel();
        // Where it ended by itself, dropping `done` says so.
        let _ = self.release.try_send(done);
        told
    }
}

impl Task {
    fn start(
        owner: Owner,
        netns: PathBuf,
        wishes: Wishes,
        port: Port,
        client: Client,
        shared: Arc<Shared>,
    ) -> Keeper {
        let (release, asked) = mpsc::channel(8);
        let first = client.lease().map_or(State::Asking, |lease| State::Leased(lease.clone()));
        let (state, told) = watch::channel(first);
        let keeper = Keeper { netns: netns.clone(), release, state: told };
        let task = Task { owner, wishes, netns, port, client, shared, release: asked, state };
        // It ends with the runtime: then its file stays.
        tokio::spawn(task.run());
        keeper
    }

    async fn run(mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        loop {
            let due = self.client.due();
            let (transmit, change) = select! {
                asked = self.release.recv() => {
                    // Without a daemon the lease goes on, on disk.
                    let Some(done) = asked else { return };
                    self.end("it was released");
                    // Nobody may wait for it any more.
                    let _ = done.send(());
                    return;
                }
                heard = self.port.receive() => match heard {
                    Ok((message, mac)) => self.client.receive(&message, mac, Instant::now()),
                    Err(error) => {
                        warn!(owner = %self.owner, %error, "cannot hear DHCP servers");
                        sleep(DEAF).await;
                        (None, None)
                    }
                },
                () = until(due) => self.client.tick(Instant::now()),
                _ = look.tick() => {
                    if !self.port.is_at(&self.netns) {
                        self.end("its container is gone");
                        return;
                    }
                    (None, None)
                }
            };
            if let Some(transmit) = transmit {
                self.port.send(&transmit);
            }
            match change {
                Some(Change::Leased) => self.keep(),
                Some(Change::Over(loss)) => self.lose(&loss),
                None => {}
            }
            if matches!(*self.state.borrow(), State::Over(_)) {
                return;
            }
        }
    }

    /// On disk before anybody is told.
    fn keep(&mut self) {
        let Some(lease) = self.client.lease().cloned() else { return };
        let owner = &self.owner;
        let record = Record {
            container: owner.container.to_string(),
            network: owner.network.to_string(),
            ifname: owner.ifname.to_string(),
            netns: self.netns.clone(),
            mac: self.port.mac,
            wishes: self.wishes.clone(),
            lease: lease.clone(),
            since: now().as_secs(),
        };
        let is_first = *self.state.borrow() == State::Asking;
        match self.shared.records.keep(owner, &record) {
            Ok(()) => {}
            Err(error) if is_first => {
                self.end(&format!("interface {}: cannot write down its DHCP lease: {error}", owner.ifname));
                return;
            }
            // What is there of before is younger than it seems.
            Err(error) => warn!(%owner, %error, "cannot write down a DHCP lease that was prolonged"),
        }
        let Lease { address, server, .. } = &lease;
        info!(%owner, %address, server = %server.address, term = ?lease.term, "leased");
        self.state.send_replace(State::Leased(lease));
        (self.shared.changed)();
    }

    /// Servers gave nothing, or took back what they gave.
    fn lose(&mut self, loss: &Loss) {
        let owner = &self.owner;
        if *self.state.borrow() == State::Asking {
            let reason = format!(
                "container {}: interface {}: {loss}; is there a server on its link (tcpdump -i {} udp port 67), and has it addresses left?",
                owner.container, owner.ifname, owner.ifname
            );
            self.state.send_replace(State::Over(reason));
            return;
        }
        let down = self.port.set_down().err().map(|error| format!(" ({error})")).unwrap_or_default();
        let reason = format!(
            "container {}: interface {} lost its DHCP lease: {loss}; it was set down{down}, start the pod anew",
            owner.container, owner.ifname
        );
        warn!(%owner, "{reason}");
        self.forget();
        self.state.send_replace(State::Lost(reason));
        (self.shared.changed)();
    }

    fn end(&mut self, reason: &str) {
        if let Some(release) = self.client.release() {
            info!(owner = %self.owner, reason, "releasing a DHCP lease");
            match self.port.is_there() {
                true => self.port.send(&release),
                false => send_from_host_or_tell(&self.owner, &release),
            }
        }
        self.forget();
        self.state.send_replace(State::Over(reason.to_owned()));
        (self.shared.changed)();
    }

    fn forget(&self) {
        if let Err(error) = self.shared.records.forget(&self.owner) {
            warn!(owner = %self.owner, %error, "cannot delete the file of a DHCP lease");
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}

/// A container went while no agent ran.
pub(crate) fn give_back(owner: &Owner, record: &Record, shared: &Shared) {
    let identity = Identity { mac: record.mac, ..wished(owner, &record.wishes) };
    let mut client = Client::resume(identity, chance(), record.lease.clone(), record.age(), Instant::now());
    if let Some(release) = client.release() {
        info!(%owner, address = %record.lease.address, "releasing the DHCP lease of a container that is gone");
        send_from_host_or_tell(owner, &release);
    }
    if let Err(error) = shared.records.forget(owner) {
        warn!(%owner, %error, "cannot delete the file of a DHCP lease");
    }
}

/// Without it the server keeps the address until the lease is over.
fn send_from_host_or_tell(owner: &Owner, release: &Transmit) {
    if let Err(error) = send_from_host(release) {
        info!(%owner, %error, "the DHCP server cannot be told that a lease was given back");
    }
}

fn wished(owner: &Owner, wishes: &Wishes) -> Identity {
    Identity {
        id: owner.client_id(),
        provided: wishes.provided.clone(),
        requested: wishes.requested.clone(),
        ..Identity::default()
    }
}

fn identity(owner: &Owner, wishes: &Wishes, port: &Port) -> Identity {
    Identity { mac: port.mac, broadcast: port.broadcast, ..wished(owner, wishes) }
}

/// Each from keys of its own.
fn chance() -> Chance {
    let (keys, mut count) = (RandomState::new(), 0u64);
    Box::new(move || {
        count += 1;
        keys.hash_one(count) as u32
    })
}
