//! `weft doctor`: what is wrong in a cluster, and what mends it.
//!
//! ```text
//! Facts::gather (API server, agents) -> checks::all(&Facts) -> findings -> Report
//! ```
//!
//! Who looks decides nothing; what is good and what is not is decided from values alone. What is found is
//! looked for once more a moment later: pods come and go, and what passes by itself is no fault.

mod checks;
mod facts;
mod report;

use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use self::facts::Facts;
pub use self::report::Report;
use crate::cluster::{Cluster, Connection};
use crate::finding::{self, Finding};
use crate::preflight::Output;
use crate::{Error, Result};

/// What is looked at, and how it is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Only what is about this node, or about pods of it.
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// For how many seconds a fault must be there: what is found is looked for again after that. 0 looks once.
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(..=600))]
    pub settle: u64,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// Looks at the cluster. Must be called within a runtime.
///
/// # Errors
/// Where the API server cannot be asked, or there is no such node. An agent that does not answer is a
/// finding.
pub async fn run(options: &Options) -> Result<Report> {
    let cluster = Cluster::connect(&options.connection).await?;
    let facts = Facts::gather(&cluster).await?;
    if let Some(node) = &options.node
        && !facts.agents.contains_key(node)
    {
        return Err(Error::NoNode(node.clone()));
    }
    let mut findings = checks::all(&facts);
    if !findings.is_empty() && options.settle > 0 {
        sleep(Duration::from_secs(options.settle)).await;
        let again = checks::all(&Facts::gather(&cluster).await?);
        findings = lasting(&findings, again);
    }
    if let Some(node) = &options.node {
        findings.retain(|finding| checks::is_about(finding, node, &facts));
    }
    finding::sort(&mut findings);
    let nodes = if options.node.is_some() { 1 } else { facts.nodes.len() };
    Ok(Report { checked: facts.count(), nodes, findings })
}

/// What was there before, too, as it is now.
fn lasting(before: &[Finding], now: Vec<Finding>) -> Vec<Finding> {
    now.into_iter().filter(|finding| before.iter().any(|one| one.key() == finding.key())).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;
    use crate::finding::Id;
    use crate::scripted::cluster;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    /// What doctor says of a cluster of one node, of which nobody but the API server and an agent tells.
    fn of_one_node(agent: Value, flags: &[&str]) -> Result<Report> {
        let list = |items: Value| {
            json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).to_string()
        };
        let node = json!({"metadata": {"name": "node1"}, "spec": {"podCIDRs": ["10.244.1.0/24"]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let dns = json!({"metadata": {"namespace": "kube-system", "name": "kube-dns"}, "spec": {"clusterIPs": ["10.96.0.10"]}});
        let slice = json!({"metadata": {"namespace": "kube-system", "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "endpoints": [{"addresses": ["10.244.1.2"]}]});
        let mut answers = vec![
            ("/api/v1/nodes", list(json!([node]))),
            ("/api/v1/services", list(json!([dns]))),
            ("/apis/discovery.k8s.io/v1/endpointslices", list(json!([slice]))),
            ("/api/v1/nodes/node1:10246/proxy/facts", agent.to_string()),
        ];
        for path in [
            "/api/v1/namespaces",
            "/api/v1/pods",
            "/apis/networking.k8s.io/v1/networkpolicies",
            "/apis/apps/v1/daemonsets",
            "/apis/apps/v1/deployments",
            "/apis/apps/v1/statefulsets",
        ] {
            answers.push((path, list(json!([]))));
        }
        let kubeconfig = cluster(answers);
        let fixed = ["doctor", "--settle", "0", "--kubeconfig", kubeconfig.path().to_str().unwrap()];
        let options = Cli::parse_from([&fixed, flags].concat()).options;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&options))
    }

    #[test]
    fn a_cluster_is_looked_at_through_the_api_server_alone() {
        let now = facts::now();
        let well =
            json!({"version": "0.1.0", "time": now, "isReady": true, "proxy": {}, "of another release": 1});
        let report = of_one_node(well, &[]).unwrap();
        assert_eq!(report.to_string(), "checked 3 things on 1 node: nothing found\n");
        let report = of_one_node(json!({"isReady": true, "time": now}), &["--node", "node1"]).unwrap();
        assert_eq!(report.findings.iter().map(|one| one.id).collect::<Vec<_>>(), [Id::ProxySilent]);
        let error = of_one_node(json!({}), &["--node", "node7"]).unwrap_err().to_string();
        assert!(error.contains("there is no Node node7"), "{error}");
        let report = of_one_node(json!("no facts"), &[]).unwrap();
        assert!(report.findings[0].what.contains("may be of another version"), "{report}");
    }

    #[test]
    fn what_passes_by_itself_is_not_told() {
        let [a, b, c] = ["a", "b", "c"].map(|subject| Finding::error(Id::PodsNotReady, subject, "1 of 2"));
        let later = Finding::error(Id::PodsNotReady, "b", "2 of 2");
        let found = lasting(&[a, b], vec![later.clone(), c]);
        assert_eq!((found.len(), found.first()), (1, Some(&later)));
        let younger = later.clone().since(Some("2026-01-01T00:00:09Z"));
        assert_eq!(lasting(&[later.since(Some("2026-01-01T00:00:00Z"))], vec![younger]), []);
    }
}
