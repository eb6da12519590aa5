//! What a node says of a connection: by its tables, with the plan's reasons.

use weft_nftables::{Data, KnownTable, Tuple, Value};
use weft_policy::pending;
use weft_policy::report::{Finding, Report};
use weft_policy::ruleset::refused::REFUSED;
use weft_policy::ruleset::{Denied, Ruleset};
use weft_types::{Action, Tier};

use super::*;

/// The tables of the node, and what it says of a packet.
struct Node {
    cluster: Cluster,
    tables: Vec<KnownTable>,
}

impl Node {
    fn new(mut cluster: Cluster, denied: Denied) -> Node {
        let mut ruleset = Ruleset::new(denied);
        ruleset.apply(&cluster.0.commit());
        Node { cluster, tables: ruleset.tables().iter().map(KnownTable::from).collect() }
    }

    fn report(&self, source: &str, destination: &str, port: Option<(weft_types::Protocol, u16)>) -> Report {
        let packet = packet(source, destination, port);
        Report::new("here", &self.cluster.0.explain(&packet), &self.tables, &packet)
    }

    #[track_caller]
    fn says(&self, source: &str, destination: &str, port: Option<(weft_types::Protocol, u16)>) -> String {
        let Report { node, ends, notes } = self.report(source, destination, port);
        let ends = ends.into_iter().map(|end| {
            let pod = end.pod.map(|pod| format!("{} of {pod}, ", end.direction)).unwrap_or_default();
            format!("{pod}{}; {}", end.reason, end.place.unwrap_or_default())
        });
        format!("{node}: {}", ends.chain(notes).collect::<Vec<_>>().join("\n"))
    }
}

/// `shop/web` lets `shop/db` in to 80, and all in to ports 8000 to 8100; `bank/db` is denied by an
/// administrator.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    let from_db = rule(Some(&[pods("app=db")]), Some(&[port(Tcp, 80, 80)]));
    let range = rule(None, Some(&[port(Tcp, 8000, 8100)]));
    cluster.isolate("shop/web", "app=web", Some(&[from_db, range]), None);
    let deny = decide(Action::Deny, rule(Some(&[pods_in("name=bank", "app=db")]), None));
    cluster.guard("no-bank", (Tier::Admin, 1), &[deny], &[]);
    cluster
}

#[test]
fn the_kernel_s_tables_decide_and_the_plan_tells_which_policy() {
    let node = Node::new(cluster(), Denied::default());
    let says = |from, port| node.says(from, SHOP_WEB, port);
    let entering = |what| format!("hook forward, {what} in chain entering of table ip weft-policy");
    assert_eq!(
        says(SHOP_DB, Some((Tcp, 80))),
        format!(
            "here: ingress of shop/web, allowed by NetworkPolicy shop/web, spec.ingress[0]; {}",
            entering("accepted")
        )
    );
    assert_eq!(
        says("192.0.2.9", Some((Tcp, 8080))),
        format!(
            "here: ingress of shop/web, allowed by NetworkPolicy shop/web, spec.ingress[1]; {}",
            entering("accepted")
        )
    );
    assert_eq!(
        says(SHOP_DB, ICMP),
        format!(
            "here: ingress of shop/web, denied: isolated by NetworkPolicy shop/web, and no rule allows it; {}",
            entering("dropped")
        )
    );
    assert_eq!(
        says(BANK_DB, Some((Tcp, 8080))),
        format!(
            "here: ingress of shop/web, denied by ClusterNetworkPolicy no-bank, spec.ingress[0] (deny); {}",
            entering("dropped")
        )
    );
    let both = node.report(BANK_WEB, SHOP_WEB, Some((Udp, 53)));
    assert_eq!(both.ends.iter().map(|end| &*end.direction).collect::<Vec<_>>(), ["egress", "ingress"]);
    assert_eq!(both.finding(), Finding::Denied);
    let six = node.report("fd00::9", "fd00::1:1", ICMP);
    assert_eq!((six.finding(), six.notes), (Finding::Denied, Vec::new()));
}

#[test]
fn what_needs_no_policy_and_what_is_not_of_this_node_is_said_so() {
    let node = Node::new(cluster(), Denied { rejects: true, log_group: Some(7) });
    assert!(node.says(SHOP_DB, SHOP_WEB, Some((Udp, 80))).contains("rejected in chain entering"));
    assert!(node.says(SHOP_WEB, SHOP_WEB, ICMP).contains("a pod may always reach itself"));
    assert!(node.says("172.16.0.1", SHOP_WEB, ICMP).contains("a pod and its own node"));
    assert_eq!(node.says(SHOP_DB, BANK_DB, ICMP), "here: neither address is one of a pod of this node");
}

/// By the tables as they are planned: nothing is cut in them.
#[test]
fn what_leaves_a_pod_is_told_for_every_protocol() {
    let mut cluster = Cluster::new();
    let to_db = rule(Some(&[pods("app=db")]), Some(&[port(Udp, 53, 53), port(Sctp, 9000, 9999)]));
    cluster.isolate("shop/web", "app=web", None, Some(&[to_db]));
    let node = Node::new(cluster, Denied::default());
    let found = |port| {
        let report = node.report(SHOP_WEB, SHOP_DB, Some(port));
        assert_eq!(report.notes, [""; 0], "{port:?}");
        report.finding()
    };
    use Finding::{Allowed, Denied as Closed};
    assert_eq!([(Udp, 53), (Sctp, 9000), (Sctp, 9999)].map(found), [Allowed; 3]);
    assert_eq!([(Udp, 54), (Tcp, 53), (Sctp, 53), (Sctp, 8999), (Udp, 9000)].map(found), [Closed; 5]);
    let six = node.report("fd00::1:1", "fd00::1:2", Some((Sctp, 9500)));
    assert_eq!((six.finding(), six.notes), (Allowed, Vec::new()));
}

#[test]
fn connections_that_were_cut_are_told_of_beside_what_holds_for_a_new_one() {
    let mut cluster = Cluster::new();
    cluster.isolate("shop/web", "app=web", Some(&[rule(None, Some(&[port(Udp, 53, 53)]))]), None);
    let mut ruleset = Ruleset::new(Denied::default());
    ruleset.apply(&cluster.0.commit());
    let mut table = ruleset.tables()[0].clone();
    let cut = [
        Value::Address(ip(SHOP_DB)),
        Value::Port(5000),
        Value::Address(ip(SHOP_WEB)),
        Value::Port(53),
        Value::Protocol(Udp.number()),
    ];
    table.sets.get_mut(REFUSED).unwrap().elements.insert(Tuple::new(&cut), Data::None);
    let node = Node { cluster, tables: vec![(&table).into()] };
    let report = node.report(SHOP_DB, SHOP_WEB, Some((Udp, 53)));
    assert_eq!(report.finding(), Finding::Allowed);
    let expected = "set refused of table ip weft-policy: a change of policies ended such connections, and what comes from \
                    these ports of 10.0.1.2 is dropped for a minute: 5000";
    assert_eq!(report.notes, [expected]);
    for (from, to, port) in
        [(SHOP_DB, SHOP_WEB, (Udp, 54)), (SHOP_DB, SHOP_WEB, (Tcp, 53)), (BANK_DB, SHOP_WEB, (Udp, 53))]
    {
        assert_eq!(node.report(from, to, Some(port)).notes, [""; 0], "{from} {port:?}");
    }
}

#[test]
fn tables_that_differ_from_the_plan_are_believed_and_told_of() {
    let mut node = Node::new(cluster(), Denied::default());
    node.tables.clear();
    let report = node.report(SHOP_DB, SHOP_WEB, Some((Tcp, 81)));
    assert_eq!(report.finding(), Finding::Allowed);
    assert!(report.notes[0].contains("allowed by the tables, denied by the plan"), "{report:?}");
}

#[test]
fn a_pod_that_waits_for_its_policies_is_closed_and_said_to_wait() {
    let mut node = Node::new(cluster(), Denied::default());
    let mut table = pending::minimal_table(weft_nftables::Family::Ip);
    let set = table.sets.get_mut(pending::PENDING).unwrap();
    set.elements.insert(Tuple::new(&[Value::Address(ip("10.0.3.3"))]), Data::None);
    node.tables = vec![(&table).into()];
    for (from, to) in [("10.0.3.3", BANK_DB), (BANK_DB, "10.0.3.3")] {
        let report = node.report(from, to, Some((Tcp, 80)));
        assert_eq!((report.finding(), report.ends.len()), (Finding::Denied, 1));
        assert!(report.ends[0].reason.contains("10.0.3.3 waits for its policies"), "{report:?}");
    }
}
