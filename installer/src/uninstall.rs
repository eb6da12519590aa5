//! `weft uninstall`: everything of Weft out of a cluster and off its nodes, in an order that keeps running
//! pods going for as long as that can be.
//!
//! 1. The agent and the proxy go, so that nobody puts back what is taken away. What they set up stays: pods
//!    notice nothing.
//! 2. DNS goes, while its pods can still be torn down by the plugin.
//! 3. On each node a cleanup pod has agent and proxy remove their own (see `--cleanup` there), and then the
//!    plugins with the pods' bridge, unless pods still have addresses of theirs.
//! 4. Roles, accounts and what agents wrote go. The definition of ClusterNetworkPolicy stays: all such policies
//!    would go with it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use weft_types::well_known::annotation;

use crate::cluster::{
    Cluster, Connection, DAEMON_SET, DEFINITION, POD, SERVICE, is_own, name, objects, shown,
};
use crate::cluster::{DNS_SERVICE, Kind, LOAD_BALANCER_LEASE, NAMESPACE, NODE};
use crate::manifests::{
    self, CLUSTER_NETWORK_POLICIES, CNI_BIN, CNI_CONF, IMAGE, IpamMode, LoadBalancerValues, Values,
};
use crate::rollout::{self, Progress};
use crate::{Result, wait};

const CLEANUP: &str = include_str!("cleanup.yaml");
/// The label by which the Service kube-dns is known as Weft's own.
const DNS_MARK: (&str, &str) = ("kubernetes.io/name", "WeftDNS");

/// The roles that let agents read Secrets.
const BGP_SECRETS: &str = "weft-agent-bgp-secrets";
const ROLE: Kind = ("rbac.authorization.k8s.io/v1", "Role");
const ROLE_BINDING: Kind = ("rbac.authorization.k8s.io/v1", "RoleBinding");

/// What to uninstall from where.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// The image for the cleanup. Without it, that of the installed agent.
    #[arg(long)]
    pub image: Option<String>,
    /// Where the nodes' container runtime finds CNI plugins. Without it, as the installed agent has it.
    #[arg(long, value_name = "DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Where the nodes' container runtime reads CNI configurations. Without it, as the installed agent has
    /// it.
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// How many seconds to wait for each step.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
}

/// Uninstalls. What is gone already is no error, so that it can be repeated.
///
/// # Errors
/// What the API server refuses, or a step that takes too long; those before it are done.
pub async fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::connect(&options.connection).await?;
    let patience = Duration::from_secs(options.timeout);
    let installed = cluster.get(DAEMON_SET, NAMESPACE, "weft-agent").await?;
    let cleanup = cleanup(options, installed.as_ref())?;
    let load_balancers = LoadBalancerValues { lb_crds: true, ..LoadBalancerValues::default() };
    let everything =
        Values { node_local_dns: true, load_balancers, ipam: IpamMode::Blocks, ..Values::default() };
    let all = objects(&manifests::render(&everything))?;
    let (workloads, others): (Vec<Value>, Vec<Value>) = all
        .into_iter()
        .partition(|object| ["DaemonSet", "Deployment"].map(Value::from).contains(&object["kind"]));
    for (kind, components) in [("DaemonSet", "agent,proxy,node-dns"), ("Deployment", "dns")] {
        for workload in workloads.iter().filter(|workload| workload["kind"] == kind) {
            delete(&cluster, workload).await?;
        }
        ended(&cluster, components, patience).await?;
    }
    clean_nodes(&cluster, &cleanup, patience).await?;
    let service = cluster.get(SERVICE, NAMESPACE, DNS_SERVICE).await?;
    let is_ours = service.is_some_and(|service| service["metadata"]["labels"][DNS_MARK.0] == DNS_MARK.1);
    for object in others.iter().filter(|object| is_ours || object["kind"] != "Service").rev() {
        delete(&cluster, object).await?;
    }
    for object in secret_roles(&cluster).await? {
        delete(&cluster, &object).await?;
    }
    forget(&cluster).await?;
    leave_definition(&cluster).await
}

/// What lets agents read Secrets, in whichever namespaces.
async fn secret_roles(cluster: &Cluster) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for kind in [ROLE_BINDING, ROLE] {
        let all = cluster.list(kind, None, "app.kubernetes.io/name=weft").await?.into_iter();
        found.extend(all.map(|object| with_kind(object, kind)).filter(|object| name(object) == BGP_SECRETS));
    }
    Ok(found)
}

/// Lists leave out what their items are.
fn with_kind(mut object: Value, (version, kind): Kind) -> Value {
    (object["apiVersion"], object["kind"]) = (version.into(), kind.into());
    object
}

/// Takes away what agents wrote into the cluster: who gives addresses, and the nodes' keys.
async fn forget(cluster: &Cluster) -> Result<()> {
    let ((version, kind), lease) = LOAD_BALANCER_LEASE;
    let metadata = json!({"name": lease, "namespace": NAMESPACE});
    delete(cluster, &json!({"apiVersion": version, "kind": kind, "metadata": metadata})).await?;
    for node in cluster.list(NODE, None, "").await? {
        let held = node["metadata"]["annotations"].as_object().into_iter().flatten();
        let own: Vec<&str> =
            held.map(|(key, _)| key.as_str()).filter(|key| key.starts_with(annotation::PREFIX)).collect();
        if !own.is_empty() {
            let annotations: Value = own.iter().map(|key| ((*key).to_owned(), Value::Null)).collect();
            let node = with_kind(json!({"metadata": {"name": name(&node)}}), NODE);
            cluster.patch(&node, &json!({"metadata": {"annotations": annotations}})).await?;
            eprintln!("took the annotations {} from {}", own.join(", "), shown(&node));
        }
    }
    Ok(())
}

/// Says what stays, and how it goes.
async fn leave_definition(cluster: &Cluster) -> Result<()> {
    let held = cluster.get(DEFINITION, "", CLUSTER_NETWORK_POLICIES).await?;
    if held.is_some_and(|held| is_own(&held)) {
        eprintln!(
            "left the definition of ClusterNetworkPolicy, as all of these policies would go with it: if nobody else enforces \
             them, kubectl delete customresourcedefinition {CLUSTER_NETWORK_POLICIES}"
        );
    }
    Ok(())
}

/// What cleans a node: with the image and the folders that the installed agent has, where no flag says
/// otherwise.
fn cleanup(options: &Options, installed: Option<&Value>) -> Result<Vec<Value>> {
    let pod = installed.map_or(&Value::Null, |set| &set["spec"]["template"]["spec"]);
    let volumes = || pod["volumes"].as_array().into_iter().flatten();
    let folder = |flag: &Option<PathBuf>, name: &str, default: &str| {
        let held = volumes().find(|volume| volume["name"] == name);
        let held = held.and_then(|volume| volume["hostPath"]["path"].as_str()).unwrap_or(default);
        flag.as_ref().map_or_else(|| held.to_owned(), |flag| flag.display().to_string())
    };
    let image = pod["containers"][0]["image"].as_str().unwrap_or(IMAGE);
    let text = CLEANUP
        .replace("{{image}}", options.image.as_deref().unwrap_or(image))
        .replace("{{cni_bin_dir}}", &folder(&options.cni_bin_dir, "cni-bin", CNI_BIN))
        .replace("{{cni_conf_dir}}", &folder(&options.cni_conf_dir, "cni-conf", CNI_CONF));
    objects(&text)
}

async fn delete(cluster: &Cluster, object: &Value) -> Result<()> {
    if cluster.delete(object).await? {
        eprintln!("deleted {}", shown(object));
    }
    Ok(())
}

/// Waits until no pod of these components is left.
async fn ended(cluster: &Cluster, components: &str, patience: Duration) -> Result<()> {
    let labels = format!("app.kubernetes.io/name=weft,app.kubernetes.io/component in ({components})");
    let look = || async {
        let left = cluster.list(POD, Some(NAMESPACE), &labels).await?.len();
        Ok(Progress { is_done: left == 0, text: format!("pods of {components}: {left} left") })
    };
    wait::until("the pods did not end", patience, look).await
}

/// Has every node cleaned by a pod, and takes the pods away again. Where it does not come to an end they
/// stay, for a look at their logs.
async fn clean_nodes(cluster: &Cluster, sets: &[Value], patience: Duration) -> Result<()> {
    for set in sets {
        cluster.apply(set).await?;
    }
    let progress = || async {
        let set = cluster.get(DAEMON_SET, NAMESPACE, "weft-cleanup").await?.unwrap_or_default();
        Ok(rollout::daemon_set(&set))
    };
    wait::until("the nodes were not cleaned", patience, progress).await?;
    for set in sets {
        delete(cluster, set).await?;
    }
    ended(cluster, "cleanup", patience).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    /// On k3s the configuration that has to go is not in /etc/cni/net.d.
    #[test]
    fn nodes_are_cleaned_where_the_agent_worked() {
        let values =
            Values { cni_conf_dir: "/k3s/conf".into(), image: "weft:k3s".to_owned(), ..Values::default() };
        let all = objects(&manifests::render(&values)).unwrap();
        let agent = all.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
        let cleaned = |flags: &[&str], installed: Option<&Value>| {
            let options = Cli::parse_from([&["weft"], flags].concat()).options;
            let sets = cleanup(&options, installed).unwrap();
            let pod = &sets[0]["spec"]["template"]["spec"];
            let volume = pod["volumes"]
                .as_array()
                .unwrap()
                .iter()
                .find(|volume| volume["name"] == "cni-conf")
                .unwrap();
            [&pod["containers"][0]["image"], &volume["hostPath"]["path"]]
                .map(|text| text.as_str().unwrap().to_owned())
        };
        assert_eq!(cleaned(&[], Some(agent)), ["weft:k3s", "/k3s/conf"]);
        assert_eq!(cleaned(&["--cni-conf-dir=/other", "--image=i"], Some(agent)), ["i", "/other"]);
        assert_eq!(cleaned(&[], None), [IMAGE, CNI_CONF]);
    }
}
