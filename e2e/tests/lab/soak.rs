//! Long trials under a steady load (`make soak`): daemons killed at random, the API server away, time that
//! jumps. What they bring is printed; a request that is not answered fails them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use weft_lab::process::ProcessId;
use weft_testkit::dice::Dice;
use weft_testkit::wait::attempt_for;

use crate::case::{Case, Service, echo};
use crate::daemons;
use crate::faults::Away;
use crate::lab::{Lab, Outcome};
use crate::load::{Load, Tally, Task};
use crate::probe::{BOTH, Seen, Via, ask, served};

/// The daemons of a node.
const DAEMONS: [&str; 3] = ["weft-agent", "weft-proxy", "weft-dns"];
/// The pause between two kills: a daemon that ends too often is started again later and later.
const BETWEEN_KILLS: Duration = Duration::from_millis(1500);

/// How long a daemon may take to notice that it was left alone: TCP sends again after up to two minutes.
const NOTICE: Duration = Duration::from_secs(150);

/// How long the trials last, in seconds, when they are asked for.
pub(crate) fn seconds() -> Option<u64> {
    std::env::var("WEFT_SOAK_SECONDS").ok()?.parse().ok()
}

fn whole() -> Duration {
    Duration::from_secs(seconds().unwrap_or(300))
}

/// Clients of a Service with a server on every node: by each frontend, over both families, and by name.
pub(crate) fn load(lab: &Lab, case: &Case) -> Result<Load, String> {
    let service = case.service("web", json!({"type": "NodePort"}))?;
    case.run([1, 2, 3].map(|node| echo(&format!("on-node{node}")).on(&format!("node{node}"))))?;
    let [client] = case.run([echo("client").app("client").on("node1")])?;
    for server in service.at(80) {
        served(&client.netns, Via::Http, server, &["on-node1", "on-node2", "on-node3"])?;
    }
    let mut tasks = Vec::new();
    for (position, via) in BOTH.into_iter().enumerate() {
        for server in service.at(80) {
            tasks.push((
                format!("{via:?} to a ClusterIP, from a pod"),
                &client.netns,
                Task::Ask(via, server),
            ));
        }
        for server in lab.node_at(2, service.node_port(position)) {
            tasks.push((
                format!("{via:?} to a NodePort, from outside"),
                &client.netns,
                Task::Ask(via, server),
            ));
        }
    }
    for server in service.at(80) {
        tasks.push(("one connection to a ClusterIP".to_owned(), &client.netns, Task::Keep(server)));
    }
    let servers = ["10.96.0.10:53", "[fd00:10:96::a]:53"].map(|server| server.parse::<SocketAddr>());
    let servers: Vec<SocketAddr> =
        servers.into_iter().collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let name = format!("web.{}.svc.cluster.local", case.namespace);
    tasks.push(("names, from a pod".to_owned(), &client.netns, Task::Resolve(name, servers)));
    let outside = lab.outside();
    let from = |name: &str, inside: &String| match name.contains("outside") {
        true => outside.clone(),
        false => inside.clone(),
    };
    Ok(Load::start(
        tasks
            .into_iter()
            .map(|(name, netns, task)| {
                let namespace = from(&name, netns);
                (name, namespace, task)
            })
            .collect(),
    ))
}

/// Prints what the clients saw; an error when one of them was not answered, but for names asked of killed
/// servers.
pub(crate) fn report(what: &str, tallies: &[Tally]) -> Outcome {
    println!("\n{what}");
    let (mut asked, mut failed) = (0, 0);
    for tally in tallies {
        (asked, failed) = (asked + tally.asked, failed + tally.failed.len());
        println!(
            "  {:<36} {:>7} requests, {:>3} not answered, {:>3} refused by killed servers, {:>3} by the second server, \
             slowest {:>6.1} ms",
            tally.name,
            tally.asked,
            tally.failed.len(),
            tally.killed,
            tally.second,
            tally.slowest.as_secs_f64() * 1e3
        );
        for (at, seen) in tally.failed.iter().take(10) {
            println!("    at {:.1} s: {seen:?}", at.as_secs_f64());
        }
    }
    println!("  {asked} requests in all, {failed} not answered");
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of {asked} requests were not answered")) }
}

pub(crate) fn daemons_are_killed_at_random(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "soak-kills")?;
    let load = load(lab, &case)?;
    let nodes = lab.nodes()?;
    let seed = u64::from(std::process::id());
    let (start, mut kills, mut dice) = (Instant::now(), [0; 3], Dice::new(seed));
    println!("\nseed {seed}");
    while start.elapsed() < whole() {
        let (daemon, node) = (dice.below(DAEMONS.len()), dice.below(nodes.len()));
        daemons::kill(lab, &nodes[node], DAEMONS[daemon])?;
        kills[daemon] += 1;
        std::thread::sleep(BETWEEN_KILLS);
    }
    let what = format!("{} s; killed: {}", whole().as_secs(), counted(kills));
    report(&what, &load.finish())
}

fn counted(kills: [u32; 3]) -> String {
    DAEMONS
        .iter()
        .zip(kills)
        .map(|(name, count)| format!("{name} {count} times"))
        .collect::<Vec<_>>()
        .join(", ")
}

pub(crate) fn the_api_server_is_away(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "soak-api")?;
    let load = load(lab, &case)?;
    let (away, start, mut made) = (Away::new(lab)?, Instant::now(), 0);
    let length = whole() * 3 / 5;
    while start.elapsed() < length {
        let name = format!("passing-{made}");
        let pod = echo(&name).app("passing").on(["node1", "node2", "node3"][made % 3]);
        let [pod] = case.run([pod])?;
        served(&lab.name.node("node1"), Via::Http, SocketAddr::new(pod.ips[0], 8080), &[&name])?;
        case.delete("pods", &name)?;
        made += 1;
        std::thread::sleep(Duration::from_millis(500));
    }
    let later = case.service("later", json!({}))?;
    let healed = Instant::now();
    drop(away);
    for node in lab.nodes()? {
        up_to_date(lab, &node, &later)?;
    }
    let what = format!(
        "API server away for {} s, {made} pods made and removed; all nodes up to date {:.1} s after it was back",
        length.as_secs(),
        healed.elapsed().as_secs_f64()
    );
    report(&what, &load.finish())
}

/// Waits until a Service that was made meanwhile is known on a node.
fn up_to_date(lab: &Lab, node: &str, service: &Service) -> Outcome {
    service.at(80).into_iter().try_for_each(|server| {
        attempt_for(NOTICE, format!("{server} is known on {node}"), || {
            match ask(&lab.name.node(node), Via::Http, server, "hostname") {
                Seen::Answer(_) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
    })
}

/// All daemons stand still and go on, as in a machine that was put to sleep: to them, both clocks jump.
pub(crate) fn the_clocks_jump(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "soak-clock")?;
    let load = load(lab, &case)?;
    let length = whole() / 5;
    signal(lab, &["weft-agent", "weft-proxy"], Signal::SIGSTOP)?;
    let later = case.service("later", json!({}))?;
    std::thread::sleep(length);
    signal(lab, &["weft-agent", "weft-proxy"], Signal::SIGCONT)?;
    let back = Instant::now();
    for node in lab.nodes()? {
        up_to_date(lab, &node, &later)?;
    }
    let what = format!(
        "agent and proxy stood still for {} s; up to date {:.1} s after that",
        length.as_secs(),
        back.elapsed().as_secs_f64()
    );
    report(&what, &load.finish())
}

fn signal(lab: &Lab, daemons: &[&str], signal: Signal) -> Outcome {
    for node in lab.nodes()? {
        let records = lab.dir.node(&node).daemons().map_err(|error| error.to_string())?;
        let wanted = records.iter().filter(|record| daemons.contains(&record.name.as_str()));
        for process in wanted.filter_map(|record| ProcessId::of(record.pid?)) {
            process.signal(signal);
        }
    }
    Ok(())
}
