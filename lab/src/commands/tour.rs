//! `weft-lab tour`: the tour's pods in a lab, the walk, and all of it gone again.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::Api;
use kube::api::DeleteParams;

use super::{CommandContext, up};
use crate::cli::TourArgs;
use crate::demo::apply_files;
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::state::{make_dir, write_file};
use crate::teardown;
use crate::tour::{self, FILES, NAMESPACE, Place, Printed};

/// Goes the tour: in the lab of that name if it runs, else in one that is made for it.
pub(super) async fn run(context: &CommandContext, shape: Shape, how: TourArgs) -> Result<()> {
    let is_guest = context.running().is_ok();
    if !is_guest {
        up::start(context, shape).await?;
    }
    let walked = up::until_interrupted(walk(context, how)).await;
    match (is_guest, how.keep && !matches!(walked, Err(Error::Interrupted))) {
        (_, true) => {}
        (true, false) => leave(context).await?,
        (false, false) => drop(teardown::remove(&context.name, &context.dir)?),
    }
    walked
}

async fn walk(context: &CommandContext, how: TourArgs) -> Result<()> {
    let folder = context.dir.root().join("tour");
    make_dir(&folder)?;
    for (name, text) in FILES {
        write_file(&folder.join(name), text)?;
    }
    let client = context.client()?;
    apply_files(&client, &FILES[..1]).await?;
    let place = place(context, &client, folder.display().to_string()).await?;
    let printed = if how.markdown { Printed::Markdown } else { Printed::Text };
    if !how.markdown {
        println!("In another shell, as root, so that its commands can be tried:\n");
        println!("    export KUBECONFIG={}", place.kubeconfig.display());
        println!("    export PATH={}:$PATH", place.bin_dir.display());
    }
    let walking = move || {
        let wait = || if how.pause { enter() } else { Ok(()) };
        tour::walk(&place, printed, &mut io::stdout(), wait)
    };
    let walked = tokio::task::spawn_blocking(walking).await;
    walked.map_err(|error| Error::io("go", "the tour")(io::Error::other(error)))?
}

fn enter() -> io::Result<()> {
    eprint!("\n-- Enter: the next step --");
    io::stderr().flush()?;
    io::stdin().lock().read_line(&mut String::new()).map(drop)
}

/// What the names in the tour's commands stand for, once the pods have addresses.
async fn place(context: &CommandContext, client: &kube::Client, files: String) -> Result<Place> {
    let mut names = BTreeMap::from([
        ("lab", context.short_invocation()),
        ("files", files),
        ("outside", context.name.underlay()),
    ]);
    for node in ["node1", "node2", "node3"] {
        names.insert(node, context.name.node(node));
    }
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    for pod in ["client", "near", "far"] {
        names.insert(pod, address(&pods, pod).await?);
    }
    let web = Api::<Service>::namespaced(client.clone(), NAMESPACE).get("web").await;
    let web = web.map_err(Error::api("get", "service tour/web"))?.spec.unwrap_or_default();
    let port = web.ports.and_then(|ports| ports.first()?.node_port).unwrap_or_default();
    names.insert("port", port.to_string());
    names.insert("web", web.cluster_ip.unwrap_or_default());
    Ok(Place { names, bin_dir: context.programs()?.folder(), kubeconfig: context.dir.kubeconfig() })
}

/// The IPv4 address of a pod, once it has one.
async fn address(pods: &Api<Pod>, name: &str) -> Result<String> {
    let deadline = tokio::time::Instant::now() + up::PATIENCE;
    loop {
        let pod = pods.get(name).await.map_err(Error::api("get", format!("pod {NAMESPACE}/{name}")))?;
        let ips = pod.status.into_iter().flat_map(|status| status.pod_ips.into_iter().flatten());
        if let Some(found) = ips.into_iter().map(|ip| ip.ip).find(|ip| ip.contains('.')) {
            return Ok(found);
        }
        if tokio::time::Instant::now() > deadline {
            let what = format!("an IPv4 address of pod {NAMESPACE}/{name}");
            let seen = "the tour needs a lab of three nodes with IPv4".to_owned();
            return Err(Error::Timeout { what, seconds: up::PATIENCE.as_secs(), seen });
        }
        tokio::time::sleep(up::PERIOD).await;
    }
}

/// Takes the tour's objects out of a lab that goes on.
async fn leave(context: &CommandContext) -> Result<()> {
    let namespaces = Api::<Namespace>::all(context.client()?);
    let deleted = namespaces.delete(NAMESPACE, &DeleteParams::default()).await;
    deleted.map(drop).map_err(Error::api("delete", format!("namespace {NAMESPACE}")))
}
