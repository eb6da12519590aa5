//! Against GoBGP.

use std::sync::Arc;

use weft_announce::bgp::peer::Peer;
use weft_announce::bgp::wire::Attributes;
use weft_testkit::wait::eventually_ok;

use crate::world::{Daemon, NODE, OURS, ROUTER, THEIRS, World, plain, router, shows};

fn gobgp(world: &World) -> Daemon {
    let family = |name: &str| {
        format!(
            "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = {name:?}\n\
             [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n"
        )
    };
    let config = format!(
        "[global.config]\nas = {THEIRS}\nrouter-id = \"{ROUTER}\"\n\
         [[neighbors]]\n[neighbors.config]\nneighbor-address = \"{NODE}\"\npeer-as = {OURS}\n\
         [neighbors.timers.config]\nconnect-retry = 1\n\
         [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 60\n{}{}",
        family("ipv4-unicast"),
        family("ipv6-unicast"),
    );
    let file = world.file("gobgp.toml", &config);
    world.daemon("gobgpd", &["-f", &file, "--api-hosts", "127.0.0.1:50051"])
}

#[test]
fn routes_arrive_stay_over_a_restart_and_go_again() {
    let world = World::new();
    let _gobgp = gobgp(&world);
    let speaker = world.speak();
    let marked = Attributes {
        communities: vec!["65000:100".parse().unwrap()],
        large_communities: vec!["65000:1:2".parse().unwrap()],
        med: Some(7),
        ..Attributes::default()
    };
    let mut wanted = plain(&["2001:db8::10/128", "192.0.2.11/32"]);
    wanted.insert("192.0.2.10/32".parse().unwrap(), Arc::new(marked));
    speaker.set(router(ROUTER), wanted);
    speaker.wait_until_up(&world);
    let (of_v4, of_v6) = ("gobgp global rib", "gobgp global rib -a ipv6");
    let told = ["192.0.2.10/32", "4200000001", "{Med: 7}", "{Communities: 65000:100}", "65000:1:2"];
    shows(&world, of_v4, &told, &[]);
    shows(&world, of_v6, &["2001:db8::10/128", "fd00::1"], &[]);
    drop(speaker);
    // GoBGP marks what is stale.
    shows(&world, of_v4, &["S*>", "192.0.2.10/32", "192.0.2.11/32"], &[]);
    let speaker = world.speak();
    speaker.set(router(ROUTER), plain(&["192.0.2.10/32"]));
    speaker.wait_until_up(&world);
    shows(&world, of_v4, &["192.0.2.10/32"], &["S*>", "192.0.2.11/32"]);
    speaker.set(router(ROUTER), plain(&[]));
    shows(&world, of_v4, &["Network not in table"], &[]);
}

#[test]
fn what_it_announces_is_taken_within_the_ranges() {
    let world = World::new();
    let _gobgp = gobgp(&world);
    let speaker = world.speak();
    let imports = ["10.244.0.0/16", "fd00:244::/32"].map(|text| text.parse().unwrap()).to_vec();
    speaker.set(Peer { imports, ..router(ROUTER) }, plain(&[]));
    speaker.wait_until_up(&world);
    for line in [
        "gobgp global rib add 10.244.7.0/24 nexthop 10.0.0.2",
        "gobgp global rib add 198.51.100.0/24 nexthop 10.0.0.2",
        "gobgp global rib add -a ipv6 fd00:244:7::/64 nexthop fd00::2",
    ] {
        shows(&world, line, &[], &[]);
    }
    eventually_ok("the two that are wanted", || {
        let routes: Vec<String> = speaker.routes().into_keys().collect();
        if routes == ["10.244.7.0/24", "fd00:244:7::/64"] { Ok(()) } else { Err(format!("{routes:?}")) }
    });
    shows(&world, "gobgp global rib del 10.244.7.0/24", &[], &[]);
    eventually_ok("the one that is left", || {
        let routes: Vec<String> = speaker.routes().into_keys().collect();
        if routes == ["fd00:244:7::/64"] { Ok(()) } else { Err(format!("{routes:?}")) }
    });
}
