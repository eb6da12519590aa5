//! Whether packets get from node to node at the ports that they need: the pods of `weft preflight --all-nodes`, which
//! run on all nodes at the same time, listen there and ask each other. What comes of it is judged in
//! `checks::between`, from all reports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::facts::{Attempt, Between, Outcome, Transport};

/// What is asked by UDP. Nobody answers more than he was asked.
const QUESTION: &[u8; 16] = b"weft preflight ?";
const ANSWER: &[u8; 16] = b"weft preflight !";
/// How long one answer may take, and how soon it is asked again.
const ONE: Duration = Duration::from_millis(500);
/// How many are asked at a time.
const AT_A_TIME: usize = 64;

/// A node, and its address.
type Peer = (String, IpAddr);

/// Listens at these ports for as long as this process lives, and asks all `peers` but this machine itself, until they
/// have answered, or for so long.
pub(super) fn probe(ports: &[(Transport, u16)], peers: &[Peer], patience: Duration) -> Between {
    let held = ports.iter().copied().filter(|(transport, port)| !listens(*transport, *port)).collect();
    let is_other = |(_, address): &&Peer| UdpSocket::bind((*address, 0)).is_err();
    let pairs: Vec<(&Peer, (Transport, u16))> =
        peers.iter().filter(is_other).flat_map(|peer| ports.iter().map(move |port| (peer, *port))).collect();
    let mut attempts = Vec::new();
    for some in pairs.chunks(AT_A_TIME) {
        let deadline = Instant::now() + patience;
        attempts.extend(thread::scope(|scope| {
            let asked: Vec<_> =
                some.iter().map(|(peer, port)| scope.spawn(move || attempt(peer, *port, deadline))).collect();
            // A thread that asks does not panic.
            asked.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>()
        }));
    }
    Between { attempts, held }
}

fn attempt((node, address): &Peer, (transport, port): (Transport, u16), deadline: Instant) -> Attempt {
    let to = SocketAddr::new(*address, port);
    let outcome = loop {
        let outcome = match transport {
            Transport::Tcp => ask_tcp(to),
            Transport::Udp => ask_udp(to),
        };
        // Its pod may not be there yet.
        if outcome == Outcome::Answered || Instant::now() > deadline {
            break outcome;
        }
        thread::sleep(if outcome == Outcome::Refused { ONE } else { Duration::ZERO });
    };
    Attempt { node: node.clone(), transport, port, outcome }
}

fn ask_tcp(to: SocketAddr) -> Outcome {
    match TcpStream::connect_timeout(&to, ONE) {
        Ok(_) => Outcome::Answered,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Outcome::Refused,
        Err(_) => Outcome::Silent,
    }
}

/// The answer may come from another address of that machine.
fn ask_udp(to: SocketAddr) -> Outcome {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let ask = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(ONE))?;
        socket.send_to(QUESTION, to)?;
        let mut buffer = [0; ANSWER.len()];
        socket.recv_from(&mut buffer).map(|(length, _)| length == ANSWER.len() && buffer == *ANSWER)
    };
    match ask() {
        Ok(true) => Outcome::Answered,
        Ok(false) => Outcome::Silent,
        Err(error) => {
            // Else a machine that has no way there would be asked without a pause.
            let is_over =
                [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind());
            thread::sleep(if is_over { Duration::ZERO } else { ONE });
            Outcome::Silent
        }
    }
}

/// Begins to answer at a port. Whether that can be.
fn listens(transport: Transport, port: u16) -> bool {
    let any =
        [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
    match transport {
        Transport::Tcp => match TcpListener::bind(&any[..]) {
            Ok(listener) => {
                thread::spawn(move || listener.incoming().for_each(drop));
                true
            }
            Err(_) => false,
        },
        Transport::Udp => match UdpSocket::bind(&any[..]) {
            Ok(socket) => {
                thread::spawn(move || answer(&socket));
                true
            }
            Err(_) => false,
        },
    }
}

fn answer(socket: &UdpSocket) {
    let mut buffer = [0; QUESTION.len() + 1];
    loop {
        match socket.recv_from(&mut buffer) {
            // It may be gone by now.
            Ok((length, from)) if buffer[..length] == *QUESTION => drop(socket.send_to(ANSWER, from)),
            Ok(_) => {}
            // An earlier answer reached nobody.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
