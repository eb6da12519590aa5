//! Addresses that Services could have and none has.

use std::net::{SocketAddr, TcpListener};

use weft_proxy::config::{Config, ProxyMode};
use weft_proxy::sync::Outcome;
use weft_testkit::program::run;
use weft_testkit::world::{Connection, World, is_refused, tcp};
use weft_types::{ChangeSet, Family, Object, ObjectKey, ServiceCidr};

use super::{Cluster, cluster_ip, is_dropped, name, service, slices};
use crate::of;

fn networks() -> Object {
    let networks = ["10.96.0.0/16", "fd00:96::/112"].map(|network| network.parse().unwrap());
    Object::ServiceCidr(ServiceCidr { name: "kubernetes".into(), cidrs: networks.to_vec() })
}

#[test]
fn unallocated_addresses_of_service_networks_are_dropped_until_a_service_has_them() {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, Config::default());
    let without = cluster.rules();
    assert_eq!(cluster.try_put([networks()]), Outcome::Full);
    let clients = [&world.outside, &world.pods[0], &world.node];
    for family in Family::BOTH {
        let to = SocketAddr::new(cluster_ip(family), 80);
        assert!(clients.iter().all(|from| is_dropped(from, to)), "{to}");
    }
    cluster.put([service()].into_iter().chain(slices(&[1])));
    for family in Family::BOTH {
        let ip = cluster_ip(family);
        for from in clients {
            assert!(tcp(from, SocketAddr::new(ip, 80)).starts_with("1 "));
            assert!(is_refused(Connection::open(from, SocketAddr::new(ip, 81))), "a port that it lacks");
        }
    }
    let rules = cluster.nft(&["-a", "list", "ruleset"]);
    cluster.restart();
    assert_eq!(cluster.nft(&["-a", "list", "ruleset"]), rules);
    cluster.delete(ObjectKey::Service(name()));
    assert!(is_dropped(&world.outside, SocketAddr::new(cluster_ip(Family::V4), 80)));
    let mut changes = ChangeSet::default();
    cluster.snapshot.delete(&ObjectKey::ServiceCidr("kubernetes".into()), &mut changes);
    assert_eq!(cluster.sync.apply(&cluster.snapshot, &changes).unwrap(), Outcome::Full);
    assert_eq!(cluster.rules(), without);
}

in_every_mode!(an_address_of_the_node_itself_is_reached_even_in_a_service_network);

fn an_address_of_the_node_itself_is_reached_even_in_a_service_network(mode: ProxyMode) {
    let world = World::new();
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.try_put([networks()]);
    let own: SocketAddr = "10.96.7.7:53".parse().unwrap();
    let listener = world.node.run(|| {
        run("ip", &["address", "add", "10.96.7.7/32", "dev", "lo"]);
        TcpListener::bind(own)
    });
    let _listener = listener.unwrap().unwrap();
    for from in [&world.outside, &world.pods[0], &world.node] {
        assert!(Connection::open(from, own).is_ok());
    }
    assert!(is_dropped(&world.pods[0], "10.96.7.8:53".parse().unwrap()));
}
