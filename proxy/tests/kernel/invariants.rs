//! What holds for the tables however many Services there are, and how evenly connections are spread.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use weft_netlink::netns::Namespace;
use weft_proxy::config::{Config, ProxyMode};
use weft_proxy::services::planner::everything;
use weft_proxy::sync::{Outcome, Sync};
use weft_testkit::world::World;
use weft_types::{ChangeSet, Family, NamespacedName, Object, Service, Snapshot};

use crate::of;
use crate::{Cluster, cluster_ip, many, run, service, slice};

/// Endpoints that 10,000 connections are spread over.
const PORTS: std::ops::Range<u16> = 9001..9006;
const CONNECTIONS: u16 = 10_000;

in_every_mode!(ten_thousand_connections_are_spread_evenly);

fn ten_thousand_connections_are_spread_evenly(mode: ProxyMode) {
    let world = World::new();
    let mut cluster = Cluster::new(&world, of(mode));
    let slices = PORTS.map(|port| {
        let Object::EndpointSlice(mut slice) = slice(Family::V4, &[1]) else { panic!("no slice") };
        slice.key = NamespacedName::new("shop", format!("web-{port}"));
        slice.ports.iter_mut().for_each(|served| served.port = port.try_into().unwrap());
        Object::EndpointSlice(slice)
    });
    cluster.put([service()].into_iter().chain(slices));
    let to = SocketAddr::new(cluster_ip(Family::V4), 80);
    let send = |port: u16| {
        let socket = UdpSocket::bind(("172.30.0.1", port)).unwrap();
        socket.send_to(b"?", to).unwrap();
    };
    // None may be forgotten before all are counted, however slow the machine is.
    let timeout = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
    world.node.run(|| std::fs::write(timeout, "3600").unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut flows = String::new();
    // A busy machine may drop some on the way; who has a flow keeps it.
    while flows.lines().count() < CONNECTIONS.into() {
        assert!(Instant::now() < deadline, "only {} flows", flows.lines().count());
        world.outside.run(|| (20_000..20_000 + CONNECTIONS).for_each(send)).unwrap();
        let list = || run("conntrack", &["-L", "-p", "udp", "--orig-dst", "10.96.0.80"]);
        flows = world.node.run(list).unwrap();
    }
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for flow in flows.lines() {
        // The second one is that of answers.
        let endpoint = flow.split_whitespace().filter(|field| field.starts_with("sport=")).nth(1).unwrap();
        *counts.entry(endpoint.to_owned()).or_default() += 1.0;
    }
    assert_eq!(counts.len(), PORTS.len(), "{counts:?}");
    assert_eq!(counts.values().sum::<f64>(), f64::from(CONNECTIONS));
    let expected = f64::from(CONNECTIONS) / PORTS.len() as f64;
    let chi_square: f64 = counts.values().map(|count| (count - expected).powi(2) / expected).sum();
    // Of 4 degrees of freedom. An even spread goes beyond this once in 200,000 runs.
    assert!(chi_square < 30.0, "{chi_square}: {counts:?}");
}

#[test]
fn affinity_and_source_ranges_need_no_chain_rule_or_set_per_service() {
    let node = Namespace::temporary().unwrap();
    let config = Config { node: "node1".into(), ..Config::default() };
    let mut listings = Vec::new();
    for count in [10, 1_000] {
        let mut snapshot: Snapshot = many(count);
        let services: Vec<Service> = snapshot.services().cloned().collect();
        for (index, service) in (0u32..).zip(services) {
            let load_balancer_ips = vec![std::net::Ipv4Addr::from(0xc000_0200 + index).into()];
            let source_ranges = Box::new(["198.51.100.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]);
            let affinity = Some(Duration::from_secs(600));
            let service = Service { load_balancer_ips, source_ranges, affinity, ..service };
            snapshot.apply(Object::Service(service), &mut ChangeSet::default());
        }
        let mut sync = node.run(|| Sync::open(config.clone())).unwrap().unwrap();
        sync.apply(&snapshot, &everything(&snapshot)).unwrap();
        let listing = node.run(|| run("nft", &["list", "ruleset"])).unwrap();
        assert_eq!(listing.matches(" : 4000:2").count(), 2 * count as usize);
        assert_eq!(listing.matches(". 198.51.100.0/24").count(), count as usize);
        listings.push(node.run(|| run("nft", &["-t", "list", "ruleset"])).unwrap());
    }
    assert_eq!(listings[0], listings[1], "everything but elements is the same");
}

#[test]
fn services_that_outgrow_the_tables_are_served_all_the_same() {
    let node = Namespace::temporary().unwrap();
    let work = || {
        let mut sync = Sync::open(Config { node: "node1".into(), ..Config::default() }).unwrap();
        sync.apply(&many(1_000), &ChangeSet::default()).unwrap();
        assert!(run("nft", &["list", "map", "ip", "weft", "frontends"]).contains("size 2048"));
        let snapshot = many(2_500);
        let outcome = sync.apply(&snapshot, &everything(&snapshot)).unwrap();
        assert_eq!(outcome, Outcome::Full, "the kernel refused so many, and was read");
        let frontends = run("nft", &["list", "map", "ip", "weft", "frontends"]);
        assert!(frontends.contains("size 4096") && frontends.matches(" : 0:2").count() == 2_500);
        let outcome = sync.apply(&snapshot, &everything(&snapshot)).unwrap();
        assert_eq!(outcome, Outcome::Partial, "in step again");
    };
    node.run(work).unwrap();
}
