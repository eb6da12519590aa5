//! How the plan follows changes, and what it does with what is too much.

use weft_policy::plan::{ClassId, Delta, Direction, MOST_ROWS, Planner};
use weft_types::PortMatch;

use crate::fixture::*;
use crate::{BANK_DB, SHOP_DB, SHOP_WEB};

fn classes(planner: &Planner) -> Vec<(std::net::IpAddr, ClassId)> {
    let family = planner.plan().family(weft_types::Family::V4);
    let mut all: Vec<_> = family.peers.iter().map(|(address, class)| (*address, *class)).collect();
    all.extend(family.networks.iter().map(|(first, (_, class))| (*first, *class)));
    all.sort_unstable();
    all
}

fn busy() -> Cluster {
    let mut cluster = Cluster::new();
    let peers = [pods("app=db"), network("192.0.2.0/24", &["192.0.2.0/28"]), pods_in("name=bank", "app=web")];
    let rules: Vec<_> = peers.iter().map(|peer| rule(Some(std::slice::from_ref(peer)), None)).collect();
    cluster.isolate("shop/web", "app=web", Some(&rules), None);
    cluster.0.commit();
    cluster
}

#[test]
fn a_pod_that_comes_changes_its_own_classes_and_nothing_else() {
    let mut cluster = busy();
    let before = classes(&cluster.0);
    cluster.add(&pod("shop/db-2", "there", &["10.0.1.7"], "app=db"));
    let delta = cluster.0.commit();
    let class = cluster.0.plan().family(weft_types::Family::V4).class(ip(SHOP_DB));
    assert_eq!(delta, Delta { peers: vec![(ip("10.0.1.7"), Some(class))], ..Delta::default() });
    cluster.0.set_pod(&key("shop/db-2"), None);
    assert_eq!(cluster.0.commit(), Delta { peers: vec![(ip("10.0.1.7"), None)], ..Delta::default() });
    assert_eq!(classes(&cluster.0), before);
}

#[test]
fn a_policy_that_tells_nobody_apart_renumbers_nobody() {
    let mut cluster = busy();
    let before = classes(&cluster.0);
    cluster.isolate(
        "shop/more",
        "app=web",
        Some(&[rule(Some(&[pods_in("name=shop", "app=db")]), None)]),
        None,
    );
    let delta = cluster.0.commit();
    assert!(delta.peers.is_empty() && delta.networks.is_empty(), "{delta:?}");
    assert_eq!(classes(&cluster.0), before);
}

#[test]
fn a_pod_that_no_policy_asks_about_changes_nothing() {
    let mut cluster = busy();
    cluster.add(&pod("bank/other", "there", &["10.0.2.9"], "app=other"));
    assert!(cluster.0.commit().is_empty());
}

#[test]
fn a_namespace_that_gets_a_label_moves_its_pods() {
    let mut cluster = busy();
    assert!(!cluster.passes(BANK_DB, SHOP_WEB, ICMP_OF_BANK));
    cluster.isolate("shop/gold", "app=web", Some(&[rule(Some(&[pods_in("tier=gold", "")]), None)]), None);
    assert!(!cluster.passes(BANK_DB, SHOP_WEB, ICMP_OF_BANK));
    let namespace =
        weft_types::Namespace { labels: labels("name=bank,tier=gold"), ..weft_types::Namespace::new("bank") };
    cluster.0.set_namespace("bank", Some(&namespace));
    assert!(cluster.passes(BANK_DB, SHOP_WEB, ICMP_OF_BANK));
}

const ICMP_OF_BANK: Option<(weft_types::Protocol, u16)> = None;

#[test]
fn numbers_of_classes_are_taken_over_from_a_table() {
    let before = classes(&busy().0);
    let mut shuffled = before.clone();
    shuffled.iter_mut().for_each(|(_, class)| class.0 = 1000 - class.0);
    let mut again = Cluster::new();
    again.0.adopt(shuffled.iter().copied());
    let peers = [pods("app=db"), network("192.0.2.0/24", &["192.0.2.0/28"]), pods_in("name=bank", "app=web")];
    let rules: Vec<_> = peers.iter().map(|peer| rule(Some(std::slice::from_ref(peer)), None)).collect();
    again.isolate("shop/web", "app=web", Some(&rules), None);
    again.0.commit();
    assert_eq!(classes(&again.0), shuffled);
}

#[test]
fn a_table_in_which_unlike_peers_have_one_number_is_mended() {
    let all = classes(&busy().0).into_iter().map(|(address, _)| (address, ClassId(7)));
    let mut again = busy();
    let peers = [pods("app=db"), pods_in("name=bank", "app=web")];
    let mut fresh = Cluster::new();
    fresh.0.adopt(all);
    let rules: Vec<_> = peers.iter().map(|peer| rule(Some(std::slice::from_ref(peer)), None)).collect();
    fresh.isolate("shop/web", "app=web", Some(&rules), None);
    assert!(fresh.passes(SHOP_DB, SHOP_WEB, (Tcp, 80)) && !fresh.passes(BANK_DB, SHOP_WEB, (Tcp, 80)));
    assert!(again.passes(SHOP_DB, SHOP_WEB, (Tcp, 80)));
}

/// Every second port, for many classes of peers.
fn a_million_rows(cluster: &mut Cluster) {
    let ports: Vec<PortMatch> = (1..20_000).map(|number| port(Tcp, 2 * number, 2 * number)).collect();
    let peers: Vec<_> = (0..50).map(|number| pods_in("", &format!("one={number}"))).collect();
    for number in 0..50 {
        let address = format!("10.9.0.{number}");
        cluster.add(&pod(&format!("bank/p{number}"), "there", &[&address], &format!("one={number}")));
    }
    let rules: Vec<_> =
        peers.iter().map(|peer| rule(Some(std::slice::from_ref(peer)), Some(&ports))).collect();
    cluster.isolate("shop/huge", "app=web", Some(&rules), None);
}

#[test]
fn a_pod_whose_policies_come_to_too_many_rows_is_closed_and_the_policy_named() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/small", "app=web", None, Some(&[rule(Some(&[pods("app=db")]), None)]));
    a_million_rows(&mut cluster);
    assert!(!cluster.passes("10.9.0.1", SHOP_WEB, (Tcp, 2)), "what cannot be represented is closed");
    assert!(cluster.passes(SHOP_WEB, SHOP_DB, (Tcp, 2)), "the other direction holds");
    let problems = cluster.0.problems();
    assert_eq!(problems.len(), 1);
    let expected = format!(
        "NetworkPolicy shop/huge: spec.ingress: Pod shop/web would need more than {MOST_ROWS} rows, so that all its \
         ingress is denied; use ranges of ports (endPort) or fewer ports"
    );
    assert_eq!(problems[0].to_string(), expected);
    assert!(cluster.why("10.9.0.1", SHOP_WEB, Some((Tcp, 2))).contains("too many rows, most of them by"));
    cluster.0.set_network_policy(&key("shop/huge"), None);
    assert!(cluster.passes("10.9.0.1", SHOP_WEB, (Tcp, 2)) && cluster.0.problems().is_empty());
}

#[test]
fn a_pod_opens_again_when_fewer_peers_make_its_policies_fit() {
    let mut cluster = Cluster::new();
    a_million_rows(&mut cluster);
    cluster.0.commit();
    for number in 1..50 {
        cluster.0.set_pod(&key(&format!("bank/p{number}")), None);
        cluster.0.commit();
    }
    assert!(!cluster.0.problems().is_empty(), "19,999 rows are still too many");
    assert_eq!((cluster.0.endpoints(), cluster.0.rows()), (2, 0), "a closed pod has no rows");
    let ports: Vec<PortMatch> = (1..5_000).map(|number| port(Tcp, 2 * number, 2 * number)).collect();
    let rules = [rule(Some(&[pods_in("", "one=0")]), Some(&ports))];
    cluster.isolate("shop/huge", "app=web", Some(&rules), None);
    assert!(cluster.passes("10.9.0.0", SHOP_WEB, (Tcp, 2)) && cluster.0.problems().is_empty());
    assert_eq!(cluster.0.rows(), 4_999);
}

#[test]
fn thousands_of_ports_for_all_peers_are_rows_once() {
    let mut cluster = busy();
    let ports: Vec<PortMatch> = (1..5_000).map(|number| port(Tcp, 2 * number, 2 * number)).collect();
    cluster.isolate("shop/many", "app=web", Some(&[rule(None, Some(&ports))]), None);
    assert!(
        cluster.passes("198.51.100.1", SHOP_WEB, (Tcp, 4000))
            && !cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 4001))
    );
    let family = cluster.0.plan().family(weft_types::Family::V4);
    let side = family.endpoints[&ip(SHOP_WEB)].side(Direction::Ingress).unwrap();
    let rows: usize = side.rows.values().map(|rows| rows.len()).sum();
    assert!(rows < 6_000, "{rows}");
}

/// As somebody sends them who wants to keep the nodes busy, or has many networks.
#[test]
fn a_hundred_thousand_networks_in_a_rule_are_one_class_and_go_as_they_came() {
    const COUNT: u32 = 100_000;
    let mut cluster = busy();
    let (before, size) = (classes(&cluster.0), cluster.0.rows());
    let blocks: Vec<_> = (0..COUNT)
        .map(|number| {
            let address = std::net::Ipv4Addr::from(0x1400_0000 + 2 * number);
            network(&format!("{address}/32"), &[])
        })
        .collect();
    cluster.isolate("shop/many", "app=web", Some(&[rule(Some(&blocks), None)]), None);
    let delta = cluster.0.commit();
    assert_eq!((delta.networks.len(), delta.rows.len()), (COUNT as usize, 1));
    for (from, passes) in
        [("20.0.0.0", true), ("20.0.0.1", false), ("20.3.13.62", true), ("20.3.13.64", false)]
    {
        assert_eq!(cluster.passes(from, SHOP_WEB, (Tcp, 80)), passes, "{from}");
    }
    cluster.0.set_network_policy(&key("shop/many"), None);
    cluster.0.commit();
    assert_eq!((classes(&cluster.0), cluster.0.rows()), (before, size));
}

#[test]
fn thousands_of_selectors_come_and_go_together() {
    let mut cluster = busy();
    let before = classes(&cluster.0);
    for number in 0..2_000 {
        let address = format!("10.8.{}.{}", number / 200, number % 200);
        cluster.add(&pod(&format!("bank/p{number}"), "there", &[&address], &format!("one={number}")));
    }
    let selectors: Vec<_> = (0..4_000).map(|number| pods_in("", &format!("one={number}"))).collect();
    cluster.isolate("shop/many", "app=web", Some(&[rule(Some(&selectors), None)]), None);
    assert!(cluster.passes("10.8.0.7", SHOP_WEB, (Tcp, 80)) && cluster.0.problems().is_empty());
    assert!(!cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)));
    cluster.0.set_network_policy(&key("shop/many"), None);
    cluster.0.commit();
    assert_eq!(classes(&cluster.0), before);
}

#[test]
fn a_policy_that_goes_before_it_was_planned_leaves_nothing_and_one_of_its_name_is_another_one() {
    let mut cluster = busy();
    let before = classes(&cluster.0);
    let open = [rule(None, None)];
    let none = [rule(Some(&[pods("app=none")]), None)];
    cluster.isolate("shop/short", "app=web", Some(&open), None);
    cluster.0.set_network_policy(&key("shop/short"), None);
    assert!(cluster.0.commit().is_empty(), "it was never there");
    cluster.isolate("shop/short", "app=web", Some(&open), None);
    assert!(cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)));
    // Gone and back in one step, with other rules.
    cluster.0.set_network_policy(&key("shop/short"), None);
    cluster.isolate("shop/short", "app=web", Some(&none), None);
    assert!(!cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)));
    // With the pod that it selects.
    cluster.0.set_pod(&key("shop/web"), None);
    cluster.0.set_network_policy(&key("shop/short"), None);
    cluster.0.commit();
    cluster.add(&pod("shop/web", "here", &[SHOP_WEB], "app=web"));
    cluster.0.commit();
    assert!(cluster.passes(SHOP_DB, SHOP_WEB, (Tcp, 80)) && !cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)));
    assert_eq!(classes(&cluster.0).len(), before.len());
}
