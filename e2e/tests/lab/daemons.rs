//! kill -9 of each daemon: what was connected stays connected, and the state afterwards is that of before.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::signal::Signal;
use weft_lab::process::ProcessId;

use crate::application::cluster_ip;
use crate::connection::Connection;
use crate::lab::{Lab, Outcome, equal, holds, poll};

pub(crate) fn agent_is_killed(lab: &Lab) -> Outcome {
    survive(lab, "weft-agent")
}

pub(crate) fn proxy_is_killed(lab: &Lab) -> Outcome {
    survive(lab, "weft-proxy")
}

pub(crate) fn dns_is_killed(lab: &Lab) -> Outcome {
    survive(lab, "weft-dns")?;
    let resolves =
        || holds("an address", &lab.exec("frontend", &["getent", "ahostsv4", "backend"])?, "10.96.");
    poll("names again", resolves)
}

/// Kills a daemon on every node while a connection through a Service is open.
fn survive(lab: &Lab, daemon: &str) -> Outcome {
    let mut connection = open(lab)?;
    connection.ask()?;
    let before = state(lab)?;
    for node in lab.nodes()? {
        kill(lab, &node, daemon)?;
    }
    connection.ask()?;
    poll("the state of before", || equal("state", state(lab)?, before.clone()))?;
    connection.ask()?;
    open(lab)?.ask().map(drop)
}

/// A connection from a frontend pod to a backend pod, through the Service.
fn open(lab: &Lab) -> Result<Connection, String> {
    let ip: IpAddr = cluster_ip(lab, "backend")?.parse().map_err(|error| format!("{error}"))?;
    Connection::open(&lab.frontend_namespace()?, SocketAddr::new(ip, 80))
}

/// Kills a daemon and waits until another process is in its place.
pub(crate) fn kill(lab: &Lab, node: &str, daemon: &str) -> Outcome {
    restart(lab, node, daemon, Signal::SIGKILL)
}

/// Ends a daemon by a signal and waits until another process is in its place.
pub(crate) fn restart(lab: &Lab, node: &str, daemon: &str, signal: Signal) -> Outcome {
    let pid = || -> Result<Option<u32>, String> {
        let records = lab.dir.node(node).daemons().map_err(|error| error.to_string())?;
        Ok(records.iter().find(|record| record.name == daemon).and_then(|record| record.pid))
    };
    let before = pid()?.ok_or(format!("{daemon} of {node} does not run"))?;
    let process = ProcessId::of(before).ok_or(format!("{daemon} of {node} is gone"))?;
    process.signal(signal);
    match process.wait(Duration::from_secs(10)) {
        true => poll(&format!("{daemon} of {node} again"), || match pid()? {
            Some(now) if now != before && ProcessId::of(now).is_some() => Ok(()),
            other => Err(format!("{other:?}")),
        }),
        false => Err(format!("{daemon} of {node} does not end")),
    }
}

/// What the daemons made on all nodes: rules, routes and network configuration.
fn state(lab: &Lab) -> Result<Vec<String>, String> {
    let mut state = Vec::new();
    for node in lab.nodes()? {
        let rules = lab.on_node(&node, &["nft", "list", "ruleset"])?;
        // What packets made goes by itself: which client is at which endpoint.
        let lasting: Vec<&str> = rules.lines().filter(|line| !line.contains(" expires ")).collect();
        // The order of a set's elements is the kernel's own affair.
        state.push(sorted(&lasting.join("\n")));
        state.push(sorted(&lab.on_node(&node, &["ip", "route"])?));
        let folder = lab.dir.node(&node).cni_conf();
        for entry in std::fs::read_dir(&folder).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            state.push(std::fs::read_to_string(path).map_err(|error| error.to_string())?);
        }
    }
    Ok(state)
}

fn sorted(text: &str) -> String {
    let mut words: Vec<&str> = text.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
    words.sort_unstable();
    words.join(" ")
}
