//! `weft dns explain`: what a pod gets for a name, and why. The DNS server itself tells the walk; here the
//! pod and the server are found through the API server, and the server is asked through it too, so that it
//! works from anywhere.

pub(crate) mod backends;
mod client;
mod corefile;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;
use thiserror::Error;
use weft_types::NamespacedName;

use crate::cluster::{Cluster, Connection, ENDPOINT_SLICE, NAMESPACES, POD, SERVICE};
use client::Client;
pub(crate) use corefile::{CUSTOM as CUSTOM_CONFIG_MAP, check_config_map};
pub use corefile::{CheckCorefile, Unreadable, Verdict, check as check_corefile};

/// How long the server may take: it may wait for upstreams itself.
const PATIENCE: Duration = Duration::from_secs(20);
/// The Service that leads to the DNS servers.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");
/// Where they say whether they are ready, and explain.
const READY_PORT: u16 = weft_types::well_known::port::DNS_READY;

/// What can be asked of the DNS server.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Tell what a pod gets for a name: each name that its resolver tries, what that leads to, and what is
    /// missing.
    Explain(Explain),
    /// Tell whether DNS servers can do what a Corefile of CoreDNS says: what they do not do, and what has no
    /// effect, with its line. Exits with 0 where they do all of it, with 1 where not, and with 2 where that
    /// cannot be told.
    CheckCorefile(CheckCorefile),
}

/// A question to be explained.
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// The client: a namespace, or a pod as NAMESPACE/POD.
    #[arg(value_name = "NAMESPACE[/POD]", value_parser = from)]
    pub from: From,
    /// The name as the pod asks for it.
    pub name: String,
    /// The type of records.
    #[arg(value_name = "TYPE", default_value = "A")]
    pub record_type: String,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// Ask the weft-dns that says here whether it is ready, without the API server: as on its node,
    /// 127.0.0.1:8181. Nothing is known of the pod then.
    #[arg(long, value_name = "ADDR:PORT")]
    pub server: Option<SocketAddr>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct From {
    namespace: String,
    pod: Option<String>,
}

impl From {
    /// That pod.
    pub(crate) fn of_pod(pod: &NamespacedName) -> From {
        From { namespace: pod.namespace.to_string(), pod: Some(pod.name.to_string()) }
    }
}

/// Why there is no explanation.
#[derive(Debug, Error)]
pub enum Error {
    /// The server cannot be asked.
    #[error(
        "cannot ask weft-dns at {server}: {source}; name another with --server, or none to go through the API server"
    )]
    Ask {
        /// The server.
        server: SocketAddr,
        /// What the network says.
        source: io::Error,
    },
    /// The server does not explain this.
    #[error("weft-dns at {server} refuses: {problem}")]
    Refused {
        /// The server.
        server: SocketAddr,
        /// What it says.
        problem: String,
    },
    /// The API server says no.
    #[error(transparent)]
    Cluster(#[from] crate::Error),
    /// Who asks is not there.
    #[error("there is no {0} in the cluster: nobody asks there; see `kubectl get`")]
    Nobody(String),
    /// Nothing ready is behind the Service.
    #[error(
        "no DNS server is ready behind the Service {0}: no name of the cluster resolves; see `weft status`"
    )]
    NoServer(String),
}

/// The explanation, as lines for people. Must be called within a runtime.
///
/// # Errors
/// The server cannot be asked, or does not know what to make of the question; or nobody is where the question
/// comes from.
pub async fn explain(question: &Explain) -> Result<String, Error> {
    let Explain { name, record_type, .. } = question;
    if let Some(server) = question.server {
        let client = Client::of_namespace(&question.from.namespace);
        return direct(server, &client.path(name, record_type));
    }
    let cluster = Cluster::connect(&question.connection).await?;
    let client = client(&cluster, &question.from).await?;
    let note = client.note.iter().map(|note| format!("{note}\n")).collect::<String>();
    if !client.asks_cluster {
        return Ok(note);
    }
    let server = server(&cluster, client.node.as_deref()).await?;
    let walk = cluster.text(&format!("{server}{}", client.path(name, record_type))).await?;
    let missing = missing(&cluster, &walk).await?;
    Ok(format!("{note}{walk}{missing}"))
}

/// Who asks, as the cluster has it.
async fn client(cluster: &Cluster, From { namespace, pod }: &From) -> Result<Client, Error> {
    let Some(pod) = pod else {
        let found = cluster.get(NAMESPACES, "", namespace).await?;
        return match found {
            Some(_) => Ok(Client::of_namespace(namespace)),
            None => Err(Error::Nobody(format!("namespace {namespace}"))),
        };
    };
    let found = cluster.get(POD, namespace, pod).await?;
    Ok(Client::of_pod(&found.ok_or_else(|| Error::Nobody(format!("pod {namespace}/{pod}")))?))
}

/// The path of the API server behind which a DNS server is: one on that node, if there is one.
async fn server(cluster: &Cluster, node: Option<&str>) -> Result<String, Error> {
    let (namespace, service) = DNS_SERVICE;
    let label = format!("{}={service}", weft_types::well_known::label::SERVICE_NAME);
    let slices = cluster.list(ENDPOINT_SLICE, Some(namespace), &label).await?;
    nearest(&slices, node).ok_or_else(|| Error::NoServer(format!("{namespace}/{service}")))
}

fn nearest(slices: &[Value], node: Option<&str>) -> Option<String> {
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let first = ready.min_by_key(|endpoint| endpoint["nodeName"].as_str() != node || node.is_none())?;
    let (target, namespace) = (&first["targetRef"], DNS_SERVICE.0);
    Some(match (target["kind"] == "Pod", target["name"].as_str(), first["nodeName"].as_str()) {
        (true, Some(pod), _) => format!("/api/v1/namespaces/{namespace}/pods/{pod}:{READY_PORT}/proxy"),
        // A server without a pod is its node's own.
        (_, _, Some(node)) => format!("/api/v1/nodes/{node}:{READY_PORT}/proxy"),
        _ => return None,
    })
}

/// What is missing behind Services that lead nowhere.
async fn missing(cluster: &Cluster, walk: &str) -> Result<String, Error> {
    let mut text = String::new();
    for (namespace, service) in backends::suspects(walk) {
        let Some(object) = cluster.get(SERVICE, &namespace, &service).await? else { continue };
        let selector = backends::selector(&object);
        let pods = match selector.is_empty() {
            true => Vec::new(),
            false => cluster.list(POD, Some(&namespace), &selector).await?,
        };
        text += &backends::verdict(&format!("Service {namespace}/{service}"), &selector, &pods);
        text.push('\n');
    }
    Ok(text)
}

fn direct(server: SocketAddr, path: &str) -> Result<String, Error> {
    let answer = get(server, path).map_err(|source| Error::Ask { server, source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ if body.trim().is_empty() => Err(Error::Refused { server, problem: status.to_owned() }),
        _ => Err(Error::Refused { server, problem: body.trim().to_owned() }),
    }
}

/// HTTP/1.0: the body ends with the connection, in one piece.
fn get(server: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn from(text: &str) -> Result<From, String> {
    let (namespace, pod) = match text.split_once('/') {
        Some((namespace, pod)) => (namespace, Some(pod.to_owned())),
        None => (text, None),
    };
    match weft_types::is_dns_label(namespace) && pod.as_deref() != Some("") {
        true => Ok(From { namespace: namespace.to_owned(), pod }),
        false => Err("expected a namespace, or NAMESPACE/POD".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::scripted::cluster;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    /// A server that answers one request, and what it was asked.
    fn ask(answer: &'static str, arguments: &[&str]) -> (Result<String, Error>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().to_string();
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            stream.write_all(answer.as_bytes()).unwrap();
            request[0].clone()
        });
        let Command::Explain(question) =
            Cli::parse_from([&["weft", "explain", "--server", &server], arguments].concat()).command
        else {
            panic!("it is explain")
        };
        (run(&question), asked.join().unwrap())
    }

    fn run(question: &Explain) -> Result<String, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(explain(question))
    }

    fn through(kubeconfig: &tempfile::NamedTempFile, arguments: &[&str]) -> Result<String, Error> {
        let path = kubeconfig.path().to_str().unwrap();
        let Command::Explain(question) =
            Cli::parse_from([&["weft", "explain", "--kubeconfig", path], arguments].concat()).command
        else {
            panic!("it is explain")
        };
        run(&question)
    }

    fn list(items: Value) -> String {
        json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).to_string()
    }

    const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices";

    #[test]
    fn the_pod_and_a_server_on_its_node_are_found_through_the_api_server() {
        let endpoint = |node: &str, pod: &str, ready: bool| {
            json!({"addresses": ["10.244.0.2"], "nodeName": node, "conditions": {"ready": ready},
                "targetRef": {"kind": "Pod", "name": pod, "namespace": "kube-system"}})
        };
        let slice = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": {"name": "kube-dns-1"},
            "endpoints": [endpoint("node1", "dns-a", true), endpoint("node2", "dns-b", true), endpoint("node3", "dns-c", false)]});
        let spec = json!({"nodeName": "node2", "dnsPolicy": "ClusterFirst", "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}});
        let object = |kind: &str, name: &str, rest: Value| {
            let mut object =
                json!({"kind": kind, "apiVersion": "v1", "metadata": {"name": name, "namespace": "shop"}});
            object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            object
        };
        let walk = "1. db.shop.svc.cluster.local. NXDOMAIN\n     the headless service has no endpoints: x\n";
        let host = object("Pod", "agent", json!({"spec": {"hostNetwork": true}})).to_string();
        let kubeconfig = cluster(vec![
            ("/api/v1/namespaces/shop/pods/web-0", object("Pod", "web-0", json!({"spec": spec})).to_string()),
            ("/api/v1/namespaces/shop/pods/agent", host),
            ("/api/v1/namespaces/shop", object("Namespace", "shop", json!({})).to_string()),
            (SLICES, list(json!([slice]))),
            (
                "/api/v1/namespaces/kube-system/pods/dns-b:8181/proxy/explain?namespace=shop&name=db&type=A&ndots=2",
                walk.to_owned(),
            ),
            (
                "/api/v1/namespaces/kube-system/pods/dns-a:8181/proxy/explain?namespace=shop&name=db&type=A",
                "any".to_owned(),
            ),
            (
                "/api/v1/namespaces/shop/services/db",
                object("Service", "db", json!({"spec": {"selector": {"app": "db"}}})).to_string(),
            ),
            ("/api/v1/namespaces/shop/pods", list(json!([]))),
        ]);
        let told = through(&kubeconfig, &["shop/web-0", "db"]).unwrap();
        assert_eq!(
            told,
            format!("{walk}Service shop/db: its selector app=db matches no pod of the namespace\n")
        );
        assert_eq!(through(&kubeconfig, &["shop", "db"]).unwrap(), "any", "any server, for a namespace");
        assert!(through(&kubeconfig, &["shop/agent", "db"]).unwrap().contains("ClusterFirstWithHostNet"));
        for (from, problem) in [("shop/gone", "no pod shop/gone"), ("nowhere", "no namespace nowhere")] {
            let error = through(&kubeconfig, &[from, "db"]).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_server_without_a_pod_is_asked_through_its_node_and_none_is_said_so() {
        let endpoint =
            |ready: bool| json!([{"endpoints": [{"nodeName": "node1", "conditions": {"ready": ready}}]}]);
        assert_eq!(
            nearest(endpoint(true).as_array().unwrap(), Some("node2")).as_deref(),
            Some("/api/v1/nodes/node1:8181/proxy")
        );
        assert_eq!(nearest(endpoint(false).as_array().unwrap(), None), None);
    }

    #[test]
    fn the_server_is_asked_on_behalf_of_the_pods_namespace() {
        let (told, asked) = ask("HTTP/1.0 200 OK\r\n\r\n1. a. NXDOMAIN\n", &["shop/web-0", "a&b.svc", "srv"]);
        assert_eq!(told.unwrap(), "1. a. NXDOMAIN\n");
        assert_eq!(asked, "GET /explain?namespace=shop&name=a%26b.svc&type=srv HTTP/1.0");
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let (told, _) = ask("HTTP/1.0 400 Bad Request\r\n\r\nX is no type of records\n", &["shop", "a", "x"]);
        assert!(told.unwrap_err().to_string().ends_with("refuses: X is no type of records"));
    }

    #[test]
    fn a_server_that_is_not_there_is_named_with_what_to_do() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let Command::Explain(question) =
            Cli::parse_from(["weft", "explain", "--server", &server, "shop", "a"]).command
        else {
            panic!("it is explain")
        };
        let error = run(&question).unwrap_err().to_string();
        assert!(error.contains(&server) && error.contains("--server"), "{error}");
        assert!(Cli::try_parse_from(["weft", "explain", "No_Namespace", "a"]).is_err());
        assert!(Cli::try_parse_from(["weft", "explain", "shop/", "a"]).is_err());
    }
}
