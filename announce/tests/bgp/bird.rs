//! Against BIRD.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_announce::bfd;
use weft_announce::bfd::packet::State;
use weft_announce::bfd::service::Bfd;
use weft_announce::bfd::session::Timing;
use weft_announce::bgp::peer::{Distance, Password, Peer};
use weft_announce::bgp::rib::Announcements;
use weft_announce::bgp::wire::Attributes;
use weft_testkit::namespace::sh;
use weft_testkit::wait::{PATIENCE, eventually, eventually_ok};
use weft_types::IpNetwork;

use crate::world::{Daemon, NODE, NODE6, OURS, ROUTER, ROUTER6, THEIRS, World, plain, routed, router, shows};

/// Both families, and what is exported is what the router has of its own.
const CHANNELS: &str = "ipv4 { import all; export where source = RTS_STATIC; }; \
                        ipv6 { import all; export where source = RTS_STATIC; };";

/// A BIRD that puts what it learns into its kernel. `session` is what the protocol's block says.
fn bird(world: &World, session: &str) -> Daemon {
    let config = format!(
        "log stderr all; router id {ROUTER}; graceful restart wait 30;
         protocol device {{ scan time 1; }}
         protocol kernel {{ persist; ipv4 {{ export all; }}; }}
         protocol kernel {{ persist; ipv6 {{ export all; }}; }}
         protocol bfd watch {{ interface \"*\" {{ interval 100 ms; multiplier 3; }}; }}
         protocol static {{ ipv4; route 10.244.7.0/24 blackhole; route 198.51.100.0/24 blackhole; }}
         protocol static {{ ipv6; route fd00:244:7::/64 blackhole; }}
         protocol bgp node {{ {session} }}"
    );
    let file = world.file("bird.conf", &config);
    let socket = world.folder.path().join("bird.ctl").display().to_string();
    world.daemon("/usr/sbin/bird", &["-f", "-c", &file, "-s", &socket])
}

/// The usual block.
fn usual(more: &str) -> String {
    format!("local {ROUTER} as {THEIRS}; neighbor {NODE} as {OURS}; connect retry time 1; {more} {CHANNELS}")
}

fn birdc(world: &World, command: &str) -> String {
    let socket = world.folder.path().join("bird.ctl");
    format!("/usr/sbin/birdc -s {} '{command}'", socket.display())
}

#[test]
fn routes_of_both_families_arrive_with_their_attributes_and_go_again() {
    let world = World::new();
    let _bird = bird(&world, &usual(""));
    let speaker = world.speak();
    let marked = Attributes {
        communities: vec!["65000:100".parse().unwrap()],
        large_communities: vec!["65000:1:2".parse().unwrap()],
        med: Some(7),
        ..Attributes::default()
    };
    let mut wanted = plain(&["192.0.2.11/32", "2001:db8::10/128", "10.244.1.0/24"]);
    wanted.insert("192.0.2.10/32".parse().unwrap(), Arc::new(marked));
    speaker.set(router(ROUTER), wanted.clone());
    speaker.wait_until_up(&world);
    let of_one = birdc(&world, "show route 192.0.2.10/32 all");
    let attributes = [
        "via 10.0.0.1",
        "BGP.as_path: 4200000001",
        "BGP.med: 7",
        "BGP.community: (65000,100)",
        "BGP.large_community: (65000, 1, 2)",
    ];
    shows(&world, &of_one, &attributes, &[]);
    let all = birdc(&world, "show route protocol node");
    shows(&world, &all, &["192.0.2.11/32", "2001:db8::10/128", "10.244.1.0/24", "via fd00::1"], &[]);
    wanted.remove(&"192.0.2.11/32".parse::<IpNetwork>().unwrap());
    wanted.remove(&"2001:db8::10/128".parse::<IpNetwork>().unwrap());
    speaker.set(router(ROUTER), wanted);
    shows(&world, &all, &["192.0.2.10/32"], &["192.0.2.11/32", "2001:db8::10/128"]);
    let status = speaker.peer();
    assert_eq!((status.announced.len(), status.received.len(), status.remote.as_str()), (2, 0, "AS 65000"));
    assert_eq!(status.announced[0].communities.len() + status.announced[1].communities.len(), 2);
    speaker.clear();
    shows(&world, &all, &[], &["192.0.2.10/32"]);
    shows(&world, &birdc(&world, "show protocols all node"), &["Received: Peer de-configured"], &[]);
}

#[test]
fn nothing_is_taken_but_what_was_asked_for() {
    let world = World::new();
    let _bird = bird(&world, &usual(""));
    let speaker = world.speak();
    let peer = router(ROUTER);
    speaker.set(peer.clone(), Announcements::new());
    speaker.wait_until_up(&world);
    eventually("all three are refused", || speaker.peer().refused >= 3);
    assert!(speaker.routes().is_empty());
    let imports = ["10.244.0.0/16", "fd00:244::/32"].map(|text| text.parse().unwrap()).to_vec();
    // The session stays, and the peer is asked for its routes once more.
    speaker.set(Peer { imports, ..peer.clone() }, Announcements::new());
    eventually_ok("the two that are wanted", || {
        let routes = speaker.routes();
        let expected = [("10.244.7.0/24", ROUTER), ("fd00:244:7::/64", ROUTER6)];
        let expected = expected.map(|(one, other)| (one.to_owned(), other.to_owned())).into();
        if routes == expected { Ok(()) } else { Err(format!("{routes:?}")) }
    });
    assert_eq!(speaker.peer().downs, 0);
    speaker.set(peer, Announcements::new());
    eventually("nothing is wanted any more", || speaker.routes().is_empty());
}

#[test]
fn a_killed_speaker_loses_no_packet_and_what_it_does_not_announce_again_goes() {
    let world = World::new();
    let _bird = bird(&world, &usual("graceful restart on;"));
    sh(&world.node, "ip addr add 192.0.2.10/32 dev lo && ip addr add 192.0.2.11/32 dev lo");
    let speaker = world.speak();
    speaker.set(router(ROUTER), plain(&["192.0.2.10/32", "192.0.2.11/32"]));
    routed(&world, "192.0.2.10/32", true);
    routed(&world, "192.0.2.11/32", true);
    let (sent, lost) = world.pings("192.0.2.10", || {
        drop(speaker);
        shows(
            &world,
            &birdc(&world, "show route protocol node all"),
            &["192.0.2.10/32", "192.0.2.11/32"],
            &[],
        );
        shows(&world, &birdc(&world, "show protocols all node"), &["Neighbor graceful restart active"], &[]);
        // Nobody speaks for the node now.
        let meanwhile = sh(&world.client, "ping -q -c 100 -i 0.01 192.0.2.10");
        assert!(meanwhile.contains(" 0% packet loss"), "{meanwhile}");
        let speaker = world.speak();
        speaker.set(router(ROUTER), plain(&["192.0.2.10/32"]));
        speaker.wait_until_up(&world);
        routed(&world, "192.0.2.11/32", false);
        routed(&world, "192.0.2.10/32", true);
        // It ends with the pings.
        std::mem::forget(speaker);
    });
    assert!(sent > 100 && lost == 0, "{lost} of {sent} lost");
}

#[test]
fn a_silent_peer_is_left_after_the_hold_time() {
    let world = World::new();
    let bird = bird(&world, &usual("hold time 3;"));
    let speaker = world.speak();
    speaker.set(router(ROUTER), plain(&["192.0.2.10/32"]));
    speaker.wait_until_up(&world);
    assert_eq!(speaker.peer().session.unwrap().hold_time, 3);
    bird.signal("-STOP");
    speaker.wait_for_problem("hold timer expired");
    bird.signal("-CONT");
    speaker.wait_until_up(&world);
    assert_eq!(speaker.problems(), "");
}

#[test]
fn a_peer_that_bfd_watches_is_left_at_once_when_it_is_silent() {
    let world = World::new();
    let bird = bird(&world, &usual("hold time 240; bfd on; error wait time 1, 2;"));
    let speaker = world.speak();
    let watched = Peer { hold_time: 240, is_watched: true, ..router(ROUTER) };
    speaker.set(watched, plain(&["192.0.2.10/32"]));
    speaker.wait_until_up(&world);
    let bfd = world.node.run(Bfd::start).unwrap().unwrap();
    bfd.listen(speaker.watcher());
    let time = Duration::from_millis(100);
    let timing = Timing { transmit: time, receive: time, multiplier: 3, is_passive: false };
    let address = bfd::sessions::Peer { address: ROUTER.parse().unwrap(), interface: None };
    let how = bfd::sessions::Wanted { local: None, is_multihop: false, timing };
    bfd.want("test", [(address, how)].into());
    let state = || bfd.health().get(&address).map(|health| health.state);
    eventually("BFD is up", || state() == Some(State::Up));

    bird.signal("-STOP");
    speaker.wait_for_problem("cease: BFD down (6/10)");
    bird.signal("-CONT");
    eventually("BFD is up again", || state() == Some(State::Up));
    speaker.wait_until_up(&world);
}

#[test]
fn a_peer_of_another_system_is_refused_and_both_ends_say_so() {
    let world = World::new();
    let _bird = bird(&world, &usual("").replace(&format!("as {THEIRS}"), "as 65009"));
    let speaker = world.speak();
    speaker.set(router(ROUTER), Announcements::new());
    speaker
        .wait_for_problem("no BGP session with peer router (10.0.0.2): it is of AS 65009, not of AS 65000");
    shows(&world, &birdc(&world, "show protocols all node"), &["Bad peer AS"], &[]);
}

#[test]
fn what_a_peer_refuses_is_told_in_its_words() {
    let world = World::new();
    let _bird = bird(&world, &usual("").replace(&format!("as {OURS}"), "as 65009"));
    let speaker = world.speak();
    speaker.set(router(ROUTER), Announcements::new());
    speaker.wait_for_problem("the peer says: OPEN message error: bad peer AS (2/2)");
}

#[test]
fn the_same_password_at_both_ends_makes_a_session_and_another_none() {
    let world = World::new();
    let _bird = bird(&world, &usual("password \"secret\";"));
    let speaker = world.speak();
    let peer = |password: &str| Peer { password: Some(Password(password.to_owned())), ..router(ROUTER) };
    speaker.set(peer("guess"), Announcements::new());
    speaker.wait_for_problem("both ends have the same password");
    speaker.set(peer("secret"), Announcements::new());
    speaker.wait_until_up(&world);
    // The peer connects, too.
    speaker.set(Peer { passive: true, ..peer("secret") }, Announcements::new());
    eventually("a session that the peer opened", || speaker.peer().downs == 1);
    speaker.wait_until_up(&world);
}

#[test]
fn ipv4_goes_over_a_session_of_ipv6_alone() {
    let world = World::new();
    let channels = CHANNELS.replacen("ipv4 {", "ipv4 { extended next hop on;", 1);
    let session =
        format!("local {ROUTER6} as {THEIRS}; neighbor {NODE6} as {OURS}; connect retry time 1; {channels}");
    let _bird = bird(&world, &session);
    let speaker = world.speak();
    let mut peer = router(ROUTER6);
    peer.next_hops.clear();
    speaker.set(peer, plain(&["192.0.2.10/32", "2001:db8::10/128"]));
    speaker.wait_until_up(&world);
    let routes = birdc(&world, "show route protocol node");
    shows(&world, &routes, &["192.0.2.10/32", "2001:db8::10/128", "via fd00::1"], &[]);
}

#[test]
fn a_peer_that_guards_its_distance_is_met() {
    let world = World::new();
    let _bird = bird(&world, &usual("multihop 2; ttl security on;"));
    let speaker = world.speak();
    speaker.set(Peer { distance: Distance::Secured(2), ..router(ROUTER) }, Announcements::new());
    speaker.wait_until_up(&world);
}

#[test]
fn garbage_at_the_port_disturbs_nobody() {
    let world = World::new();
    let _bird = bird(&world, &usual(""));
    let speaker = world.speak();
    speaker.set(router(ROUTER), plain(&["192.0.2.10/32"]));
    speaker.wait_until_up(&world);
    let send = |from: &weft_netlink::netns::Namespace, bytes: &[u8]| {
        let mut stream = from.run(|| TcpStream::connect((NODE, 179))).unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be closed by now.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
        answer
    };
    assert_eq!(send(&world.client, b"GET / HTTP/1.1\r\n\r\n"), b"", "no word to strangers");
    let answer = send(&world.router, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(answer[answer.len() - 3..], [3, 1, 1], "a peer hears what is wrong: {answer:?}");
    let header = [&[0xff; 16][..], &[0xff, 0xff, 2]].concat();
    let answer = send(&world.router, &header);
    assert_eq!(answer[answer.len() - 5..], [3, 1, 2, 0xff, 0xff], "{answer:?}");
    let status = speaker.peer();
    assert_eq!((status.state.as_str(), status.downs), ("Established", 0));
}

#[test]
fn a_port_that_another_program_has_is_told_of_and_sessions_go_out_all_the_same() {
    let world = World::new();
    let _bird = bird(&world, &usual("passive;"));
    let taken = world.node.run(|| std::net::TcpListener::bind("0.0.0.0:179")).unwrap().unwrap();
    let speaker = world.speak();
    speaker.set(router(ROUTER), Announcements::new());
    speaker.wait_until_up(&world);
    speaker.wait_for_problem("no listening at TCP port 179 of IPv4: another program has it");
    drop(taken);
    eventually("it listens by itself once it can", || speaker.problems().is_empty());
}

#[test]
fn a_thousand_routes_are_announced_at_once() {
    let world = World::new();
    let _bird = bird(&world, &usual(""));
    let speaker = world.speak();
    speaker.set(router(ROUTER), Announcements::new());
    speaker.wait_until_up(&world);
    let prefixes: Vec<String> = (0..1000).map(|n| format!("192.168.{}.{}/32", n / 250, n % 250)).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let start = Instant::now();
    speaker.set(router(ROUTER), plain(&prefixes));
    shows(&world, &birdc(&world, "show route protocol node count"), &["1000 of"], &[]);
    println!("1,000 routes in BIRD after {} ms", start.elapsed().as_millis());
}
