//! The mode iptables beside the real `iptables-nft`: what it prints, what it would have written itself, and
//! what others have in the same tables.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use weft_cluster::{WatchFilter, manifest};
use weft_netlink::netns::Namespace;
use weft_nftables::Client;
use weft_proxy::config::{Config, DetectLocal, NodePortAddresses, ProxyMode};
use weft_proxy::dry_run;
use weft_proxy::services::planner::everything;
use weft_proxy::sync::{Outcome, Sync};
use weft_proxy::trace::live;
use weft_testkit::program::{run, run_with_input};
use weft_testkit::world::{Connection, World, tcp};
use weft_types::{ChangeSet, Family, Object, ObjectKey, Snapshot, TrafficPolicy};

use crate::{
    Cluster, EXTERNAL_V4, NODE_PORT, cluster_ip, external, name, of, service, slice, slices, without_counts,
};

/// The commands of both families, with the tables that are ours.
const TABLES: [(&str, &str); 4] =
    [("iptables", "nat"), ("iptables", "filter"), ("ip6tables", "nat"), ("ip6tables", "filter")];

/// What Debian's `iptables-nft` prints of all tables, in the form of a dry run.
fn printed() -> String {
    let table = |(command, table): &(&str, &str)| {
        let rules = run(&format!("{command}-nft"), &["-t", table, "-S"]);
        format!("# {command} -t {table} -S\n{rules}")
    };
    TABLES.iter().map(table).collect::<Vec<_>>().join("\n")
}

/// Has `iptables-nft-restore` write what a dry run prints.
fn restore(text: &str) {
    for block in text.split("\n\n") {
        let (head, rules) = block.split_once('\n').unwrap();
        let words: Vec<&str> = head.split(' ').collect();
        let chain = |line: &str| line.strip_prefix("-N ").map(|chain| format!(":{chain} - [0:0]\n"));
        let chains: String = rules.lines().filter_map(chain).collect();
        let rules: String =
            rules.lines().filter(|line| line.starts_with("-A")).map(|line| format!("{line}\n")).collect();
        let input = format!("*{}\n{chains}{rules}COMMIT\n", words[3]);
        run_with_input(&format!("{}-nft-restore", words[1]), &["--noflush"], &input);
    }
}

/// All rules as nft prints them, each with the table and chain that it stands in; tables and chains by name.
fn listed() -> Vec<String> {
    let text = run("nft", &["list", "ruleset"]);
    let (mut table, mut chain, mut rules) = ("", "", Vec::new());
    for line in text.lines() {
        if line.starts_with("table ") {
            table = line;
        } else if line.starts_with("\tchain ") {
            chain = line;
        } else if line.starts_with("\t\t") {
            rules.push((table, chain, rules.len(), without_counts(line)));
        }
    }
    // `iptables-nft` makes the chains of a table where packets enter when it first needs them.
    rules.retain(|(.., rule)| !rule.contains("hook input priority 100"));
    rules.sort_unstable();
    rules.into_iter().map(|(table, chain, _, rule)| format!("{table} {chain} {rule}")).collect()
}

fn manifest_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/manifests/{name}.yaml"))
}

/// Configurations in which all kinds of rules are made.
fn configurations() -> Vec<Config> {
    let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let config = Config { node: "node1".into(), ..of(ProxyMode::Iptables) };
    vec![
        config.clone(),
        Config {
            cluster_cidrs: networks(&["10.244.0.0/14", "fd00:244::/49"]),
            nodeport_addresses: NodePortAddresses::Networks(networks(&["0.0.0.0/0", "::/0"])),
            ..config.clone()
        },
        Config {
            detect_local: DetectLocal::Interface("veth*".into()),
            nodeport_addresses: NodePortAddresses::Networks(networks(&["172.30.0.0/24", "fd00:30::/64"])),
            conntrack_be_liberal: true,
            ..config.clone()
        },
        Config { detect_local: DetectLocal::Interface("cni0".into()), ..config.clone() },
        Config { masquerade_all: true, ..config },
    ]
}

#[test]
fn iptables_prints_what_a_dry_run_prints_and_would_have_written_the_same() {
    for config in configurations() {
        for manifest in ["shop", "affinity"].map(manifest_path) {
            let planned = dry_run::text(config.clone(), std::slice::from_ref(&manifest)).unwrap();
            let snapshot = manifest::load(&WatchFilter::service_proxy(), &[manifest]).unwrap();
            let (ours, theirs) = (Namespace::temporary().unwrap(), Namespace::temporary().unwrap());
            let mut sync = ours.run(|| Sync::open(config.clone())).unwrap().unwrap();
            sync.apply(&snapshot, &everything(&snapshot)).unwrap();
            assert_eq!(ours.run(printed).unwrap(), planned);
            theirs.run(|| restore(&planned)).unwrap();
            assert_eq!(theirs.run(printed).unwrap(), planned);
            assert_eq!(ours.run(listed).unwrap(), theirs.run(listed).unwrap());
        }
    }
}

/// What another program has in the tables, and what kube-proxy left there.
const OTHERS: &str = "*nat\n:DOCKER - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
                      -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
                      -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
                      -A KUBE-SERVICES -d 10.96.0.80/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA\n\
                      -A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-MARK-MASQ\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
                      -A DOCKER -p tcp -m tcp --dport 9999 -j ACCEPT\nCOMMIT\n";

#[test]
fn kube_proxys_rules_are_taken_over_and_those_of_other_programs_stay_through_all() {
    let world = World::new();
    world.serve(8080);
    let nat = || world.node.run(|| run("iptables-nft", &["-t", "nat", "-S"])).unwrap();
    world.node.run(|| run_with_input("iptables-nft-restore", &[], OTHERS)).unwrap();
    let docker: Vec<String> =
        nat().lines().filter(|line| line.contains("DOCKER")).map(str::to_owned).collect();
    let before = nat();
    world.node.run(crate::clean_up).unwrap().unwrap();
    assert_eq!(nat(), before, "what kube-proxy itself wrote is not ours to delete");

    let mut cluster = Cluster::new(&world, of(ProxyMode::Iptables));
    cluster.put([service()].into_iter().chain(slices(&[1])));
    let now = nat();
    assert!(docker.iter().all(|line| now.contains(line.as_str())), "{now}");
    assert!(!now.contains("KUBE-SVC-AAAAAAAAAAAAAAAA"), "{now}");
    let portals =
        now.lines().filter(|line| line.starts_with("-A PREROUTING") && line.contains("KUBE-SERVICES"));
    assert_eq!(portals.count(), 1, "{now}");
    assert!(tcp(&world.outside, SocketAddr::new(cluster_ip(Family::V4), 80)).starts_with("1 "));
    world.node.run(crate::clean_up).unwrap().unwrap();
    let left = nat();
    assert!(docker.iter().all(|line| left.contains(line.as_str())) && !left.contains("KUBE-"), "{left}");
}

#[test]
fn what_others_destroy_is_put_back_and_nothing_else_is_written() {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(ProxyMode::Iptables));
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    let all = || world.node.run(printed).unwrap();
    let rules = all();
    let iptables = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        world.node.run(|| run("iptables-nft", &arguments)).unwrap();
    };
    for damage in [
        "-t nat -F",
        "-t nat -F KUBE-SERVICES",
        "-t nat -D PREROUTING 1",
        "-t nat -D KUBE-SERVICES 1",
        "-t nat -A KUBE-SERVICES -j ACCEPT",
        "-t nat -I KUBE-MARK-MASQ -j RETURN",
        "-F KUBE-FORWARD",
        "-F FORWARD",
    ] {
        iptables(damage);
        assert_ne!(all(), rules, "{damage}");
        cluster.sync.mark_dirty();
        assert_eq!(cluster.sync.apply(&cluster.snapshot, &ChangeSet::default()).unwrap(), Outcome::Full);
        assert_eq!(sorted(&all()), sorted(&rules), "{damage}");
    }
    world.node.run(|| run("nft", &["flush", "ruleset"])).unwrap();
    // Noticed by the failure of the next change.
    let mut changes = ChangeSet::default();
    cluster.snapshot.apply(slice(Family::V4, &[2, 1]), &mut changes);
    cluster.snapshot.apply(slice(Family::V4, &[2]), &mut changes);
    assert_eq!(cluster.sync.apply(&cluster.snapshot, &changes).unwrap(), Outcome::Full);
    assert!(tcp(&world.outside, SocketAddr::new(cluster_ip(Family::V4), 80)).starts_with("2 "));
    let kept = cluster.nft(&["-a", "list", "ruleset"]);
    cluster.sync.mark_dirty();
    cluster.sync.apply(&cluster.snapshot, &ChangeSet::default()).unwrap();
    assert_eq!(cluster.nft(&["-a", "list", "ruleset"]), kept, "all of it is as planned");
}

/// Rules of many Services stand in whatever order.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_change_writes_the_rules_of_one_service_alone_and_what_is_left_is_what_a_fresh_start_writes() {
    let world = World::new();
    let mut cluster = Cluster::new(&world, of(ProxyMode::Iptables));
    let snapshot = crate::many(20);
    let mut changes = ChangeSet::default();
    for (service, slices) in snapshot.services_with_slices() {
        cluster.snapshot.apply(Object::Service(service.clone()), &mut changes);
        for slice in slices {
            cluster.snapshot.apply(Object::EndpointSlice((**slice).clone()), &mut changes);
        }
    }
    cluster.sync.apply(&cluster.snapshot, &changes).unwrap();
    // nft does not print their remarks.
    let first = cluster_rules(&world);
    let is_of_service =
        |line: &&&str| line.contains("-> ") || line.contains("dnat to") || line.contains("10.96.");
    let others: Vec<&str> = first.lines().collect();
    let others: Vec<&str> = others.iter().filter(is_of_service).copied().collect();
    assert!(others.len() > 40, "{first}");
    for objects in [
        vec![external(TrafficPolicy::Cluster)],
        slices(&[1]).to_vec(),
        slices(&[1, 2]).to_vec(),
        vec![external(TrafficPolicy::Local)],
        slices(&[2]).to_vec(),
        vec![service()],
        slices(&[]).to_vec(),
    ] {
        cluster.put(objects);
        let now = cluster_rules(&world);
        let lines: BTreeSet<&str> = now.lines().collect();
        assert!(others.iter().all(|rule| lines.contains(rule)), "the same rules, by their numbers");
        let kept = world.node.run(printed).unwrap();
        cluster.restart();
        assert_eq!(world.node.run(printed).unwrap(), kept);
        let fresh = Namespace::temporary().unwrap();
        let mut sync = fresh.run(|| Sync::open(cluster.config.clone())).unwrap().unwrap();
        sync.apply(&cluster.snapshot, &everything(&cluster.snapshot)).unwrap();
        assert_eq!(sorted(&fresh.run(printed).unwrap()), sorted(&kept));
    }
    cluster.delete(ObjectKey::Service(name()));
    assert!(!world.node.run(printed).unwrap().contains("shop/web"));
}

/// All rules with their numbers, without counters.
fn cluster_rules(world: &World) -> String {
    let listed = world.node.run(|| run("nft", &["-a", "list", "ruleset"])).unwrap();
    listed.split_inclusive('\n').map(without_counts).collect()
}

#[test]
fn ten_thousand_services_are_loaded_and_a_restart_writes_nothing() {
    let node = Namespace::temporary().unwrap();
    let config = Config { node: "node1".into(), ..of(ProxyMode::Iptables) };
    let mut snapshot = crate::many(10_000);
    let open = || node.run(|| Sync::open(config.clone())).unwrap().unwrap();
    let generation = || node.run(|| Client::open().unwrap().generation().unwrap()).unwrap();
    let timed = |what: &str, sync: &mut Sync, snapshot: &Snapshot, changes: &ChangeSet| {
        let start = Instant::now();
        sync.apply(snapshot, changes).unwrap();
        println!("10,000 Services with 2 endpoints each, {what}: {:?}", start.elapsed());
    };
    let mut sync = open();
    timed("empty to full", &mut sync, &snapshot, &everything(&snapshot));
    let loaded = generation();
    let mut sync = open();
    timed("a restart", &mut sync, &snapshot, &everything(&snapshot));
    assert_eq!(generation(), loaded);
    for index in 0..3 {
        let key = weft_types::NamespacedName::new("shop", format!("slice-{index}"));
        let mut changes = ChangeSet::default();
        snapshot.delete(&ObjectKey::EndpointSlice(key), &mut changes);
        timed("a Service loses its endpoints", &mut sync, &snapshot, &changes);
    }
    let nat = node.run(|| run("iptables-nft", &["-t", "nat", "-S", "KUBE-SERVICES"])).unwrap();
    assert_eq!(nat.matches(" -j KUBE-SVC-").count(), 9_997);
}

#[test]
fn another_mode_leads_clients_on_and_leaves_nothing_of_the_one_before() {
    let world = World::new();
    world.serve(8080);
    let to = [
        SocketAddr::new(cluster_ip(Family::V4), 80),
        SocketAddr::new(cluster_ip(Family::V6), 80),
        SocketAddr::new("172.30.0.11".parse().unwrap(), NODE_PORT),
        SocketAddr::new(EXTERNAL_V4[0].parse().unwrap(), 80),
    ];
    let mut cluster = Cluster::new(&world, of(ProxyMode::Nftables));
    cluster.put([external(TrafficPolicy::Cluster)].into_iter().chain(slices(&[1])));
    let mut open = to.map(|to| Connection::open(&world.outside, to).unwrap());
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables, ProxyMode::Iptables] {
        cluster.config.mode = mode;
        cluster.restart();
        let rules = cluster.nft(&["list", "ruleset"]);
        let is_nftables = mode == ProxyMode::Nftables;
        assert_eq!((rules.contains("table ip weft"), rules.contains("KUBE-")), (is_nftables, !is_nftables));
        for to in to {
            assert!(tcp(&world.outside, to).starts_with("1 "), "{to} {mode:?}");
        }
        for connection in &mut open {
            assert!(connection.ask().starts_with("1 "), "what is established goes on");
        }
    }
}

#[test]
fn a_person_is_shown_the_way_of_a_packet_through_kube_proxys_chains_planned_and_in_the_kernel() {
    let config = Config { node: "node1".into(), ..of(ProxyMode::Iptables) };
    let packet = "10.244.1.9 -> 10.96.0.20:80";
    let planned = dry_run::trace(config, &[manifest_path("shop")], packet).unwrap();
    for words in [
        "\nchain KUBE-SERVICES\n",
        "-m statistic --mode random --probability 0.33333333349",
        "the packet goes to 10.244.1.2:8080 with its source unchanged",
        "or, as endpoints are chosen at random, it goes to 10.244.2.2:8080",
        "or, as endpoints are chosen at random, it goes to 10.244.3.2:8080",
    ] {
        assert!(planned.contains(words), "{words}: {planned}");
    }
    let world = World::new();
    let mut cluster = Cluster::new(&world, of(ProxyMode::Iptables));
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    let trace = |packet: &str| world.node.run(|| live::trace(packet)).unwrap().unwrap();
    let shown = trace("172.30.0.1 -> 172.30.0.11:30080");
    assert!(shown.contains("KUBE-NODEPORTS of table ip nat") && shown.contains("KUBE-MARK-MASQ"), "{shown}");
    for pod in ["10.244.1.2:8080", "10.244.2.2:8080"] {
        assert!(
            shown.contains(&format!("goes to {pod} with an address of this node as its source")),
            "{shown}"
        );
    }
    cluster.put(slices(&[]));
    assert!(trace("10.244.1.2 -> 10.96.0.80:80").contains("the packet is rejected"));
}

#[test]
fn beside_tables_of_the_legacy_iptables_the_mode_is_refused_with_a_remedy() {
    let node = Namespace::temporary().unwrap();
    node.run(|| run("iptables-legacy", &["-t", "nat", "-L", "-n"])).unwrap();
    let refused = node.run(|| Sync::open(of(ProxyMode::Iptables))).unwrap().unwrap_err().to_string();
    for words in ["tables nat", "--proxy-mode=nftables", "update-alternatives"] {
        assert!(refused.contains(words), "{refused}");
    }
    node.run(|| Sync::open(of(ProxyMode::Nftables))).unwrap().unwrap();
}
