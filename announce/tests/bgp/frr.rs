//! Against FRR: bgpd, and zebra, which puts what it learns into the kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use weft_announce::bgp::peer::{Password, Peer};
use weft_announce::bgp::wire::Attributes;
use weft_testkit::namespace::sh;
use weft_testkit::wait::eventually;

use crate::world::{Daemon, NODE, OURS, ROUTER, THEIRS, World, plain, routed, router, shows};

/// A router that has one network of its own. `more` is about the neighbour.
fn frr(world: &World, more: &str) -> [Daemon; 2] {
    let config = format!(
        "log stdout
         router bgp {THEIRS}
          bgp router-id {ROUTER}
          no bgp ebgp-requires-policy
          no bgp network import-check
          neighbor {NODE} remote-as {OURS}
          neighbor {NODE} timers connect 1
          {more}
          address-family ipv4 unicast
           network 10.244.7.0/24
          exit-address-family
          address-family ipv6 unicast
           neighbor {NODE} activate
          exit-address-family"
    );
    let config: Vec<&str> = config.lines().map(str::trim_start).collect();
    let (empty, config) = (world.file("zebra.conf", ""), world.file("bgpd.conf", &config.join("\n")));
    // zebra gives up being root.
    fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let start = |program: &str, config: &str, more: &[&str]| {
        let path = |name: &str| world.folder.path().join(name).display().to_string();
        let (pid, zebra, vty) = (path(&format!("{program}.pid")), path("zserv"), path(""));
        let flags = ["-f", config, "-i", &pid, "-z", &zebra, "--vty_socket", &vty, "-P", "0"];
        world.daemon(&format!("/usr/lib/frr/{program}"), &[&flags, more].concat())
    };
    let zebra = start("zebra", &empty, &[]);
    eventually("zebra's socket", || world.folder.path().join("zserv").exists());
    [start("bgpd", &config, &["-u", "root", "-g", "root", "-S"]), zebra]
}

fn vtysh(world: &World, command: &str) -> String {
    format!("vtysh --vty_socket {} -c '{command}'", world.folder.path().display())
}

#[test]
fn routes_arrive_with_their_attributes_and_go_again() {
    let world = World::new();
    let _frr = frr(&world, &format!("neighbor {NODE} password secret"));
    let speaker = world.speak();
    let marked = Attributes {
        communities: vec!["65000:100".parse().unwrap()],
        large_communities: vec!["65000:1:2".parse().unwrap()],
        med: Some(7),
        ..Attributes::default()
    };
    let mut wanted = plain(&["2001:db8::10/128"]);
    wanted.insert("192.0.2.10/32".parse().unwrap(), Arc::new(marked));
    let imports = vec!["10.244.0.0/16".parse().unwrap()];
    let peer = Peer { password: Some(Password("secret".to_owned())), imports, ..router(ROUTER) };
    speaker.set(peer.clone(), wanted);
    speaker.wait_until_up(&world);
    let told =
        ["4200000001", "from 10.0.0.1", "metric 7", "Community: 65000:100", "Large Community: 65000:1:2"];
    shows(&world, &vtysh(&world, "show bgp ipv4 unicast 192.0.2.10/32"), &told, &[]);
    shows(&world, &vtysh(&world, "show bgp ipv6 unicast 2001:db8::10/128"), &["fd00::1"], &[]);
    routed(&world, "192.0.2.10/32", true);
    eventually("the router's own network", || speaker.routes().contains_key("10.244.7.0/24"));
    speaker.set(peer, plain(&[]));
    routed(&world, "192.0.2.10/32", false);
    shows(&world, &vtysh(&world, "show bgp ipv6 unicast"), &[], &["2001:db8::10/128"]);
    assert_eq!(speaker.peer().downs, 0);
}

#[test]
fn a_killed_speaker_loses_no_packet() {
    let world = World::new();
    let _frr = frr(&world, "bgp graceful-restart");
    sh(&world.node, "ip addr add 192.0.2.10/32 dev lo");
    let speaker = world.speak();
    speaker.set(router(ROUTER), plain(&["192.0.2.10/32"]));
    routed(&world, "192.0.2.10/32", true);
    let stale = vtysh(&world, "show bgp ipv4 unicast 192.0.2.10/32");
    let (sent, lost) = world.pings("192.0.2.10", || {
        drop(speaker);
        shows(&world, &stale, &["stale"], &[]);
        // Nobody speaks for the node now.
        let meanwhile = sh(&world.client, "ping -q -c 100 -i 0.01 192.0.2.10");
        assert!(meanwhile.contains(" 0% packet loss"), "{meanwhile}");
        let speaker = world.speak();
        speaker.set(router(ROUTER), plain(&["192.0.2.10/32"]));
        speaker.wait_until_up(&world);
        shows(&world, &stale, &["192.0.2.10/32"], &["stale"]);
        // It ends with the pings.
        std::mem::forget(speaker);
    });
    assert!(sent > 100 && lost == 0, "{lost} of {sent} lost");
}

#[test]
fn a_peer_that_is_shut_down_says_so_in_its_words() {
    let world = World::new();
    let _frr = frr(&world, &format!("neighbor {NODE} shutdown message maintenance"));
    let speaker = world.speak();
    speaker.set(router(ROUTER), plain(&[]));
    speaker.wait_for_problem("no BGP session with peer router (10.0.0.2)");
    // There was none before the router runs, either.
    shows(&world, &vtysh(&world, "show running-config"), &["shutdown message maintenance"], &[]);
    let configure = |line: &str| {
        let enter = format!("configure terminal' -c 'router bgp {THEIRS}' -c '{line}");
        sh(&world.router, &vtysh(&world, &enter));
    };
    configure(&format!("no neighbor {NODE} shutdown"));
    speaker.wait_until_up(&world);
    configure(&format!("neighbor {NODE} shutdown message maintenance until six"));
    speaker.wait_for_problem("cease: administrative shutdown (6/2), \"maintenance until six\"");
}
