//! The program of a pod that starts. It is the program of the suite, in the pod, by other arguments.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::PORT;
use crate::probe::any;

/// The first argument.
const ARGUMENT: &str = "--starter";
/// How long an answer may take. Datagrams show that nothing is lost, as each is sent once.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// How long strangers are tried.
const SILENCE: Duration = Duration::from_millis(300);

/// What comes from others.
const DATAGRAM: &str = "a datagram";
const CONNECTION: &str = "a connection";

/// Whom to talk to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// Those that may be reached, and that connect once they were reached.
    pub(super) friends: Vec<IpAddr>,
    /// Those that may not be reached.
    pub(super) strangers: Vec<IpAddr>,
}

impl Task {
    /// The arguments with which the program does this.
    pub(super) fn arguments(&self) -> [String; 2] {
        [ARGUMENT.to_owned(), serde_json::json!(self).to_string()]
    }
}

/// Does what the arguments say, where they are those of a starter. Prints what went wrong.
pub(crate) fn from_arguments() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    arguments.next().filter(|first| first == ARGUMENT)?;
    let wrong = match run(&arguments.next().unwrap_or_default()) {
        Ok(wrong) => wrong,
        Err(error) => vec![error],
    };
    wrong.iter().for_each(|line| println!("{line}"));
    Some(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(task: &str) -> Result<Vec<String>, String> {
    let task: Task = serde_json::from_str(task).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(talk(task)).map_err(|error| error.to_string())
}

/// Talks to everybody at once, and gives what went wrong.
async fn talk(task: Task) -> std::io::Result<Vec<String>> {
    let everywhere = SocketAddr::from(([0u16; 8], PORT));
    let (datagrams, visits) = (UdpSocket::bind(everywhere).await?, TcpListener::bind(everywhere).await?);
    let (came, mut visitors) = mpsc::unbounded_channel();
    let mut talks = JoinSet::new();
    for server in addresses(&task.strangers) {
        talks.spawn(stays_silent(server));
    }
    for server in addresses(&task.friends) {
        talks.spawn(answers(server));
        talks.spawn(accepts(server));
    }
    let datagrams_came = came.clone();
    // Both end with the runtime.
    tokio::spawn(async move {
        while let Ok((_, client)) = datagrams.recv_from(&mut [0; 64]).await {
            let _ = datagrams_came.send((client.ip().to_canonical(), DATAGRAM));
        }
    });
    tokio::spawn(async move {
        while let Ok((_, client)) = visits.accept().await {
            let _ = came.send((client.ip().to_canonical(), CONNECTION));
        }
    });
    let ways = |friend: &IpAddr| [DATAGRAM, CONNECTION].map(|what| (*friend, what));
    let mut expected: BTreeSet<(IpAddr, &str)> = task.friends.iter().flat_map(ways).collect();
    let mut wrong = Vec::new();
    let all = async {
        loop {
            tokio::select! {
                Some(done) = talks.join_next() => wrong.extend(done.unwrap_or_else(|error| Some(error.to_string()))),
                Some((client, what)) = visitors.recv() => match task.friends.contains(&client) {
                    true => drop(expected.remove(&(client, what))),
                    false => wrong.push(format!("{what} of stranger {client}")),
                },
            }
            if talks.is_empty() && expected.is_empty() {
                return;
            }
        }
    };
    let done = timeout(ANSWER, all).await;
    if done.is_err() {
        wrong.push(format!("nothing came of {expected:?}"));
    }
    Ok(wrong)
}

fn addresses(ips: &[IpAddr]) -> impl Iterator<Item = SocketAddr> {
    ips.iter().map(|&ip| SocketAddr::new(ip, PORT))
}

/// Tries a stranger, who tells the test what arrives.
async fn stays_silent(server: SocketAddr) -> Option<String> {
    let datagram = async {
        let socket = UdpSocket::bind(any(server)).await?;
        for _ in 0..3 {
            socket.send_to(b"starter", server).await?;
            sleep(SILENCE / 3).await;
        }
        std::io::Result::Ok(())
    };
    let (sent, connected) = tokio::join!(datagram, timeout(SILENCE, TcpStream::connect(server)));
    if let Err(error) = sent {
        return Some(format!("cannot send to stranger {server}: {error}"));
    }
    connected.ok().map(|connected| format!("stranger {server}: {connected:?}"))
}

/// Sends one datagram to a friend.
async fn answers(server: SocketAddr) -> Option<String> {
    let exchange = async {
        let socket = UdpSocket::bind(any(server)).await?;
        socket.send_to(b"starter", server).await?;
        socket.recv(&mut [0; 64]).await
    };
    match timeout(ANSWER, exchange).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(format!("a datagram to friend {server}: {error}")),
        Err(_) => Some(format!("the only datagram to friend {server} is lost")),
    }
}

/// Connects to a friend.
async fn accepts(server: SocketAddr) -> Option<String> {
    match timeout(ANSWER, TcpStream::connect(server)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(format!("connecting to friend {server}: {error}")),
        Err(_) => Some(format!("friend {server} does not accept")),
    }
}
