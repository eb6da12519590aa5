//! `weft-lab up`: starts the background process and waits until the cluster is ready.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::CommandContext;
use crate::error::{Error, Result};
use crate::names::node_name;
use crate::requirements::DAEMONS;
use crate::shape::Shape;
use crate::{cluster_dns, kubeconfig, requirements, teardown};

/// How long a cluster may take to get ready.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at.
pub(super) const PERIOD: Duration = Duration::from_millis(50);

/// Starts a lab and says how to use it. Ctrl-C and errors remove what was made.
pub(super) async fn run(context: &CommandContext, shape: Shape) -> Result<()> {
    let started = Instant::now();
    start(context, shape).await?;
    println!("lab {} is up: {} nodes in {:.1} s", context.name, shape.nodes, started.elapsed().as_secs_f32());
    let lab = context.invocation();
    println!("  {lab} status");
    println!("  {lab} kubectl get nodes");
    println!("  ip netns exec {} nft list ruleset", context.name.node("node1"));
    println!("  {lab} down");
    Ok(())
}

/// Starts a lab and waits until it is ready.
pub(super) async fn start(context: &CommandContext, shape: Shape) -> Result<()> {
    requirements::check_machine(shape.ip_family)?;
    context.programs()?;
    context.dir.create(&context.name)?;
    let spinner = spinner();
    let ready = until_interrupted(async {
        let mut child = spawn(context, shape)?;
        wait(context, &mut child, shape.nodes.into(), &spinner).await
    });
    let ready = ready.await;
    spinner.finish_and_clear();
    if let Err(error) = ready {
        last_words(context, shape.nodes);
        remove(context);
        return Err(error);
    }
    Ok(())
}

/// Says what the daemons complained of last, for their logs are about to be removed.
fn last_words(context: &CommandContext, nodes: u8) {
    for node in (1..=nodes).map(node_name) {
        for daemon in DAEMONS {
            let text = fs::read_to_string(context.dir.node(&node).log(daemon)).unwrap_or_default();
            if let Some(line) = text.lines().rfind(|line| !line.contains("INFO")) {
                eprintln!("{node} {daemon}: {line}");
            }
        }
    }
}

/// Ends the work at Ctrl-C, at SIGTERM, and when the terminal goes away.
pub(super) async fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::io("watch", "SIGTERM"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(Error::io("watch", "SIGHUP"))?;
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(Error::Interrupted),
        _ = terminate.recv() => Err(Error::Interrupted),
        _ = hangup.recv() => Err(Error::Interrupted),
    }
}

/// Removes the lab after a failure; what cannot be removed is said, not returned, for the failure matters
/// more.
pub(super) fn remove(context: &CommandContext) {
    if let Err(error) = teardown::remove(&context.name, &context.dir) {
        eprintln!("weft-lab: {error}");
    }
}

pub(super) fn spinner() -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// The background process, killed when it is dropped before it was let go.
struct Holder {
    child: Option<Child>,
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(context: &CommandContext, shape: Shape) -> Result<Holder> {
    let log = File::create(context.dir.log()).map_err(Error::io("create", context.dir.log()))?;
    let copy = log.try_clone().map_err(Error::io("create", context.dir.log()))?;
    let mut command = Command::new(&context.lab_program);
    command.arg("--name").arg(context.name.to_string()).arg("--state-dir").arg(&context.state_dir);
    command.arg("--bin-dir").arg(&context.bin_dir).arg("hold");
    command.args(["--nodes", &shape.nodes.to_string(), "--ip-family", shape.ip_family.name()]);
    command.args(["--proxy-mode", shape.proxy_mode.name()]);
    command.args(shape.ebpf.then_some("--ebpf"));
    command.args(["--ipam", shape.ipam.name()]);
    command.stdin(Stdio::null()).stdout(log).stderr(copy);
    let program = "the lab process".to_owned();
    let child = command.spawn().map_err(|source| Error::Spawn { program, source })?;
    Ok(Holder { child: Some(child) })
}

async fn wait(
    context: &CommandContext,
    holder: &mut Holder,
    nodes: usize,
    spinner: &ProgressBar,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut client = None;
    loop {
        if let Some(child) = &mut holder.child
            && child.try_wait().map_err(Error::io("wait for", "the lab process"))?.is_some()
        {
            return Err(died(context));
        }
        if client.is_none() {
            let port = context.dir.record()?.and_then(|record| record.api_port);
            client = port.map(kubeconfig::client).transpose()?;
        }
        let missing = match &client {
            None => vec!["the API server".to_owned()],
            Some(client) => missing(client, nodes).await?,
        };
        if missing.is_empty() {
            // From here on it lives on by itself.
            holder.child = None;
            return Ok(());
        }
        let seen = format!("waiting for {}", missing.join(", "));
        if Instant::now() > deadline {
            return Err(Error::Timeout { what: "the cluster".to_owned(), seconds: PATIENCE.as_secs(), seen });
        }
        spinner.set_message(seen);
        tokio::time::sleep(PERIOD).await;
    }
}

/// What of the cluster is not ready yet.
async fn missing(client: &Client, nodes: usize) -> Result<Vec<String>> {
    let listed = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    let listed = listed.map_err(Error::api("list", "nodes"))?;
    if listed.items.len() < nodes {
        return Ok(vec!["the nodes to register".to_owned()]);
    }
    let is_ready = |node: &Node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
    };
    let mut missing: Vec<String> = listed
        .iter()
        .filter(|node| !is_ready(node))
        .map(|node| format!("{}'s network", node.name_any()))
        .collect();
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), cluster_dns::NAMESPACE);
    let of_dns = ListParams::default().labels(&format!("kubernetes.io/service-name={}", cluster_dns::NAME));
    let slices = slices.list(&of_dns).await.map_err(Error::api("list", "the endpoints of kube-dns"))?.items;
    let unnamed = listed.iter().map(ResourceExt::name_any);
    let unnamed = unnamed.filter(|node| !slices.iter().all(|slice| has_ready(slice, node)));
    missing.extend(unnamed.map(|node| format!("DNS on {node}")));
    Ok(missing)
}

/// Does the slice have a ready endpoint on that node?
fn has_ready(slice: &EndpointSlice, node: &str) -> bool {
    let mut endpoints = slice.endpoints.iter().flatten();
    endpoints.any(|endpoint| {
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
        endpoint.node_name.as_deref() == Some(node) && ready == Some(true)
    })
}

fn died(context: &CommandContext) -> Error {
    let text = fs::read_to_string(context.dir.log()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(20)..].join("\n");
    Error::LabDied { log: context.dir.log(), tail }
}
