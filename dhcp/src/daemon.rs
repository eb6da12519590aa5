//! The daemon that the CNI plugin `dhcp` calls: its socket, and who has which lease.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::gob;
use crate::keeper::{Keeper, Shared, State, give_back};
use crate::lease::Lease;
use crate::record::{Owner, Record, Records};
use crate::rpc::{Answers, Call, Calls, GREETING, Method, REFUSAL, WELCOME};
use crate::wishes::Wishes;

/// The longest message of a caller: configurations are far from it.
const LONGEST: u64 = 1 << 20;
/// The longest greeting.
const LONGEST_GREETING: usize = 4096;
/// How long to wait where no caller can be taken.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the daemon is, and how it acts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its socket.
    pub socket: PathBuf,
    /// The folder of its leases.
    pub folder: PathBuf,
    /// How long servers are asked for a first address.
    pub patience: Duration,
}

/// Why there is no daemon.
#[derive(Debug, Error)]
pub enum Error {
    /// The socket is another's.
    #[error("another daemon answers at {0}: stop it (dhcp daemon, cni-dhcp.service), or take another socket")]
    Taken(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen at {path}: {source}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The running daemon. Leases go on, and are on disk, whatever becomes of it.
#[derive(Clone)]
pub struct Daemon(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    keepers: Mutex<BTreeMap<Owner, Keeper>>,
    /// What is wrong with files of an agent before.
    problems: Vec<String>,
}

impl Daemon {
    /// Goes on with the leases of an agent before, and listens. To be called within a runtime, for the calling
    /// thread's network namespace. `changed` is called whenever there may be something new to tell.
    ///
    /// # Errors
    /// Where it cannot listen; then no lease is kept either, as another daemon may keep it.
    pub fn start(settings: Settings, changed: impl Fn() + Send + Sync + 'static) -> Result<Daemon, Error> {
        let Settings { socket, folder, patience } = settings;
        let listener = listen(&socket)?;
        let shared = Arc::new(Shared { records: Records::of(&folder), patience, changed: Box::new(changed) });
        let (records, problems) = shared.records.all();
        let mut keepers = BTreeMap::new();
        for record in records {
            let Ok(owner) = record.owner() else { continue };
            match Keeper::resume(owner.clone(), record, shared.clone()) {
                Ok(keeper) => drop(keepers.insert(owner, keeper)),
                Err(error) => info!(%owner, error, "no container has this DHCP lease any more"),
            }
        }
        info!(socket = %socket.display(), leases = keepers.len(), "serving the CNI plugin dhcp");
        let daemon = Daemon(Arc::new(Inner { shared, keepers: Mutex::new(keepers), problems }));
        // It ends with the runtime.
        tokio::spawn(daemon.clone().accept(listener));
        Ok(daemon)
    }

    /// Takes away what daemons before left, where none runs any more: their socket, and the leases of containers
    /// that are gone, which servers get back. The others stay on disk for a daemon to come: containers use them.
    /// Returns how many these are.
    ///
    /// # Errors
    /// Where another daemon answers at the socket, or it stays.
    pub fn clean_up(settings: &Settings) -> Result<usize, Error> {
        let Settings { socket, folder, patience } = settings;
        unused(socket)?;
        let shared = Shared { records: Records::of(folder), patience: *patience, changed: Box::new(|| {}) };
        let (records, problems) = shared.records.all();
        let (kept, gone): (Vec<Record>, Vec<Record>) = records.into_iter().partition(Record::may_be_used);
        for record in gone {
            if let Ok(owner) = record.owner() {
                give_back(&owner, &record, &shared);
            }
        }
        // It stays as long as there is something in it.
        let _ = fs::remove_dir(folder);
        Ok(kept.len() + problems.len())
    }

    /// What is wrong, with the remedy.
    pub fn problems(&self) -> Vec<String> {
        let mut keepers = self.keepers();
        keepers.retain(|_, keeper| !keeper.is_over());
        let lost = keepers.values().filter_map(|keeper| match &*keeper.state().borrow() {
            State::Lost(reason) => Some(reason.clone()),
            _ => None,
        });
        self.0.problems.iter().cloned().chain(lost).collect()
    }

    /// How many containers have a lease.
    pub fn leases(&self) -> usize {
        let keepers = self.keepers();
        keepers.values().filter(|keeper| matches!(*keeper.state().borrow(), State::Leased(_))).count()
    }

    fn keepers(&self) -> MutexGuard<'_, BTreeMap<Owner, Keeper>> {
        self.0.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let daemon = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = daemon.converse(stream).await {
                            debug!(%error, "a caller of the DHCP daemon went away");
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot take calls of the CNI plugin dhcp");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// A caller, call after call.
    async fn converse(&self, mut stream: UnixStream) -> io::Result<()> {
        if !is_greeted(&mut stream).await? {
            return stream.write_all(REFUSAL).await;
        }
        stream.write_all(WELCOME).await?;
        let (mut calls, mut answers) = (Calls::default(), Answers::default());
        loop {
            let message = next_message(&mut stream).await?;
            let call = calls.take(&message).map_err(io::Error::other)?;
            if let Some(call) = call {
                let answer = self.answer(&call, &mut answers).await;
                stream.write_all(&answer).await?;
            }
        }
    }

    async fn answer(&self, call: &Call, answers: &mut Answers) -> Vec<u8> {
        let wanted = Wishes::read(&call.config, &call.args).and_then(|(network, wishes)| {
            Owner::new(&call.container, &network, &call.ifname).map(|owner| (owner, wishes))
        });
        match (&call.method, wanted) {
            (Ok(Method::Allocate), Ok((owner, wishes))) => {
                let metric = wishes.metric;
                match self.allocate(owner, PathBuf::from(&call.netns), wishes).await {
                    Ok(lease) => answers.lease(call, &lease, metric),
                    Err(error) => answers.error(call, &error),
                }
            }
            (Ok(Method::Release), Ok((owner, _))) => {
                self.release(&owner).await;
                answers.done(call)
            }
            (Ok(_), Err(error)) => answers.error(call, &error),
            (Err(method), _) => answers.error(call, &format!("rpc: can't find method {method}")),
        }
    }

    /// The lease of an interface: the one that it has, or a new one.
    async fn allocate(&self, owner: Owner, netns: PathBuf, wishes: Wishes) -> Result<Lease, String> {
        let former = {
            let mut keepers = self.keepers();
            let is_kept = keepers.get(&owner).is_some_and(|keeper| keeper.is_for(&netns));
            if is_kept { None } else { keepers.remove(&owner) }
        };
        if let Some(former) = former {
            // Of a container before of the same name, which nobody took away.
            let _ = former.release().await;
        }
        let state = {
            let mut keepers = self.keepers();
            match keepers.get(&owner) {
                Some(keeper) => keeper.state(),
                None => {
                    let keeper = Keeper::acquire(owner.clone(), netns, wishes, self.0.shared.clone())?;
                    let state = keeper.state();
                    keepers.insert(owner.clone(), keeper);
                    state
                }
            }
        };
        outcome(state).await
    }

    /// Gives a lease back; where there is none, that is no error.
    async fn release(&self, owner: &Owner) {
        let keeper = self.keepers().remove(owner);
        if let Some(keeper) = keeper {
            // It may have ended by itself.
            let _ = keeper.release().await;
        }
    }
}

/// What comes of asking.
async fn outcome(mut state: watch::Receiver<State>) -> Result<Lease, String> {
    let settled = state.wait_for(|state| *state != State::Asking).await;
    match settled.as_deref() {
        Ok(State::Leased(lease)) => Ok(lease.clone()),
        Ok(State::Lost(reason) | State::Over(reason)) => Err(reason.clone()),
        Ok(State::Asking) | Err(_) => Err("the daemon ends".to_owned()),
    }
}

/// For root alone: who calls may have interfaces set up and down.
fn listen(path: &Path) -> Result<UnixListener, Error> {
    unused(path)?;
    let listen = || {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    listen().map_err(|source| Error::Listen { path: path.to_owned(), source })
}

/// Takes a socket away at which nobody answers.
fn unused(path: &Path) -> Result<(), Error> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::Taken(path.to_owned()));
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Listen { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Reads up to an empty line.
async fn is_greeted(stream: &mut UnixStream) -> io::Result<bool> {
    let mut greeting = Vec::new();
    while !greeting.ends_with(b"\n\n") && !greeting.ends_with(b"\r\n\r\n") {
        if greeting.len() == LONGEST_GREETING {
            return Ok(false);
        }
        greeting.push(stream.read_u8().await?);
    }
    Ok(greeting.starts_with(GREETING))
}

/// Reads a message, without its length.
async fn next_message(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut head = vec![stream.read_u8().await?];
    if head[0] >= 128 {
        for _ in 0..head[0].wrapping_neg().min(8) {
            head.push(stream.read_u8().await?);
        }
    }
    let length = gob::uint(&mut &head[..]).map_err(io::Error::other)?;
    let length = Some(length).filter(|length| *length <= LONGEST);
    let length = length.ok_or_else(|| io::Error::other("a message that is too long"))?;
    let mut message = vec![0; length as usize];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
