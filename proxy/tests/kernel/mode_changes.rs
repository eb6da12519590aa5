//! The mode is changed on a node under load, as a proxy does that starts with another one.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use weft_netlink::netns::Namespace;
use weft_proxy::config::ProxyMode;
use weft_testkit::wait::{eventually, eventually_ok};
use weft_testkit::world::{Connection, World, udp};
use weft_types::Family;

use super::{Cluster, NODE_PORT, cluster_ip, of, service, slices};

/// How many connections each change must stand, at the least.
const CONNECTIONS: usize = 40;

#[test]
fn a_change_of_the_mode_loses_no_new_connection_and_ends_none() {
    use ProxyMode::{Iptables, Nftables};
    changes(Nftables, &[Iptables, Nftables, Iptables, Nftables]);
}

#[test]
#[ignore = "runs on a kernel with IPVS"]
fn a_change_to_the_mode_ipvs_or_back_loses_no_new_connection() {
    use ProxyMode::{Iptables, Ipvs, Nftables};
    changes(Nftables, &[Ipvs, Iptables, Ipvs, Nftables]);
}

fn changes(first: ProxyMode, then: &[ProxyMode]) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(first));
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    under_load(&world, then.contains(&ProxyMode::Ipvs), |count| {
        for &mode in then {
            let before = cluster.config.mode;
            let at = |family| SocketAddr::new(cluster_ip(family), 80);
            let mut open = Family::BOTH.map(|family| Connection::open(&world.outside, at(family)).unwrap());
            let answers = open.each_mut().map(Connection::ask);
            let (start, made) = (Instant::now(), count.load(Ordering::Relaxed));
            cluster.config.mode = mode;
            cluster.restart();
            let took = start.elapsed();
            eventually("connections are made", || count.load(Ordering::Relaxed) >= made + CONNECTIONS);
            let made = count.load(Ordering::Relaxed) - made;
            println!("{before:?} to {mode:?}: in {took:?}, under {made} connections");
            for (connection, answer) in open.iter_mut().zip(answers) {
                match (connection.try_ask(), before) {
                    // Those that IPVS led have lost who led them, and are told so unless chance leads them on.
                    (Err(error), ProxyMode::Ipvs) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                    (now, _) => assert_eq!(now.unwrap(), answer, "{before:?} to {mode:?}"),
                }
            }
            leaves_nothing(&cluster);
        }
    });
}

/// Nothing of another mode is there.
fn leaves_nothing(cluster: &Cluster) {
    let (mode, rules) = (cluster.config.mode, cluster.nft(&["list", "ruleset"]));
    assert_eq!(rules.contains("KUBE-"), mode == ProxyMode::Iptables, "{rules}");
    assert_eq!(rules.contains("table ip weft {"), mode != ProxyMode::Iptables, "{rules}");
    let links = cluster.world.node.run(|| crate::run("ip", &["link"])).unwrap();
    assert_eq!(links.contains("kube-ipvs0"), mode == ProxyMode::Ipvs, "{links}");
}

/// Ends what goes on beside, however it comes to that.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something while clients of all kinds connect again and again, which never fails, but for the moment in
/// which IPVS is left: then a client that tries again is served. It is told how often they have connected.
fn under_load(world: &World, leaves_ipvs: bool, change: impl FnOnce(&AtomicUsize)) {
    let (ends, count) = (&AtomicBool::new(false), &AtomicUsize::new(0));
    let again_and_again = |to: SocketAddr, ask: &dyn Fn() -> io::Result<String>| {
        while !ends.load(Ordering::Relaxed) {
            let answer = match leaves_ipvs {
                true => eventually_ok(format!("an answer from {to}"), ask),
                false => ask().unwrap_or_else(|error| panic!("{to}: {error}")),
            };
            assert!(answer.starts_with(['1', '2']), "{answer}");
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let over_tcp = |from: &Namespace, to: SocketAddr| {
        again_and_again(to, &|| {
            let mut connection = Connection::open(from, to)?;
            let answer = connection.try_ask();
            connection.reset();
            answer
        });
    };
    let [v4, v6] = Family::BOTH.map(|family| SocketAddr::new(cluster_ip(family), 80));
    let node_port = SocketAddr::new("172.30.0.11".parse().unwrap(), NODE_PORT);
    thread::scope(|scope| {
        for (from, to) in
            [(&world.outside, v4), (&world.pods[1], v6), (&world.outside, node_port), (&world.node, v4)]
        {
            scope.spawn(move || over_tcp(from, to));
        }
        scope.spawn(|| again_and_again(v4, &|| udp(&world.pods[0], v4)));
        let _ending = Ending(ends);
        change(count);
    });
}
