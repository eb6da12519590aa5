//! Broken on purpose: each scenario makes one fault, waits until `weft doctor` names it first, mends it, and
//! waits until doctor has nothing to say. What is made on nodes is in `nodes`, what in the cluster in `objects`.

mod nodes;
mod objects;

use std::process::Command;

use serde_json::Value;

use crate::Scenario;
use crate::lab::{Lab, Outcome, equal, poll};

/// Every fault, by what people would say.
pub(crate) const FAULTS: &[Scenario] = &[
    ("broken: nothing is, and doctor has one line to say", nothing),
    ("broken: a Service's selector matches no pod", objects::selector_matches_nothing),
    ("broken: a Service's selector misses by one label", objects::selector_misses),
    ("broken: a readiness probe fails", objects::readiness_fails),
    ("broken: a pod that no node has room for", objects::not_scheduled),
    ("broken: a Service names a port that no container has", objects::port_name_missing),
    ("broken: a Service leads to a port that no container declares", objects::port_mismatch),
    ("broken: a policy keeps pods from DNS", objects::dns_denied),
    ("broken: a pod asks every search domain for nearly each name", objects::ndots),
    ("broken: another pod network is installed", objects::other_network),
    ("broken: a Node's range is that of Services", objects::ranges_overlap),
    ("broken: two Nodes have one address", objects::node_address_duplicate),
    ("broken: an agent stands still", nodes::agent_stands_still),
    ("broken: a proxy stands still", nodes::proxy_stands_still),
    ("broken: a firewall drops what is passed on", nodes::forward_dropped),
    ("broken: another CNI configuration comes first", nodes::cni_shadowed),
    ("broken: an address is reserved for nobody", nodes::address_leaked),
    ("broken: no address is left", nodes::addresses_exhausted),
    ("broken: an interface between nodes has another MTU", nodes::mtu_differs),
    ("broken: kube-proxy left rules", nodes::stale_proxy_rules),
    ("broken: Flannel left an interface", nodes::stale_network_links),
    ("broken: Calico left rules", nodes::policies_other),
];

fn nothing(lab: &Lab) -> Outcome {
    silent(lab)?;
    let text = doctor(lab, &["--settle=1"])?.1;
    equal("lines", text.lines().count(), 1)?;
    equal("a healthy cluster", text.trim_end().ends_with(" on 3 nodes: nothing found"), true)
}

/// `weft doctor ARGUMENTS…` against the lab: its exit code, and what it printed.
fn doctor(lab: &Lab, arguments: &[&str]) -> Result<(i32, String), String> {
    let mut command = Command::new(lab.program.with_file_name("weft"));
    command.args(["doctor", "--kubeconfig"]).arg(lab.dir.kubeconfig()).args(arguments);
    let output = command.output().map_err(|error| format!("weft doctor: {error}"))?;
    match output.status.code() {
        Some(code @ (0 | 1)) => Ok((code, String::from_utf8_lossy(&output.stdout).into_owned())),
        _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What doctor finds, the worst first.
fn findings(lab: &Lab, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let (code, text) = doctor(lab, &[arguments, &["--output=json"]].concat())?;
    let report: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    let findings = report["findings"].as_array().cloned().ok_or("no findings")?;
    equal("the exit code", code, i32::from(!findings.is_empty()))?;
    Ok(findings)
}

/// Waits until nothing is found.
fn silent(lab: &Lab) -> Outcome {
    poll("doctor silent", || match findings(lab, &["--settle=1"])? {
        none if none.is_empty() => Ok(()),
        found => Err(Value::from(found).to_string()),
    })
}

/// Waits until doctor names the fault first.
fn first(lab: &Lab, id: &str, subject: &str) -> Outcome {
    poll(&format!("{id} of {subject} named first"), || {
        let found = findings(lab, &["--settle=0"])?;
        match found.first().is_some_and(|first| first["id"] == id && first["subject"] == subject) {
            true => Ok(()),
            false => Err(Value::from(found).to_string()),
        }
    })
}

/// A fault that was made, and is mended when this is dropped.
struct Fault<F: FnMut() -> Outcome>(F);

impl<F: FnMut() -> Outcome> Drop for Fault<F> {
    fn drop(&mut self) {
        if let Err(error) = (self.0)() {
            eprintln!("lab tests: {error}");
        }
    }
}

/// Makes a fault, waits until doctor names it first, mends it whatever came of that, and waits until doctor is
/// silent.
fn named(
    lab: &Lab,
    (id, subject): (&str, &str),
    make: impl FnOnce() -> Outcome,
    mend: impl FnMut() -> Outcome,
) -> Outcome {
    let fault = Fault(mend);
    make()?;
    first(lab, id, subject)?;
    drop(fault);
    silent(lab)
}
