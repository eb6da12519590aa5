//! Why a packet does not arrive, in words, and what mends it. Pure.

use std::net::IpAddr;

use serde::Serialize;
use weft_policy::pending::TABLE;
use weft_trace::{Cause, Chain, NodeTrace};
use weft_types::Protocol;

use super::world::World;

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) cause: String,
    pub(super) fix: String,
}

impl Finding {
    pub(super) fn new(cause: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { cause: cause.into(), fix: fix.into() }
    }
}

/// Whether policies decided.
pub(super) fn is_policy(cause: &Cause) -> bool {
    matches!(cause, Cause::Dropped(chain) | Cause::Rejected(chain) if chain.table.split(' ').nth(1) == Some(TABLE))
}

/// What stops a packet on a node.
pub(super) fn finding(cause: &Cause, trace: &NodeTrace, world: &World) -> Finding {
    let node = &trace.node;
    match cause {
        Cause::Dropped(chain) => by_rule(chain, node, "DROP", "dropped"),
        Cause::Rejected(chain) => by_rule(chain, node, "REJECT", "rejected"),
        Cause::NoRoute { place, to } if place.contains("pod") => Finding::new(
            format!("no route to {to} {place}"),
            format!(
                "the pod lost its routes: delete it, so that it is made anew; or look at the agent of {node}"
            ),
        ),
        Cause::NoRoute { to, .. } => {
            let of = world.node_of_pods(*to).map(|of| format!(" (pods of {of})")).unwrap_or_default();
            Finding::new(
                format!("no route to {to}{of} on {node}"),
                format!(
                    "see `weft status`, and `ip route get {to}` on {node}: the agent keeps the routes to pods"
                ),
            )
        }
        Cause::RefusedByRoute { to } => Finding::new(
            format!("a route of {node} refuses {to} (blackhole, unreachable or prohibit)"),
            format!("see `ip route get {to}` on {node}, and delete that route"),
        ),
        Cause::ReversePath { device, mode } => {
            let how = if *mode == 1 { "strict" } else { "loose" };
            Finding::new(
                format!("rp_filter {how} on {device} of {node} drops what comes from {}", trace.left.source),
                format!(
                    "on {node}: sysctl -w net.ipv4.conf.{device}.rp_filter={}",
                    if *mode == 1 { 2 } else { 0 }
                ),
            )
        }
        Cause::NotForwarding { setting } => Finding::new(
            format!("{node} does not forward: {setting} is 0"),
            format!("on {node}: sysctl -w {setting}=1"),
        ),
        Cause::NoPod { address } => Finding::new(
            format!("no pod of {node} has the address {address}"),
            "the pod has gone, or its record: kubectl get pods -A -o wide".to_owned(),
        ),
        Cause::LinkDown { device } => Finding::new(
            format!("{device} on {node} is down or missing"),
            format!("on {node}: ip link; the agent puts back what it made: weft status"),
        ),
        Cause::NoNeighbour { device, address } => Finding::new(
            format!("{address} does not answer on {device} of {node} (ARP, or neighbour discovery)"),
            format!("on {node}: ip neigh show dev {device}; see whether that machine is up and on that link"),
        ),
        Cause::NoTunnelEnd { device, next_hop } => Finding::new(
            format!("the tunnel {device} of {node} has no other end for {next_hop}"),
            format!("on {node}: bridge fdb show dev {device}; the agent keeps these: weft status"),
        ),
    }
}

fn by_rule(chain: &Chain, node: &str, verdict: &str, how: &str) -> Finding {
    let Chain { hook, table, chain: name, rule } = chain;
    let see = format!("on {node}: nft list chain {table} {name}");
    match rule {
        None => Finding::new(
            format!("{name} policy {verdict} in table {table} on {node} (hook {hook})"),
            format!("{see}; accept there what pods send and get"),
        ),
        Some(rule) => Finding::new(
            format!("{how} on {node} by table {table}, chain {name} (hook {hook}): {rule}"),
            format!("{see}; change or delete that rule"),
        ),
    }
}

/// It leaves the cluster as a pod's, which answers come back to only where others know the way to pods.
pub(super) fn not_masqueraded(leaves: &str, source: IpAddr, node: &str) -> Finding {
    Finding::new(
        format!(
            "{leaves} with the pod's own address {source}: only a network that has routes to pods can answer"
        ),
        format!(
            "on {node}: nft list ruleset, for what keeps or changes the source (hook postrouting): the agent masquerades in \
             its table weft-agent"
        ),
    )
}

/// Nobody takes it where it arrives.
pub(super) fn nothing_listens(at: &str, protocol: Option<Protocol>, port: Option<u16>) -> Finding {
    let protocol = protocol.map_or_else(String::new, |protocol| protocol.to_string().to_uppercase());
    let port = port.unwrap_or_default();
    Finding::new(
        format!("nothing listens on {protocol} port {port} in {at}"),
        format!(
            "have the server listen on 0.0.0.0:{port} (or [::]:{port}), or correct the port (targetPort of a Service)"
        ),
    )
}
