//! Sockets of SCTP, which the running kernel need not have: pods that are namespaces of a virtual machine, whose
//! network cards are links of a node of the running kernel.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::thread;
use std::time::Duration;

pub use socket2::Socket;
use socket2::{Domain, Protocol, SockAddr, Type};

use crate::namespace::{Namespace, sh};
use crate::virtual_machine::Machine;

/// What a test says in the other kernel when all went well.
pub const PASSED: &str = "associations are made as the policies have it";
/// How long an association may take, and how long silence must last to count as such.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// See [`PATIENCE`].
pub const SILENCE: Duration = Duration::from_secs(2);

/// Where the other machine has it: its shell takes `ip` for a part of itself.
const IP: &str = "/bin/ip";
/// What tells a test that it is there.
const PODS: &str = "WEFT_SCTP_PODS";

/// The addresses behind an interface. The first of its networks is the node's.
pub fn addresses(interface: usize, last: u8) -> [IpAddr; 2] {
    [format!("10.9.{interface}.{last}"), format!("fd09:{interface}::{last}")]
        .map(|text| text.parse().unwrap())
}

/// Whether this is the other kernel.
pub fn is_there() -> bool {
    std::env::var_os(PODS).is_some()
}

/// Runs a test once more in the other kernel, whose interfaces have these pods, by the last numbers of their
/// addresses, and are connected to that node.
pub fn run_there(test: &str, node: &Namespace, interfaces: &[Range<u8>]) {
    let links: Vec<String> = (0..interfaces.len()).map(|interface| format!("n{interface}")).collect();
    for (interface, link) in links.iter().enumerate() {
        let [v4, v6] = addresses(interface, 1);
        sh(
            node,
            &format!(
                "set -e; ip tuntap add {link} mode tap; ip addr add {v4}/24 dev {link}; \
                 ip addr add {v6}/64 dev {link} nodad; ip link set {link} up"
            ),
        );
    }
    let setup = setup(interfaces);
    let other = Machine { modules: &["sctp"], programs: &["ip"], links: &links, setup: &setup };
    let said = node.run(|| other.run(&format!("--exact {test} --nocapture"))).unwrap();
    assert!(said.contains(PASSED), "{said}");
}

/// Makes a namespace of each interface, as a shell does it there.
fn setup(interfaces: &[Range<u8>]) -> String {
    let pods = |(interface, pods): (usize, &Range<u8>)| {
        let [gateway4, gateway6] = addresses(interface, 1);
        let mut lines = format!(
            "{IP} netns add p{interface}; {IP} link set n{interface} netns p{interface}; \
             {IP} -n p{interface} link set lo up; {IP} -n p{interface} link set n{interface} up\n"
        );
        for [v4, v6] in pods.clone().map(|last| addresses(interface, last)) {
            lines += &format!(
                "{IP} -n p{interface} address add {v4}/24 dev n{interface}; \
                 {IP} -n p{interface} address add {v6}/64 dev n{interface} nodad\n"
            );
        }
        lines
            + &format!(
                "{IP} -n p{interface} route add default via {gateway4}; {IP} -n p{interface} route add default via {gateway6}\n"
            )
    };
    interfaces.iter().enumerate().map(pods).collect::<String>() + &format!("export {PODS}=yes")
}

/// The pods of an interface, in the other kernel.
pub fn namespace(interface: usize) -> Namespace {
    Namespace::open(format!("/run/netns/p{interface}")).unwrap()
}

/// A socket of one address alone: an association would have all of those that its end has.
fn socket(address: SocketAddr) -> io::Result<Socket> {
    /// `IPPROTO_SCTP`
    const SCTP: i32 = 132;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::from(SCTP)))?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// Waits for associations at that address.
pub fn listen(namespace: &Namespace, address: SocketAddr) -> Socket {
    let open = || {
        let socket = socket(address)?;
        socket.listen(64)?;
        io::Result::Ok(socket)
    };
    namespace.run(open).unwrap().unwrap()
}

/// Tells everybody the pod's name.
pub fn serve(namespace: &Namespace, address: SocketAddr, name: &'static str) {
    let listener = listen(namespace, address);
    thread::spawn(move || {
        while let Ok((mut association, _)) = listener.accept() {
            // Who is asked for the name is read by who asked.
            let _ = association.write_all(name.as_bytes());
        }
    });
}

/// Makes an association.
///
/// # Errors
/// Where it is not made in time.
pub fn associate(
    namespace: &Namespace,
    from: SocketAddr,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<Socket> {
    let connect = || {
        let association = socket(from)?;
        association.connect_timeout(&SockAddr::from(to), patience)?;
        association.set_read_timeout(Some(patience))?;
        Ok(association)
    };
    namespace.run(connect).unwrap()
}

/// Asks for a pod's name.
///
/// # Errors
/// Where there is no answer in time.
pub fn ask(
    namespace: &Namespace,
    from: SocketAddr,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<String> {
    let mut name = String::new();
    associate(namespace, from, to, patience)?.read_to_string(&mut name)?;
    Ok(name)
}
