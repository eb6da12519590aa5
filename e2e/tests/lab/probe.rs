//! Requests from inside a network namespace: from a pod, a node, or from outside of the cluster. What an
//! answer should have been is for the scenarios to say.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_lab::netns;

use crate::lab::{Outcome, poll};
use crate::modes;

/// How long a request may take that is to be answered.
const TIMEOUT: Duration = Duration::from_millis(1000);
/// How long a refusal may take: a kernel drops an ICMP error that comes while the socket is in use, and
/// learns of it when it asks again, a second later.
const REFUSAL: Duration = Duration::from_secs(5);
/// How long silence must last to count as such. Short enough to wait for, long enough for a busy machine.
const SILENCE: Duration = Duration::from_millis(500);

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Seen {
    /// An answer.
    Answer(String),
    /// The kernel said at once that there is nobody.
    Refused,
    /// Nothing at all came back.
    Silence,
    /// Something else went wrong.
    Other(String),
}

/// How a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Via {
    /// HTTP GET, on a new connection.
    Http,
    /// A datagram, from a new port.
    Udp,
}

/// Both ways.
pub(crate) const BOTH: [Via; 2] = [Via::Http, Via::Udp];

/// Makes one request for `hostname`, `clientip` and so on from a namespace.
pub(crate) fn ask(namespace: &str, via: Via, server: SocketAddr, question: &str) -> Seen {
    ask_within(namespace, via, server, question, TIMEOUT)
}

pub(crate) fn ask_within(
    namespace: &str,
    via: Via,
    server: SocketAddr,
    question: &str,
    timeout: Duration,
) -> Seen {
    if let Some(seen) = modes::ask(namespace, via, server, question, timeout) {
        return seen;
    }
    let question = question.to_owned();
    let request = move || Ok(request(via, server, &question, timeout));
    netns::run(namespace, request).unwrap_or_else(|error| Seen::Other(error.to_string()))
}

/// Makes one request from the namespace that the calling thread is in.
pub(crate) fn request(via: Via, server: SocketAddr, question: &str, timeout: Duration) -> Seen {
    seen(match via {
        Via::Http => get(server, question, timeout),
        Via::Udp => {
            UdpSocket::bind(any(server)).and_then(|socket| datagram(&socket, server, question, timeout))
        }
    })
}

fn seen(outcome: std::io::Result<String>) -> Seen {
    match outcome {
        Ok(answer) => Seen::Answer(answer),
        Err(error) => match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Seen::Refused,
            std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => Seen::Silence,
            // A rejected port of IPv6 arrives as "port unreachable" too, but some kernels say it otherwise.
            std::io::ErrorKind::HostUnreachable => Seen::Refused,
            _ => Seen::Other(error.to_string()),
        },
    }
}

/// A UDP client that keeps its port, and with it the kernel's entry for its flow.
pub(crate) struct Flow {
    socket: UdpSocket,
    pub(crate) server: SocketAddr,
}

impl Flow {
    /// A new one, in a namespace.
    pub(crate) fn open(namespace: &str, server: SocketAddr) -> Result<Flow, String> {
        let socket = netns::run(namespace, move || Ok(UdpSocket::bind(any(server))));
        let socket = socket.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        Ok(Flow { socket, server })
    }

    /// One more request from the same port.
    pub(crate) fn ask(&self, question: &str) -> Seen {
        seen(datagram(&self.socket, self.server, question, SILENCE))
    }
}

/// The address to bind for talking to a server of that family.
pub(crate) fn any(server: SocketAddr) -> SocketAddr {
    match server.is_ipv4() {
        true => ([0, 0, 0, 0], 0).into(),
        false => ([0u16; 8], 0).into(),
    }
}

fn get(server: SocketAddr, path: &str, timeout: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(format!("GET /{path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.contains(" 200 ") {
        true => Ok(body.to_owned()),
        false => Err(std::io::Error::other(head.lines().next().unwrap_or_default().to_owned())),
    }
}

/// Sends a datagram and waits for the answer.
fn datagram(
    socket: &UdpSocket,
    server: SocketAddr,
    question: &str,
    timeout: Duration,
) -> std::io::Result<String> {
    socket.connect(server)?;
    socket.set_read_timeout(Some(timeout))?;
    // A packet that this host's own rules reject fails here, and the reason is told by the next call.
    match socket.send(question.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    let mut buffer = [0; 65536];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Waits until requests from there are answered, by each of those servers and by nobody else.
pub(crate) fn served(namespace: &str, via: Via, server: SocketAddr, by: &[&str]) -> Outcome {
    poll(&format!("{via:?} {server} from {namespace} answered by {by:?}"), || {
        let mut missing: BTreeSet<&str> = by.iter().copied().collect();
        // To be seen once among equals takes more requests than there are servers.
        for _ in 0..by.len() * 8 + 4 {
            match ask(namespace, via, server, "hostname") {
                Seen::Answer(name) if by.contains(&name.as_str()) => drop(missing.remove(name.as_str())),
                other => return Err(format!("{other:?}")),
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!("never by {missing:?}")),
        }
    })
}

/// Waits until requests from there are refused at once.
pub(crate) fn refused(namespace: &str, via: Via, server: SocketAddr) -> Outcome {
    poll(&format!("{via:?} {server} from {namespace} refused"), || {
        match ask_within(namespace, via, server, "hostname", REFUSAL) {
            Seen::Refused => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

/// Waits until requests from there are met with silence.
pub(crate) fn dropped(namespace: &str, via: Via, server: SocketAddr) -> Outcome {
    poll(&format!("{via:?} {server} from {namespace} dropped"), || {
        match ask_within(namespace, via, server, "hostname", SILENCE) {
            Seen::Silence => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

/// Waits until the server sees requests from there under that address.
pub(crate) fn seen_as(namespace: &str, via: Via, server: SocketAddr, client: IpAddr) -> Outcome {
    poll(&format!("{via:?} {server} from {namespace} seen as {client}"), || {
        match ask(namespace, via, server, "clientip") {
            Seen::Answer(text) if text.parse::<SocketAddr>().is_ok_and(|seen| seen.ip() == client) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}
