//! Pods that talk from their first instruction, and that are talked to since before they were there: nothing
//! that policies deny passes, and nothing that they allow is refused.

mod around;
pub(crate) mod starter;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::around::{attack, befriend, record};
use self::starter::Task;
use crate::case::{Case, Peer, echo};
use crate::lab::{Lab, Outcome};
use crate::soak;
use weft_testkit::wait::attempt_for;

/// The port of everybody who takes part, by TCP and by UDP.
const PORT: u16 = 9000;
/// How many pods start: in `make test`, and in `make soak`.
const STARTS: [usize; 2] = [100, 1000];
/// How many of them run at a time.
const AT_A_TIME: usize = 12;
/// How long one may take from its creation to its end.
const PATIENCE: Duration = Duration::from_secs(60);
const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// Those whom pods that start talk to, one of a kind on every node.
struct Others {
    /// Pods that starters may reach, and that may reach starters.
    friends: [Peer; 3],
    /// The same; but they are isolated too, and let in starters alone.
    guarded: [Peer; 3],
    /// Pods that starters may not reach, and that may not reach starters.
    strangers: [Peer; 3],
}

/// What the threads around the starters share.
#[derive(Default)]
struct Watch {
    /// The addresses of all who are no starters.
    others: BTreeSet<IpAddr>,
    ended: AtomicBool,
    /// What should not have been.
    violations: Mutex<Vec<String>>,
    /// The addresses that strangers tried.
    tried: Mutex<BTreeSet<IpAddr>>,
}

impl Watch {
    fn goes_on(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }

    fn violation(&self, text: String) {
        lock(&self.violations).push(text);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) fn a_pod_starts_with_its_policies(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "policy-gap")?;
    policies(&case)?;
    let others = others(&case)?;
    let peers = others.strangers.iter().chain(&others.friends).chain(&others.guarded);
    let watch =
        Arc::new(Watch { others: peers.flat_map(|peer| peer.ips.clone()).collect(), ..Watch::default() });
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for stranger in &others.strangers {
            threads.push(scope.spawn(|| record(stranger, &watch)));
            threads.push(scope.spawn(|| attack(lab, stranger, &watch)));
        }
        for friend in others.friends.iter().chain(&others.guarded) {
            threads.push(scope.spawn(|| befriend(friend, &watch)));
        }
        let started = start_all(&case, &others);
        watch.ended.store(true, Ordering::Relaxed);
        let around = threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err("a thread around the starters panicked".to_owned()))
        });
        around?;
        judge(&watch)?;
        all_tried(&watch, &started?)
    })
}

/// Starters reach friends and are reached by them alone; guarded friends are reached by starters alone.
fn policies(case: &Case) -> Outcome {
    let peers = |app: &str| json!([{"podSelector": {"matchLabels": {"app": app}}}]);
    let starter = json!({"podSelector": {"matchLabels": {"app": "starter"}}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peers("friend")}], "egress": [{"to": peers("friend")}]});
    let guarded = json!({"podSelector": {"matchLabels": {"guarded": "yes"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": peers("starter")}]});
    for (name, spec) in [("starter", starter), ("guarded", guarded)] {
        case.create("networkpolicies", &json!({"metadata": {"name": name}, "spec": spec}))?;
    }
    Ok(())
}

fn others(case: &Case) -> Result<Others, String> {
    let of = |kind: &str, labels: Value| {
        case.run(NODES.map(|node| echo(&format!("{kind}-{node}")).labels(labels.clone()).on(node)))
    };
    Ok(Others {
        friends: of("friend", json!({"app": "friend"}))?,
        guarded: of("guarded", json!({"app": "friend", "guarded": "yes"}))?,
        strangers: of("stranger", json!({"app": "stranger"}))?,
    })
}

/// Starts pods, so many at a time, until that many have started with their policies. Gives their addresses.
fn start_all(case: &Case, others: &Others) -> Result<Vec<IpAddr>, String> {
    let count = STARTS[usize::from(soak::seconds().is_some())];
    let (next, started, addresses) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let work = || {
            while started.load(Ordering::Relaxed) < count {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number > 2 * count {
                    return Err(format!(
                        "of {number} pods more than {count} started before the agent answered"
                    ));
                }
                let own = start(case, others, number);
                let own = own.inspect_err(|_| started.store(count, Ordering::Relaxed))?;
                started.fetch_add(usize::from(!own.is_empty()), Ordering::Relaxed);
                lock(&addresses).extend(own);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err("a thread that starts pods panicked".to_owned()))
        })
    })?;
    if soak::seconds().is_some() {
        println!("\n{} pods in {:.1} s", next.into_inner(), begun.elapsed().as_secs_f64());
    }
    Ok(addresses.into_inner().unwrap_or_default())
}

/// Starts one, waits for its end, and gives its addresses. An error has what it says went wrong. None where
/// the plugin waited for the agent as long as it may: on a busy machine. Such a pod starts closed, as
/// documented.
fn start(case: &Case, others: &Others, number: usize) -> Result<Vec<IpAddr>, String> {
    let (here, there, name) = (number % 3, (number + 1) % 3, format!("starter-{number}"));
    let ips = |peers: [&Peer; 3]| peers.into_iter().flat_map(|peer| peer.ips.clone()).collect();
    // What guards a pod of another node hears of the starter's address only from the API server.
    let task = Task {
        friends: ips([&others.friends[here], &others.friends[there], &others.guarded[here]]),
        strangers: ips([&others.strangers[0], &others.strangers[1], &others.strangers[2]]),
    };
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let container =
        json!({"name": "starter", "image": "this/machine", "command": [program], "args": task.arguments()});
    let pod = json!({"metadata": {"name": name, "labels": {"app": "starter"}}, "spec": {"nodeName": NODES[here],
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}});
    let uid = case.create("pods", &pod)?["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let ended = attempt_for(PATIENCE, format!("{name} has ended"), || {
        let pod = case.get("pods", &name)?;
        match pod["status"]["phase"].as_str() {
            Some("Succeeded" | "Failed") => Ok(pod),
            _ => Err(pod["status"].to_string()),
        }
    })?;
    let said = std::fs::read_to_string(case.lab.dir.pod(&uid).log("starter")).unwrap_or_default();
    case.delete("pods", &name)?;
    if ended["status"]["phase"] == "Succeeded" {
        let ips = ended["status"]["podIPs"].as_array().into_iter().flatten();
        return Ok(ips.filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect());
    }
    let runtime = std::fs::read_to_string(case.lab.dir.log()).map_err(|error| error.to_string())?;
    match runtime.contains(&format!("pod {}/{name} stays closed until", case.namespace)) {
        true => Ok(Vec::new()),
        false => Err(format!("{name} on {}: {said}", NODES[here])),
    }
}

/// Whatever came of the starters: nothing may have passed that is denied.
fn judge(watch: &Watch) -> Outcome {
    let violations = lock(&watch.violations);
    if violations.is_empty() { Ok(()) } else { Err(violations.join("\n")) }
}

fn all_tried(watch: &Watch, addresses: &[IpAddr]) -> Outcome {
    let tried = lock(&watch.tried);
    match addresses.iter().filter(|address| !tried.contains(address)).count() {
        0 => Ok(()),
        missed => {
            Err(format!("strangers tried only some pods: {missed} of {} addresses not", addresses.len()))
        }
    }
}
