//! ClusterNetworkPolicies: tiers, priorities and actions.

use weft_types::Action::{Accept, Deny, Pass};
use weft_types::PortMatch;
use weft_types::Tier::{Admin, Baseline};

use crate::fixture::*;
use crate::{BANK_DB, BANK_WEB, ICMP, SHOP_DB, SHOP_WEB};

fn everyone() -> [weft_types::PolicyPeer; 1] {
    [pods_in("", "")]
}

#[test]
fn admins_come_before_network_policies_and_baselines_after_them() {
    let mut cluster = Cluster::new();
    let bank = [pods_in("name=bank", "")];
    cluster.guard("base", (Baseline, 0), &[decide(Deny, rule(Some(&bank), None))], &[]);
    assert!(!cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)) && cluster.passes(SHOP_DB, SHOP_WEB, (Tcp, 80)));
    cluster.isolate("shop/web", "", Some(&[rule(Some(&bank), None)]), None);
    assert!(cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)), "the isolated pod has left the baseline behind");
    assert!(!cluster.passes(SHOP_DB, SHOP_WEB, (Tcp, 80)));
    let rules = [
        decide(Deny, rule(Some(&bank), Some(&[port(Tcp, 80, 80)]))),
        decide(Accept, rule(Some(&[pods_in("name=shop", "")]), None)),
    ];
    cluster.guard("admin", (Admin, 5), &rules, &[]);
    assert!(!cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)) && cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 81)));
    assert!(cluster.passes(SHOP_DB, SHOP_WEB, (Tcp, 80)));
}

#[test]
fn the_first_rule_by_priority_and_place_decides() {
    let mut cluster = Cluster::new();
    let all = |action| decide(action, rule(Some(&everyone()), None));
    cluster.guard("late", (Admin, 9), &[all(Deny)], &[]);
    cluster.guard("early", (Admin, 3), &[all(Accept), all(Deny)], &[]);
    assert!(cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)));
    cluster.guard("first", (Admin, 0), &[all(Deny)], &[]);
    assert!(!cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)));
}

#[test]
fn passed_traffic_skips_its_tier_only() {
    let mut cluster = Cluster::new();
    let rules = [
        decide(Pass, rule(Some(&everyone()), Some(&[port(Tcp, 80, 80)]))),
        decide(Deny, rule(Some(&everyone()), None)),
    ];
    cluster.guard("admin", (Admin, 0), &rules, &[]);
    assert!(cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)) && !cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 81)));
    cluster.isolate("shop/web", "", Some(&[]), None);
    assert!(!cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)));
    let mut cluster = Cluster::new();
    cluster.guard("base", (Baseline, 0), &rules, &[]);
    assert!(cluster.passes(BANK_DB, SHOP_WEB, (Tcp, 80)) && !cluster.passes(BANK_DB, SHOP_WEB, ICMP));
}

#[test]
fn a_policy_without_rules_for_a_direction_says_nothing_about_it() {
    let mut cluster = Cluster::new();
    cluster.guard("admin", (Admin, 0), &[], &[decide(Deny, rule(Some(&everyone()), None))]);
    assert!(!cluster.passes(SHOP_WEB, BANK_DB, ICMP) && cluster.passes(BANK_DB, SHOP_WEB, ICMP));
}

#[test]
fn pods_are_no_strangers_but_strangers_are_no_pods() {
    let mut cluster = Cluster::new();
    cluster.guard("admin", (Admin, 0), &[decide(Deny, rule(Some(&everyone()), None))], &[]);
    assert!(!cluster.passes(BANK_DB, SHOP_WEB, ICMP) && cluster.passes("192.0.2.1", SHOP_WEB, ICMP));
}

#[test]
fn egress_goes_by_nodes_and_networks_too() {
    let mut cluster = Cluster::new();
    let rules = [
        decide(Accept, rule(Some(&[nodes("name=there")]), Some(&[port(Tcp, 6443, 6443)]))),
        decide(Deny, rule(Some(&[nodes("")]), None)),
        decide(Deny, rule(Some(&[network("192.0.2.0/24", &[])]), None)),
    ];
    cluster.guard("admin", (Admin, 0), &[], &rules);
    assert!(
        cluster.passes(SHOP_WEB, "172.16.0.2", (Tcp, 6443))
            && !cluster.passes(SHOP_WEB, "172.16.0.2", (Tcp, 22))
    );
    assert!(!cluster.passes(SHOP_WEB, "192.0.2.7", ICMP) && cluster.passes(SHOP_WEB, "198.51.100.1", ICMP));
    assert!(cluster.passes(SHOP_WEB, "172.16.0.1", (Tcp, 22)), "the own node is always allowed");
}

#[test]
fn a_named_port_is_of_any_protocol_at_the_pod_that_answers() {
    let mut cluster = Cluster::new();
    cluster.add(&with_port(pod("bank/db", "there", &[BANK_DB], "app=db"), "sql", 5432));
    let name = PortMatch::Named { protocol: None, name: "sql".into() };
    cluster.guard("admin", (Admin, 0), &[], &[decide(Deny, rule(Some(&everyone()), Some(&[name])))]);
    assert!(
        !cluster.passes(SHOP_WEB, BANK_DB, (Tcp, 5432)) && cluster.passes(SHOP_WEB, BANK_DB, (Udp, 5432))
    );
    assert!(cluster.passes(SHOP_WEB, BANK_WEB, (Tcp, 5432)));
}

#[test]
fn a_denied_range_cuts_what_a_lower_tier_allows() {
    let mut cluster = Cluster::new();
    let range = port(Tcp, 1000, 2000);
    cluster.guard(
        "admin",
        (Admin, 0),
        &[decide(Deny, rule(Some(&[pods_in("", "app=db")]), Some(&[range])))],
        &[],
    );
    cluster.isolate("shop/web", "", Some(&[rule(None, None)]), None);
    let passes = [999, 1000, 2000, 2001].map(|number| cluster.passes(BANK_DB, SHOP_WEB, (Tcp, number)));
    assert_eq!(passes, [true, false, false, true]);
    assert!(cluster.passes(BANK_DB, SHOP_WEB, ICMP) && cluster.passes(BANK_WEB, SHOP_WEB, (Tcp, 1500)));
}

#[test]
fn an_explanation_names_the_policy_and_the_rule() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/one", "", Some(&[rule(None, Some(&[port(Tcp, 80, 80)]))]), None);
    cluster.isolate("shop/two", "", Some(&[]), None);
    let rules = [
        decide(Pass, rule(Some(&[pods("app=x")]), None)),
        decide(Deny, rule(Some(&[pods_in("", "app=db")]), None)),
    ];
    cluster.guard("guard", (Admin, 0), &rules[1..], &rules[..1]);
    let why = |cluster: &mut Cluster, from, port| cluster.why(from, SHOP_WEB, port);
    assert_eq!(
        why(&mut cluster, BANK_WEB, Some((Tcp, 80))),
        "allowed; egress of Pod bank/web allowed: no policy says anything about it; ingress of Pod shop/web allowed by \
         NetworkPolicy shop/one, spec.ingress[0]"
    );
    assert_eq!(
        why(&mut cluster, "192.0.2.1", None),
        "denied; ingress of Pod shop/web denied: isolated by NetworkPolicy shop/one, NetworkPolicy shop/two, and no rule \
         allows it"
    );
    assert_eq!(
        why(&mut cluster, BANK_DB, Some((Tcp, 80))),
        "denied; ingress of Pod shop/web denied by ClusterNetworkPolicy guard, spec.ingress[0] (deny)"
    );
    assert_eq!(
        why(&mut cluster, "172.16.0.1", None),
        "allowed; allowed: a pod and its own node may always reach each other"
    );
}
