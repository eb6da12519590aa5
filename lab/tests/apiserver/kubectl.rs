//! The real `kubectl`: what people type, and what they see.

use tokio::io::{AsyncBufReadExt, BufReader};
use weft_lab::apiserver::Config;

use crate::fixture::{self, DEADLINE, Fixture, row};
use crate::kubelet;

const WEB: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: echo:1
        ports: [{containerPort: 8080, name: http}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
";

async fn cluster() -> Fixture {
    let fixture = fixture::start(Config::default());
    // The kubelets play as long as the test's runtime lives.
    drop(kubelet::play(&fixture.client, &["node1", "node2"]).await);
    fixture
}

#[tokio::test]
async fn apply_is_repeatable_and_changes_what_changed() {
    let cluster = cluster().await;
    let apply = |input: String| {
        let cluster = &cluster;
        async move { cluster.kubectl_with(&["apply", "-f", "-"], &input).await }
    };
    let made = apply(WEB.to_owned()).await;
    assert_eq!(made, "configmap/settings created\ndeployment.apps/web created\nservice/web created\n");
    let again = apply(WEB.to_owned()).await;
    assert_eq!(again, "configmap/settings unchanged\ndeployment.apps/web unchanged\nservice/web unchanged\n");
    let address = cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).await;
    let changed = WEB
        .replace("colour: blue", "shape: round")
        .replace("echo:1", "echo:2")
        .replace("port: 80,", "port: 81,");
    let changed = apply(changed).await;
    assert_eq!(
        changed,
        "configmap/settings configured\ndeployment.apps/web configured\nservice/web configured\n"
    );
    assert_eq!(
        cluster.kubectl(&["get", "cm", "settings", "-o", "jsonpath={.data}"]).await,
        r#"{"shape":"round"}"#
    );
    let image = "jsonpath={.spec.template.spec.containers[*].image}";
    assert_eq!(cluster.kubectl(&["get", "deploy", "web", "-o", image]).await, "echo:2");
    let ports = "jsonpath={.spec.clusterIP} {.spec.ports[*].port}";
    assert_eq!(cluster.kubectl(&["get", "svc", "web", "-o", ports]).await, format!("{address} 81"));
}

#[tokio::test]
async fn a_deployment_rolls_out_scales_and_rolls_back() {
    let cluster = cluster().await;
    cluster.kubectl_with(&["apply", "-f", "-"], WEB).await;
    let done = cluster.kubectl(&["rollout", "status", "deployment/web"]).await;
    assert!(done.contains("successfully rolled out"), "{done}");
    cluster.kubectl(&["scale", "deployment/web", "--replicas=4"]).await;
    cluster.kubectl(&["rollout", "status", "deployment/web"]).await;
    let table = cluster.kubectl(&["get", "deployments"]).await;
    assert_eq!(row(&table, "NAME"), ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
    assert_eq!(row(&table, "web")[1..4], ["4/4", "4", "4"]);
    cluster.kubectl(&["set", "image", "deployment/web", "web=echo:2"]).await;
    cluster.kubectl(&["rollout", "status", "deployment/web"]).await;
    let images = ["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.containers[*].image}"];
    cluster.kubectl_until(&images, |text| text == "echo:2 echo:2 echo:2 echo:2").await;
    cluster.kubectl(&["rollout", "undo", "deployment/web"]).await;
    cluster.kubectl(&["rollout", "status", "deployment/web"]).await;
    cluster.kubectl_until(&images, |text| text == "echo:1 echo:1 echo:1 echo:1").await;
}

#[tokio::test]
async fn pods_are_spread_listed_described_and_deleted() {
    let cluster = cluster().await;
    cluster.kubectl_with(&["apply", "-f", "-"], WEB).await;
    cluster.kubectl(&["rollout", "status", "deployment/web"]).await;
    let table = cluster.kubectl(&["get", "pods", "-o", "wide"]).await;
    assert_eq!(row(&table, "NAME")[..7], ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]);
    let name = table.lines().nth(1).and_then(|line| line.split(' ').next()).expect("a pod").to_owned();
    assert_eq!(row(&table, &name)[1..4], ["1/1", "Running", "0"]);
    let mut nodes: Vec<&str> =
        table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(6)).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["node1", "node2"]);
    let described = cluster.kubectl(&["describe", "pod", &name]).await;
    assert!(described.contains("Controlled By:  ReplicaSet/web-"), "{described}");
    let json = cluster.kubectl(&["get", "pod", &name, "-o", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["status"]["phase"], "Running");
    let yaml = cluster.kubectl(&["get", "pod", &name, "-o", "yaml"]).await;
    assert!(yaml.starts_with("apiVersion: v1\nkind: Pod\n"), "{yaml}");
    // The delete waits for the kubelet, and the ReplicaSet makes another one.
    cluster.kubectl(&["delete", "pod", &name]).await;
    assert!(cluster.kubectl_fails(&["get", "pod", &name], "").await.contains("not found"));
    let is_whole = |text: &str| text.matches("Running").count() == 2;
    cluster.kubectl_until(&["get", "pods"], is_whole).await;
}

#[tokio::test]
async fn endpoints_follow_the_pods() {
    let cluster = cluster().await;
    cluster.kubectl_with(&["apply", "-f", "-"], WEB).await;
    let ready = [
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=web",
        "-o",
        "jsonpath={.items[*].ports[*].port} {.items[*].endpoints[?(@.conditions.ready)].addresses[*]}",
    ];
    let count = |text: &str| text.split_whitespace().count();
    let text = cluster.kubectl_until(&ready, |text| count(text) == 3).await;
    assert!(text.starts_with("8080 10.244."), "{text}");
    cluster.kubectl(&["scale", "deployment/web", "--replicas=5"]).await;
    cluster.kubectl_until(&ready, |text| count(text) == 6).await;
    cluster.kubectl(&["scale", "deployment/web", "--replicas=0"]).await;
    cluster.kubectl_until(&["get", "endpoints", "web"], |text| row(text, "web")[1] == "<none>").await;
    let described = cluster.kubectl(&["describe", "service", "web"]).await;
    assert!(described.contains("Selector:") && described.contains("app=web"), "{described}");
    cluster.kubectl(&["delete", "service", "web"]).await;
    cluster.kubectl_until(&["get", "endpointslices,endpoints"], |text| !text.contains("web")).await;
}

#[tokio::test]
async fn a_stateful_set_has_stable_names() {
    let cluster = cluster().await;
    let database = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: web, image: echo}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
";
    cluster.kubectl_with(&["apply", "-f", "-"], database).await;
    cluster.kubectl(&["rollout", "status", "statefulset/db"]).await;
    let hosts = [
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=db",
        "-o",
        "jsonpath={.items[*].endpoints[*].hostname}",
    ];
    let all = |text: &str| {
        let mut names: Vec<&str> = text.split_whitespace().collect();
        names.sort_unstable();
        names == ["db-0", "db-1"]
    };
    cluster.kubectl_until(&hosts, all).await;
    // A newer kubectl that waits for a pod would wait for its successor of the same name as well, when that
    // comes within milliseconds.
    let uid =
        ["get", "pods", "--field-selector", "metadata.name=db-0", "-o", "jsonpath={.items[*].metadata.uid}"];
    let first = cluster.kubectl(&uid).await;
    cluster.kubectl(&["delete", "pod", "db-0", "--wait=false"]).await;
    cluster.kubectl_until(&uid, |text| !text.is_empty() && text != first).await;
    cluster.kubectl_until(&hosts, all).await;
    cluster.kubectl(&["scale", "statefulset/db", "--replicas=1"]).await;
    cluster.kubectl_until(&["get", "pods"], |text| !text.contains("db-1")).await;
}

#[tokio::test]
async fn labels_patches_and_refusals() {
    let cluster = cluster().await;
    cluster.kubectl_with(&["apply", "-f", "-"], WEB).await;
    cluster.kubectl(&["label", "service", "web", "tier=front"]).await;
    let table = cluster.kubectl(&["get", "services", "-l", "tier=front"]).await;
    assert_eq!(row(&table, "NAME"), ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    let patch = r#"{"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}}"#;
    cluster.kubectl(&["patch", "service", "web", "-p", patch]).await;
    assert_eq!(row(&cluster.kubectl(&["get", "svc"]).await, "web")[4], "80:30080/TCP");
    let taken = "
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {type: NodePort, ports: [{port: 80, nodePort: 30080}]}
";
    let refused = cluster.kubectl_fails(&["apply", "-f", "-"], taken).await;
    assert!(
        refused.contains("spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"),
        "{refused}"
    );
    let shapeless = taken.replace("port: 80", "port: eighty");
    let refused = cluster.kubectl_fails(&["apply", "-f", "-"], &shapeless).await;
    assert!(refused.contains("eighty"), "{refused}");
    let lost = cluster.kubectl_fails(&["create", "configmap", "x", "-n", "nowhere"], "").await;
    assert!(lost.contains(r#"namespaces "nowhere" not found"#), "{lost}");
    cluster.kubectl(&["delete", "service", "web"]).await;
    cluster.kubectl_with(&["apply", "-f", "-"], taken).await;
}

#[tokio::test]
async fn nodes_have_their_ranges_and_their_table() {
    let cluster = cluster().await;
    let table = cluster.kubectl(&["get", "nodes", "-o", "wide"]).await;
    assert_eq!(row(&table, "NAME")[..6], ["NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP"]);
    assert_eq!(row(&table, "node1")[1..3], ["Ready", "<none>"]);
    let ranges = ["get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDR}"];
    cluster.kubectl_until(&ranges, |text| text == "10.244.0.0/24 10.244.1.0/24").await;
    cluster.kubectl(&["cordon", "node1"]).await;
    assert_eq!(row(&cluster.kubectl(&["get", "nodes"]).await, "node1")[1], "Ready,SchedulingDisabled");
    cluster.kubectl_with(&["apply", "-f", "-"], WEB).await;
    cluster.kubectl(&["rollout", "status", "deployment/web"]).await;
    let nodes = cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"]).await;
    assert_eq!(nodes, "node2 node2");
}

#[tokio::test]
async fn a_namespace_goes_with_everything_in_it() {
    let cluster = cluster().await;
    cluster.kubectl(&["create", "namespace", "shop"]).await;
    cluster.kubectl_with(&["apply", "-n", "shop", "-f", "-"], WEB).await;
    cluster.kubectl(&["rollout", "status", "-n", "shop", "deployment/web"]).await;
    cluster.kubectl(&["delete", "namespace", "shop"]).await;
    assert!(cluster.kubectl_fails(&["get", "namespace", "shop"], "").await.contains("not found"));
    let left = cluster.kubectl(&["get", "all,configmaps,endpointslices", "-n", "shop", "-o", "name"]).await;
    assert_eq!(left, "");
}

#[tokio::test]
async fn a_watch_prints_every_change() {
    let cluster = cluster().await;
    let mut watching = cluster.command(&["get", "configmaps", "-w"]).spawn().expect("kubectl runs");
    let mut lines = BufReader::new(watching.stdout.take().expect("a pipe")).lines();
    for number in 1..=3 {
        cluster.kubectl(&["create", "configmap", &format!("map{number}"), "--from-literal=a=b"]).await;
        let line = loop {
            let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("a line in time");
            let line = line.expect("readable").expect("the watch goes on");
            if !line.starts_with("NAME") {
                break line;
            }
        };
        assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), [&*format!("map{number}"), "1"]);
    }
    watching.kill().await.expect("ended");
}

#[tokio::test]
async fn policies_are_applied_listed_described_and_refused() {
    let cluster = cluster().await;
    let policies = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: In, values: [a, b]}]}
  ingress: [{from: [{podSelector: {}}], ports: [{port: http, protocol: TCP}, {port: 80, endPort: 90, protocol: UDP}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  egress: [{action: Deny, to: [{networks: [192.0.2.0/24]}]}]
";
    let apply = ["apply", "-f", "-"];
    let made = cluster.kubectl_with(&apply, policies).await;
    let names =
        ["networkpolicy.networking.k8s.io/web", "clusternetworkpolicy.policy.networking.k8s.io/guard"];
    assert_eq!(made, names.map(|name| format!("{name} created\n")).concat());
    let again = cluster.kubectl_with(&apply, &policies.replace("priority: 10", "priority: 20")).await;
    assert_eq!(again, format!("{} unchanged\n{} configured\n", names[0], names[1]));
    let table = cluster.kubectl(&["get", "netpol"]).await;
    assert_eq!(row(&table, "NAME"), ["NAME", "POD-SELECTOR", "AGE"]);
    assert_eq!(row(&table, "web")[1..4], ["app=web,tier", "in", "(a,b)"]);
    let table = cluster.kubectl(&["get", "cnp"]).await;
    assert_eq!(row(&table, "NAME"), ["NAME", "TIER", "PRIORITY", "AGE"]);
    assert_eq!(row(&table, "guard")[1..3], ["Admin", "20"]);
    let described = cluster.kubectl(&["describe", "netpol", "web"]).await;
    assert!(described.contains("To Port: http/TCP"), "{described}");
    let refused = cluster.kubectl_fails(&apply, &policies.replace("endPort: 90", "endPort: 70")).await;
    assert!(refused.contains("spec.ingress[0].ports[1].endPort: Invalid value: 70"), "{refused}");
    cluster.kubectl(&["delete", "netpol/web", "cnp/guard"]).await;
    assert!(cluster.kubectl(&["get", "netpol,cnp"]).await.is_empty());
}
