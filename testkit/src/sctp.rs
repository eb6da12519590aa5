//! Sockets of SCTP, which the running kernel need not have: pods that are namespaces of a user-mode-linux,
//! whose interfaces are cables to a node of the running kernel.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::thread;
use std::time::Duration;

pub use socket2::Socket;
use socket2::{Domain, Protocol, SockAddr, Type};

use crate::namespace::{Namespace, bare_end, cable, end, machine, sh};
use crate::user_mode_linux;

/// What a test says in the other kernel when all went well.
pub const PASSED: &str = "associations are made as the policies have it";
/// How long an association may take, and how long silence must last to count as such.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// See [`PATIENCE`].
pub const SILENCE: Duration = Duration::from_secs(2);

/// The modules that it needs, in an order in which each finds what it needs itself.
const MODULES: &str = "crc-ccitt ipv6 hmac udp_tunnel ip6_udp_tunnel sctp";
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
    // The host's end of the cables has no address, so that its kernel answers nobody.
    let pods = machine();
    for interface in 0..interfaces.len() {
        let [v4, v6] = addresses(interface, 1);
        cable(
            &end(node, &format!("n{interface}"), [format!("{v4}/24"), format!("{v6}/64")]),
            &bare_end(&pods, &format!("p{interface}")),
        );
        sh(&pods, &format!("sysctl -qw net.ipv6.conf.p{interface}.disable_ipv6=1"));
    }
    let device = |interface| format!("vec{interface}:transport=raw,ifname=p{interface},depth=64");
    let devices: Vec<String> = (0..interfaces.len()).map(device).collect();
    let setup = setup(interfaces);
    let said = pods.run(|| user_mode_linux::run_test(test, MODULES, &setup, &devices)).unwrap();
    assert!(said.contains(PASSED), "user-mode-linux: {said}");
}

/// Makes a namespace of each interface, as a shell does it there.
fn setup(interfaces: &[Range<u8>]) -> String {
    let pods = |(interface, pods): (usize, &Range<u8>)| {
        let [gateway4, gateway6] = addresses(interface, 1);
        let mut lines = format!(
            "ip netns add p{interface}; ip link set vec{interface} netns p{interface}; \
             ip -n p{interface} link set lo up; ip -n p{interface} link set vec{interface} up\n"
        );
        for [v4, v6] in pods.clone().map(|last| addresses(interface, last)) {
            lines += &format!(
                "ip -n p{interface} address add {v4}/24 dev vec{interface}; \
                 ip -n p{interface} address add {v6}/64 dev vec{interface} nodad\n"
            );
        }
        lines
            + &format!(
                "ip -n p{interface} route add default via {gateway4}; ip -n p{interface} route add default via {gateway6}\n"
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
