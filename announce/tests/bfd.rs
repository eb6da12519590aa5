//! BFD with Debian's BIRD at the other end, and between two of ours. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use weft_announce::bfd::packet::{Diagnostic, State};
use weft_announce::bfd::service::Bfd;
use weft_announce::bfd::session::Timing;
use weft_announce::bfd::sessions::{Health, Peer, Wanted};
use weft_netlink::netns::Namespace;
use weft_testkit::namespace::{cable, end, forward, machine, route_by, run_in, sh};
use weft_testkit::wait::eventually;

const TIMING: Timing = Timing {
    transmit: Duration::from_millis(300),
    receive: Duration::from_millis(300),
    multiplier: 3,
    is_passive: false,
};

fn peer(address: &str) -> Peer {
    Peer { address: address.parse().unwrap(), interface: None }
}

fn wanted(local: &str) -> Wanted {
    Wanted { local: Some(local.parse().unwrap()), is_multihop: false, timing: TIMING }
}

fn start(machine: &Namespace) -> Bfd {
    machine.run(Bfd::start).unwrap().unwrap()
}

fn health(bfd: &Bfd, peer: Peer) -> Option<Health> {
    bfd.health().get(&peer).copied()
}

fn is_up(bfd: &Bfd, peer: Peer) -> bool {
    health(bfd, peer).is_some_and(|health| health.state == State::Up)
}

/// Two machines on one link.
fn pair() -> [Namespace; 2] {
    let [one, two] = [(); 2].map(|()| machine());
    cable(
        &end(&one, "eth0", ["192.0.2.1/24", "2001:db8::1/64"]),
        &end(&two, "eth0", ["192.0.2.2/24", "2001:db8::2/64"]),
    );
    [one, two]
}

/// BIRD on a machine, ended when this is dropped.
struct Bird<'a> {
    machine: &'a Namespace,
    folder: TempDir,
    process: Child,
}

impl<'a> Bird<'a> {
    fn start(machine: &'a Namespace, neighbors: &str) -> Bird<'a> {
        let folder = tempfile::tempdir().unwrap();
        let configuration = format!(
            "log stderr all;\nrouter id 192.0.2.2;\nprotocol device {{}}\nprotocol bfd {{\n\
             interface \"*\" {{ interval 300 ms; multiplier 3; }};\n\
             multihop {{ interval 300 ms; multiplier 3; }};\n{neighbors}\n}}\n"
        );
        let file = folder.path().join("bird.conf");
        fs::write(&file, configuration).unwrap();
        let mut command = Command::new("/usr/sbin/bird");
        command.arg("-f").arg("-c").arg(&file).arg("-s").arg(folder.path().join("socket"));
        command.arg("-P").arg(folder.path().join("pid")).stderr(Stdio::null());
        let process =
            machine.run(|| command.spawn()).unwrap().expect("bird runs (Debian: apt-get install bird2)");
        Bird { machine, folder, process }
    }

    fn sessions(&self) -> String {
        let socket = self.folder.path().join("socket").display().to_string();
        let line = format!("/usr/sbin/birdc -s {socket} show bfd sessions || true");
        sh(self.machine, &line)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).unwrap();
    }
}

impl Drop for Bird<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn bird_is_up_for_us_and_we_for_bird_and_a_bird_that_stops_is_down() {
    let [ours, theirs] = pair();
    let bird = Bird::start(&theirs, "neighbor 192.0.2.1;\nneighbor 2001:db8::1 dev \"eth0\";");
    let bfd = start(&ours);
    let (told, changes) = mpsc::channel();
    bfd.listen(Box::new(move |peer, health| told.send((peer, health.state)).unwrap()));
    let peers = [(peer("192.0.2.2"), wanted("192.0.2.1")), (peer("2001:db8::2"), wanted("2001:db8::1"))];
    bfd.want("test", peers.into());
    for (peer, _) in peers {
        eventually(format!("{peer:?} is up"), || is_up(&bfd, peer));
        eventually("the times are agreed on", || {
            health(&bfd, peer).unwrap().detection_time == Some(Duration::from_millis(900))
        });
    }
    eventually("both are up for BIRD", || bird.sessions().matches(" Up ").count() == 2);

    // Frozen, as a machine that hangs.
    bird.signal(Signal::SIGSTOP);
    for (peer, _) in peers {
        eventually(format!("{peer:?} is down"), || !is_up(&bfd, peer));
        assert_eq!(health(&bfd, peer).unwrap().diagnostic, Diagnostic::TimeExpired);
    }
    assert_eq!(bfd.counters().lost.load(Ordering::Relaxed), 2);
    bird.signal(Signal::SIGCONT);
    peers.iter().for_each(|(peer, _)| eventually(format!("{peer:?} is up again"), || is_up(&bfd, *peer)));
    let told: Vec<(Peer, State)> = changes.try_iter().collect();
    assert!(told.contains(&(peers[0].0, State::Up)) && told.contains(&(peers[0].0, State::Down)), "{told:?}");

    // What ends on purpose is told, so that BIRD does not wait for the time to pass.
    drop(bfd);
    eventually("nobody is up for BIRD", || !bird.sessions().contains(" Up "));
}

#[test]
fn bird_behind_a_router_is_reached_over_several_hops() {
    let [ours, router, theirs] = [(); 3].map(|()| machine());
    forward(&router);
    cable(&end(&ours, "eth0", ["192.0.2.1/24"]), &end(&router, "left", ["192.0.2.254/24"]));
    cable(&end(&theirs, "eth0", ["198.51.100.2/24"]), &end(&router, "right", ["198.51.100.254/24"]));
    route_by(&ours, ["192.0.2.254"]);
    route_by(&theirs, ["198.51.100.254"]);
    let bird = Bird::start(&theirs, "neighbor 192.0.2.1 local 198.51.100.2 multihop on;");
    let bfd = start(&ours);
    let far = peer("198.51.100.2");
    bfd.want("test", [(far, Wanted { is_multihop: true, ..wanted("192.0.2.1") })].into());
    eventually("BIRD is up", || is_up(&bfd, far));
    eventually("up for BIRD", || bird.sessions().contains(" Up "));
}

#[test]
fn two_of_ours_watch_each_other_and_a_closed_port_is_known_from_a_silent_one() {
    let [one, two] = pair();
    let first = start(&one);
    let other = peer("192.0.2.2");
    first.want("a", [(other, wanted("192.0.2.1"))].into());
    eventually("nobody listens there", || health(&first, other).is_some_and(|it| it.refused.is_some()));
    let nobody = peer("192.0.2.9");
    first.want("b", [(nobody, wanted("192.0.2.1"))].into());
    eventually("there is no such machine", || health(&first, nobody).is_some_and(|it| it.refused.is_some()));

    let second = start(&two);
    second.want("a", [(peer("192.0.2.1"), wanted("192.0.2.2"))].into());
    eventually("both are up", || is_up(&first, other) && is_up(&second, peer("192.0.2.1")));
    assert_eq!(health(&first, other).unwrap().refused, None);
    first.want("b", BTreeMap::new());
    eventually("what nobody wants any more is not watched", || health(&first, nobody).is_none());
    assert!(is_up(&first, other), "what another wants stays");
    sh(&one, "ip link set eth0 down");
    eventually("both are down", || !is_up(&first, other) && !is_up(&second, peer("192.0.2.1")));
}

#[test]
fn datagrams_of_strangers_are_counted_and_do_no_harm() {
    let [one, two] = pair();
    let [first, second] = [start(&one), start(&two)];
    let other = peer("192.0.2.2");
    first.want("test", [(other, wanted("192.0.2.1"))].into());
    second.want("test", [(peer("192.0.2.1"), wanted("192.0.2.2"))].into());
    eventually("up", || is_up(&first, other));
    let before = first.counters().discarded.load(Ordering::Relaxed);
    // From the peer's own machine, but with the hops of one behind a router.
    two.run(|| {
        let socket = UdpSocket::bind("192.0.2.2:0").unwrap();
        let down =
            [0x20, 0x40, 3, 24, 0, 0, 0, 9, 0, 0, 0, 0, 0, 4, 0x93, 0xe0, 0, 4, 0x93, 0xe0, 0, 0, 0, 0];
        for datagram in [&down[..], &[], &[0x20; 200]] {
            socket.send_to(datagram, ("192.0.2.1".parse::<IpAddr>().unwrap(), 3784)).unwrap();
        }
    })
    .unwrap();
    eventually("all are read", || first.counters().discarded.load(Ordering::Relaxed) == before + 3);
    assert!(is_up(&first, other));
    assert_eq!(first.counters().lost.load(Ordering::Relaxed), 0);
}

#[test]
fn a_port_that_another_program_has_is_named() {
    let machine = machine();
    let taken = machine.run(|| UdpSocket::bind("0.0.0.0:3784")).unwrap().unwrap();
    let bfd = start(&machine);
    eventually("the port is named", || {
        bfd.problem().is_some_and(|problem| problem.contains("UDP port 3784"))
    });
    drop(taken);
    eventually("it is had as soon as it is free", || bfd.problem().is_none());
    assert!(run_in(&machine, "ss", &["-Hlun"]).contains(":3784"));
}
