//! The server under test on a loopback port, a little upstream, and `dig`. No test lives here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use nix::sched::{CloneFlags, unshare};
use tokio_util::task::TaskTracker;
use weft_dns::forward::{ForwardOptions, Forwarder, Policy, Settings};
use weft_dns::metrics::Metrics;
use weft_dns::pipeline::handler::Handler;
use weft_dns::server::handover::Inherited;
use weft_dns::server::{Limits, Listen, Listener, Stop};
use weft_dns::zone::Zone;

/// How many queries may wait for upstreams, where that does not matter.
pub(crate) const MOST_WAITING: usize = 1000;

/// A server in a thread of its own. Ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) zone: Arc<ArcSwap<Zone>>,
    pub(crate) stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(zone: Zone, upstreams: &[SocketAddr]) -> Server {
        Server::start_on("127.0.0.1:0", zone, upstreams, MOST_WAITING)
    }

    pub(crate) fn start_on(
        listen: &str,
        zone: Zone,
        upstreams: &[SocketAddr],
        most_waiting: usize,
    ) -> Server {
        let settings = Settings { upstreams: upstreams.to_vec(), ..Settings::default() };
        let manner = ForwardOptions { policy: Policy::Sequential, ..ForwardOptions::default() };
        Server::start_with(listen, zone, settings, manner, most_waiting)
    }

    /// With other limits for connections.
    pub(crate) fn start_limited(zone: Zone, upstreams: &[SocketAddr], limits: Limits) -> Server {
        let settings = Settings { upstreams: upstreams.to_vec(), ..Settings::default() };
        Server::launch("127.0.0.1:0", zone, settings, ForwardOptions::default(), MOST_WAITING, limits)
    }

    pub(crate) fn start_with(
        listen: &str,
        zone: Zone,
        settings: Settings,
        manner: ForwardOptions,
        most_waiting: usize,
    ) -> Server {
        Server::launch(listen, zone, settings, manner, most_waiting, Limits::default())
    }

    fn launch(
        listen: &str,
        zone: Zone,
        settings: Settings,
        manner: ForwardOptions,
        most_waiting: usize,
        limits: Limits,
    ) -> Server {
        let listen: SocketAddr = listen.parse().unwrap();
        let bind = move || {
            let listener = Listener::bind(listen, &mut Inherited::default()).unwrap();
            Box::new(listener.with_limits(limits)) as Box<dyn Listen>
        };
        Server::launch_by(bind, zone, settings, manner, most_waiting)
    }

    /// The same on what `bind` makes, which runs within the server's runtime.
    pub(crate) fn launch_by(
        bind: impl FnOnce() -> Box<dyn Listen> + Send + 'static,
        zone: Zone,
        settings: Settings,
        manner: ForwardOptions,
        most_waiting: usize,
    ) -> Server {
        let config = zone.config();
        config.stub_domains.set(&config.zone, settings.stub_domains.keys());
        let metrics = Arc::new(Metrics::new(53, "cluster.local."));
        let forwarder = Arc::new(Forwarder::new(manner, metrics.clone()));
        let zone = Arc::new(ArcSwap::from_pointee(zone));
        let handler = Arc::new(Handler::new(zone.clone(), forwarder.clone(), most_waiting, metrics.clone()));
        let stop = Stop::default();
        let (bound, listening) = mpsc::channel();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    forwarder.configure(settings);
                    let (listener, tasks) = (bind(), TaskTracker::new());
                    bound.send(listener.address()).unwrap();
                    listener.serve(handler, &tasks, stop).unwrap();
                    tasks.close();
                    tasks.wait().await;
                });
            }
        });
        Server { address: listening.recv().unwrap(), metrics, zone, stop, thread: Some(thread) }
    }

    /// What `dig` prints for these arguments. One try, so that a lost answer is seen as one.
    pub(crate) fn dig(&self, arguments: &str) -> String {
        dig(&self.address.ip().to_string(), self.address.port(), arguments)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.all.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in the server is a failure of the test, unless the test failed before.
            assert!(thread.join().is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

/// Runs `dig` against an address and port. Panics where it is not installed: Debian's bind9-dnsutils has it.
pub(crate) fn dig(address: &str, port: u16, arguments: &str) -> String {
    let server = format!("@{address}");
    let port = port.to_string();
    let output = Command::new("dig")
        .args([&server, "-p", &port, "+tries=1", "+time=6", "+nocookie"])
        .args(arguments.split_whitespace())
        .output()
        .expect("dig, of the Debian package bind9-dnsutils, must be installed");
    String::from_utf8(output.stdout).unwrap()
}

/// Does the work on a thread in a network namespace of its own, on whose loopback these addresses are. The
/// namespace ends with the last who is in it. Needs root.
pub(crate) fn in_new_namespace(addresses: &[&str], work: impl FnOnce() + Send) {
    let ip = |arguments: &[&str]| assert!(Command::new("ip").args(arguments).status().unwrap().success());
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
            ip(&["link", "set", "lo", "up"]);
            for address in addresses {
                // One of IPv6 is there at once only where nobody is asked whether it has it.
                let nodad = if address.contains(':') { &["nodad"][..] } else { &[] };
                ip(&[&["address", "add", address, "dev", "lo"], nodad].concat());
            }
            work();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The answer section of what `dig` printed, a line for each record without TTL and class, in order.
pub(crate) fn answer_section(text: &str) -> Vec<String> {
    let section = text.split(";; ANSWER SECTION:\n").nth(1).unwrap_or_default();
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        [&words[..1], &words[3..]].concat().join(" ")
    };
    let mut lines: Vec<String> = section.lines().take_while(|line| !line.is_empty()).map(line).collect();
    lines.sort();
    lines
}

/// An upstream that knows a few names: `www.example.com` and `www2.example.com`, `www6.example.com` (IPv6),
/// `big.example.com` (200 records), `brief.example.com` (holds for a second), `rich.example.com` (an alias,
/// with records in all sections, vouched for), `silent.example.com` (never answers); others do not exist.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Sockets at one port. One that the system finds for the first may be taken for the second.
pub(crate) fn bind_both(address: SocketAddr) -> (TcpListener, UdpSocket) {
    for _ in 0..16 {
        let tcp = TcpListener::bind(address).unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (tcp, udp);
        }
    }
    panic!("no port at {address} is free for both TCP and UDP");
}

impl Upstream {
    pub(crate) fn start() -> Upstream {
        let (tcp, udp) = bind_both(([127, 0, 0, 1], 0).into());
        let address = tcp.local_addr().unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (asked, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let threads = vec![
            std::thread::spawn({
                let (asked, stop) = (asked.clone(), stop.clone());
                move || serve_udp(&udp, &asked, &stop)
            }),
            std::thread::spawn({
                let stop = stop.clone();
                move || serve_tcp(&tcp, &stop)
            }),
        ];
        Upstream { address, asked, stop, threads }
    }

    /// How many queries of clients came over UDP.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the upstream panicked");
        }
    }
}

fn serve_udp(socket: &UdpSocket, asked: &AtomicUsize, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::SeqCst) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        let Some(mut reply) = respond(&buffer[..length], asked) else { continue };
        if reply.answers.len() > 20 {
            reply.answers.clear();
            reply.metadata.truncation = true;
        }
        socket.send_to(&reply.to_vec().unwrap(), client).unwrap();
    }
}

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        let question = read_framed(&mut stream);
        if let Some(reply) = respond(&question, &AtomicUsize::new(0)) {
            write_framed(&mut stream, &reply.to_vec().unwrap());
        }
    }
}

fn respond(bytes: &[u8], asked: &AtomicUsize) -> Option<Message> {
    let mut message = Message::from_vec(bytes).unwrap();
    assert_eq!(message.queries.len(), 1);
    // At its start the server looks once whether queries come back to it.
    if message.queries[0].query_type != RecordType::HINFO {
        asked.fetch_add(1, Ordering::SeqCst);
    }
    let name = message.queries[0].name.clone();
    let label = String::from_utf8(name.iter().next().unwrap_or_default().to_ascii_lowercase()).unwrap();
    let address = |last, ttl| Record::from_rdata(name.clone(), ttl, RData::A(A::new(192, 0, 2, last)));
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    message.metadata.authentic_data = false;
    match label.as_str() {
        "silent" => return None,
        "www" if message.queries[0].query_type != RecordType::A => message.authorities = vec![soa()],
        "www" => message.answers = vec![address(80, 60)],
        "brief" => message.answers = vec![address(81, 1)],
        "www6" => {
            let data = RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80));
            message.answers = vec![Record::from_rdata(name.clone(), 60, data)];
        }
        "rich" => {
            let target = Name::from_ascii("target.example.com.").unwrap();
            let alias = Record::from_rdata(name.clone(), 300, RData::CNAME(CNAME(target.clone())));
            let of_target = |last| Record::from_rdata(target.clone(), 60, RData::A(A::new(192, 0, 2, last)));
            message.answers = vec![alias, of_target(90), of_target(91)];
            message.authorities = vec![soa()];
            message.additionals = vec![Record::from_rdata(name.clone(), 7, RData::A(A::new(192, 0, 2, 92)))];
            message.metadata.authentic_data = true;
        }
        "www2" => message.answers = vec![address(82, 60)],
        "big" => message.answers = (0..200).map(|last| address(last, 60)).collect(),
        _ => {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.authorities = vec![soa()];
        }
    }
    Some(message)
}

fn soa() -> Record {
    let data = SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, 5);
    Record::from_rdata(Name::root(), 5, RData::SOA(data))
}

/// Reads one length-prefixed message.
pub(crate) fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Writes one length-prefixed message.
pub(crate) fn write_framed(stream: &mut TcpStream, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).unwrap();
}
