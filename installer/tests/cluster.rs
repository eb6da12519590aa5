//! `weft install`, `status`, `self-test` and `uninstall` against the lab's API server. The nodes are played:
//! a kubelet that makes every pod of a node ready, but for nodes that are to be down.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config as ClientConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use weft_lab::apiserver::{ApiServer, Config};
use weft_lab::state::LabDir;

/// A control plane with nodes that are played.
struct World {
    runtime: Runtime,
    client: Client,
    home: TempDir,
    kubelet: Arc<Kubelet>,
    _server: ApiServer,
}

/// What the played kubelet does, and what it has seen.
#[derive(Default)]
struct Kubelet {
    /// Make no pod of the second node ready.
    is_down: AtomicBool,
    /// The pods that it has seen, in order, by the beginnings of their names.
    seen: Mutex<Vec<String>>,
    /// What pods of `weft-preflight` print, by their nodes.
    reports: Mutex<BTreeMap<String, Value>>,
    /// Where pods' logs lie.
    logs: Mutex<Option<LabDir>>,
}

fn api(client: &Client, group: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

impl Kubelet {
    async fn play(self: Arc<Kubelet>, client: Client) {
        loop {
            for pod in api(&client, "", "Pod", None).list(&ListParams::default()).await.unwrap() {
                self.attend(&client, &serde_json::to_value(&pod).unwrap()).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn note(&self, owner: String) {
        let mut seen = self.seen.lock().unwrap();
        if !seen.contains(&owner) {
            seen.push(owner);
        }
    }

    async fn attend(&self, client: &Client, pod: &Value) {
        let (name, namespace) =
            (pod["metadata"]["name"].as_str().unwrap(), pod["metadata"]["namespace"].as_str());
        let owner = pod["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default().to_owned();
        let pods = api(client, "", "Pod", namespace);
        if pod["metadata"]["deletionTimestamp"].is_string() {
            let _ = pods.delete(name, &DeleteParams::default().grace_period(0)).await;
            return;
        }
        self.note(owner);
        let is_down = self.is_down.load(Ordering::Relaxed) && pod["spec"]["nodeName"] == "node2";
        if pod["status"]["phase"] == "Running" || is_down {
            return;
        }
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-08-01T00:00:00Z"});
        let status = json!({"status": {"phase": "Running", "podIP": "10.244.0.9", "conditions": [ready]}});
        self.print(pod);
        // It may be gone meanwhile.
        let _ = pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
    }
}

impl Kubelet {
    fn print(&self, pod: &Value) {
        let (node, uid) = (&pod["spec"]["nodeName"], &pod["metadata"]["uid"]);
        let (reports, logs) = (self.reports.lock().unwrap(), self.logs.lock().unwrap());
        if let (Some(report), Some(logs)) = (reports.get(node.as_str().unwrap_or_default()), logs.as_ref()) {
            let dir = logs.pod(uid.as_str().unwrap());
            std::fs::create_dir_all(dir.root()).unwrap();
            std::fs::write(dir.log("preflight"), format!("a line of somebody else\n{report}\n")).unwrap();
        }
    }
}

impl World {
    fn new() -> World {
        let runtime = Runtime::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let guard = runtime.enter();
        let home = tempfile::tempdir().unwrap();
        let logs = LabDir::new(home.path(), &"played".parse().unwrap());
        let config = Config { pods: Some(logs.clone()), ..Config::default() };
        let server = ApiServer::start(config, vec![listener]).unwrap();
        let client =
            Client::try_from(ClientConfig::new(format!("http://{address}").parse().unwrap())).unwrap();
        drop(guard);
        let kubeconfig = format!(
            "{{apiVersion: v1, kind: Config, current-context: lab, clusters: [{{name: lab, cluster: {{server: 'http://{address}'}}}}], \
             contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}], users: [{{name: lab, user: {{}}}}]}}"
        );
        std::fs::write(home.path().join("kubeconfig"), kubeconfig).unwrap();
        let kubelet = Arc::new(Kubelet::default());
        kubelet.logs.lock().unwrap().replace(logs);
        runtime.spawn(Arc::clone(&kubelet).play(client.clone()));
        let world = World { runtime, client, home, kubelet, _server: server };
        for node in ["node1", "node2"] {
            let condition = json!({"type": "Ready", "status": "True"});
            world.create(
                "",
                "Node",
                None,
                json!({"metadata": {"name": node, "labels": {"kubernetes.io/os": "linux"}}, "status": {"conditions": [condition]}}),
            );
        }
        world
    }

    fn create(&self, group: &str, kind: &str, namespace: Option<&str>, mut object: Value) {
        object["apiVersion"] = json!(if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") });
        object["kind"] = json!(kind);
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let api = api(&self.client, group, kind, namespace);
        self.runtime.block_on(api.create(&PostParams::default(), &object)).unwrap();
    }

    fn names(&self, group: &str, kind: &str, namespace: Option<&str>) -> Vec<String> {
        let list = self
            .runtime
            .block_on(api(&self.client, group, kind, namespace).list(&ListParams::default()))
            .unwrap();
        list.items.into_iter().filter_map(|object| object.metadata.name).collect()
    }

    /// Every object that an installation makes, with its version.
    fn versions(&self) -> Vec<String> {
        let (rbac, system) = ("rbac.authorization.k8s.io", Some("kube-system"));
        let kinds = [
            ("apps", "DaemonSet", system),
            ("apps", "Deployment", system),
            ("", "Pod", system),
            ("", "Service", system),
            ("", "ServiceAccount", system),
            (rbac, "Role", system),
            (rbac, "RoleBinding", system),
            (rbac, "ClusterRole", None),
            (rbac, "ClusterRoleBinding", None),
        ];
        let of = |(group, kind, namespace): (&str, &str, Option<&str>)| {
            let api = api(&self.client, group, kind, namespace);
            self.runtime.block_on(api.list(&ListParams::default())).unwrap().items
        };
        let metadata = kinds.into_iter().flat_map(of).map(|object| object.metadata);
        metadata.map(|data| format!("{} {}", data.name.unwrap(), data.resource_version.unwrap())).collect()
    }

    fn weft(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command.args(arguments).env("KUBECONFIG", self.home.path().join("kubeconfig"));
        command.output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.weft(arguments);
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{text}");
        text
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.weft(arguments);
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{text}");
        text
    }
}

const INSTALL: [&str; 4] = ["install", "--api-host=192.0.2.1", "--timeout=20", "--image=localhost/weft:test"];

#[test]
fn a_cluster_gets_weft_twice_and_loses_it_twice() {
    let world = World::new();
    let text = world.succeeds(&INSTALL);
    assert!(text.contains("applied DaemonSet kube-system/weft-agent"), "{text}");
    assert!(text.contains("weft-agent 2/2, weft-proxy 2/2, weft-dns 2/2, nodes ready 2/2"), "{text}");
    assert!(text.contains("self-test passed"), "{text}");
    assert!(!world.names("", "Namespace", None).contains(&"weft-self-test".to_owned()));

    let status = world.succeeds(&["status"]);
    let row = status.lines().find(|line| line.starts_with("node2")).unwrap();
    assert_eq!(row.split_whitespace().skip(3).collect::<Vec<_>>(), ["ready", "ready", "test", "-"]);
    assert!(status.contains("DNS: weft-dns 2/2 ready"), "{status}");

    let before = world.versions();
    assert!(before.len() > 20, "{before:?}");
    world.succeeds(&INSTALL);
    assert_eq!(world.versions(), before, "the same again changes no object and starts no pod anew");
    world.succeeds(&[&INSTALL[..4], &["--cluster-cidr=10.0.0.0/8"]].concat());
    let after = world.versions();
    let changed: Vec<&String> = before.iter().filter(|object| !after.contains(object)).collect();
    let is_told = |object: &&&String| object.contains("weft-agent") || object.contains("weft-proxy");
    assert!(!changed.is_empty() && changed.iter().all(|object| is_told(&object)), "{changed:?}");

    world.kubelet.seen.lock().unwrap().clear();
    // What agents wrote, and what somebody else did.
    let lease = json!({"metadata": {"name": "weft-load-balancers"}, "spec": {}});
    world.create("coordination.k8s.io", "Lease", Some("kube-system"), lease);
    let written = json!({"weft.internal/wireguard-public-key": "x", "example.com/theirs": "y"});
    let patch = Patch::Merge(json!({"metadata": {"annotations": written}}));
    let nodes = api(&world.client, "", "Node", None);
    world.runtime.block_on(nodes.patch("node1", &PatchParams::default(), &patch)).unwrap();
    let text = world.succeeds(&["uninstall", "--timeout=20"]);
    let position = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in {text}"));
    let order = [
        "deleted DaemonSet kube-system/weft-agent",
        "pods of agent,proxy,node-dns: 0 left",
        "deleted Deployment kube-system/weft-dns",
        "weft-cleanup 2/2",
        "deleted ClusterRole weft-agent",
        "deleted Lease kube-system/weft-load-balancers",
        "took the annotations weft.internal/wireguard-public-key from Node node1",
    ];
    assert!(order.map(position).is_sorted(), "{text}");
    let node = world.runtime.block_on(nodes.get("node1")).unwrap();
    let left: Vec<String> = node.metadata.annotations.unwrap_or_default().into_keys().collect();
    assert_eq!(left, ["example.com/theirs"]);
    assert!(world.kubelet.seen.lock().unwrap().contains(&"weft-cleanup".to_owned()));
    for (group, kind) in [("apps", "DaemonSet"), ("apps", "Deployment"), ("", "Pod"), ("", "Service")] {
        assert_eq!(world.names(group, kind, Some("kube-system")), Vec::<String>::new(), "{kind}");
    }
    let roles = world.names("rbac.authorization.k8s.io", "ClusterRole", None);
    assert!(!roles.iter().any(|role| role.starts_with("weft-")), "{roles:?}");
    world.succeeds(&["uninstall", "--timeout=20"]);
    assert!(world.fails(&["status"]).contains("missing"));
}

fn image(world: &World, kind: &str, name: &str) -> String {
    let object =
        world.runtime.block_on(api(&world.client, "apps", kind, Some("kube-system")).get(name)).unwrap();
    object.data["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
}

/// While a proxy is being replaced its node sends to DNS servers that are about to stop.
#[test]
fn an_upgrade_replaces_agents_then_proxies_then_dns_servers_each_when_the_one_before_is_done() {
    let world = World::new();
    let text = world.succeeds(&[&INSTALL[..], &["--node-local-dns", "--skip-self-test"]].concat());
    let position = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in {text}"));
    let order = [
        "applied DaemonSet kube-system/weft-agent",
        "weft-agent 2/2",
        "applied DaemonSet kube-system/weft-proxy",
        "weft-proxy 2/2",
        "applied Deployment kube-system/weft-dns",
        "weft-dns 2/2",
        "applied DaemonSet kube-system/weft-dns-node",
        "weft-dns-node 2/2",
    ];
    assert!(order.map(position).is_sorted(), "{text}");

    world.kubelet.is_down.store(true, Ordering::Relaxed);
    let next = ["install", "--api-host=192.0.2.1", "--image=localhost/weft:next", "--skip-self-test"];
    let text = world.fails(&[&next[..], &["--timeout=2"]].concat());
    assert!(
        text.contains("the agents did not get ready (proxies and DNS servers are as they were)"),
        "{text}"
    );
    assert_eq!(image(&world, "DaemonSet", "weft-agent"), "localhost/weft:next");
    assert_eq!(image(&world, "DaemonSet", "weft-proxy"), "localhost/weft:test");
    assert_eq!(image(&world, "Deployment", "weft-dns"), "localhost/weft:test");

    // A machine that is off does not keep the others from the next version, but is not forgotten.
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    let (nodes, patch) = (api(&world.client, "", "Node", None), Patch::Merge(status));
    world.runtime.block_on(nodes.patch_status("node2", &PatchParams::default(), &patch)).unwrap();
    let text = world.fails(&[&next[..], &["--timeout=5"]].concat());
    assert_eq!(image(&world, "Deployment", "weft-dns"), "localhost/weft:next", "{text}");
}

#[test]
fn what_is_not_asked_for_any_more_goes_and_is_announced() {
    let world = World::new();
    world.succeeds(&[&INSTALL[..], &["--node-local-dns", "--skip-self-test"]].concat());
    assert!(world.succeeds(&["status"]).contains("NODE DNS"));
    let text = world.succeeds(&[&INSTALL[..], &["--skip-self-test"]].concat());
    let position = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in {text}"));
    let order = [
        "DaemonSet kube-system/weft-dns-node is there, but --node-local-dns is not given",
        "applied DaemonSet kube-system/weft-agent",
        "weft-dns 2/2",
        "deleted DaemonSet kube-system/weft-dns-node",
    ];
    assert!(order.map(position).is_sorted(), "{text}");
    assert!(!world.succeeds(&["status"]).contains("NODE DNS"));
}

/// All policies would go with it.
#[test]
fn the_definition_of_cluster_network_policies_outlives_what_asked_for_it() {
    let world = World::new();
    let definitions = || world.names("apiextensions.k8s.io", "CustomResourceDefinition", None);
    world.succeeds(&[&INSTALL[..], &["--skip-self-test"]].concat());
    assert_eq!(definitions(), Vec::<String>::new());
    world.succeeds(&[&INSTALL[..], &["--skip-self-test", "--cluster-network-policy"]].concat());
    assert_eq!(definitions(), ["clusternetworkpolicies.policy.networking.k8s.io"]);
    world.succeeds(&[&INSTALL[..], &["--skip-self-test"]].concat());
    let text = world.succeeds(&["uninstall", "--timeout=20"]);
    assert!(text.contains("left the definition of ClusterNetworkPolicy"), "{text}");
    assert!(text.contains("kubectl delete customresourcedefinition clusternetworkpolicies."), "{text}");
    assert_eq!(definitions().len(), 1);
}

#[test]
fn a_definition_of_somebody_else_s_stays_as_it_is() {
    let world = World::new();
    let name = "clusternetworkpolicies.policy.networking.k8s.io";
    let names = json!({"kind": "ClusterNetworkPolicy", "plural": "clusternetworkpolicies"});
    let spec =
        json!({"group": "policy.networking.k8s.io", "scope": "Cluster", "names": names, "versions": []});
    let object = json!({"metadata": {"name": name}, "spec": spec});
    world.create("apiextensions.k8s.io", "CustomResourceDefinition", None, object);
    let text = world.succeeds(&[&INSTALL[..], &["--skip-self-test", "--cluster-network-policy"]].concat());
    assert!(text.contains("is there, and not from Weft: it stays as it is"), "{text}");
    let definitions = api(&world.client, "apiextensions.k8s.io", "CustomResourceDefinition", None);
    let held = world.runtime.block_on(definitions.get(name)).unwrap();
    assert_eq!(held.data["spec"]["versions"], json!([]));
    let text = world.succeeds(&["uninstall", "--timeout=20"]);
    assert!(!text.contains("left the definition"), "{text}");
}

#[test]
fn a_cluster_of_another_pod_range_is_not_installed_into() {
    let world = World::new();
    let text = world.fails(&[&INSTALL[..], &["--cluster-cidr=10.9.0.0/16"]].concat());
    assert!(text.contains("Node node1 has the pod CIDR 10.244."), "{text}");
    assert_eq!(world.names("apps", "DaemonSet", Some("kube-system")), Vec::<String>::new());
}

#[test]
fn another_network_or_kube_proxy_is_named_and_nothing_is_changed() {
    let world = World::new();
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "c"}]}});
    let set = json!({"metadata": {"name": "kube-proxy"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    world.create("apps", "DaemonSet", Some("kube-system"), set);
    let text = world.fails(&INSTALL);
    assert!(text.contains("kubectl -n kube-system delete daemonset kube-proxy"), "{text}");
    assert_eq!(world.names("apps", "DaemonSet", Some("kube-system")), ["kube-proxy"]);
    let forced = [&INSTALL[..], &["--force"]].concat();
    world.succeeds(&forced);
}

#[test]
fn a_node_without_an_answer_fails_the_self_test_by_name_and_leaves_nothing() {
    let world = World::new();
    world.kubelet.is_down.store(true, Ordering::Relaxed);
    let text = world.fails(&["self-test", "--timeout=1"]);
    assert!(text.contains("weft-self-test 1/2, no answer yet on node2"), "{text}");
    let namespaces = world.names("", "Namespace", None);
    assert!(!namespaces.contains(&"weft-self-test".to_owned()), "{namespaces:?}");
}

#[test]
fn every_node_is_checked_from_one_place_and_nothing_stays() {
    let world = World::new();
    let report = |hostname: &str, verdict: &str| {
        json!({"identity": {"hostname": hostname, "machine_id": hostname, "macs": []}, "checks": [
            {"name": "net.ipv4.ip_forward", "verdict": verdict, "found": "0: packets are dropped", "fix": "sysctl -w"}]})
    };
    let is = |verdict: &str| {
        world.kubelet.reports.lock().unwrap().extend([
            ("node1".to_owned(), report("node1", "pass")),
            ("node2".to_owned(), report("node2", verdict)),
        ]);
    };
    is("fail");
    let flags = ["preflight", "--all-nodes", "--timeout=20"];
    let text = world.fails(&flags);
    assert!(text.contains("node1: 4 of 4 checks pass"), "{text}");
    assert!(text.contains("node2: 3 of 4 checks pass\n  FAIL  net.ipv4.ip_forward"), "{text}");
    assert!(!world.names("", "Namespace", None).contains(&"weft-preflight".to_owned()));
    is("pass");
    world.succeeds(&flags);
    world.kubelet.reports.lock().unwrap().remove("node2");
    let text = world.fails(&["preflight", "--all-nodes", "--timeout=1"]);
    assert!(text.contains("nodes checked 1/2 (node2: no report yet)"), "{text}");
    assert!(!world.names("", "Namespace", None).contains(&"weft-preflight".to_owned()));
}

#[test]
fn an_address_that_nodes_cannot_use_is_that_of_the_endpoint_instead() {
    let world = World::new();
    let text = world.succeeds(&["install", "--timeout=20", "--skip-self-test"]);
    assert!(text.contains("found no distribution with ways of its own"), "{text}");
    assert!(text.contains("nodes reach the API server at 172.30.0.1 port 6443"), "{text}");
}

#[test]
fn without_a_cluster_the_error_says_what_to_give() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    let missing: PathBuf = "/no/such/kubeconfig".into();
    let output = command.arg("status").arg("--kubeconfig").arg(missing).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("/no/such/kubeconfig") && text.contains("KUBECONFIG"), "{text}");
}

#[test]
fn as_a_plugin_of_kubectl_it_goes_by_that_name() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("kubectl-weft");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weft"), &link).unwrap();
    let told = |program: &std::path::Path| {
        let output = Command::new(program).args(["doctor", "--help"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(told(&link).contains("Usage: kubectl weft doctor"), "{}", told(&link));
    assert!(told(env!("CARGO_BIN_EXE_weft").as_ref()).contains("Usage: weft doctor"));
    // Without a cluster nothing can be said, good or bad.
    let output = Command::new(&link).args(["doctor", "--kubeconfig", "/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
