//! `weft policy explain`: whether one pod may reach another one, by which policy, and where. The agents of
//! the nodes at both ends answer from their kernels' tables; here the pods and their nodes are found through
//! the API server, and the agents are asked through it too, so that it works from anywhere.

mod answer;
pub(crate) mod places;
mod question;

use clap::{Args, Subcommand};
use thiserror::Error;
pub use weft_policy::report::Finding;

pub use self::answer::Answer;
use self::answer::{Path, traffic};
use self::places::{Place, pairs, refuse_service};
use self::question::{Party, Question};
use crate::cluster::{Cluster, Connection, POD, SERVICE};
use crate::preflight::Output;

/// What can be asked about network policies.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Tell whether a pod may reach another one, by which policy or for which that isolates it, on which node
    /// and where in its kernel. Exits with 0 where it may, with 1 where it may not, and with 2 where that
    /// cannot be told.
    Explain(Explain),
}

/// A connection to be explained.
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// Who begins the connection and who is to answer: each NAMESPACE/POD or an address, the second with a
    /// port, as in `shop/web shop/db:5432`. Without a port it is about ping; without a protocol (/udp, /sctp)
    /// about TCP.
    #[arg(value_name = "FROM TO[:PORT][/PROTOCOL]", required = true, num_args = 1..)]
    pub words: Vec<String>,
    /// How to print the answer.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server says no.
    #[error(transparent)]
    Cluster(#[from] crate::Error),
    /// The question makes no sense for this cluster.
    #[error("{0}")]
    Question(String),
}

/// Asks the nodes at both ends. Must be called within a runtime.
///
/// # Errors
/// Where the question cannot be read, the pods are not there, or the API server cannot be asked. A node that
/// does not answer is part of the answer.
pub async fn explain(explain: &Explain) -> Result<Answer, Error> {
    let question = Question::parse(&explain.words).map_err(Error::Question)?;
    let cluster = Cluster::connect(&explain.connection).await?;
    let from = place(&cluster, &question.from).await?;
    let to = place(&cluster, &question.to).await?;
    let mut paths = Vec::new();
    for pair in pairs(&from, &to) {
        paths.push(path(&cluster, &question, (&from, &to), pair).await);
    }
    match paths.is_empty() {
        true => Err(Error::Question(format!(
            "{} and {} have no address family in common",
            question.from, question.to
        ))),
        false => Ok(Answer { paths }),
    }
}

/// Where an end of the connection is.
async fn place(cluster: &Cluster, party: &Party) -> Result<Place, Error> {
    match party {
        Party::Pod(key) => {
            let pod = cluster.get(POD, &key.namespace, &key.name).await?;
            let pod =
                pod.ok_or_else(|| Error::Question(format!("there is no Pod {key}: see kubectl get pods")))?;
            Place::of_pod(&pod).map_err(Error::Question)
        }
        Party::Address(address) => {
            refuse_service(party, &cluster.list(SERVICE, None, "").await?).map_err(Error::Question)?;
            Ok(Place::of_address(*address, &cluster.list(POD, None, "").await?))
        }
    }
}

/// What the nodes at both ends say of a pair of addresses.
async fn path(
    cluster: &Cluster,
    question: &Question,
    (from, to): (&Place, &Place),
    (source, destination): (std::net::IpAddr, std::net::IpAddr),
) -> Path {
    let port = question.port.map(|(protocol, port)| format!("&protocol={protocol}&port={port}"));
    let asked =
        format!("/policy/explain?source={source}&destination={destination}{}", port.unwrap_or_default());
    let mut nodes: Vec<&String> = from.node.iter().chain(&to.node).collect();
    nodes.dedup();
    let mut path = Path {
        from: from.shown(source),
        source,
        to: to.shown(destination),
        destination,
        traffic: traffic(question.port),
        nodes: Vec::new(),
        silent: Vec::new(),
    };
    for node in nodes {
        match cluster.ask_agent(node, &asked).await {
            Ok(report) => path.nodes.push(report),
            Err(problem) => path.silent.push(format!("the agent of Node {node} does not answer: {problem}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};
    use weft_policy::report::{End, Report};

    use super::*;
    use crate::scripted::cluster;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn pod(name: &str, node: &str, address: &str) -> Value {
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"nodeName": node}, "status": {"phase": "Running", "podIP": address}})
    }

    fn report(node: &str, direction: &str, finding: Finding) -> String {
        let end = End {
            direction: direction.to_owned(),
            pod: Some("shop/x".to_owned()),
            finding,
            reason: format!("{finding}: for a reason"),
            policies: Vec::new(),
            rule: None,
            place: None,
        };
        json!(Report { node: node.to_owned(), ends: vec![end], notes: Vec::new() }).to_string()
    }

    fn asked(kubeconfig: &tempfile::NamedTempFile, words: &[&str]) -> Result<Answer, Error> {
        let path = kubeconfig.path().to_str().unwrap();
        let Command::Explain(question) =
            Cli::parse_from([&["weft", "explain", "--kubeconfig", path], words].concat()).command;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(explain(&question))
    }

    #[test]
    fn the_agents_of_both_nodes_are_asked_through_the_api_server() {
        let query = "source=10.0.1.1&destination=10.0.2.1&protocol=tcp&port=80";
        let agent =
            |node: &str| format!("/api/v1/nodes/{node}:10246/proxy/policy/explain?{query}").leak() as &str;
        let services = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}).to_string();
        let pods = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": [pod("db", "node2", "10.0.2.1")]});
        let kubeconfig = cluster(vec![
            ("/api/v1/namespaces/shop/pods/web", pod("web", "node1", "10.0.1.1").to_string()),
            ("/api/v1/namespaces/shop/pods/db", pod("db", "node2", "10.0.2.1").to_string()),
            ("/api/v1/namespaces/shop/pods/away", pod("away", "node3", "10.0.3.1").to_string()),
            ("/api/v1/services", services),
            ("/api/v1/pods", pods.to_string()),
            (agent("node1"), report("node1", "egress", Finding::Allowed)),
            (agent("node2"), report("node2", "ingress", Finding::Denied)),
        ]);
        for to in ["shop/db:80", "10.0.2.1:80"] {
            let answer = asked(&kubeconfig, &[&format!("shop/web -> {to}")]).unwrap();
            assert_eq!(answer.finding(), Finding::Denied);
            let text = answer.to_string();
            assert!(
                text.starts_with("denied: Pod shop/web 10.0.1.1 -> Pod shop/db 10.0.2.1, TCP port 80\n"),
                "{text}"
            );
            assert!(text.contains("Node node1, egress") && text.contains("Node node2, ingress"), "{text}");
        }
        let answer = asked(&kubeconfig, &["shop/away", "192.0.2.1"]).unwrap();
        assert_eq!(answer.finding(), Finding::Unknown);
        assert!(answer.to_string().contains("the agent of Node node3 does not answer"), "{answer}");
        let error = asked(&kubeconfig, &["shop/web", "shop/gone"]).unwrap_err().to_string();
        assert!(error.contains("there is no Pod shop/gone"), "{error}");
    }
}
