//! A steady load: clients that ask all the time, and count what they are not answered.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weft_lab::netns;

use crate::connection::Connection;
use crate::probe::{Seen, Via, any, request};

/// The pause between two requests of one client.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a resolver waits for one name server before it asks the next one (resolv.conf's `timeout:1`).
const NEXT_SERVER: Duration = Duration::from_secs(1);

/// What one client asks.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// A new connection, or a datagram from a new port, for each request.
    Ask(Via, SocketAddr),
    /// One connection for all requests.
    Keep(SocketAddr),
    /// A name, of one name server and then of the other, as a resolver does.
    Resolve(String, Vec<SocketAddr>),
}

/// What one client saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// What it did.
    pub(crate) name: String,
    /// How many requests it made.
    pub(crate) asked: u64,
    /// Requests that a second server answered.
    pub(crate) second: u64,
    /// Requests for names that found none but servers that were killed a moment ago, and say so at once.
    pub(crate) killed: u64,
    /// When other requests failed, counted from the start, and how.
    pub(crate) failed: Vec<(Duration, Seen)>,
    /// The longest that an answer took.
    pub(crate) slowest: Duration,
}

/// Clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// Starts a client for each task, each in a namespace.
    pub(crate) fn start(tasks: Vec<(String, String, Task)>) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |(name, namespace, task): (String, String, Task)| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let kept = match &task {
                    Task::Keep(server) => Some(Connection::open(&namespace, *server)),
                    _ => None,
                };
                let work = move || Ok(work(name, &task, kept, &stop));
                netns::run(&namespace, work).unwrap_or_else(|error| Tally {
                    failed: vec![(Duration::ZERO, Seen::Other(error.to_string()))],
                    ..Tally::default()
                })
            })
        };
        Load { clients: tasks.into_iter().map(client).collect(), stop }
    }

    /// Ends the load and tells what came of it.
    pub(crate) fn finish(self) -> Vec<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().filter_map(|client| client.join().ok()).collect()
    }
}

fn work(name: String, task: &Task, mut kept: Option<Result<Connection, String>>, stop: &AtomicBool) -> Tally {
    let mut tally = Tally { name, ..Tally::default() };
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let seen = match (task, &mut kept) {
            (Task::Ask(via, server), _) => request(*via, *server, "hostname", TIMEOUT),
            (Task::Resolve(name, servers), _) => resolve(name, servers, &mut tally),
            (Task::Keep(_), Some(Ok(connection))) => connection.ask().map_or_else(Seen::Other, Seen::Answer),
            (Task::Keep(_), other) => {
                Seen::Other(format!("{:?}", other.as_ref().map(|one| one.as_ref().err())))
            }
        };
        tally.asked += 1;
        tally.slowest = tally.slowest.max(began.elapsed());
        match (task, seen) {
            (_, Seen::Answer(_)) => {}
            (Task::Resolve(..), Seen::Refused) => tally.killed += 1,
            (_, seen) => tally.failed.push((start.elapsed(), seen)),
        }
        std::thread::sleep(PAUSE);
    }
    tally
}

/// Asks the servers in turn until one answers.
fn resolve(name: &str, servers: &[SocketAddr], tally: &mut Tally) -> Seen {
    let mut last = Seen::Silence;
    for (position, &server) in servers.iter().chain(servers).enumerate() {
        match lookup(name, server) {
            Ok(answers) if answers > 0 => {
                tally.second += u64::from(position > 0);
                return Seen::Answer(format!("{answers} records"));
            }
            Ok(_) => return Seen::Other(format!("{server}: no records")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Seen::Other(format!("{server}: {error}"));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => last = Seen::Refused,
            Err(error) => last = Seen::Other(format!("{server}: {error}")),
        }
    }
    last
}

/// Asks one server for the IPv4 addresses of a name (RFC 1035 section 4). Gives their number.
fn lookup(name: &str, server: SocketAddr) -> io::Result<u16> {
    let mut question = vec![0x5a, 0xa5, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).map_err(io::Error::other)?);
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind(any(server))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(NEXT_SERVER))?;
    socket.send(&question)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    if length < 12 || answer[..2] != question[..2] {
        return Err(io::Error::other("a malformed answer"));
    }
    match answer[3] & 0xf {
        // What resolvers take for "ask another server" (RFC 1035 section 4.1.1).
        code @ (2 | 5) => Err(io::Error::other(format!("response code {code}"))),
        0 => Ok(u16::from_be_bytes([answer[6], answer[7]])),
        code => Err(io::Error::new(io::ErrorKind::NotFound, format!("response code {code}"))),
    }
}
