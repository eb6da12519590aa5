//! One server takes over from another on the same addresses, as in an upgrade: under load, not one query is
//! lost.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;
use weft_testkit::wait::eventually;

use crate::api;
use crate::daemon::{Daemon, HTTP, NOBODY, await_status};
use crate::encrypted::{certify, kdig};
use crate::fixture::query;
use crate::peers::{in_new_namespace, read_framed, write_framed};

/// How often the server is replaced.
const TIMES: usize = 3;
/// How many clients ask all the time, by either protocol, each time from another port: all sockets are met.
const CLIENTS: usize = 3;
/// How many queries a client has under way by UDP.
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
    /// Asks so many queries at a time; `ask` says how many are answered.
    fn run(&self, questions: usize, ask: impl Fn() -> usize) {
        while !self.stop.load(Ordering::SeqCst) {
            let answered = ask();
            self.answered.fetch_add(answered, Ordering::SeqCst);
            self.lost.fetch_add(questions - answered, Ordering::SeqCst);
        }
    }

    /// Waits until so many more queries are answered.
    fn go_on(&self, more: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + more;
        eventually("further answers", || self.answered.load(Ordering::SeqCst) >= goal);
    }
}

/// Tells clients to stop when it is dropped, be it in a panic.
struct Ending<'a>(Vec<&'a Load>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|load| load.stop.store(true, Ordering::SeqCst));
    }
}

/// How many of these replies answer the query.
fn well(replies: &[Vec<u8>]) -> usize {
    let code = |reply: &Vec<u8>| Message::from_vec(reply).unwrap().metadata.response_code;
    replies.iter().filter(|reply| code(reply) == ResponseCode::NoError).count()
}

/// A burst, so that there are queries in the sockets' queues all the time.
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
    let api_server = api::start();
    let api = api_server.address().to_string();
    let mut old = Daemon::start_at("127.0.0.1:0", &api, &FLAGS);
    await_status(&old, &format!("{NAME} A"), "NOERROR");
    let (server, load) = (old.dns, Load::default());
    let question = query(&format!("{NAME}."), RecordType::A).to_vec().unwrap();
    thread::scope(|clients| {
        for _ in 0..CLIENTS {
            clients.spawn(|| load.run(BURST, || well(&by_udp(server, &question))));
            clients.spawn(|| load.run(1, || well(&by_tcp(server, &question))));
        }
        let _end = Ending(vec![&load]);
        for _ in 0..TIMES {
            load.go_on(2000);
            let new = Daemon::start_at(&server.to_string(), &api, &FLAGS);
            load.go_on(2000);
            old.signal(Signal::SIGTERM);
            assert!(old.wait().success());
            old = new;
        }
        load.go_on(2000);
    });
    assert_eq!(load.lost.into_inner(), 0, "of {}", load.answered.into_inner());
}

#[test]
fn encrypted_sockets_are_handed_over_too() {
    let (api_server, folder) = (api::start(), tempfile::tempdir().unwrap());
    let api = api_server.address().to_string();
    let [certificate, key] = certify(folder.path());
    let files = [&certificate, &key].map(|path| path.to_str().unwrap());
    let start = |[listen, dot, doh]: [&str; 3]| {
        let tls = ["--tls-certificate", files[0], "--tls-key", files[1], "--dot", dot, "--doh", doh];
        Daemon::start_at(listen, &api, &[&FLAGS[..], &tls].concat())
    };
    let mut old = start(["127.0.0.1:0"; 3]);
    await_status(&old, &format!("{NAME} A"), "NOERROR");
    let [dot, doh] = [old.also[0], old.also[1]];
    let places = [old.dns, dot, doh].map(|place| place.to_string());
    let ways =
        [(dot, "+tls"), (doh, "+https"), (dot, "+tls"), (doh, "+https")].map(|way| (way, Load::default()));
    let asked = |(server, way): (SocketAddr, &str)| {
        let text = kdig(server, &certificate, &format!("{way} {NAME} A"));
        usize::from(text.contains("status: NOERROR") && text.contains("10.96.0.20"))
    };
    // Each client's next answer but one is of a connection that it makes from now on.
    let go_on = || ways.iter().for_each(|(_, load)| load.go_on(2));
    thread::scope(|clients| {
        for (way, load) in &ways {
            clients.spawn(move || load.run(1, || asked(*way)));
        }
        let _end = Ending(ways.iter().map(|(_, load)| load).collect());
        for _ in 0..TIMES {
            go_on();
            let new = start([&places[0], &places[1], &places[2]]);
            old.await_log("the next server answers");
            go_on();
            old.signal(Signal::SIGTERM);
            assert!(old.wait().success());
            old = new;
        }
        go_on();
    });
    for ((_, way), load) in ways {
        assert_eq!(load.lost.into_inner(), 0, "{way}, of {}", load.answered.into_inner());
    }
}

#[test]
fn a_server_that_waits_takes_over_from_one_that_dies() {
    let api_server = api::start();
    let api = api_server.address().to_string();
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

/// As two containers of a pod have it.
const POD: &str = "127.0.0.1:53";
const STANDBY: [&str; 10] = [
    "--handover",
    "--standby",
    "--lameduck",
    "0",
    "--health-bind-address",
    "127.0.0.1:8080",
    "--ready-bind-address",
    "127.0.0.1:8181",
    "--metrics-bind-address",
    "127.0.0.1:9153",
];

/// Whoever is killed, the other one answers, and all that came since: the sockets are both servers'.
#[test]
fn a_standby_answers_every_question_from_the_moment_the_other_server_is_killed() {
    in_new_namespace(&[], || {
        let api_server = api::start();
        let api = api_server.address().to_string();
        let mut active = Daemon::start_at(POD, &api, &STANDBY);
        await_status(&active, &format!("{NAME} A"), "NOERROR");
        let server = active.dns;
        let question = query(&format!("{NAME}."), RecordType::A).to_vec().unwrap();
        for _ in 0..TIMES {
            let mut standby = Daemon::spawn_at(POD, &api, &STANDBY);
            standby.await_log("the cluster is listed");
            active.await_log("is about to take over");
            // Kills it.
            drop(active);
            assert_eq!(well(&by_udp(server, &question)), BURST);
            assert_eq!(well(&by_tcp(server, &question)), 1);
            HTTP.iter().for_each(|flag| standby.await_log(flag));
            active = standby;
        }
        // A standby is no reason to stay.
        let mut standby = Daemon::spawn_at(POD, &api, &STANDBY);
        standby.await_log("the cluster is listed");
        active.await_log("is about to take over");
        active.signal(Signal::SIGTERM);
        assert!(active.wait().success());
        assert_eq!(well(&by_udp(server, &question)), BURST);
        standby.signal(Signal::SIGTERM);
        assert!(standby.wait().success());
    });
}

/// As a kubelet starts the containers of a pod.
#[test]
fn of_two_servers_that_start_together_one_answers_and_one_stands_by() {
    in_new_namespace(&[], || {
        let api_server = api::start();
        let api = api_server.address().to_string();
        let [mut one, mut other] = [(); 2].map(|()| Daemon::spawn_at(POD, &api, &STANDBY));
        await_status(&one, &format!("{NAME} A"), "NOERROR");
        one.signal(Signal::SIGTERM);
        assert!(one.wait().success(), "it ended before");
        await_status(&other, &format!("{NAME} A"), "NOERROR");
        other.signal(Signal::SIGTERM);
        assert!(other.wait().success(), "it ended before");
    });
}
