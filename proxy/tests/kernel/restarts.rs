//! What a restart keeps, what is put back, and what a clean-up leaves.

use std::net::SocketAddr;

use weft_proxy::config::{Config, ProxyMode};
use weft_proxy::sync::Outcome;
use weft_testkit::program::run;
use weft_testkit::world::{Connection, World};
use weft_types::{ChangeSet, Family, ObjectKey};

use super::{Cluster, clean_up, cluster_ip, name, service, slice, slices};
use crate::of;

in_every_mode!(connections_survive_a_restart_and_a_change_of_endpoints_and_a_restart_changes_nothing);

fn connections_survive_a_restart_and_a_change_of_endpoints_and_a_restart_changes_nothing(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    // Slots in another order than that of a first start: 2 alone, then 1 behind it.
    cluster.put(slices(&[2]));
    cluster.put(slices(&[2, 1]));
    let mut connection =
        Connection::open(&world.outside, SocketAddr::new(cluster_ip(Family::V4), 80)).unwrap();
    let answer = connection.ask();

    let rules = cluster.nft(&["-a", "list", "ruleset"]);
    cluster.restart();
    assert_eq!(cluster.nft(&["-a", "list", "ruleset"]), rules, "rules, chains and sets are the same ones");
    assert_eq!(connection.ask(), answer);

    let other = if answer.starts_with('1') { 2 } else { 1 };
    cluster.put(slices(&[other]));
    assert_eq!(connection.ask(), answer, "what is established goes on");
    drop(cluster);
    assert_eq!(connection.ask(), answer, "the rules stay when the proxy ends");
}

#[test]
fn what_others_destroy_is_put_back() {
    let world = World::new();
    let mut cluster = Cluster::new(&world, Config::default());
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    let rules = cluster.rules();
    for damage in ["flush ruleset", "flush map ip weft endpoints", "delete table ip6 weft"] {
        cluster.nft(&[damage]);
        cluster.sync.mark_dirty();
        assert_eq!(cluster.sync.apply(&cluster.snapshot, &ChangeSet::default()).unwrap(), Outcome::Full);
        assert_eq!(cluster.rules(), rules, "{damage}");
    }
    // Noticed by the failure of the next change.
    cluster.nft(&["flush map ip weft endpoints"]);
    let mut changes = ChangeSet::default();
    cluster.snapshot.apply(slice(Family::V4, &[2]), &mut changes);
    assert_eq!(cluster.sync.apply(&cluster.snapshot, &changes).unwrap(), Outcome::Full);
    assert!(cluster.nft(&["list", "map", "ip", "weft", "endpoints"]).contains("10.244.2.2 . 8080"));
}

in_every_mode!(nothing_is_left_after_deletion_and_cleanup);

fn nothing_is_left_after_deletion_and_cleanup(mode: ProxyMode) {
    let world = World::new();
    let mut cluster = Cluster::new(&world, of(mode));
    let empty = cluster.rules();
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    cluster.delete(ObjectKey::Service(name()));
    assert_eq!(cluster.rules(), empty);
    world.node.run(|| run("nft", &["add table ip other"])).unwrap();
    for _ in 0..2 {
        world.node.run(clean_up).unwrap().unwrap();
        assert_eq!(cluster.rules(), ["table ip other {", "}"]);
    }
}
