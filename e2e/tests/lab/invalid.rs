//! A packet outside of its connection's window, made by hand on its way from a server to its client
//! (kubernetes#74839).

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use weft_lab::netns;

use crate::case::{Case, Peer, echo};
use crate::lab::{Lab, Outcome, equal, poll};

const PORT: u16 = 8099;
/// How long the end of a connection would take to arrive.
const SOON: Duration = Duration::from_millis(700);

pub(crate) fn entries_are_dropped(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "invalid")?;
    let service = case.service("web", json!({"ports": [{"port": 80, "targetPort": PORT}]}))?;
    let [client, server] =
        case.run([echo("client").app("client").on("node1"), echo("server").on("node2")])?;
    let listener = within(&server, || TcpListener::bind(("::", PORT)))?;
    for to in service.at(80) {
        let connect = move || TcpStream::connect_timeout(&to, Duration::from_secs(20));
        let mut asking = poll(&format!("a connection to {to}"), || within(&client, connect))?;
        let (mut answering, from) = listener.accept().map_err(|error| error.to_string())?;
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let own =
            server.ips.iter().copied().find(|ip| ip.is_ipv4() == from.is_ipv4()).ok_or("no such family")?;
        within(&server, move || out_of_window(own, from))?;
        answering.set_read_timeout(Some(SOON)).map_err(|error| error.to_string())?;
        let end = answering.read(&mut [0]).map_err(|error| error.kind());
        equal("what the server reads, and not the end", end, Err(ErrorKind::WouldBlock))?;
        asking.write_all(b"?").map_err(|error| error.to_string())?;
        equal("what it reads of a client that goes on", answering.read(&mut [0]).ok(), Some(1))?;
    }
    Ok(())
}

fn within<T: Send + 'static>(
    pod: &Peer,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let outcome = netns::run(&pod.netns, move || Ok(work())).map_err(|error| error.to_string())?;
    outcome.map_err(|error| error.to_string())
}

/// Sends a segment that belongs to the connection by its ports, and by its numbers to none.
fn out_of_window(from: IpAddr, to: SocketAddr) -> std::io::Result<()> {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket: UdpSocket = Socket::new(domain, Type::RAW, Some(Protocol::TCP))?.into();
    let mut segment = Vec::new();
    segment.extend(PORT.to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend([7; 8]); // numbers of what is sent and of what is acknowledged
    segment.extend([5 << 4, 0x10, 0xff, 0xff, 0, 0, 0, 0]); // ACK, the largest window
    segment.extend(b"lost");
    let sum = checksum(from, to.ip(), &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    socket.send_to(&segment, (to.ip(), 0)).map(drop)
}

/// The checksum of TCP, over the addresses too (RFC 9293, section 3.1).
fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let octets = |ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut all = [octets(from), octets(to)].concat();
    all.extend([0, 6]);
    all.extend((segment.len() as u16).to_be_bytes());
    all.extend(segment);
    let mut sum: u32 = all.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
