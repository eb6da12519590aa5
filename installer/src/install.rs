//! `weft install`: the manifests into a cluster, and waiting until it works.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use serde_json::Value;
use weft_types::well_known::label;

use crate::cluster::{
    Cluster, Connection, DAEMON_SET, DEFINITION, DEPLOYMENT, DNS_SERVICE, ENDPOINT_SLICE, NAMESPACE, NODE,
    SERVICE, is_own, name, objects, shown,
};
use crate::distribution::{Facts, Found};
use crate::dns::check_config_map;
use crate::manifests::{self, Values};
use crate::rollout::{self, Progress};
use crate::self_test::{self, SelfTest};
use crate::{Error, Result, prerequisites, prune, wait};

/// How to install.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// What goes into the manifests.
    #[command(flatten)]
    pub values: Values,
    /// How many seconds to wait for the cluster.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
    /// Install although another network or kube-proxy is in the way.
    #[arg(long)]
    pub force: bool,
    /// Do not check, by pods on every node, that pods reach Services by name.
    #[arg(long)]
    pub skip_self_test: bool,
    /// The values that a person gave, by the names of their fields: the others follow from the cluster.
    #[arg(skip)]
    pub given: BTreeSet<String>,
}

/// The arguments that were given on the command line, by their names.
pub fn given(matches: &ArgMatches) -> BTreeSet<String> {
    let ids = matches.ids().map(|id| id.as_str());
    let is_given = |id: &&str| {
        // Groups have no source.
        matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    ids.filter(is_given).map(str::to_owned).collect()
}

/// A part of the roll-out.
struct Step {
    /// The DaemonSet or Deployment that it is about.
    workload: &'static str,
    /// What is to be said where it does not end.
    failure: &'static str,
}

/// The parts, each of which begins when the one before has ended: while a node's proxy is being replaced it
/// goes on sending to DNS servers that are about to stop, and DNS servers are spread over the nodes that are
/// ready by then.
const STEPS: [Step; 4] = [
    Step {
        workload: AGENT,
        failure: "the agents did not get ready (proxies and DNS servers are as they were)",
    },
    Step { workload: "weft-proxy", failure: "the proxies did not get ready (DNS servers are as they were)" },
    Step { workload: "weft-dns", failure: "the DNS servers did not get ready" },
    Step { workload: "weft-dns-node", failure: "the DNS servers of the nodes did not get ready" },
];
/// The first of them.
const AGENT: &str = "weft-agent";

/// The workload with which an object is applied: roles, accounts and the Service with the first.
fn step_of(object: &Value) -> &str {
    match object["kind"].as_str() {
        Some("DaemonSet" | "Deployment") => name(object),
        _ => AGENT,
    }
}

/// Installs, or brings what is installed to these values. Tells on standard error what happens.
///
/// # Errors
/// What is in the way, what the API server refuses, or what does not come to work in time.
pub async fn run(options: &Options) -> Result<()> {
    options.values.check()?;
    let cluster = Cluster::connect(&options.connection).await?;
    let facts = look(&cluster).await?;
    let mut values = options.values.clone();
    eprintln!("{}", Found::adapt(&facts, &mut values, &|name| options.given.contains(name)));
    let values = with_api_host(&values, cluster.server(), facts.api_server())?;
    let objects = objects(&manifests::render(&values))?;
    if !options.force {
        check(&cluster, &values).await?;
    }
    let unwanted = prune::find(&cluster, &values).await?;
    for one in &unwanted {
        eprintln!("{}", one.announcement());
    }
    let patience = Duration::from_secs(options.timeout);
    let objects = without_foreign_definitions(&cluster, objects).await?;
    roll_out(&cluster, &objects, patience).await?;
    for one in &unwanted {
        cluster.delete(&one.object).await?;
        eprintln!("deleted {}", shown(&one.object));
    }
    if options.skip_self_test {
        return Ok(());
    }
    self_test::run(&cluster, &SelfTest { image: values.image, ..SelfTest::default() }, patience).await
}

/// Leaves out the definitions of kinds that the cluster has from somebody else: theirs may know more fields.
async fn without_foreign_definitions(cluster: &Cluster, objects: Vec<Value>) -> Result<Vec<Value>> {
    let mut left = Vec::new();
    for object in objects {
        let held = match object["kind"] == DEFINITION.1 {
            true => cluster.get(DEFINITION, "", name(&object)).await?,
            false => None,
        };
        match held.is_some_and(|held| !is_own(&held)) {
            true => eprintln!("{} is there, and not from Weft: it stays as it is", shown(&object)),
            false => left.push(object),
        }
    }
    Ok(left)
}

/// Applies all objects, step by step, and waits until everything is ready.
async fn roll_out(cluster: &Cluster, objects: &[Value], patience: Duration) -> Result<()> {
    let start = Instant::now();
    for step in &STEPS {
        let part: Vec<&Value> = objects.iter().filter(|object| step_of(object) == step.workload).collect();
        for object in &part {
            cluster.apply(object).await?;
            eprintln!("applied {}", shown(object));
        }
        wait::until_since(start, step.failure, patience, || step_progress(cluster, &part)).await?;
    }
    wait::until_since(start, "Weft did not get ready", patience, || progress(cluster, objects)).await
}

/// What tells which distribution a cluster is. What the API server does not say is left out.
async fn look(cluster: &Cluster) -> Result<Facts> {
    let nodes = cluster.list(NODE, None, "").await?;
    let kubelet = match nodes.iter().find(|node| !rollout::is_silent(node)).map(name) {
        Some(node) => cluster.text(&format!("/api/v1/nodes/{node}/proxy/configz")).await.unwrap_or_default(),
        None => String::new(),
    };
    let of_api_server = format!("{}=kubernetes", label::SERVICE_NAME);
    Ok(Facts {
        nodes,
        kubelet: serde_json::from_str(&kubelet).unwrap_or_default(),
        service: cluster.get(SERVICE, "default", "kubernetes").await?,
        slices: cluster.list(ENDPOINT_SLICE, Some("default"), &of_api_server).await?,
    })
}

/// The values with the API server's address, from the kubeconfig where none is given; where that is this
/// machine's own loopback, the one that the cluster knows.
fn with_api_host(values: &Values, (host, port): (&str, u16), known: Option<(String, u16)>) -> Result<Values> {
    if values.api_host.is_some() {
        return Ok(values.clone());
    }
    let bare = host.trim_matches(['[', ']']);
    let is_loopback = bare == "localhost" || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let (host, api_port) = match is_loopback {
        true => known.ok_or_else(|| Error::ApiHost { host: host.to_owned() })?,
        false => (bare.to_owned(), port),
    };
    if is_loopback {
        eprintln!(
            "nodes reach the API server at {host} port {api_port}, its endpoint; --api-host says otherwise"
        );
    }
    Ok(Values { api_host: Some(host), api_port, ..values.clone() })
}

async fn check(cluster: &Cluster, values: &Values) -> Result<()> {
    let sets = cluster.list(DAEMON_SET, None, "").await?;
    let nodes = cluster.list(NODE, None, "").await?;
    let dns = cluster.get(SERVICE, NAMESPACE, DNS_SERVICE).await?;
    let mut found = prerequisites::unmet(&sets, &nodes, dns.as_ref(), values);
    if let Some(name) = &values.corefile.corefile {
        match check_config_map(cluster, name).await {
            Ok(verdict) if verdict.is_supported() => {}
            Ok(verdict) => found.extend(verdict.to_string().lines().map(str::to_owned)),
            Err(error) => found.push(error.to_string()),
        }
    }
    if found.is_empty() { Ok(()) } else { Err(Error::PrerequisitesUnmet(found)) }
}

/// How far everything that was applied is, and the nodes.
async fn progress(cluster: &Cluster, objects: &[Value]) -> Result<Progress> {
    let mut parts = Vec::new();
    for object in objects {
        parts.extend(workload(cluster, object, 0).await?);
    }
    parts.push(rollout::nodes(&cluster.list(NODE, None, "").await?));
    Ok(Progress::all(parts))
}

/// How far a step is, and the nodes. A machine that is off does not keep the others from what comes next.
async fn step_progress(cluster: &Cluster, objects: &[&Value]) -> Result<Progress> {
    let nodes = cluster.list(NODE, None, "").await?;
    let (silent, others): (Vec<Value>, Vec<Value>) = nodes.into_iter().partition(rollout::is_silent);
    let mut parts = Vec::new();
    for object in objects {
        parts.extend(workload(cluster, object, silent.len() as u64).await?);
    }
    if !parts.is_empty() {
        parts.push(rollout::nodes(&others));
    }
    Ok(Progress::all(parts))
}

/// How far a DaemonSet or Deployment is, on all nodes but the silent ones; none for other objects.
async fn workload(cluster: &Cluster, object: &Value, silent: u64) -> Result<Option<Progress>> {
    let kind = match object["kind"].as_str() {
        Some("DaemonSet") => DAEMON_SET,
        Some("Deployment") => DEPLOYMENT,
        _ => return Ok(None),
    };
    let progress = match cluster.get(kind, NAMESPACE, name(object)).await? {
        None => Progress { is_done: false, text: format!("{} is gone", shown(object)) },
        Some(held) if kind == DAEMON_SET => rollout::daemon_set_but(&held, silent),
        Some(held) => rollout::deployment(&held),
    };
    Ok(Some(progress))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_applied_in_one_of_the_steps() {
        let load_balancers = manifests::LoadBalancerValues { lb_crds: true, ..Default::default() };
        let values = Values {
            node_local_dns: true,
            cluster_network_policy: true,
            load_balancers,
            ..Values::default()
        };
        for object in objects(&manifests::render(&values)).unwrap() {
            assert!(STEPS.iter().any(|step| step.workload == step_of(&object)), "{object}");
        }
    }

    #[test]
    fn the_api_server_s_address_is_that_of_the_kubeconfig_unless_nodes_cannot_reach_it() {
        let values = Values::default();
        let found = with_api_host(&values, ("192.0.2.10", 443), None).unwrap();
        assert_eq!((found.api_host.as_deref(), found.api_port), (Some("192.0.2.10"), 443));
        let found = with_api_host(&values, ("[2001:db8::1]", 6443), None).unwrap();
        assert_eq!(found.api_host.as_deref(), Some("2001:db8::1"));
        for loopback in ["127.0.0.1", "localhost", "[::1]"] {
            assert!(
                matches!(with_api_host(&values, (loopback, 6443), None), Err(Error::ApiHost { .. })),
                "{loopback}"
            );
            let known = Some(("192.0.2.10".to_owned(), 16443));
            let found = with_api_host(&values, (loopback, 1), known).unwrap();
            assert_eq!((found.api_host.as_deref(), found.api_port), (Some("192.0.2.10"), 16443));
        }
        let given = Values { api_host: Some("kind-control-plane".to_owned()), ..Values::default() };
        assert_eq!(with_api_host(&given, ("127.0.0.1", 1), None).unwrap().api_port, 6443);
    }
}
