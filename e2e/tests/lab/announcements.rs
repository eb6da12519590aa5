//! Load balancer addresses on the link of the nodes: one node answers for each, and when it falls silent
//! another one does. Who is outside asks as any machine of the link does, without a route.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft_lab::process::ProcessId;

use crate::case::{Case, echo};
use crate::faults::Cut;
use crate::lab::{Lab, Outcome, equal, poll};
use crate::load::{Load, Task};
use crate::probe::{Seen, Via, ask, ask_within, served};

/// The last addresses of the pool, which agents give last.
const ADDRESSES: [&str; 2] = ["172.30.0.239", "fd00:30::239"];
/// An address for a Service whose clients go to the node of its pod.
const LOCAL: &str = "172.30.0.238";
/// How long a try may take.
const TRY: Duration = Duration::from_millis(100);

pub(crate) fn another_node_answers(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "l2")?;
    let service = |name: &str, address: &str| -> Outcome {
        case.service(name, json!({"type": "LoadBalancer", "selector": {"app": name}}))?;
        case.balance(name, json!([{"ip": address}]))
    };
    for (name, address) in ["web4", "web6"].into_iter().zip(ADDRESSES) {
        service(name, address)?;
        let server = SocketAddr::new(parsed(address)?, 80);
        let holder = holder(lab, address)?;
        let others: Vec<String> = lab.nodes()?.into_iter().filter(|node| *node != holder).collect();
        let [one, two] = [0, 1].map(|place| echo(&format!("{name}-{place}")).app(name).on(&others[place]));
        let pods = case.run([one, two])?;
        let names = pods.each_ref().map(|pod| pod.name.as_str());
        served(&lab.outside(), Via::Http, server, &names)?;

        // A busy machine: clients that ask all the time, of nodes that have much to do.
        let task = |number: usize| (format!("client {number}"), lab.outside(), Task::Ask(Via::Http, server));
        let load = Load::start((0..8).map(task).collect());
        let cut = Cut::new(lab, &holder)?;
        let took = until_answered(lab, server)?;
        println!("{address}: answered from another node {took:?} after the cable of {holder} was pulled");
        drop(cut);
        poll(&format!("{address} is {holder}'s again"), || {
            equal("holder", known(lab, address)?, holder.clone())
        })?;

        let agent = process(lab, &holder)?;
        agent.signal(Signal::SIGSTOP);
        let moved = poll(&format!("{address} is another node's"), || match known(lab, address)? {
            node if node == holder => Err(node),
            _ => Ok(()),
        });
        agent.signal(Signal::SIGCONT);
        moved?;
        poll(&format!("{address} is {holder}'s again"), || {
            equal("holder", known(lab, address)?, holder.clone())
        })?;
        crate::daemons::kill(lab, &holder, "weft-agent")?;
        poll("a holder, asked anew", || self::holder(lab, address).map(drop))?;
        load.finish();
        served(&lab.outside(), Via::Http, server, &names)?;
    }
    Ok(())
}

pub(crate) fn the_node_of_the_pod_answers(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "l2-local")?;
    case.service("web", json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}))?;
    case.balance("web", json!([{"ip": LOCAL}]))?;
    let server = SocketAddr::new(parsed(LOCAL)?, 80);
    let mut before: Option<&str> = None;
    for node in ["node1", "node2", "node3"] {
        case.run([echo(node).on(node)])?;
        if let Some(before) = before {
            case.delete("pods", before)?;
        }
        poll(&format!("{LOCAL} is answered by {node}"), || {
            // Who asks hears of it by itself; only the first time it asks.
            let _ = ask(&lab.outside(), Via::Http, server, "hostname");
            equal("holder", known(lab, LOCAL)?, node.to_owned())
        })?;
        served(&lab.outside(), Via::Http, server, &[node])?;
        before = Some(node);
    }
    Ok(())
}

/// How long it takes until somebody is answered again.
fn until_answered(lab: &Lab, server: SocketAddr) -> Result<Duration, String> {
    let start = Instant::now();
    poll(&format!("an answer from {server}"), || {
        match ask_within(&lab.outside(), Via::Http, server, "hostname", TRY) {
            Seen::Answer(_) => Ok(start.elapsed()),
            other => Err(format!("{other:?}")),
        }
    })
}

/// Asks anew on the link who has an address.
fn holder(lab: &Lab, address: &str) -> Result<String, String> {
    // Nobody may be known yet.
    let _ = lab.run_outside(&["ip", "neigh", "del", address, "dev", "underlay"]);
    poll(&format!("a node that answers for {address}"), || {
        let _ = ask_within(&lab.outside(), Via::Http, SocketAddr::new(parsed(address)?, 80), "hostname", TRY);
        known(lab, address)
    })
}

/// The node whose Ethernet address those outside know for that one: its last byte is the node's number.
fn known(lab: &Lab, address: &str) -> Result<String, String> {
    let shown = lab.run_outside(&["ip", "-j", "neigh", "show", address, "dev", "underlay"])?;
    let entries: Value = serde_json::from_str(&shown).map_err(|error| format!("{error}: {shown}"))?;
    let mac = entries[0]["lladdr"].as_str().ok_or_else(|| shown.clone())?;
    let number = mac.rsplit(':').next().and_then(|last| u8::from_str_radix(last, 16).ok());
    number.map(|number| format!("node{number}")).ok_or(shown)
}

fn parsed(address: &str) -> Result<IpAddr, String> {
    address.parse().map_err(|error| format!("{address}: {error}"))
}

/// The agent of a node.
fn process(lab: &Lab, node: &str) -> Result<ProcessId, String> {
    let records = lab.dir.node(node).daemons().map_err(|error| error.to_string())?;
    let agent = records.iter().find(|record| record.name == "weft-agent").and_then(|record| record.pid);
    agent.and_then(ProcessId::of).ok_or(format!("the agent of {node} does not run"))
}
