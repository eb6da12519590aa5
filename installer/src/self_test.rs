//! `weft self-test`: whether pods of every node reach Services by their names, and each other. A pod on each
//! node serves; each of its other containers is a check, and is ready only once all that it asks have
//! answered. So the DaemonSet's own count is the result, and a pod's status names the check. What such a pod
//! does is in [`pod`].

pub mod pod;

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::cluster::{Cluster, Connection, DAEMON_SET, NAMESPACES, POD, name, objects};
use crate::finding::{Finding, Id};
use crate::rollout::{self, Progress};
use crate::{Result, wait};

const TEMPLATE: &str = include_str!("self-test.yaml");
/// The namespace that the self-test makes and deletes.
const NAMESPACE: &str = "weft-self-test";
/// The checks: their containers' names, and what their pods ask, `{{cluster_domain}}` being filled in.
const CHECKS: [(&str, &[&str]); 4] = [
    ("service", &["weft-self-test.weft-self-test.svc.{{cluster_domain}}:80"]),
    ("short-name", &["weft-self-test:80"]),
    ("udp", &["--udp", "weft-self-test:80"]),
    ("every-pod", &["pods:8093"]),
];
/// How long its removal may take.
const REMOVAL: Duration = Duration::from_secs(60);

/// Runs the self-test alone.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// What its pods run.
    #[command(flatten)]
    pub test: SelfTest,
    /// How many seconds to wait for its pods.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

/// What the self-test's pods run.
#[derive(Args, Clone, Debug)]
pub struct SelfTest {
    /// The image that holds the weft command.
    #[arg(long, default_value = crate::manifests::IMAGE)]
    pub image: String,
    /// Where the weft command is in the image.
    #[arg(long, value_name = "PATH", default_value = "/weft")]
    pub program: String,
    /// The DNS zone of the cluster.
    #[arg(long, default_value = "cluster.local", value_name = "ZONE")]
    pub cluster_domain: String,
}

impl Default for SelfTest {
    fn default() -> SelfTest {
        let text = str::to_owned;
        SelfTest {
            image: text(crate::manifests::IMAGE),
            program: text("/weft"),
            cluster_domain: text("cluster.local"),
        }
    }
}

/// Connects and runs.
///
/// # Errors
/// As [`run`].
pub async fn command(options: &Options) -> Result<()> {
    let cluster = Cluster::connect(&options.connection).await?;
    run(&cluster, &options.test, Duration::from_secs(options.timeout)).await
}

/// Runs the self-test and removes it again, whatever came of it.
///
/// # Errors
/// [`crate::Error::Timeout`] with the nodes whose pods got no answer.
pub(crate) async fn run(cluster: &Cluster, test: &SelfTest, patience: Duration) -> Result<()> {
    let objects = rendered(test)?;
    let tested = attempt(cluster, &objects, patience).await;
    // All the others are in the namespace, which is the first.
    let removed = match objects.first() {
        Some(namespace) => remove(cluster, namespace).await,
        None => Ok(()),
    };
    tested.and(removed)?;
    eprintln!(
        "self-test passed: pods of every node reach a Service by its names, over TCP and UDP, and every other pod"
    );
    Ok(())
}

/// Waits until it is gone: in a namespace that is about to go nothing can be made.
async fn remove(cluster: &Cluster, namespace: &Value) -> Result<()> {
    cluster.delete(namespace).await?;
    let gone = || async {
        let held = cluster.get(NAMESPACES, "", NAMESPACE).await?;
        Ok(Progress { is_done: held.is_none(), text: format!("removing the namespace {NAMESPACE}") })
    };
    wait::until("the self-test's namespace did not go", REMOVAL, gone).await
}

async fn attempt(cluster: &Cluster, objects: &[Value], patience: Duration) -> Result<()> {
    for object in objects {
        cluster.apply(object).await?;
    }
    wait::until("the self-test did not pass", patience, || progress(cluster)).await
}

async fn progress(cluster: &Cluster) -> Result<Progress> {
    let set = cluster.get(DAEMON_SET, NAMESPACE, NAMESPACE).await?.unwrap_or_default();
    let pods = cluster.list(POD, Some(NAMESPACE), "").await?;
    Ok(progress_of(&set, &pods))
}

/// The DaemonSet's count, and the nodes whose pods are not there yet.
fn progress_of(set: &Value, pods: &[Value]) -> Progress {
    let Progress { is_done, text } = rollout::daemon_set(set);
    let waiting = pods.iter().filter(|pod| !rollout::is_ready(pod));
    let mut waiting: Vec<String> = waiting.map(unanswered).map(|finding| place(&finding)).collect();
    waiting.sort_unstable();
    match waiting.is_empty() {
        true => Progress { is_done, text },
        false => {
            Progress { is_done: false, text: format!("{text}, no answer yet on {}", waiting.join(", ")) }
        }
    }
}

/// Where a pod runs, and its checks that have no answer, as far as its kubelet tells.
fn unanswered(pod: &Value) -> Finding {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_else(|| name(pod));
    let statuses = pod["status"]["containerStatuses"].as_array();
    let waiting = statuses.into_iter().flatten().filter(|status| status["ready"] != true);
    let checks: Vec<&str> = waiting.filter_map(|status| status["name"].as_str()).collect();
    Finding::error(Id::SelfTestFailed, node, checks.join(", ")).fix("weft doctor")
}

/// `node2 (udp, every-pod)`
fn place(Finding { subject, what, .. }: &Finding) -> String {
    if what.is_empty() { subject.clone() } else { format!("{subject} ({what})") }
}

/// The objects of the test, with a container for each check.
fn rendered(test: &SelfTest) -> Result<Vec<Value>> {
    let fill = |text: &str| text.replace("{{cluster_domain}}", &test.cluster_domain);
    let text = TEMPLATE.replace("{{image}}", &test.image).replace("{{program}}", &test.program);
    let mut objects = objects(&text)?;
    let containers = objects.iter_mut().find_map(|object| {
        object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut)
    });
    if let Some(containers) = containers
        && let Some(check) = containers.pop()
    {
        containers.extend(CHECKS.map(|(name, question)| {
            let mut container = check.clone();
            container["name"] = name.into();
            if let Some(command) = container["readinessProbe"]["exec"]["command"].as_array_mut() {
                command.extend(question.iter().map(|word| Value::from(fill(word))));
            }
            container
        }));
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_without_an_answer_are_named() {
        let set = json!({"metadata": {"name": "weft-self-test"}, "status": {
            "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberReady": 1}});
        let pod = |node: &str, ready: &str| json!({"spec": {"nodeName": node}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let seen = progress_of(&set, &[pod("node1", "True"), pod("node2", "False")]);
        assert_eq!(seen.text, "weft-self-test 1/2, no answer yet on node2");
        let mut failing = pod("node2", "False");
        failing["status"]["containerStatuses"] = json!([{"name": "serve", "ready": true}, {"name": "udp", "ready": false}, {"name": "every-pod", "ready": false}]);
        let seen = progress_of(&set, &[pod("node1", "True"), failing]);
        assert_eq!(seen.text, "weft-self-test 1/2, no answer yet on node2 (udp, every-pod)");
        assert!(!seen.is_done);
    }

    #[test]
    fn everything_is_in_the_namespace_that_goes_afterwards() {
        let objects = rendered(&SelfTest::default()).unwrap();
        assert_eq!((&objects[0]["kind"], name(&objects[0])), (&json!("Namespace"), NAMESPACE));
        assert!(objects[1..].iter().all(|object| object["metadata"]["namespace"] == NAMESPACE));
    }

    #[test]
    fn every_check_is_a_container_that_asks() {
        let test = SelfTest { cluster_domain: "lab.example".to_owned(), ..SelfTest::default() };
        let objects = rendered(&test).unwrap();
        let containers =
            objects.last().unwrap()["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        let names: Vec<&str> = containers.iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["serve", "service", "short-name", "udp", "every-pod"]);
        let asked = &containers[1]["readinessProbe"]["exec"]["command"];
        assert_eq!(
            *asked,
            json!(["/weft", "self-test-pod", "ask", "weft-self-test.weft-self-test.svc.lab.example:80"])
        );
        assert_eq!(containers[4]["securityContext"]["runAsNonRoot"], true);
    }

    /// <https://kubernetes.io/docs/concepts/security/pod-security-standards/>, "Restricted"
    #[test]
    fn its_pods_run_where_only_restricted_ones_may() {
        let objects = rendered(&SelfTest::default()).unwrap();
        let pod = &objects.last().unwrap()["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for container in pod["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(
                (&context["runAsNonRoot"], &context["allowPrivilegeEscalation"]),
                (&json!(true), &json!(false))
            );
            assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        }
        assert!(pod["hostNetwork"].is_null() && pod["volumes"].is_null());
    }
}
