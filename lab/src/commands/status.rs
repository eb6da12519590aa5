//! `weft-lab status`: tables of nodes, daemons and pods.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::CommandContext;
use crate::error::{Error, Result};
use crate::state::DaemonRecord;

/// Prints how the lab does.
pub(super) async fn run(context: &CommandContext) -> Result<()> {
    let record = context.running()?;
    let client = context.client()?;
    println!("lab {} · process {} · {}", context.name, record.process.pid, context.dir.root().display());
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    let nodes = nodes.map_err(Error::api("list", "nodes"))?;
    println!(
        "{}",
        table(
            ["node", "address", "ready", "pod CIDR", "namespace"],
            nodes.iter().map(|node| { node_row(context, node) })
        )
    );
    let mut daemons = Vec::new();
    for node in &record.nodes {
        daemons.extend(context.dir.node(node).daemons()?.into_iter().map(|daemon| daemon_row(node, daemon)));
    }
    println!("{}", table(["node", "daemon", "pid", "restarts", "last exit"], daemons.into_iter()));
    let pods = Api::<Pod>::all(client).list(&ListParams::default()).await;
    let pods = pods.map_err(Error::api("list", "pods"))?;
    println!(
        "{}",
        table(["namespace", "pod", "ready", "status", "address", "node"], pods.iter().map(pod_row))
    );
    Ok(())
}

fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
    table
}

fn node_row(context: &CommandContext, node: &Node) -> [String; 5] {
    let status = node.status.clone().unwrap_or_default();
    let addresses = status.addresses.iter().flatten().filter(|address| address.type_ == "InternalIP");
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    [
        node.name_any(),
        lines(addresses.map(|address| address.address.clone())),
        ready.map_or_else(|| "Unknown".to_owned(), |ready| ready.status.clone()),
        lines(node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten().cloned())),
        context.name.node(&node.name_any()),
    ]
}

/// One below the other.
fn lines(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("\n")
}

fn daemon_row(node: &str, daemon: DaemonRecord) -> [String; 5] {
    [
        node.to_owned(),
        daemon.name,
        daemon.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        daemon.restarts.to_string(),
        daemon.last_exit.unwrap_or_default(),
    ]
}

fn pod_row(pod: &Pod) -> [String; 6] {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    let ready = containers.iter().filter(|container| container.ready).count();
    let phase = match pod.metadata.deletion_timestamp {
        Some(_) => Some("Terminating".to_owned()),
        None => status.phase,
    };
    [
        pod.namespace().unwrap_or_default(),
        pod.name_any(),
        format!("{ready}/{}", containers.len()),
        phase.unwrap_or_default(),
        lines(status.pod_ips.into_iter().flatten().map(|ip| ip.ip)),
        pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
    ]
}
