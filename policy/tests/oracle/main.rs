//! The plan, its explanation and its tables say of every packet what the specifications say, however the
//! cluster came to be as it is.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod forward;
mod made_up;
mod table;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weft_nftables::evaluator;
use weft_policy::plan::{Packet, Planner, Verdict};
use weft_policy::ruleset::{Denied, Ruleset};
use weft_testkit::policy_oracle::Cluster;

use forward::forward;
use made_up::{Change, NODES, change, packet};
use table::Table;

/// How many packets each made-up cluster is tried with.
const PACKETS: usize = 100;

fn apply(change: &Change, cluster: &mut Cluster, planner: &mut Planner) {
    fn set<K: Ord + Clone, V: Clone>(map: &mut std::collections::BTreeMap<K, V>, key: &K, value: Option<&V>) {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
    match change {
        Change::Pod(key, pod) => {
            set(&mut cluster.pods, key, pod.as_ref());
            planner.set_pod(key, pod.as_ref());
        }
        Change::Namespace(name, namespace) => {
            set(&mut cluster.namespaces, name, namespace.as_ref());
            planner.set_namespace(name, namespace.as_ref());
        }
        Change::Node(name, node) => {
            set(&mut cluster.nodes, name, node.as_ref());
            planner.set_node(name, node.as_ref());
        }
        Change::Policy(key, policy) => {
            set(&mut cluster.policies, key, policy.as_ref());
            planner.set_network_policy(key, policy.as_ref());
        }
        Change::ClusterPolicy(name, policy) => {
            set(&mut cluster.cluster_policies, name, policy.as_ref());
            planner.set_cluster_network_policy(name, policy.as_ref());
        }
    }
}

/// A planner that sees the cluster as it is now for the first time.
fn from_scratch(cluster: &Cluster) -> Planner {
    let mut planner = Planner::new(cluster.node.clone());
    cluster.pods.iter().for_each(|(key, it)| planner.set_pod(key, Some(it)));
    cluster.namespaces.iter().for_each(|(name, it)| planner.set_namespace(name, Some(it)));
    cluster.nodes.iter().for_each(|(name, it)| planner.set_node(name, Some(it)));
    cluster.policies.iter().for_each(|(key, it)| planner.set_network_policy(key, Some(it)));
    cluster.cluster_policies.iter().for_each(|(name, it)| planner.set_cluster_network_policy(name, Some(it)));
    planner.commit();
    planner
}

#[test]
fn plan_explanation_and_tables_say_what_the_specifications_say_after_any_changes() {
    let packets = std::env::var("WEFT_POLICY_PACKETS").map_or(100_000, |text| text.parse().unwrap());
    let config = Config { cases: u32::try_from(packets / PACKETS).unwrap().max(1), ..Config::default() };
    let config = Config { failure_persistence: None, max_shrink_iters: 20_000, ..config };
    let changes = vec((change(), prop::bool::weighted(0.4)), 0..40);
    let case = (changes, vec(packet(), 1..2 * PACKETS));
    let run = |(changes, packets): (Vec<(Change, bool)>, Vec<Packet>)| {
        let mut cluster = Cluster { node: NODES[0].to_owned(), ..Cluster::default() };
        let (mut planner, mut table) = (Planner::new(NODES[0]), Table::default());
        let mut ruleset = Ruleset::new(Denied::default());
        let last = changes.len();
        for (place, (change, commits)) in changes.iter().enumerate() {
            apply(change, &mut cluster, &mut planner);
            if *commits || place + 1 == last {
                let delta = planner.commit();
                table.apply(&delta);
                ruleset.apply(&delta);
                let whole = Table::of(planner.plan());
                prop_assert_eq!(&table, &whole, "what changes come to is not what the plan has");
                let [.., sides, rows] = whole.sizes();
                prop_assert_eq!(planner.rows(), rows);
                prop_assert!(planner.endpoints() <= sides && sides <= 2 * planner.endpoints());
            }
        }
        prop_assert!(planner.commit().is_empty(), "nothing changed since");
        let scratch = from_scratch(&cluster);
        prop_assert_eq!(table.sizes(), Table::of(scratch.plan()).sizes(), "changes leave something behind");
        let tables = evaluator::Ruleset::new(ruleset.tables());
        for packet in &packets {
            let expected = if cluster.allows(packet.source, packet.destination, packet.port) {
                Verdict::Accept
            } else {
                Verdict::Deny
            };
            let own = |address| planner.plan().own_addresses.contains(&address);
            let forwarded = match own(packet.source) || own(packet.destination) {
                true => expected,
                false => forward(&tables, packet),
            };
            let verdicts = [
                forwarded,
                planner.plan().verdict(packet),
                scratch.plan().verdict(packet),
                planner.explain(packet).verdict,
            ];
            prop_assert_eq!(verdicts, [expected; 4], "{:?}: {}", packet, planner.explain(packet));
        }
        Ok(())
    };
    TestRunner::new(config).run(&case, run).unwrap_or_else(|error| panic!("{error}"));
}
