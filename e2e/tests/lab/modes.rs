//! The service proxy's other modes, each in a lab of its own: what users rely on is the same in all of them.
//!
//! Where eBPF leads sockets, it leads those of a node's cgroup. There, requests are made by processes that
//! belong to it: this program, by other arguments.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use serde::{Deserialize, Serialize};
use serde_json::json;
use weft_lab::{cgroup, netns, process};

use crate::Scenario;
use crate::case::{Case, echo};
use crate::lab::{Lab, Outcome, equal, holds};
use crate::probe::{BOTH, Seen, Via, request, served};
use crate::{affinity, conntrack, load_balancers, network_policies, services};

/// The first argument.
const ARGUMENT: &str = "--ask";
/// The lab whose sockets are led by eBPF.
const LED: &str = "e2e-ebpf";

/// The labs: their names, and how they are started.
const LABS: [(&str, &[&str]); 2] = [("e2e-iptables", &["--proxy-mode=iptables"]), (LED, &["--ebpf"])];

/// What is looked at in each.
const SCENARIOS: &[Scenario] = &[
    ("Services are led as the mode has it", are_led_as_the_mode_has_it),
    ("Services should serve a basic endpoint from pods", services::basic_endpoint),
    ("Services should be able to create a functioning NodePort service", services::functioning_node_port),
    (
        "Services should preserve source pod IP for traffic thru service cluster IP",
        services::source_address_is_kept,
    ),
    ("Services should allow pods to hairpin back to themselves through services", services::hairpin),
    ("Services should be possible to connect to a service via ExternalIP", services::external_ip),
    ("Services should be rejected when no endpoints exist", services::rejected_without_endpoints),
    ("Services should respect internalTrafficPolicy=Local", services::internal_policy_local),
    ("Services should support externalTrafficPolicy=Local for NodePorts", services::external_policy_local),
    ("Services should fallback to terminating endpoints", services::terminating_endpoints),
    ("Services: client-address affinity works for a clusterIP", affinity::for_a_cluster_ip),
    ("Services should have session affinity timeout work", affinity::ends_with_its_timeout),
    ("LoadBalancers should only allow access from source ranges", load_balancers::source_ranges),
    (
        "Conntrack should be able to preserve UDP traffic when server pod cycles",
        conntrack::pod_cycles_behind_a_cluster_ip,
    ),
    (
        "Netpol: Service traffic is judged by the real peer and port",
        network_policies::services_are_judged_by_the_real_peer,
    ),
];

/// All scenarios of the other modes, with the labs in which they run.
fn in_modes() -> impl Iterator<Item = (&'static str, &'static str, fn(&Lab) -> Outcome)> {
    let in_lab = |&(lab, _): &'static (&'static str, _)| {
        SCENARIOS.iter().map(move |&(name, scenario)| (lab, name, scenario))
    };
    LABS.iter().flat_map(in_lab)
}

/// What all of them are called.
pub(crate) fn names() -> impl Iterator<Item = String> {
    in_modes().map(|(lab, name, _)| in_lab(lab, name))
}

/// What a scenario is called that runs in several labs.
fn in_lab(lab: &str, scenario: &str) -> String {
    format!("{lab}: {scenario}")
}

/// Runs the scenarios of the other modes, and tells whether any failed. A lab that is asked for nothing is not
/// made.
pub(crate) fn run(arguments: &Arguments, at_a_time: usize) -> bool {
    let filter = arguments.filter.clone().unwrap_or_default();
    let is_wanted = |lab: &str, name: &str| in_lab(lab, name).contains(&filter);
    let wanted: Vec<_> = in_modes().filter(|(lab, name, _)| is_wanted(lab, name)).collect();
    let labs = LABS.iter().filter(|(lab, _)| wanted.iter().any(|(of, ..)| of == lab));
    let started: Vec<_> = std::thread::scope(|scope| {
        let starting: Vec<_> =
            labs.map(|(name, flags)| (*name, scope.spawn(|| Lab::up(name, 3, flags)))).collect();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("the lab's start panicked".to_owned()))
        };
        starting.into_iter().map(|(name, thread)| (name, joined(thread).map(Arc::new))).collect()
    });
    let trials = wanted.into_iter().map(|(of, name, scenario)| {
        let lab = started.iter().find(|(lab, _)| *lab == of).map(|(_, lab)| lab.clone());
        Trial::test(in_lab(of, name), move || {
            let lab = lab.unwrap_or_else(|| Err("there is no such lab".to_owned()));
            lab.and_then(|lab| scenario(&lab)).map_err(Into::into)
        })
    });
    let arguments = Arguments { test_threads: Some(at_a_time), ..arguments.clone() };
    libtest_mimic::run(&arguments, trials.collect()).has_failed()
}

/// A question, and from where.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    cgroup: PathBuf,
    namespace: String,
    via: Via,
    server: std::net::SocketAddr,
    question: String,
    timeout: Duration,
}

/// Asks from a process of the node's cgroup, where sockets are led by it; else nothing is done.
pub(crate) fn ask(
    namespace: &str,
    via: Via,
    server: std::net::SocketAddr,
    question: &str,
    timeout: Duration,
) -> Option<Seen> {
    let is_led = namespace.strip_prefix(LED).is_some_and(|rest| rest.starts_with('-'));
    let first = || process::in_namespaces(&[netns::path(namespace)]).into_iter().find_map(cgroup::of);
    let cgroup = is_led.then(first)??;
    let (namespace, question) = (namespace.to_owned(), question.to_owned());
    let question = json!(Question { cgroup, namespace, via, server, question, timeout }).to_string();
    let output = std::env::current_exe().and_then(|me| Command::new(me).args([ARGUMENT, &question]).output());
    Some(match output {
        Ok(output) => serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| Seen::Other(String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(error) => Seen::Other(error.to_string()),
    })
}

/// Asks what the arguments say, where they are a question's. Prints the answer.
pub(crate) fn from_arguments() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    arguments.next().filter(|first| first == ARGUMENT)?;
    let seen = serde_json::from_str(&arguments.next().unwrap_or_default())
        .map_err(|error| error.to_string())
        .and_then(answer)
        .unwrap_or_else(Seen::Other);
    println!("{}", json!(seen));
    Some(ExitCode::SUCCESS)
}

fn answer(asked: Question) -> Result<Seen, String> {
    let Question { cgroup, namespace, via, server, question, timeout } = asked;
    cgroup::enter(&cgroup).map_err(|error| error.to_string())?;
    let ask = move || Ok(request(via, server, &question, timeout));
    netns::run(&namespace, ask).map_err(|error| error.to_string())
}

fn are_led_as_the_mode_has_it(lab: &Lab) -> Outcome {
    let rules = lab.on_node("node1", &["nft", "list", "ruleset"])?;
    if lab.name.to_string() != LED {
        holds("the rules", &rules, "KUBE-SERVICES")?;
        return equal("tables of the mode nftables", rules.contains("table ip weft {"), false);
    }
    let case = Case::new(lab, "led")?;
    let service = case.service("web", json!({}))?;
    let [client, _] = case.run([echo("client").app("client").on("node1"), echo("one").on("node2")])?;
    for server in service.at(80) {
        for from in [client.netns.clone(), lab.name.node("node1")] {
            BOTH.into_iter().try_for_each(|via| served(&from, via, server, &["one"]))?;
        }
        let family = if server.is_ipv4() { "ipv4" } else { "ipv6" };
        let ip = server.ip().to_string();
        let tracked = lab.on_node("node1", &["conntrack", "-L", "-f", family, "--orig-dst", &ip])?;
        equal(&format!("tracked connections to {ip}"), tracked.trim(), "")?;
    }
    Ok(())
}
