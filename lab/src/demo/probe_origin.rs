//! Where the demo looks from: inside its pods, and from outside of the cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::de::DeserializeOwned;

use super::explanation::Explanation;
use crate::client::http::{self, Answer};
use crate::client::lookup::Found;
use crate::error::{Error, Result};
use crate::names::LabName;
use crate::netns;
use crate::state::LabDir;

/// A running pod of the application.
#[derive(Clone, Debug)]
pub struct RunningPod {
    /// Its name, which is its hostname too.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its addresses, that of the primary family first.
    pub addresses: Vec<IpAddr>,
    /// The node that runs it.
    pub node: String,
    /// The node's addresses, in the same order.
    pub node_addresses: Vec<IpAddr>,
}

/// The application's pods, by their label `app`.
#[derive(Clone, Debug)]
pub struct Application {
    tiers: BTreeMap<String, Vec<RunningPod>>,
}

impl Application {
    /// The application of those pods, all of which have addresses.
    pub fn new(pods: Vec<Pod>) -> Result<Application> {
        let mut tiers: BTreeMap<String, Vec<RunningPod>> = BTreeMap::new();
        for pod in pods {
            let tier = pod.labels().get("app").cloned().unwrap_or_default();
            tiers.entry(tier).or_default().push(RunningPod::new(&pod)?);
        }
        Ok(Application { tiers })
    }

    /// The pods of one tier, in the order of their names.
    pub fn tier(&self, name: &str) -> &[RunningPod] {
        self.tiers.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The first pod of a tier.
    pub fn first(&self, tier: &str) -> Result<&RunningPod> {
        self.tier(tier).first().ok_or_else(|| Error::Probe {
            what: format!("find a pod of {tier}"),
            reason: "there is none".to_owned(),
        })
    }
}

impl RunningPod {
    fn new(pod: &Pod) -> Result<RunningPod> {
        let status = pod.status.clone().unwrap_or_default();
        let parsed = |texts: Vec<String>| {
            let addresses: Vec<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).collect();
            if addresses.is_empty() {
                let what = format!("find the addresses of pod {}", pod.name_any());
                return Err(Error::Probe { what, reason: "its status has none".to_owned() });
            }
            Ok(addresses)
        };
        let pod_ips = status.pod_ips.into_iter().flatten().map(|ip| ip.ip).collect();
        let host_ips = status.host_ips.into_iter().flatten().map(|ip| ip.ip).collect();
        Ok(RunningPod {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            addresses: parsed(pod_ips)?,
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            node_addresses: parsed(host_ips)?,
        })
    }
}

/// Makes requests from inside a lab.
#[derive(Clone, Debug)]
pub struct ProbeOrigin {
    /// The lab's name.
    pub name: LabName,
    /// The lab's folder.
    pub dir: LabDir,
    /// The lab's own program, which is the client too.
    pub lab_program: PathBuf,
    /// The program `weft`, which explains policies.
    pub weft_program: PathBuf,
}

impl ProbeOrigin {
    /// GET from inside a pod, each time on a new connection. `options` are those of `weft-lab client get`.
    pub async fn get(&self, pod: &RunningPod, url: &str, options: &[&str]) -> Result<Vec<Answer>> {
        self.client(pod, &[&["get", url], options].concat()).await
    }

    /// A DNS lookup from inside a pod.
    pub async fn lookup(&self, pod: &RunningPod, name: &str, record_type: &str) -> Result<Found> {
        let mut found = self.client(pod, &["lookup", name, record_type]).await?;
        found
            .pop()
            .ok_or_else(|| Error::Probe { what: format!("look up {name}"), reason: "no output".to_owned() })
    }

    /// GET from outside of the cluster.
    pub async fn get_from_outside(
        &self,
        address: SocketAddr,
        path: &str,
    ) -> std::result::Result<String, String> {
        let (underlay, path) = (self.name.underlay(), path.to_owned());
        let get = move || {
            netns::run(&underlay, move || {
                Ok(http::get(address, &address.to_string(), &path, Duration::from_secs(2)))
            })
        };
        match tokio::task::spawn_blocking(get).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What `weft policy explain FROM TO` says.
    pub(super) async fn explain(&self, from: &str, to: &str) -> Result<Explanation> {
        let what = format!("weft policy explain {from} {to}");
        let failed = |reason: String| Error::Probe { what: what.clone(), reason };
        let mut command = tokio::process::Command::new(&self.weft_program);
        command.args(["policy", "explain", from, to, "--output", "json", "--kubeconfig"]);
        command.arg(self.dir.kubeconfig()).stdin(Stdio::null());
        let output = command.kill_on_drop(true).output().await;
        let output = output.map_err(|error| failed(format!("{}: {error}", self.weft_program.display())))?;
        // It exits with 1 where the connection may not be made.
        serde_json::from_slice(&output.stdout)
            .map_err(|_| failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    /// Runs the lab's client inside a pod and reads its lines.
    async fn client<T: DeserializeOwned>(&self, pod: &RunningPod, arguments: &[&str]) -> Result<Vec<T>> {
        let what = format!("{} from pod {}", arguments.join(" "), pod.name);
        let failed = |reason: String| Error::Probe { what: what.clone(), reason };
        let place = self.dir.pod(&pod.uid).read_place()?;
        let place = place.ok_or_else(|| failed("the pod is not set up".to_owned()))?.dying_with_me();
        let mut command = place.command(&self.lab_program, &self.lab_program);
        command.arg("client").args(arguments).stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output().await.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str(line).map_err(|error| failed(format!("{error} in {line:?}"))))
            .collect()
    }
}
