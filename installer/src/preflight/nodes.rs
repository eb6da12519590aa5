//! `weft preflight --all-nodes`: the same checks on every node of a cluster, by a pod on each, so that nobody
//! needs the program there. The pods' logs are the way back. Then the nodes are compared with each other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use nix::unistd::chroot;
use serde::Serialize;
use serde_json::Value;

use super::checks::between::Port;
use super::checks::{self, between_nodes, compare};
use super::{Between, Expectations, Options, Report, Verdict, between, check, probe};
use crate::cluster::{Cluster, DAEMON_SET, NAMESPACES, NODE, POD, name, objects};
use crate::finding::Severity;
use crate::rollout::Progress;
use crate::{Result, wait};

const TEMPLATE: &str = include_str!("nodes.yaml");
/// The namespace that is made and deleted.
const NAMESPACE: &str = "weft-preflight";
/// How long its removal may take.
const REMOVAL: Duration = Duration::from_secs(60);

/// What a pod is told.
#[derive(Args, Clone, Debug)]
pub struct Pod {
    /// Where the node's files are.
    #[arg(long, value_name = "DIR")]
    host_root: PathBuf,
    /// What is expected of the node.
    #[command(flatten)]
    expectations: Expectations,
    /// All nodes with their addresses: node1=172.30.0.11. They are asked whether they hear this one.
    #[arg(long, value_name = "NODE=ADDRESS", value_delimiter = ',', value_parser = peer)]
    peers: Vec<(String, IpAddr)>,
    /// For how many seconds they are asked.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
}

fn peer(text: &str) -> Result<(String, IpAddr), String> {
    let (node, address) = text.split_once('=').ok_or("expected NODE=ADDRESS")?;
    Ok((node.to_owned(), address.parse().map_err(|_| format!("{address:?} is no address"))?))
}

/// The reports on all nodes, by the names of their Nodes.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Reports(BTreeMap<String, Report>);

/// Has a pod on every node look at it, and removes the pods again, whatever came of it.
///
/// # Errors
/// [`crate::Error::Timeout`] with the nodes that no report came from.
pub async fn run(options: &Options) -> Result<Reports> {
    let cluster = Cluster::connect(&options.nodes.connection).await?;
    let peers = addresses(&cluster.list(NODE, None, "").await?);
    let objects = rendered(options, &peers)?;
    let gathered = gather(&cluster, &objects, Duration::from_secs(options.nodes.timeout)).await;
    if let Some(namespace) = objects.first() {
        cluster.delete(namespace).await?;
    }
    let gone = || async {
        let held = cluster.get(NAMESPACES, "", NAMESPACE).await?;
        Ok(Progress { is_done: held.is_none(), text: format!("removing the namespace {NAMESPACE}") })
    };
    let removed = wait::until("the namespace of the checks did not go", REMOVAL, gone).await;
    let mut reports = gathered?;
    removed?;
    compare_all(&mut reports, &between_nodes(&options.expectations));
    Ok(Reports(reports))
}

/// The first address of each Node, as the pods are told: `node1=172.30.0.11`.
fn addresses(nodes: &[Value]) -> Vec<String> {
    let address = |node: &Value| {
        let mut all = node["status"]["addresses"].as_array()?.iter();
        let internal = all.find(|address| address["type"] == "InternalIP")?;
        Some(format!("{}={}", name(node), internal["address"].as_str()?))
    };
    nodes.iter().filter_map(address).collect()
}

/// What runs in a pod on a node: looks at it and at the files below `host_root`, prints the report as one
/// line, and stays until it is deleted.
///
/// # Errors
/// Where the node cannot be looked at.
pub fn run_in_pod(pod: &Pod) -> Result<(), super::Error> {
    let Pod { host_root, expectations, peers, patience } = pod;
    chroot(host_root).map_err(|errno| super::Error::Host(errno.into()))?;
    let facts = probe::machine(&expectations.cni_conf_dir)?;
    let ports: Vec<_> = between_nodes(expectations).into_iter().map(|(it, port, _)| (it, port)).collect();
    let between = between::probe(&ports, peers, Duration::from_secs(*patience));
    let report = Report { between, ..check(&facts, expectations, &[]) };
    let report = serde_json::to_string(&report).unwrap_or_default();
    writeln!(io::stdout(), "{report}").map_err(super::Error::Host)?;
    loop {
        thread::park();
    }
}

fn rendered(options: &Options, peers: &[String]) -> Result<Vec<Value>> {
    let text = TEMPLATE
        .replace("{{image}}", &options.nodes.image)
        .replace("{{program}}", &options.nodes.program)
        .replace("{{host_root}}", &options.nodes.host_root.display().to_string());
    let mut objects = objects(&text)?;
    for object in &mut objects {
        if let Some(command) = object.pointer_mut("/spec/template/spec/containers/0/command")
            && let Some(command) = command.as_array_mut()
        {
            command.extend(options.expectations.flags().into_iter().map(Value::from));
            command
                .extend((!peers.is_empty()).then(|| format!("--peers={}", peers.join(","))).map(Value::from));
        }
    }
    Ok(objects)
}

async fn gather(
    cluster: &Cluster,
    objects: &[Value],
    patience: Duration,
) -> Result<BTreeMap<String, Report>> {
    for object in objects {
        cluster.apply(object).await?;
    }
    let seen = RefCell::new(BTreeMap::new());
    let look = || async {
        let set = cluster.get(DAEMON_SET, NAMESPACE, NAMESPACE).await?.unwrap_or_default();
        let pods = cluster.list(POD, Some(NAMESPACE), "").await?;
        for pod in &pods {
            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            if !node.is_empty()
                && !seen.borrow().contains_key(node)
                && let Some(report) = report(cluster, name(pod)).await
            {
                seen.borrow_mut().insert(node.to_owned(), report);
            }
        }
        Ok(progress(&set, &pods, &seen.borrow()))
    };
    wait::until("not every node was checked", patience, look).await?;
    Ok(seen.into_inner())
}

/// What a pod printed; none until it did. A runtime's log may hold more lines than that.
async fn report(cluster: &Cluster, pod: &str) -> Option<Report> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/log?container=preflight");
    let log = cluster.text(&path).await.ok()?;
    log.lines().find_map(|line| serde_json::from_str(line).ok())
}

/// How many nodes have reported, and what keeps the first of the others.
fn progress(set: &Value, pods: &[Value], seen: &BTreeMap<String, Report>) -> Progress {
    let wanted = set["status"]["desiredNumberScheduled"].as_u64().unwrap_or_default();
    let text = format!("nodes checked {}/{wanted}", seen.len());
    let waiting = pods.iter().find_map(|pod| {
        let node = pod["spec"]["nodeName"].as_str().filter(|node| !seen.contains_key(*node))?;
        let reason = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
        Some(format!(" ({node}: {})", reason.as_str().unwrap_or("no report yet")))
    });
    Progress { is_done: wanted > 0 && seen.len() as u64 >= wanted, text: text + &waiting.unwrap_or_default() }
}

/// Finds machines that are copies of another, which no machine sees alone.
/// And what they heard of each other at these ports.
fn compare_all(reports: &mut BTreeMap<String, Report>, ports: &[Port]) {
    let heard: BTreeMap<String, Between> =
        reports.iter().map(|(node, report)| (node.clone(), report.between.clone())).collect();
    let identities: Vec<_> =
        reports.iter().map(|(node, report)| (node.clone(), report.identity.clone())).collect();
    for (node, report) in reports {
        let others = identities.iter().filter(|(other, _)| other != node);
        compare(report, &others.map(|(_, identity)| identity.clone()).collect::<Vec<_>>());
        report.checks.extend(checks::between::checks(&report.between, &heard, ports));
    }
}

impl Reports {
    /// Whether Weft would work on every node.
    pub fn passes(&self) -> bool {
        self.0.values().all(Report::passes)
    }

    /// One JSON object: the report of each node by the Node's name.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }
}

impl fmt::Display for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (node, report) in &self.0 {
            let passed = report.checks.iter().filter(|check| check.verdict == Verdict::Pass).count();
            writeln!(f, "{node}: {passed} of {} checks pass", report.checks.len())?;
            for finding in report.checks.iter().filter_map(|check| check.finding(node)) {
                let word = if finding.severity == Severity::Error { Verdict::Fail } else { Verdict::Warn };
                writeln!(f, "  {word}  {}", finding.what)?;
                writeln!(f, "        {}", finding.fix)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::{Check, Identity};
    use serde_json::json;

    fn report(hostname: &str, machine_id: &str) -> Report {
        let identity = Identity {
            hostname: hostname.to_owned(),
            machine_id: machine_id.to_owned(),
            ..Identity::default()
        };
        Report {
            identity,
            checks: vec![Check::pass("privileges", "root"), Check::pass("hostname", hostname)],
            between: Between::default(),
        }
    }

    #[test]
    fn copies_of_a_machine_are_found_and_named_on_both_nodes() {
        let mut reports = BTreeMap::from([
            ("node1".to_owned(), report("same", "1")),
            ("node2".to_owned(), report("same", "2")),
            ("node3".to_owned(), report("node3", "3")),
        ]);
        compare_all(&mut reports, &[]);
        let reports = Reports(reports);
        assert!(!reports.passes());
        let text = reports.to_string();
        assert_eq!(text.matches("FAIL  hostname: another node is called same too").count(), 2, "{text}");
        assert!(text.contains("node3: 4 of 4 checks pass"), "{text}");
    }

    #[test]
    fn a_node_whose_pod_does_not_start_is_named_with_the_reason() {
        let set = json!({"status": {"desiredNumberScheduled": 2}});
        let pod = |node: &str| {
            json!({"spec": {"nodeName": node}, "status": {"containerStatuses": [
            {"state": {"waiting": {"reason": "ErrImagePull"}}}]}})
        };
        let seen = BTreeMap::from([("node1".to_owned(), report("node1", ""))]);
        let waiting = progress(&set, &[pod("node1"), pod("node2")], &seen);
        assert_eq!(
            waiting,
            Progress { is_done: false, text: "nodes checked 1/2 (node2: ErrImagePull)".to_owned() }
        );
        let both =
            BTreeMap::from([("node1".to_owned(), report("a", "")), ("node2".to_owned(), report("b", ""))]);
        assert!(progress(&set, &[], &both).is_done);
        assert!(!progress(&json!({}), &[], &BTreeMap::new()).is_done, "no node has it yet");
    }

    #[test]
    fn what_is_expected_of_the_nodes_reaches_the_pods() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            options: Options,
        }
        let flags = [
            "weft",
            "--all-nodes",
            "--cluster-cidr=10.0.0.0/16,fd00::/48",
            "--node-local-dns",
            "--vxlan-port=4789",
        ];
        let options = <Cli as clap::Parser>::parse_from(flags).options;
        let objects = rendered(&options, &["node1=172.30.0.11".to_owned()]).unwrap();
        assert!(objects[1..].iter().all(|object| object["metadata"]["namespace"] == NAMESPACE));
        let command = &objects[1]["spec"]["template"]["spec"]["containers"][0]["command"];
        let words: Vec<&str> =
            command.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        let (peers, words) = words.split_last().unwrap();
        assert_eq!(*peers, "--peers=node1=172.30.0.11");
        let again = <Cli as clap::Parser>::parse_from([&["weft"], &words[3..]].concat()).options.expectations;
        assert_eq!(again.flags(), options.expectations.flags());
        assert!(words.contains(&"--node-local-dns") && words.contains(&"--vxlan-port=4789"), "{words:?}");
    }
}
