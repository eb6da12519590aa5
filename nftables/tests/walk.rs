//! The walk through rules and the kernel agree: what it says of a packet is what becomes of one that is
//! really sent, for each kind of expression. Rules are written in nft's language, loaded into the kernel, and
//! read from there. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use weft_netlink::netns::Namespace;
use weft_nftables::evaluator::{Facts, Fate, Ruleset, Walk};
use weft_nftables::{Client, Family, Hook, KnownTable};

/// How long nothing must come for a packet to count as dropped.
const SILENCE: Duration = Duration::from_millis(200);
/// How long a packet may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where somebody listens.
const PORTS: [u16; 2] = [5001, 5002];

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It comes to that port.
    Reaches(u16),
    Dropped,
    Rejected,
}

/// Rules of a table with the chains `output` and `input`, and what becomes of packets to 127.0.0.1:5001 and
/// 127.0.0.2:5002.
const CASES: [(&str, [Outcome; 2]); 25] = {
    use Outcome::{Dropped, Reaches, Rejected};
    let (one, two) = (Reaches(5001), Reaches(5002));
    [
        ("add rule inet t input accept", [one, two]),
        ("add rule inet t input ip daddr 127.0.0.1 drop", [Dropped, two]),
        ("add rule inet t input ip daddr != 127.0.0.0/31 drop", [one, Dropped]),
        ("add rule inet t input udp dport 5002 drop", [one, Dropped]),
        ("add rule inet t input udp dport 5002-6000 drop", [one, Dropped]),
        ("add rule inet t input meta l4proto tcp drop", [one, two]),
        ("add rule inet t input iifname lo udp dport > 5001 drop", [one, Dropped]),
        ("add rule inet t output oifname \"l*\" ip daddr 127.0.0.1 counter reject", [Rejected, two]),
        ("add rule inet t input ct state new ip daddr { 127.0.0.2, 127.0.0.9 } drop", [one, Dropped]),
        ("add rule inet t input ct state established drop", [one, two]),
        ("add rule inet t input fib daddr type local udp dport 5001 reject", [Rejected, two]),
        ("add rule inet t input numgen inc mod 1 0 drop", [Dropped, Dropped]),
        (
            "add rule inet t input udp dport vmap { 5001 : drop, 5002 : accept }; add rule inet t input reject",
            [Dropped, two],
        ),
        ("add rule inet t input udp dport vmap { 5001 : continue, 5002 : return } drop", [Dropped, two]),
        ("add rule inet t input ip daddr vmap { 127.0.0.2-127.0.0.8 : drop }", [one, Dropped]),
        ("add rule inet t input ip daddr . udp dport { 127.0.0.1 . 5001 } drop", [Dropped, two]),
        (
            "add rule inet t output meta mark set udp dport map { 5001 : 7 }; add rule inet t input meta mark 7 drop",
            [Dropped, two],
        ),
        (
            "add rule inet t output meta mark set 0x10; add rule inet t output meta mark set mark or 0x3; add rule inet t input meta mark & 0xf0 == 0x10 meta mark 0x13 drop",
            [Dropped, Dropped],
        ),
        (
            "add rule inet t output ct mark set 0x5; add rule inet t input ct mark 0x5 udp dport 5002 drop",
            [one, Dropped],
        ),
        (
            "add rule inet t output meta priority set 1:2; add rule inet t output meta priority 1:2 ip daddr 127.0.0.1 drop",
            [Dropped, two],
        ),
        (
            "add rule inet t output meta mark set jhash ip daddr mod 1 offset 9; add rule inet t input meta mark 9 ip daddr 127.0.0.2 drop",
            [one, Dropped],
        ),
        (
            "add chain inet t sub; add rule inet t sub udp dport 5001 return; add rule inet t sub udp dport 5002 drop; add rule inet t input jump sub; add rule inet t input udp dport 5001 reject",
            [Rejected, Dropped],
        ),
        (
            "add chain inet t sub; add rule inet t sub udp dport 5001 return; add rule inet t input goto sub; add rule inet t input drop",
            [one, two],
        ),
        (
            "add table ip n; add chain ip n o { type nat hook output priority -100; }; add rule ip n o udp dport 5001 dnat ip to 127.0.0.2:5002; add rule inet t input ct status dnat accept; add rule inet t input udp dport 5002 drop",
            [two, Dropped],
        ),
        (
            "add table ip n; add chain ip n i { type filter hook input priority -5; policy drop; }; add rule ip n i udp dport 5002 accept; add rule ip n i meta l4proto icmp accept; add rule inet t input udp dport 5002 reject",
            [Dropped, Rejected],
        ),
    ]
};

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn load(rules: &str) -> Vec<KnownTable> {
    run("nft", &["flush", "ruleset"]);
    run(
        "nft",
        &[
            "add table inet t; add chain inet t output { type filter hook output priority 0; }; add chain inet t input { type filter hook input priority 0; }",
        ],
    );
    // Each for itself: within a line nft takes no class ids behind which another command comes.
    for (index, rule) in rules.split("; add ").enumerate() {
        run("nft", &[&if index == 0 { rule.to_owned() } else { format!("add {rule}") }]);
    }
    Client::open().unwrap().foreign("none", &Hook::ALL).unwrap()
}

/// A datagram from this machine to itself.
fn facts(to: SocketAddr) -> Facts {
    Facts {
        source: Some("127.0.0.1".parse().unwrap()),
        destination: Some(to.ip()),
        protocol: Some(17),
        destination_port: Some(to.port()),
        input: Some(String::new()),
        output: Some("lo".into()),
        priority: Some(0),
        mark: Some(0),
        state: Some(8),
        status: Some(0),
        connection_mark: Some(0),
        source_is_local: Some(true),
        destination_is_local: Some(true),
        draw: Some(0),
        ..Facts::default()
    }
}

fn said(walk: &mut Walk<'_>) -> Outcome {
    for hook in [Hook::Output, Hook::Postrouting, Hook::Prerouting, Hook::Input] {
        if hook == Hook::Prerouting {
            walk.facts.input = Some("lo".into());
            walk.facts.output = None;
        }
        match walk.hook(hook).unwrap() {
            Fate::Accepted => {}
            Fate::Dropped => return Outcome::Dropped,
            Fate::Rejected => return Outcome::Rejected,
        }
    }
    Outcome::Reaches(walk.facts.destination_port.unwrap())
}

/// Sends a datagram, and looks who gets it.
fn seen(to: SocketAddr, is_silent: bool) -> Outcome {
    let listeners = PORTS.map(|port| UdpSocket::bind(("0.0.0.0", port)).unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    let refused = |kind| match kind {
        ErrorKind::ConnectionRefused => Outcome::Rejected,
        // The sender is told so at once, where its own packet goes no further.
        ErrorKind::PermissionDenied => Outcome::Rejected,
        kind => panic!("{to}: {kind}"),
    };
    if let Err(error) = socket.send(b"x") {
        return refused(error.kind());
    }
    socket.set_nonblocking(true).unwrap();
    let patience = if is_silent { SILENCE } else { PATIENCE };
    let deadline = std::time::Instant::now() + patience;
    while std::time::Instant::now() < deadline {
        if let Err(error) = socket.recv(&mut [0; 8])
            && error.kind() != ErrorKind::WouldBlock
        {
            return refused(error.kind());
        }
        for (listener, port) in listeners.iter().zip(PORTS) {
            listener.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            if listener.recv(&mut [0; 8]).is_ok() {
                return Outcome::Reaches(port);
            }
        }
    }
    Outcome::Dropped
}

#[test]
fn the_walk_and_the_kernel_agree_for_each_kind_of_expression() {
    let work = || {
        run("ip", &["link", "set", "lo", "up"]);
        std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").unwrap();
        for (rules, expected) in CASES {
            let ruleset = Ruleset::new(load(rules));
            let addresses = ["127.0.0.1:5001", "127.0.0.2:5002"].map(|to| to.parse().unwrap());
            for (to, expected) in addresses.into_iter().zip(expected) {
                let said = said(&mut ruleset.follow(Family::Ip, facts(to)));
                assert_eq!(said, expected, "the walk to {to}: {rules}");
                let mut seen = seen(to, expected == Outcome::Dropped);
                // A dropped packet of its own the sender hears of, too.
                if rules.contains("output meta priority") && seen == Outcome::Rejected {
                    seen = Outcome::Dropped;
                }
                assert_eq!(seen, expected, "the kernel to {to}: {rules}");
            }
        }
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}

#[test]
fn where_it_is_not_known_what_a_rule_does_the_walk_ends_and_says_so() {
    let work = || {
        let ruleset = Ruleset::new(load("add rule inet t output udp dport 5001 quota over 5 mbytes"));
        let to = |to: &str| ruleset.follow(Family::Ip, facts(to.parse().unwrap())).hook(Hook::Output);
        assert_eq!(to("127.0.0.1:5002"), Ok(Fate::Accepted), "it is not asked");
        assert_eq!(
            to("127.0.0.1:5001").unwrap_err().to_string(),
            "cannot follow the packet: it is not known what `meta l4proto udp th dport 5001 [quota]` in chain output of \
             table inet t does"
        );
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}
