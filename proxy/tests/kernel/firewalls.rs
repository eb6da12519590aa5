//! Other programs' chains that keep connections to Services from their endpoints: who is named, and who is
//! not.

use std::net::SocketAddr;

use weft_nftables::Client;
use weft_proxy::config::Config;
use weft_proxy::firewall;
use weft_proxy::trace::live;
use weft_testkit::program::run;
use weft_testkit::world::{Connection, World, tcp};
use weft_types::{Family, Node, Object};

use super::{Cluster, cluster_ip, is_dropped, service, slices};

/// A cluster with a Service that leads to pod 1, and the Node's pods.
fn cluster(world: &World) -> Cluster<'_> {
    let mut cluster = Cluster::new(world, Config::default());
    let addresses = ["172.30.0.11", "fd00:30::11"].map(|address| address.parse().unwrap()).to_vec();
    let pod_cidrs = ["10.244.1.0/24", "fd00:244:1::/64"].map(|network| network.parse().unwrap()).to_vec();
    let node = Node { name: "node1".into(), addresses, pod_cidrs, ..Node::default() };
    cluster.try_put([Object::Node(node), service()].into_iter().chain(slices(&[1])));
    cluster
}

/// What is said to be in the way.
fn conflicts(cluster: &Cluster<'_>) -> Vec<String> {
    let look = || firewall::look(&mut Client::open().unwrap(), "node1", &cluster.snapshot);
    cluster.world.node.run(look).unwrap().unwrap().iter().map(ToString::to_string).collect()
}

fn to() -> SocketAddr {
    SocketAddr::new(cluster_ip(Family::V4), 80)
}

fn commands(cluster: &Cluster<'_>, program: &str, lines: &[&str]) {
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        cluster.world.node.run(|| run(program, &words)).unwrap();
    }
}

#[test]
fn dockers_drop_policy_is_named_with_the_remedy_which_works() {
    let world = World::new();
    world.serve(8080);
    let cluster = cluster(&world);
    assert_eq!(conflicts(&cluster), Vec::<String>::new());
    // As Docker makes them.
    commands(
        &cluster,
        "iptables-nft",
        &[
            "-N DOCKER-USER",
            "-N DOCKER-FORWARD",
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -j DOCKER-FORWARD",
            "-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A DOCKER-FORWARD -i docker0 -j ACCEPT",
            "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-P FORWARD DROP",
        ],
    );
    assert!(is_dropped(&world.outside, to()));
    let found = conflicts(&cluster);
    let [conflict] = &found[..] else { panic!("{found:#?}") };
    for words in [
        "the chain FORWARD of table ip filter stops what is passed on to endpoints of Services (policy drop); ",
        "iptables -I FORWARD -s 10.244.1.0/24 -j ACCEPT and iptables -I FORWARD -d 10.244.1.0/24 -j ACCEPT",
        "ip-forward-no-drop",
    ] {
        assert!(conflict.contains(words), "{conflict}");
    }
    let trace = world.node.run(|| live::trace("172.30.0.1 -> 10.96.0.80:80 via outside")).unwrap().unwrap();
    let end = "chain FORWARD of table ip filter { type filter hook forward priority filter; policy drop; }";
    assert!(trace.contains(end), "{trace}");
    assert!(
        trace.ends_with("\n  policy drop\n\nthe packet is dropped: the client gets no answer\n"),
        "{trace}"
    );
    commands(&cluster, "iptables-nft", &["-I FORWARD -s 10.244.1.0/24 -j ACCEPT"]);
    assert_eq!(conflicts(&cluster).len(), 1, "one of two ways");
    commands(&cluster, "iptables-nft", &["-I FORWARD -d 10.244.1.0/24 -j ACCEPT"]);
    assert_eq!(conflicts(&cluster), Vec::<String>::new());
    assert!(tcp(&world.outside, to()).starts_with("1 "));
}

#[test]
fn a_table_of_both_families_that_rejects_is_named_with_its_rule_and_one_that_lets_services_through_is_not() {
    let world = World::new();
    world.serve(8080);
    let cluster = cluster(&world);
    // As firewalld makes them, in short.
    let table = "table inet firewalld {
        set trusted { type ifname; elements = { \"lo\" }; }
        chain filter_FORWARD {
            type filter hook forward priority filter + 10; policy accept;
            ct state vmap { established : accept, related : accept, invalid : drop }
            iifname @trusted accept
            ip6 daddr { ::/96, ::ffff:0.0.0.0/96 } reject with icmpv6 addr-unreachable
            jump policies
            reject with icmpx admin-prohibited
        }
        chain policies { meta nfproto ipv6 ip6 saddr fd00:99::/64 accept; }
    }";
    cluster.nft(&[table]);
    assert!(Connection::open(&world.outside, to()).is_err());
    let found = conflicts(&cluster);
    let [conflict] = &found[..] else { panic!("{found:#?}") };
    let words = "the chain filter_FORWARD of table inet firewalld stops what is passed on to endpoints of Services \
                 (reject with icmpx admin-prohibited); let it through: firewall-cmd --permanent --zone=trusted \
                 --add-source=10.244.1.0/24 --add-source=fd00:244:1::/64 and firewall-cmd --reload";
    assert_eq!(conflict, words);
    cluster.nft(&["insert rule inet firewalld policies ct status dnat accept"]);
    assert_eq!(conflicts(&cluster), Vec::<String>::new());
    assert!(tcp(&world.outside, to()).starts_with("1 "));
}

#[test]
fn rules_that_cannot_be_read_are_named_as_doubts_and_never_stop_a_trace() {
    let world = World::new();
    let cluster = cluster(&world);
    let table = "table inet strange {
        chain forward {
            type filter hook forward priority 5; policy drop;
            meta mark & 0xff == 7 accept
            ct mark & 0xff == 7 accept
            limit rate 5/second log prefix \"x\" counter
            tcp option maxseg size set rt mtu
            numgen inc mod 2 vmap { 0 : accept, 1 : drop }
            ip daddr . tcp dport { 10.9.9.9 . 1-5 } accept
        }
        chain mangle { type route hook output priority mangle; meta mark set 0x7; }
        chain input { type filter hook input priority 0; policy drop; tcp dport 22 accept; }
    }";
    for others in [
        "table bridge other { chain x { type filter hook forward priority 0; policy drop; }; }",
        "table inet sleeping { flags dormant; chain x { type filter hook forward priority 0; policy drop; }; }",
    ] {
        cluster.nft(&[others]);
    }
    cluster.nft(&[table]);
    let found = conflicts(&cluster);
    let [conflict] = &found[..] else { panic!("{found:#?}") };
    assert!(conflict.contains("chain forward of table inet strange"), "{conflict}");
    assert!(
        conflict.contains(
            "unless a rule that cannot be read here lets it through (meta mark & 0x000000ff == 0x00000007 accept"
        ),
        "{conflict}"
    );
    let trace = world.node.run(|| live::trace("172.30.0.1 -> 10.96.0.80:80 via outside")).unwrap().unwrap();
    assert!(trace.contains("  ? ct mark & 0x000000ff == 0x00000007 accept"), "{trace}");
    assert!(trace.contains("\nnot certain: "), "{trace}");
}
