//! One server takes over from another on the same addresses, as in an upgrade: under load, not one question is lost.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;

use crate::api::Api;
use crate::daemon::{Daemon, NOBODY, await_status};
use crate::fixture::query;
use crate::peers::{read_framed, write_framed};

/// How often the server is replaced.
const TIMES: usize = 3;
/// How many clients ask all the time, by either protocol, each time from another port: all sockets are met.
const CLIENTS: usize = 3;
/// How many questions a client has under way by UDP.
const BURST: usize = 64;
const FLAGS: [&str; 3] = ["--handover", "--lameduck", "0"];
const NAME: &str = "backend.shop.svc.cluster.local";

/// What clients saw, who ask until told to stop. None of them asks twice.
#[derive(Default)]
struct Load {
    answered: AtomicUsize,
    lost: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    /// Asks so many questions at a time; `ask` gives the replies.
    fn run(&self, questions: usize, ask: impl Fn() -> Vec<Vec<u8>>) {
        while !self.stop.load(Ordering::SeqCst) {
            let is_well = |reply: &&Vec<u8>| {
                Message::from_vec(reply).unwrap().metadata.response_code == ResponseCode::NoError
            };
            let answered = ask().iter().filter(is_well).count();
            self.answered.fetch_add(answered, Ordering::SeqCst);
            self.lost.fetch_add(questions - answered, Ordering::SeqCst);
        }
    }

    /// Waits until so many more questions are answered.
    fn go_on(&self, more: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + more;
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.answered.load(Ordering::SeqCst) < goal {
            assert!(Instant::now() < deadline, "nobody answers any more");
            thread::yield_now();
        }
    }
}

/// A burst, so that there are questions in the sockets' queues all the time.
fn by_udp(server: SocketAddr, question: &[u8]) -> Vec<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket.connect(server).unwrap();
    (0..BURST).for_each(|_| drop(socket.send(question)));
    let receive = |_| {
        let mut reply = vec![0; 512];
        let length = socket.recv(&mut reply).ok()?;
        reply.truncate(length);
        Some(reply)
    };
    (0..BURST).map_while(receive).collect()
}

fn by_tcp(server: SocketAddr, question: &[u8]) -> Vec<Vec<u8>> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    write_framed(&mut stream, question);
    vec![read_framed(&mut stream)]
}

#[test]
fn a_new_server_takes_over_without_a_lost_question() {
    let api = Api::start().address.to_string();
    let mut old = Daemon::start_at("127.0.0.1:0", &api, &FLAGS);
    await_status(&old, &format!("{NAME} A"), "NOERROR");
    let (server, load) = (old.dns, Load::default());
    let question = query(&format!("{NAME}."), RecordType::A).to_vec().unwrap();
    thread::scope(|clients| {
        for _ in 0..CLIENTS {
            clients.spawn(|| load.run(BURST, || by_udp(server, &question)));
            clients.spawn(|| load.run(1, || by_tcp(server, &question)));
        }
        for _ in 0..TIMES {
            load.go_on(2000);
            let new = Daemon::start_at(&server.to_string(), &api, &FLAGS);
            load.go_on(2000);
            old.signal(Signal::SIGTERM);
            assert!(old.wait().success());
            old = new;
        }
        load.go_on(2000);
        load.stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(load.lost.into_inner(), 0, "of {}", load.answered.into_inner());
}

#[test]
fn a_server_that_waits_takes_over_from_one_that_dies() {
    let api = Api::start().address.to_string();
    let mut old = Daemon::start_at("127.0.0.1:0", &api, &FLAGS);
    await_status(&old, &format!("{NAME} A"), "NOERROR");
    let server = old.dns;
    thread::scope(|threads| {
        // It never lists the cluster, and so leaves the answers to the other.
        let new = threads.spawn(|| Daemon::start_at(&server.to_string(), NOBODY, &FLAGS));
        old.await_log("is about to take over");
        await_status(&old, &format!("{NAME} A"), "NOERROR");
        // Told to stop, the old one waits for the new one; killed, it cannot.
        old.signal(Signal::SIGTERM);
        await_status(&old, &format!("{NAME} A"), "NOERROR");
        drop(old);
        await_status(&new.join().unwrap(), &format!("{NAME} A"), "SERVFAIL");
    });
}
