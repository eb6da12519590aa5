//! A node, pods and a machine outside of the cluster, as network namespaces with servers in them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use weft_netlink::netns::Namespace;
use weft_types::Family;

use crate::namespace::{cable, end, forward, machine, route_by, sh};

/// How long an answer may take. None takes nearly as long unless the test fails.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A node with two pods, and a machine outside of the cluster.
///
/// ```text
/// outside 172.30.0.1 ---- 172.30.0.11 node 10.244.1.1 ---- 10.244.1.2 pod 1
///         fd00:30::1      fd00:30::11      10.244.2.1 ---- 10.244.2.2 pod 2
/// ```
#[derive(Debug)]
pub struct World {
    /// The node.
    pub node: Namespace,
    /// Its pods.
    pub pods: [Namespace; 2],
    /// The machine outside.
    pub outside: Namespace,
}

impl World {
    /// All of it, with forwarding on.
    pub fn new() -> World {
        let world = World { node: machine(), pods: [machine(), machine()], outside: machine() };
        for (index, pod) in world.pods.iter().enumerate() {
            let k = index + 1;
            world.attach(
                pod,
                &format!("pod{k}"),
                [&format!("10.244.{k}.1"), &format!("fd00:244:{k}::1")],
                [&format!("10.244.{k}.2"), &format!("fd00:244:{k}::2")],
            );
        }
        let (node, outside) = (["172.30.0.11", "fd00:30::11"], ["172.30.0.1", "fd00:30::1"]);
        world.attach(&world.outside, "outside", node, outside);
        route_by(&world.node, outside);
        forward(&world.node);
        world
    }

    /// A cable from the node to a machine that has the node as its router.
    fn attach(&self, machine: &Namespace, name: &str, node: [&str; 2], own: [&str; 2]) {
        let with_prefix = |[v4, v6]: [&str; 2]| [format!("{v4}/24"), format!("{v6}/64")];
        cable(&end(&self.node, name, with_prefix(node)), &end(machine, "eth0", with_prefix(own)));
        route_by(machine, node);
    }

    /// Starts servers in both pods on that port, over TCP and UDP and both families. They answer with their
    /// own pod's number and the address that they see as the client's: `1 10.244.2.2`.
    pub fn serve(&self, port: u16) {
        for (index, pod) in self.pods.iter().enumerate() {
            let any = SocketAddr::new("::".parse().unwrap(), port);
            let (tcp, udp) =
                pod.run(|| (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap())).unwrap();
            thread::spawn(move || serve_tcp(&tcp, index + 1));
            thread::spawn(move || serve_udp(&udp, index + 1));
        }
    }
}

/// Puts the pods of a [`World`]'s node on a bridge `cni0`, as the plugin does: whatever goes from one to the other
/// goes through the host.
pub fn put_on_bridge(node: &Namespace) {
    sh(node, "ip link add cni0 type bridge && ip link set cni0 up");
    sh(node, "sysctl -qw net.ipv4.conf.all.send_redirects=0");
    // Not there without br_netfilter.
    sh(node, "for it in iptables ip6tables; do sysctl -qw net.bridge.bridge-nf-call-$it=0 || true; done");
    for k in [1, 2] {
        sh(node, &format!("ip addr flush dev pod{k} scope global && ip link set pod{k} master cni0"));
        sh(node, &format!("bridge link set dev pod{k} isolated on && ip addr add 10.244.{k}.1/24 dev cni0"));
        sh(node, &format!("ip addr add fd00:244:{k}::1/64 dev cni0 nodad"));
    }
}

/// A pod's address, of pod 1 or 2.
pub fn pod_address(family: Family, pod: usize) -> IpAddr {
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
#[derive(Debug)]
pub struct Connection(TcpStream);

impl Connection {
    /// Connects from a machine.
    ///
    /// # Errors
    /// Where nobody accepts it.
    pub fn open(from: &Namespace, to: SocketAddr) -> std::io::Result<Connection> {
        Connection::open_within(from, to, PATIENCE)
    }

    /// The same, but without an answer for so long it fails.
    ///
    /// # Errors
    /// Where nobody accepts it.
    pub fn open_within(from: &Namespace, to: SocketAddr, patience: Duration) -> std::io::Result<Connection> {
        let stream = from.run(|| TcpStream::connect_timeout(&to, patience)).unwrap()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection(stream))
    }

    /// Ends it without the usual farewell, so that it is over for everybody at once.
    pub fn reset(self) {
        let stream = socket2::Socket::from(self.0);
        stream.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// What the server answers now.
    pub fn ask(&mut self) -> String {
        self.try_ask().unwrap()
    }

    /// The same.
    ///
    /// # Errors
    /// Where it has ended, or no answer comes.
    pub fn try_ask(&mut self) -> std::io::Result<String> {
        let mut length = [0];
        self.0.write_all(b"?")?;
        self.0.read_exact(&mut length)?;
        let mut text = vec![0; length[0].into()];
        self.0.read_exact(&mut text)?;
        String::from_utf8(text).map_err(std::io::Error::other)
    }
}

/// What a server answers over a new TCP connection.
pub fn tcp(from: &Namespace, to: SocketAddr) -> String {
    Connection::open(from, to).unwrap_or_else(|error| panic!("{to}: {error}")).ask()
}

/// What a server answers to a datagram from a new socket.
///
/// # Errors
/// Where nothing answers.
pub fn udp(from: &Namespace, to: SocketAddr) -> std::io::Result<String> {
    udp_within(from, to, PATIENCE)
}

/// The same, but without an answer for so long it fails.
///
/// # Errors
/// Where nothing answers.
pub fn udp_within(from: &Namespace, to: SocketAddr, patience: Duration) -> std::io::Result<String> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = from.run(|| UdpSocket::bind((any, 0))).unwrap()?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Whether somebody said no, as against silence.
pub fn is_refused(result: std::io::Result<impl Sized>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}
