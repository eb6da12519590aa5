//! The demo's NetworkPolicy: whom it lets in and whom it keeps out, by real connections, and why, by
//! `weft policy explain`.

use std::time::{Duration, Instant};

use kube::Client;

use super::explanation::Explanation;
use super::manifests::{self, BACKEND_PORT};
use super::probe_origin::{Application, ProbeOrigin, RunningPod};
use super::verdict::{self, Check};
use crate::error::{Error, Result};

/// How long a request may take that is not to be answered, in milliseconds.
const SILENCE_MS: &str = "300";

/// Applies the policy, and tries the backend from a pod that it lets in and from one that it does not.
pub(super) async fn checks(
    client: &Client,
    probe_origin: &ProbeOrigin,
    application: &Application,
    patience: Duration,
) -> Result<Vec<Check>> {
    let (friend, stranger) = (application.first("frontend")?, application.first("database")?);
    // The first one is deleted meanwhile.
    let backend = application.tier("backend").last().unwrap_or(application.first("backend")?);
    manifests::apply_policy(client).await?;
    let why_not = denied(probe_origin, stranger, backend, patience).await?;
    let why = explain(probe_origin, friend, backend).await?;
    let url = "http://backend/hostname";
    let (let_in, kept_out) = tokio::join!(
        probe_origin.get(friend, url, &[]),
        probe_origin.get(stranger, url, &["--timeout-ms", SILENCE_MS])
    );
    let what = format!("GET {url} from a frontend pod, under a NetworkPolicy");
    let let_in = match let_in {
        Ok(answers) => verdict::let_in(&what, &answers, "backend", &why.finding, &why.at_the_entrance()),
        Err(error) => Check::impossible(what, &error),
    };
    let what = format!("GET {url} from a database pod, under it");
    let kept_out = match kept_out {
        Ok(answers) => verdict::kept_out(&what, &answers, &why_not.at_the_entrance()),
        Err(error) => Check::impossible(what, &error),
    };
    Ok(vec![let_in, kept_out])
}

/// Waits until the nodes have heard of the policy.
async fn denied(
    probe_origin: &ProbeOrigin,
    stranger: &RunningPod,
    backend: &RunningPod,
    patience: Duration,
) -> Result<Explanation> {
    let deadline = Instant::now() + patience;
    loop {
        let explanation = explain(probe_origin, stranger, backend).await?;
        if explanation.finding == "denied" {
            return Ok(explanation);
        }
        if Instant::now() > deadline {
            let what = "a network that heeds the NetworkPolicy".to_owned();
            let seen = explanation.at_the_entrance();
            return Err(Error::Timeout { what, seconds: patience.as_secs(), seen });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn explain(probe_origin: &ProbeOrigin, from: &RunningPod, to: &RunningPod) -> Result<Explanation> {
    let to = format!("{}/{}:{BACKEND_PORT}", manifests::NAMESPACE, to.name);
    let from = format!("{}/{}", manifests::NAMESPACE, from.name);
    probe_origin.explain(&from, &to).await
}
