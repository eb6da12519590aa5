//! A node, pods and a machine outside of the cluster, as network namespaces with servers in them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use weft_netlink::netns::Namespace;
use weft_types::Family;

/// How long an answer may take. None takes nearly as long unless the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A node with two pods, and a machine outside of the cluster.
///
/// ```text
/// outside 172.30.0.1 ---- 172.30.0.11 node 10.244.1.1 ---- 10.244.1.2 pod 1
///         fd00:30::1      fd00:30::11      10.244.2.1 ---- 10.244.2.2 pod 2
/// ```
pub(crate) struct World {
    pub(crate) node: Namespace,
    pub(crate) pods: [Namespace; 2],
    pub(crate) outside: Namespace,
}

impl World {
    pub(crate) fn new() -> World {
        let namespace = || {
            let namespace = Namespace::temporary().unwrap();
            namespace.run(trust_addresses).unwrap();
            namespace
        };
        let world = World { node: namespace(), pods: [namespace(), namespace()], outside: namespace() };
        world.node.run(|| up("lo")).unwrap();
        for (index, pod) in world.pods.iter().enumerate() {
            let k = index + 1;
            world.link(
                pod,
                &format!("pod{k}"),
                &format!("10.244.{k}"),
                &format!("fd00:244:{k}:"),
                ["1", "2"],
            );
        }
        world.link(&world.outside, "outside", "172.30.0", "fd00:30:", ["11", "1"]);
        world
            .node
            .run(|| {
                ip("route add default via 172.30.0.1");
                ip("route add default via fd00:30::1");
                for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                    std::fs::write(format!("/proc/sys/net/{path}"), "1").unwrap();
                }
            })
            .unwrap();
        world
    }

    /// A link between the node and a machine that has the node as its router.
    fn link(&self, machine: &Namespace, name: &str, v4: &str, v6: &str, [node, other]: [&str; 2]) {
        self.node
            .run(|| {
                ip(&format!("link add {name} type veth peer name eth0 netns {}", machine.path().display()));
                ip(&format!("address add {v4}.{node}/24 dev {name}"));
                ip(&format!("address add {v6}:{node}/64 dev {name} nodad"));
                up(name);
            })
            .unwrap();
        machine
            .run(|| {
                ip(&format!("address add {v4}.{other}/24 dev eth0"));
                ip(&format!("address add {v6}:{other}/64 dev eth0 nodad"));
                up("lo");
                up("eth0");
                ip(&format!("route add default via {v4}.{node}"));
                ip(&format!("route add default via {v6}:{node}"));
            })
            .unwrap();
    }

    /// Starts servers in both pods on that port, over TCP and UDP and both families. They answer with their own pod's
    /// number and the address that they see as the client's: `1 10.244.2.2`.
    pub(crate) fn serve(&self, port: u16) {
        for (index, pod) in self.pods.iter().enumerate() {
            let any = SocketAddr::new("::".parse().unwrap(), port);
            let (tcp, udp) =
                pod.run(|| (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap())).unwrap();
            thread::spawn(move || serve_tcp(&tcp, index + 1));
            thread::spawn(move || serve_udp(&udp, index + 1));
        }
    }
}

/// Lets IPv6 addresses be used at once: a router asks for nobody's link address while it still probes its own
/// link-local one for duplicates, and packets wait for seconds.
fn trust_addresses() {
    for devices in ["all", "default"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{devices}/accept_dad"), "0").unwrap();
    }
}

pub(crate) fn pod_address(family: Family, pod: usize) -> IpAddr {
    match family {
        Family::V4 => format!("10.244.{pod}.2").parse().unwrap(),
        Family::V6 => format!("fd00:244:{pod}::2").parse().unwrap(),
    }
}

fn answer(pod: usize, client: SocketAddr) -> String {
    format!("{pod} {}", client.ip().to_canonical())
}

/// Answers every line of every connection, so that a connection can be asked again later.
fn serve_tcp(listener: &TcpListener, pod: usize) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        thread::spawn(move || {
            let (mut byte, client) = ([0], stream.peer_addr().unwrap());
            while stream.read(&mut byte).is_ok_and(|length| length > 0) {
                let text = answer(pod, client);
                stream.write_all(&[&[text.len() as u8], text.as_bytes()].concat()).unwrap();
            }
        });
    }
}

fn serve_udp(socket: &UdpSocket, pod: usize) {
    let mut buffer = [0; 64];
    while let Ok((_, client)) = socket.recv_from(&mut buffer) {
        socket.send_to(answer(pod, client).as_bytes(), client).unwrap();
    }
}

/// A TCP connection to a server of [`World::serve`].
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) fn open(from: &Namespace, to: SocketAddr) -> std::io::Result<Connection> {
        Connection::open_within(from, to, PATIENCE)
    }

    /// The same, but without an answer for so long it fails.
    pub(crate) fn open_within(
        from: &Namespace,
        to: SocketAddr,
        patience: Duration,
    ) -> std::io::Result<Connection> {
        let stream = from.run(|| TcpStream::connect_timeout(&to, patience)).unwrap()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection(stream))
    }

    pub(crate) fn ask(&mut self) -> String {
        let mut length = [0];
        self.0.write_all(b"?").unwrap();
        self.0.read_exact(&mut length).unwrap();
        let mut text = vec![0; length[0].into()];
        self.0.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}

/// What a server answers over a new TCP connection.
pub(crate) fn tcp(from: &Namespace, to: SocketAddr) -> String {
    Connection::open(from, to).unwrap_or_else(|error| panic!("{to}: {error}")).ask()
}

/// What a server answers to a datagram from a new socket.
pub(crate) fn udp(from: &Namespace, to: SocketAddr) -> std::io::Result<String> {
    udp_within(from, to, PATIENCE)
}

/// The same, but without an answer for so long it fails.
pub(crate) fn udp_within(from: &Namespace, to: SocketAddr, patience: Duration) -> std::io::Result<String> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = from.run(|| UdpSocket::bind((any, 0))).unwrap()?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub(crate) fn is_refused(result: std::io::Result<impl Sized>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Runs `ip` in the calling thread's namespace.
fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

fn up(link: &str) {
    ip(&format!("link set {link} up"));
}

/// Runs a program in the calling thread's namespace and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
