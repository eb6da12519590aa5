//! The demo: the three-tier application of every Kubernetes guide, and a table of what its network does.
//! The manifests are in `lab/demo`; what is checked is in `checks`, and what counts as good in `verdict`.

mod checks;
mod explanation;
mod manifests;
mod policy;
mod probe_origin;
pub mod verdict;

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};

pub(crate) use self::manifests::apply_files;
pub use self::manifests::{NAMESPACE, apply};
pub use self::probe_origin::{Application, ProbeOrigin};
pub use self::verdict::Check;
use crate::error::{Error, Result};

/// How long the application may take to get ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many pods the manifests lead to.
const PODS: usize = 7;

/// Deploys the application, waits until it is ready and checks its network.
pub async fn run(client: Client, probe_origin: ProbeOrigin, progress: &ProgressBar) -> Result<Vec<Check>> {
    progress.set_message("applying the manifests");
    apply(&client).await?;
    let application = ready(&client, progress).await?;
    progress.set_message("waiting until the network knows the application");
    checks::settle(&client, &probe_origin, &application, PATIENCE).await?;
    checks::all(&client, &probe_origin, &application, PATIENCE, progress).await
}

/// Waits until all pods are ready.
async fn ready(client: &Client, progress: &ProgressBar) -> Result<Application> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = pods.list(&ListParams::default()).await.map_err(Error::api("list", "pods"))?;
        let ready = list.items.iter().filter(|pod| is_ready(pod)).count();
        if ready == PODS && list.items.len() == PODS {
            return Application::new(list.items);
        }
        let seen = format!("{ready} of {PODS} pods are ready");
        if Instant::now() > deadline {
            let what = "the application".to_owned();
            return Err(Error::Timeout { what, seconds: PATIENCE.as_secs(), seen: seen + &why(&list.items) });
        }
        progress.set_message(seen);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
}

/// What the containers that wait say about it.
fn why(pods: &[Pod]) -> String {
    pods.iter()
        .flat_map(|pod| pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()))
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref()?.message.as_ref())
        .map(|message| format!("; {message}"))
        .collect()
}
