//! A machine on the node's link that knows nothing of pods, and UDP with it, for the tests beside.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use weft_netlink::netns::Namespace;
use weft_testkit::namespace::{cable, end, sh};

use crate::node::{Node, Pod};

/// The node's addresses on the link.
pub(crate) const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// The other machine's.
pub(crate) const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// How long an answer may take before there is another question.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes the machine and the link.
pub(crate) fn outside(node: &Node) -> Pod {
    let machine = node.pod("outside");
    let families = |[v4, v6]: [&str; 2]| [format!("{v4}/24"), format!("{v6}/64")];
    cable(
        &end(&node.namespace, "uplink", families(NODE)),
        &end(machine.namespace(), "eth0", families(OUTSIDE)),
    );
    sh(&node.namespace, "ip link set lo up");
    machine
}

pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// Answers every datagram with `name`, the sender's address and the datagram.
pub(crate) fn serve_udp(namespace: &Namespace, address: SocketAddr, name: &'static str) {
    let socket = namespace.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, sender)) = socket.recv_from(&mut buffer) {
            let question = String::from_utf8_lossy(&buffer[..length]);
            let _ = socket.send_to(format!("{name} {} {question}", sender.ip()).as_bytes(), sender);
        }
    });
}

/// A client of UDP that keeps its port.
pub(crate) fn udp_client(namespace: &Namespace, server: SocketAddr) -> UdpSocket {
    let any = if server.is_ipv4() { at("0.0.0.0", 0) } else { at("::", 0) };
    let socket = namespace.run(|| UdpSocket::bind(any)).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server).unwrap();
    socket
}

/// Who answers, and under which address the client was seen. A datagram may get lost, so there is more than
/// one question; what comes late answers an older one.
pub(crate) fn ask(socket: &UdpSocket) -> io::Result<(String, IpAddr)> {
    static QUESTIONS: AtomicU32 = AtomicU32::new(0);
    let mut outcome = Err(io::ErrorKind::TimedOut.into());
    for _ in 0..3 {
        let question = QUESTIONS.fetch_add(1, Ordering::Relaxed).to_string();
        outcome = socket.send(question.as_bytes()).and_then(|_| answer_to(&question, socket));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn answer_to(question: &str, socket: &UdpSocket) -> io::Result<(String, IpAddr)> {
    let mut buffer = [0; 64];
    loop {
        let length = socket.recv(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let words: Vec<&str> = text.split(' ').collect();
        if words[2] == question {
            return Ok((words[0].to_owned(), words[1].parse().unwrap()));
        }
    }
}
