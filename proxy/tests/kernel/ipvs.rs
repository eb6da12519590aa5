//! The mode ipvs, on a kernel that has IPVS, which `debian` boots. All tests that are in every mode run there,
//! and those of this file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use weft_netlink::netns::Namespace;
use weft_proxy::config::{Config, ProxyMode};
use weft_proxy::dataplane;
use weft_proxy::error::Error;
use weft_proxy::ipvs_options::{IpvsOptions, Scheduler};
use weft_proxy::services::planner::Planner;
use weft_testkit::wait::eventually;
use weft_testkit::world::{Connection, World, tcp, udp};
use weft_types::{Family, ObjectKey, TrafficPolicy};

use super::{Cluster, NODE_PORT, cluster_ip, external, name, of, service, slices};
use crate::affinity::with_affinity;
use crate::run;

const V4: Family = Family::V4;
/// Pod 1 as `ipvsadm` prints a destination that gets no new connections.
const DRAINING: &str = "10.244.1.2:8080              Masq    0";

#[test]
fn a_kernel_without_ipvs_is_refused_with_the_modules_to_load() {
    let words = "this kernel has no IPVS; load the modules ip_vs and ip_vs_rr";
    assert!(Error::NoIpvs.to_string().contains(words));
    let namespace = Namespace::temporary().unwrap();
    let opened = namespace.run(|| dataplane::open(&of(ProxyMode::Ipvs))).unwrap();
    assert!(opened.is_ok() || opened.is_err_and(|error| error.to_string().contains(words)));
}

fn with(scheduler: Scheduler) -> Config {
    Config { ipvs: IpvsOptions { scheduler, ..IpvsOptions::default() }, ..of(ProxyMode::Ipvs) }
}

/// What `ipvsadm` prints, but for the size of the kernel's table.
fn ipvsadm(node: &Namespace, arguments: &[&str]) -> String {
    let printed = node.run(|| run("ipvsadm", arguments)).unwrap();
    printed.split_once('\n').map(|(_, lines)| lines.to_owned()).unwrap_or_default()
}

/// What is at the interface, and what IPVS has.
fn held(node: &Namespace) -> (BTreeSet<String>, BTreeSet<String>) {
    let addresses = node.run(|| run("ip", &["-brief", "address", "show", "kube-ipvs0"])).unwrap();
    (words(&addresses), servers(&ipvsadm(node, &["-Ln"])))
}

/// Virtual servers, each with its destinations, in some order and without the numbers of their connections.
fn servers(text: &str) -> BTreeSet<String> {
    let mut server = String::new();
    let line = |line: &str| match line.strip_prefix("  -> ") {
        Some(destination) => {
            let words: Vec<&str> = destination.split_whitespace().take(3).collect();
            format!("{server} -> {}", words.join(" "))
        }
        None => {
            server = line.trim().to_owned();
            server.clone()
        }
    };
    text.lines().skip(2).map(line).collect()
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
#[ignore = "runs on a kernel with IPVS"]
fn ipvsadm_prints_what_is_rendered() {
    for scheduler in [Scheduler::Rr, Scheduler::Mh, Scheduler::Sh] {
        let world = World::new();
        let mut cluster = Cluster::new(&world, with(scheduler));
        let web = with_affinity(external(TrafficPolicy::Cluster), 60);
        cluster.put([web].into_iter().chain(slices(&[1, 2])));
        let mut offline = dataplane::offline(&cluster.config);
        Planner::new("node1").start(&cluster.snapshot, &mut *offline);
        let rendered = offline.render();
        let (planned, rest) = rendered.split_once("\n\n").unwrap();
        let heads = |text: &str| text.lines().take(2).map(str::to_owned).collect::<Vec<_>>();
        let (printed, planned) = (ipvsadm(&world.node, &["-Ln"]), planned.split_once('\n').unwrap().1);
        assert_eq!(heads(&printed), heads(planned));
        let planned = (words(rest.lines().next().unwrap()), servers(planned));
        assert_eq!(held(&world.node), planned);
    }
}

#[test]
#[ignore = "runs on a kernel with IPVS"]
fn a_restart_changes_nothing_and_what_others_changed_is_put_back() {
    let world = World::new();
    world.serve(8080);
    let exclude_cidrs = vec!["192.0.2.64/26".parse().unwrap()];
    let ipvs = IpvsOptions { exclude_cidrs, ..IpvsOptions::default() };
    let mut cluster = Cluster::new(&world, Config { ipvs, ..of(ProxyMode::Ipvs) });
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    let ipvs = |arguments: &[&str]| ipvsadm(&world.node, arguments);
    // Somebody else's, which stays whatever happens.
    ipvs(&["-A", "-t", "192.0.2.77:80", "-s", "rr"]);
    let to = SocketAddr::new(cluster_ip(V4), 80);
    tcp(&world.outside, to);
    let before = held(&world.node);
    cluster.restart();
    assert_eq!(held(&world.node), before);
    let (server, address) = (to.to_string(), format!("{}/32", to.ip()));
    // The kernel sums up what it counted every two seconds; of one made anew it is nothing.
    eventually("the virtual server remembers its connection", || {
        let stats = ipvs(&["-Ln", "--stats"]);
        let of_server = |line: &&str| line.starts_with("TCP") && line.contains(&server);
        stats.lines().find(of_server).is_some_and(|line| line.split_whitespace().nth(2) == Some("1"))
    });
    for change in [
        &["ipvsadm", "-D", "-t", &server][..],
        &["ipvsadm", "-E", "-t", &server, "-s", "wrr"],
        &["ipvsadm", "-d", "-t", &server, "-r", "10.244.1.2:8080"],
        &["ipvsadm", "-e", "-t", &server, "-r", "10.244.1.2:8080", "-m", "-w", "7"],
        &["ipvsadm", "-a", "-u", &server, "-r", "10.244.9.9:1", "-m"],
        &["ipvsadm", "-A", "-t", "10.96.0.99:80"],
        &["ip", "address", "del", &address, "dev", "kube-ipvs0"],
        &["ip", "address", "add", "10.96.0.99/32", "dev", "kube-ipvs0"],
        &["ip", "link", "del", "kube-ipvs0"],
        &["nft", "delete", "table", "ip", "weft"],
    ] {
        world.node.run(|| run(change[0], &change[1..])).unwrap();
        cluster.sync.mark_dirty();
        cluster.try_put([]);
        assert_eq!(held(&world.node), before, "{change:?}");
        tcp(&world.outside, to);
    }
    // As of a proxy that was killed in the midst of its work.
    ipvs(&["-D", "-t", &server]);
    ipvs(&["-d", "-u", &server, "-r", "10.244.1.2:8080"]);
    cluster.restart();
    tcp(&world.outside, to);
    cluster.delete(ObjectKey::Service(name()));
    let left = ipvs(&["-Ln"]);
    assert!(
        left.contains("192.0.2.77:80") && !left.contains("10.96.0.80") && !left.contains("30080"),
        "{left}"
    );
    assert!(!world.node.run(|| run("ip", &["address"])).unwrap().contains("10.96.0."));
}

#[test]
#[ignore = "runs on a kernel with IPVS"]
fn a_clean_up_takes_away_no_virtual_servers_and_addresses_of_others() {
    let world = World::new();
    let mut cluster = Cluster::new(&world, of(ProxyMode::Ipvs));
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    let sh = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        world.node.run(|| run(words[0], &words[1..])).unwrap()
    };
    // As of kube-proxy, and of somebody who has nothing to do with Services.
    sh("ip address add 10.96.0.99/32 dev kube-ipvs0");
    sh("ipvsadm -A -t 10.96.0.99:80 -s rr");
    sh("ipvsadm -A -t 172.30.0.11:443 -s rr");
    for _ in 0..2 {
        world.node.run(super::clean_up).unwrap().unwrap();
        let left = servers(&ipvsadm(&world.node, &["-Ln"]));
        assert_eq!(left, ["TCP  10.96.0.99:80 rr", "TCP  172.30.0.11:443 rr"].map(str::to_owned).into());
        let addresses = sh("ip -brief address show kube-ipvs0");
        assert!(addresses.contains("10.96.0.99/32") && !addresses.contains("10.96.0.80/32"), "{addresses}");
    }
    sh("ipvsadm -D -t 10.96.0.99:80");
    world.node.run(super::clean_up).unwrap().unwrap();
    assert!(!sh("ip link").contains("kube-ipvs0"));
    assert!(ipvsadm(&world.node, &["-Ln"]).contains("172.30.0.11:443"));
}

#[test]
#[ignore = "runs on a kernel with IPVS"]
fn an_endpoint_that_goes_keeps_its_connections_until_they_end_and_gets_no_new_ones() {
    let world = World::new();
    world.serve(8080);
    for scheduler in [Scheduler::Rr, Scheduler::Sh] {
        let mut cluster = Cluster::new(&world, with(scheduler));
        cluster.put([service()].into_iter().chain(slices(&[1])));
        let to = SocketAddr::new(cluster_ip(V4), 80);
        let mut open = Connection::open(&world.outside, to).unwrap();
        assert!(open.ask().starts_with("1 "));
        cluster.put(slices(&[2]));
        assert!(ipvsadm(&world.node, &["-Ln"]).contains(DRAINING));
        for _ in 0..10 {
            assert!(open.ask().starts_with("1 "));
            assert!(tcp(&world.outside, to).starts_with("2 "));
        }
        cluster.restart();
        assert!(open.ask().starts_with("1 "), "a restart lets it go on");
        open.reset();
        eventually("the endpoint is gone with its last connection", || {
            cluster.sync.mark_dirty();
            cluster.try_put([]);
            !ipvsadm(&world.node, &["-Ln"]).contains(DRAINING)
        });
        cluster.delete(ObjectKey::Service(name()));
    }
}

/// How many of so many connections, which stay open, each pod got.
fn spread(from: &Namespace, to: SocketAddr, count: usize) -> (BTreeMap<String, usize>, Vec<Connection>) {
    let (mut pods, mut open) = (BTreeMap::new(), Vec::new());
    for _ in 0..count {
        let mut connection = Connection::open(from, to).unwrap();
        *pods.entry(connection.ask()[..1].to_owned()).or_default() += 1;
        open.push(connection);
    }
    (pods, open)
}

#[test]
#[ignore = "runs on a kernel with IPVS"]
fn each_scheduler_spreads_connections_or_keeps_clients_as_it_is_known_for() {
    use Scheduler::{Dh, Lc, Mh, Nq, Rr, Sed, Sh, Wlc, Wrr};
    let world = World::new();
    world.serve(8080);
    let even = BTreeMap::from(["1", "2"].map(|pod| (pod.to_owned(), 10)));
    for scheduler in [Rr, Wrr, Lc, Wlc, Dh, Sh, Sed, Nq, Mh] {
        let mut cluster = Cluster::new(&world, with(scheduler));
        cluster.put([service()].into_iter().chain(slices(&[1, 2])));
        for family in Family::BOTH {
            let to = SocketAddr::new(cluster_ip(family), 80);
            let (pods, open) = spread(&world.outside, to, 20);
            match scheduler {
                // In turn, or by connections that are open.
                Rr | Wrr | Lc | Wlc | Sed | Nq => assert_eq!(pods, even, "{scheduler:?}"),
                // By the client, or by the Service's address: all are together.
                Sh | Dh => assert_eq!(pods.len(), 1, "{scheduler:?}: {pods:?}"),
                // By the client's port too: of twenty, neither pod gets none.
                Mh => assert_eq!(pods.len(), 2, "{pods:?}"),
            }
            open.into_iter().for_each(Connection::reset);
        }
        cluster.delete(ObjectKey::Service(name()));
    }
}

#[test]
#[ignore = "runs on a kernel with IPVS"]
fn a_change_of_mode_leads_to_the_same_endpoints_and_leaves_nothing_behind() {
    let world = World::new();
    world.serve(8080);
    let node_port = SocketAddr::new("172.30.0.11".parse().unwrap(), NODE_PORT);
    for other in [ProxyMode::Nftables, ProxyMode::Iptables] {
        for (from, to) in [(other, ProxyMode::Ipvs), (ProxyMode::Ipvs, other)] {
            let mut cluster = Cluster::new(&world, of(from));
            cluster.put([service()].into_iter().chain(slices(&[1])));
            cluster.config.mode = to;
            cluster.restart();
            for address in [SocketAddr::new(cluster_ip(V4), 80), node_port] {
                assert!(tcp(&world.outside, address).starts_with("1 "));
                assert!(udp(&world.outside, address).unwrap().starts_with("1 "));
            }
            let is_ipvs = to == ProxyMode::Ipvs;
            assert_eq!(world.node.run(|| run("ip", &["link"])).unwrap().contains("kube-ipvs0"), is_ipvs);
            let servers = ipvsadm(&world.node, &["-Ln"]);
            assert_eq!(servers.contains("10.96.0.80:80"), is_ipvs, "{servers}");
            let rules = world.node.run(|| run("nft", &["list", "ruleset"])).unwrap();
            assert_eq!(rules.contains("KUBE-SERVICES"), to == ProxyMode::Iptables);
            world.node.run(super::clean_up).unwrap().unwrap();
        }
    }
}
