//! What the APIs of policies promise, one promise a test.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod changes;
mod fixture;
mod reports;
mod tiers;

use fixture::*;

const SHOP_WEB: &str = "10.0.1.1";
const SHOP_DB: &str = "10.0.1.2";
const BANK_WEB: &str = "10.0.2.1";
const BANK_DB: &str = "10.0.2.2";

/// ICMP, or any other protocol without ports.
const ICMP: Option<(weft_types::Protocol, u16)> = None;

#[test]
fn pods_that_no_policy_selects_are_open_both_ways() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/other", "app=none", Some(&[]), Some(&[]));
    assert!(cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)) && cluster.passes(SHOP_WEB, "192.0.2.1", ICMP));
}

#[test]
fn a_policy_isolates_only_the_ways_that_it_names_and_only_in_its_namespace() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/in", "", Some(&[]), None);
    assert!(!cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)) && cluster.passes(SHOP_WEB, BANK_DB, (Tcp, 80)));
    assert!(cluster.passes(SHOP_DB, BANK_WEB, (Tcp, 80)));
    cluster.isolate("shop/in", "", None, Some(&[]));
    assert!(cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)) && !cluster.passes(SHOP_WEB, BANK_DB, (Tcp, 80)));
}

#[test]
fn a_pod_selector_alone_means_the_policys_own_namespace() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/web", "app=web", Some(&[rule(Some(&[pods("app=db")]), None)]), None);
    assert!(cluster.passes(SHOP_DB, SHOP_WEB, (Tcp, 80)) && !cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)));
}

#[test]
fn selectors_of_one_peer_must_both_match_and_of_two_peers_either() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/web", "", Some(&[rule(Some(&[pods_in("name=bank", "app=db")]), None)]), None);
    let passes =
        |cluster: &mut Cluster| [BANK_DB, BANK_WEB, SHOP_DB].map(|from| cluster.passes(from, SHOP_WEB, ICMP));
    assert_eq!(passes(&mut cluster), [true, false, false]);
    let either = [pods_in("name=bank", ""), pods("app=db")];
    cluster.isolate("shop/web", "", Some(&[rule(Some(&either), None)]), None);
    assert_eq!(passes(&mut cluster), [true, true, true]);
}

#[test]
fn an_ip_block_without_its_exceptions_also_means_the_pods_in_it() {
    let mut cluster = Cluster::new();
    let block = network("0.0.0.0/0", &["10.0.2.0/31", "192.0.2.128/25"]);
    cluster.isolate("shop/web", "", Some(&[rule(Some(&[block]), None)]), None);
    let from = |cluster: &mut Cluster, from| cluster.passes(from, SHOP_WEB, (Tcp, 80));
    assert!(from(&mut cluster, "192.0.2.1") && !from(&mut cluster, "192.0.2.129"));
    assert!(from(&mut cluster, BANK_DB) && !from(&mut cluster, BANK_WEB));
    assert!(!cluster.passes("fd00::2:2", "fd00::1:1", (Tcp, 80)), "an IPv4 block says nothing of IPv6");
}

#[test]
fn an_exception_of_one_block_does_not_cut_another_one() {
    let mut cluster = Cluster::new();
    let blocks = [network("10.0.0.0/8", &["10.0.2.0/24"]), network("10.0.2.2/32", &[])];
    cluster.isolate("shop/web", "", Some(&[rule(Some(&blocks), None)]), None);
    assert!(cluster.passes(BANK_DB, SHOP_WEB, ICMP) && !cluster.passes(BANK_WEB, SHOP_WEB, ICMP));
}

#[test]
fn all_of_tcp_is_neither_udp_nor_icmp() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/web", "", Some(&[rule(None, Some(&[port(Tcp, 0, 65535)]))]), None);
    let passes = [Some((Tcp, 1)), Some((Tcp, 65535)), Some((Udp, 1)), Some((Sctp, 1)), ICMP];
    let passes = passes.map(|port| cluster.passes(BANK_DB, SHOP_WEB, port));
    assert_eq!(passes, [true, true, false, false, false]);
}

#[test]
fn rules_without_ports_cover_icmp_and_rules_with_ports_do_not() {
    let mut cluster = Cluster::new();
    let rules = [
        rule(Some(&[pods("app=db")]), None),
        rule(Some(&[pods_in("", "app=web")]), Some(&[port(Tcp, 80, 80)])),
    ];
    cluster.isolate("shop/web", "", Some(&rules), None);
    assert!(cluster.passes(SHOP_DB, SHOP_WEB, ICMP) && !cluster.passes(BANK_WEB, SHOP_WEB, ICMP));
    assert!(cluster.passes(BANK_WEB, SHOP_WEB, (Tcp, 80)) && !cluster.passes(BANK_WEB, SHOP_WEB, (Udp, 80)));
}

#[test]
fn a_range_of_ports_has_both_of_its_ends() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/web", "", Some(&[rule(None, Some(&[port(Sctp, 8000, 8100)]))]), None);
    let passes = [7999, 8000, 8100, 8101].map(|number| cluster.passes(BANK_DB, SHOP_WEB, (Sctp, number)));
    assert_eq!(passes, [false, true, true, false]);
}

#[test]
fn named_ports_are_those_of_the_pod_that_answers() {
    let mut cluster = Cluster::new();
    cluster.add(&with_port(pod("shop/web", "here", &[SHOP_WEB], "app=web"), "http", 8080));
    cluster.add(&with_port(pod("shop/db", "there", &[SHOP_DB], "app=db"), "http", 81));
    cluster.add(&with_port(pod("bank/db", "there", &[BANK_DB], "app=db"), "http", 82));
    let rules = [rule(None, Some(&[named("http")]))];
    cluster.isolate("shop/web", "", Some(&rules), Some(&rules));
    let mut ports = |source, destination| {
        let numbers = [80, 81, 82, 8080].into_iter();
        numbers.filter(|number| cluster.passes(source, destination, (Tcp, *number))).collect::<Vec<_>>()
    };
    assert_eq!(ports(BANK_WEB, SHOP_WEB), [8080]);
    assert_eq!((ports(SHOP_WEB, SHOP_DB), ports(SHOP_WEB, BANK_DB)), (vec![81], vec![82]));
    assert_eq!((ports(SHOP_WEB, BANK_WEB), ports(SHOP_WEB, "192.0.2.1")), (vec![], vec![]));
}

#[test]
fn policies_add_up() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/none", "", Some(&[]), None);
    cluster.isolate("shop/one", "", Some(&[rule(None, Some(&[port(Tcp, 80, 80)]))]), None);
    cluster.isolate("shop/two", "", Some(&[rule(Some(&[pods("app=db")]), None)]), None);
    assert!(cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)) && cluster.passes(SHOP_DB, SHOP_WEB, (Udp, 53)));
    assert!(!cluster.passes(BANK_DB, SHOP_WEB, (Udp, 53)));
}

#[test]
fn both_ends_must_allow() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/web", "", None, Some(&[rule(Some(&[pods_in("", "app=web")]), None)]));
    assert!(cluster.passes(SHOP_WEB, BANK_WEB, (Tcp, 80)));
    cluster.isolate("bank/web", "", Some(&[]), None);
    assert!(!cluster.passes(SHOP_WEB, BANK_WEB, (Tcp, 80)));
}

#[test]
fn a_pod_reaches_itself_and_its_own_node_and_is_reached_by_it() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/web", "", Some(&[]), Some(&[]));
    assert!(cluster.passes(SHOP_WEB, SHOP_WEB, (Tcp, 80)));
    for node in ["172.16.0.1", "fd01::1"] {
        let web = if node.contains(':') { "fd00::1:1" } else { SHOP_WEB };
        assert!(cluster.passes(node, web, (Tcp, 80)) && cluster.passes(web, node, ICMP));
    }
    assert!(
        !cluster.passes("172.16.0.2", SHOP_WEB, (Tcp, 80)) && !cluster.passes(SHOP_WEB, "172.16.0.2", ICMP)
    );
}

#[test]
fn pods_on_their_hosts_network_match_no_selector() {
    let mut cluster = Cluster::new();
    let mut on_host = pod("shop/agent", "there", &["172.16.0.2"], "app=db");
    on_host.details.as_mut().unwrap().host_network = true;
    cluster.add(&on_host);
    cluster.isolate("shop/web", "", Some(&[rule(Some(&[pods_in("", "")]), None)]), None);
    assert!(
        !cluster.passes("172.16.0.2", SHOP_WEB, (Tcp, 80)) && cluster.passes(SHOP_DB, SHOP_WEB, (Tcp, 80))
    );
}

#[test]
fn a_reused_address_is_the_newest_pods() {
    let mut cluster = Cluster::new();
    let mut newer = pod("bank/job", "there", &[SHOP_DB], "app=job");
    newer.details.as_mut().unwrap().created = 5;
    cluster.isolate("shop/web", "", Some(&[rule(Some(&[pods("app=db")]), None)]), None);
    assert!(cluster.passes(SHOP_DB, SHOP_WEB, (Tcp, 80)));
    cluster.add(&newer);
    assert!(!cluster.passes(SHOP_DB, SHOP_WEB, (Tcp, 80)), "it is the job's by now");
    cluster.0.set_pod(&newer.key, None);
    assert!(cluster.passes(SHOP_DB, SHOP_WEB, (Tcp, 80)));
}

#[test]
fn an_address_that_the_plugin_gave_counts_before_the_api_server_has_it() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/all", "", Some(&[]), None);
    cluster.add(&pod("shop/new", "here", &[], "app=new"));
    cluster.0.commit();
    assert!(!cluster.0.is_planned(ip("10.0.1.9")));
    cluster.0.assign(&key("shop/new"), &[ip("10.0.1.9")]);
    assert!(!cluster.passes(BANK_DB, "10.0.1.9", (Tcp, 80)) && cluster.0.is_planned(ip("10.0.1.9")));
    cluster.0.assign(&key("shop/early"), &[ip("10.0.1.10")]);
    assert!(cluster.passes(BANK_DB, "10.0.1.10", (Tcp, 80)), "nobody knows that pod's labels yet");
    assert!(!cluster.0.is_planned(ip("10.0.1.10")));
    cluster.add(&pod("shop/early", "here", &[], "app=new"));
    assert!(!cluster.passes(BANK_DB, "10.0.1.10", (Tcp, 80)));
}

#[test]
fn pods_of_a_namespace_that_is_not_known_yet_are_found_by_its_name() {
    let mut cluster = Cluster::new();
    cluster.add(&pod("late/web", "there", &["10.0.3.1"], "app=web"));
    cluster.isolate(
        "shop/web",
        "",
        Some(&[rule(Some(&[pods_in("kubernetes.io/metadata.name=late", "")]), None)]),
        None,
    );
    assert!(cluster.passes("10.0.3.1", SHOP_WEB, (Tcp, 80)) && !cluster.passes(SHOP_DB, SHOP_WEB, (Tcp, 80)));
}
