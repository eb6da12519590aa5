//! How long planning takes in a large cluster, and how much memory: 10,000 pods on 100 nodes, 1,000 policies.
//!
//! `cargo run --release -p weft-policy --example scale`

#![allow(clippy::unwrap_used, reason = "a measurement stops at the first thing that goes wrong")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use weft_policy::plan::{Delta, Planner};
use weft_types::{
    Family, LabelSelector, Labels, Namespace, NamespacedName, NetworkPolicy, Peers, Pod, PodDetails, PodPeer,
    PolicyPeer, PolicyRule, PortMatch, PortMatches, Protocol, Requirement,
};

const NAMESPACES: u32 = 100;
const APPS: u32 = 10;
const PODS: u32 = 10_000;
const NODES: u32 = 100;
const ROUNDS: u32 = 2_000;

fn labels(pairs: &[(&str, String)]) -> Labels {
    pairs.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

fn select(pairs: &[(&str, String)]) -> LabelSelector {
    pairs.iter().map(|(key, value)| Requirement::equals(key, value).unwrap()).collect()
}

fn namespace(number: u32) -> Namespace {
    let name = format!("ns{number}");
    let environment = ["prod", "dev", "test"][(number % 3) as usize].to_owned();
    let labels =
        labels(&[("name", name.clone()), ("team", format!("t{}", number % 10)), ("env", environment)]);
    Namespace { labels, ..Namespace::new(name) }
}

fn pod(number: u32, app: u32) -> Pod {
    let namespace = number % NAMESPACES;
    let tier = ["web", "api", "db"][(app % 3) as usize].to_owned();
    let hash = format!("h{namespace}-{app}");
    let labels = [
        ("app", format!("a{app}")),
        ("tier", tier),
        ("pod-template-hash", hash),
        ("uid", number.to_string()),
    ];
    // Scattered, but the same each time.
    let node = number.wrapping_mul(2_654_435_761) % NODES;
    let address = IpAddr::from(Ipv4Addr::from_bits(0x0af4_0000 + number));
    Pod {
        key: NamespacedName::new(format!("ns{namespace}"), format!("pod-{number}")),
        addresses: [address].into_iter().collect(),
        searches: true,
        labels: self::labels(&labels),
        details: Some(Box::new(PodDetails {
            node: Some(format!("node{node}").into()),
            ..PodDetails::default()
        })),
    }
}

fn app_of(number: u32) -> u32 {
    (number / NAMESPACES) % APPS
}

fn policy(namespace: u32, app: Option<u32>) -> NetworkPolicy {
    let key = |name: String| NamespacedName::new(format!("ns{namespace}"), name);
    let Some(app) = app else {
        let pods = LabelSelector::default();
        return NetworkPolicy {
            key: key("deny".to_owned()),
            pods,
            ingress: Some(Box::default()),
            egress: None,
        };
    };
    let peer = |namespaces: Option<LabelSelector>, pods| PolicyPeer::Pods(PodPeer { namespaces, pods });
    let peers = match (namespace + app) % 4 {
        0 => vec![peer(None, select(&[("app", format!("a{}", (app + 1) % APPS))]))],
        1 => {
            let team = select(&[("team", format!("t{}", namespace % 10))]);
            vec![peer(Some(team), select(&[("tier", "web".to_owned())]))]
        }
        2 => vec![peer(Some(select(&[("env", "prod".to_owned())])), LabelSelector::default())],
        _ => {
            let other = select(&[("name", format!("ns{}", (namespace * 7) % NAMESPACES))]);
            let first = peer(Some(other), select(&[("app", "a0".to_owned())]));
            vec![first, peer(None, LabelSelector::default())]
        }
    };
    let port = |port| PortMatch::Numbers { protocol: Protocol::Tcp, first: port, last: port };
    let ports = match app % 3 {
        0 => PortMatches::All,
        _ => PortMatches::Any([port(8080 + app as u16), port(9090)].into()),
    };
    let rule = PolicyRule { peers: Peers::Any(peers.into()), ports };
    let pods = select(&[("app", format!("a{app}"))]);
    NetworkPolicy { key: key(format!("app-{app}")), pods, ingress: Some([rule].into()), egress: None }
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn measure(what: &str, planner: &mut Planner, mut event: impl FnMut(u32, &mut Planner)) {
    let mut times = Vec::new();
    let mut writes = 0;
    for round in 0..ROUNDS {
        let began = Instant::now();
        event(round, planner);
        let delta = planner.commit();
        times.push(began.elapsed());
        writes += size(&delta);
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "{what:<45} p50 {:>7.1} us  p99 {:>7.1} us  most {:>7.1} us  {:>6.1} elements",
        micros(at(0.5)),
        micros(at(0.99)),
        micros(at(1.0)),
        writes as f64 / f64::from(ROUNDS)
    );
}

fn size(delta: &Delta) -> usize {
    delta.peers.len() + delta.networks.len() + delta.sides.len() + delta.rows.len()
}

/// A planner that has seen the whole cluster, and planned nothing yet.
fn cluster() -> Planner {
    let mut planner = Planner::new("node0");
    for number in 0..NAMESPACES {
        let namespace = namespace(number);
        planner.set_namespace(&namespace.name.clone(), Some(&namespace));
        for app in std::iter::once(None).chain((0..APPS - 1).map(Some)) {
            let policy = policy(number, app);
            planner.set_network_policy(&policy.key, Some(&policy));
        }
    }
    for number in 0..PODS {
        let pod = pod(number, app_of(number));
        planner.set_pod(&pod.key, Some(&pod));
    }
    planner
}

fn main() {
    let before = resident();
    let mut planner = cluster();
    let began = Instant::now();
    let delta = planner.commit();
    let family = planner.plan().family(Family::V4);
    println!(
        "{PODS} pods, {} policies: planned in {:.1} ms; {} local addresses, {} peers, {} rows; {} KiB resident",
        NAMESPACES * APPS,
        began.elapsed().as_secs_f64() * 1e3,
        family.endpoints.len(),
        family.peers.len(),
        delta.rows.len(),
        resident() - before
    );
    let local = |planner: &Planner| -> Vec<u32> {
        (0..PODS).filter(|number| planner.is_planned(pod(*number, 0).addresses[0])).collect()
    };
    let local = local(&planner);
    measure("a pod elsewhere changes its labels", &mut planner, |round, planner| {
        let number = (round * 37) % PODS;
        let pod = pod(number, (app_of(number) + round) % APPS);
        planner.set_pod(&pod.key, Some(&pod));
    });
    measure("a pod elsewhere comes or goes", &mut planner, |round, planner| {
        let number = (round / 2 * 41) % PODS;
        let pod = pod(number, app_of(number));
        planner.set_pod(&pod.key, (round % 2 == 1).then_some(&pod));
    });
    measure("a pod of this node comes or goes", &mut planner, |round, planner| {
        let number = local[(round / 2) as usize % local.len()];
        let pod = pod(number, app_of(number));
        planner.set_pod(&pod.key, (round % 2 == 1).then_some(&pod));
    });
    measure("a policy changes its selector", &mut planner, |round, planner| {
        let (namespace, app) = (round % NAMESPACES, (round / NAMESPACES) % (APPS - 1));
        let mut policy = policy(namespace, Some(app));
        policy.pods = select(&[("app", format!("a{}", (app + round / 900) % APPS))]);
        planner.set_network_policy(&policy.key, Some(&policy));
    });
    measure("a policy comes or goes", &mut planner, |round, planner| {
        let (namespace, app) = (round / 2 % NAMESPACES, (round / 2 / NAMESPACES) % (APPS - 1));
        let policy = policy(namespace, Some(app));
        planner.set_network_policy(&policy.key, (round % 2 == 1).then_some(&policy));
    });
    measure("a namespace changes its labels", &mut planner, |round, planner| {
        let namespace = namespace(round % NAMESPACES);
        let labels = labels(&[("name", namespace.name.to_string()), ("team", format!("t{}", round % 7))]);
        planner.set_namespace(&namespace.name.clone(), Some(&Namespace { labels, ..namespace }));
    });
    println!("{} KiB resident at the end", resident() - before);
}
