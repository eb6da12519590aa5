//! Addresses that the agents themselves give to Services of the type LoadBalancer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use weft_lab::daemons::LOAD_BALANCER_CLASS;
use weft_lab::process::ProcessId;
use weft_testkit::wait::attempt_for;

use crate::case::{Case, echo};
use crate::daemons::kill;
use crate::lab::{Lab, Outcome, equal, holds, poll};
use crate::probe::{Via, served};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/weft-load-balancers";
/// A Lease stands for 15 s after its holder fell silent, and others look every 2 s.
const HANDOVER: Duration = Duration::from_secs(60);

pub(crate) fn of_a_pool(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "lb-addresses")?;
    let balanced = json!({
        "type": "LoadBalancer", "loadBalancerClass": LOAD_BALANCER_CLASS, "ipFamilyPolicy": "RequireDualStack",
    });
    case.service("web", balanced.clone())?;
    case.run([echo("one").on("node1")])?;
    let first = addresses(&case, "web")?;
    equal("addresses", first.len(), 2)?;
    for (ip, via) in first.iter().zip(lab.node_at(2, 80)) {
        let family = if via.is_ipv4() { "-4" } else { "-6" };
        let (ip, via) = (ip.to_string(), via.ip().to_string());
        lab.run_outside(&["ip", family, "route", "replace", &ip, "via", &via])?;
    }
    let serves = || {
        let mut servers = first.iter().map(|ip| SocketAddr::new(*ip, 80));
        servers.try_for_each(|server| served(&lab.outside(), Via::Http, server, &["one"]))
    };
    serves()?;

    kill(lab, &holder(&case)?, "weft-agent")?;
    case.service("second", balanced.clone())?;
    let second = addresses(&case, "second")?;
    equal("addresses in common", first.iter().any(|ip| second.contains(ip)), false)?;

    // One that stands still cannot say that it goes.
    let before = holder(&case)?;
    let agent = process(lab, &before)?;
    agent.signal(Signal::SIGSTOP);
    let after = attempt_for(HANDOVER, "another holder of the Lease", || match holder(&case)? {
        now if now != before => Ok(()),
        now => Err(now),
    });
    case.service("third", balanced)?;
    let third = addresses(&case, "third");
    agent.signal(Signal::SIGCONT);
    after?;
    let third = third?;
    equal("addresses in common", third.iter().any(|ip| first.contains(ip) || second.contains(ip)), false)?;
    // It sees that another one gives addresses by now, and the addresses of all are as they were.
    poll("a word of the one that stood still", || {
        let log = lab.run(&["logs", &before, "weft-agent"])?;
        holds("log", &log, "another agent gives addresses to LoadBalancer Services from now on")
    })?;
    for (name, expected) in [("web", &first), ("second", &second), ("third", &third)] {
        equal(name, &addresses(&case, name)?, expected)?;
    }
    serves()
}

/// The addresses that a Service was given, once it has some.
fn addresses(case: &Case<'_>, name: &str) -> Result<Vec<IpAddr>, String> {
    poll(&format!("addresses of {name}"), || {
        let service = case.get("services", name)?;
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        let ips: Vec<IpAddr> = ingress.iter().filter_map(|one| one["ip"].as_str()?.parse().ok()).collect();
        if ips.is_empty() { Err(service["status"].to_string()) } else { Ok(ips) }
    })
}

/// The node whose agent gives addresses.
fn holder(case: &Case<'_>) -> Result<String, String> {
    let lease = case.api.get(LEASE)?;
    lease["spec"]["holderIdentity"].as_str().map(str::to_owned).ok_or_else(|| lease.to_string())
}

/// The agent of a node.
fn process(lab: &Lab, node: &str) -> Result<ProcessId, String> {
    let records = lab.dir.node(node).daemons().map_err(|error| error.to_string())?;
    let agent = records.iter().find(|record| record.name == "weft-agent").and_then(|record| record.pid);
    agent.and_then(ProcessId::of).ok_or(format!("the agent of {node} does not run"))
}
