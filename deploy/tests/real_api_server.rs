//! The manifests, and what the watch reads, against a real kube-apiserver with etcd, where
//! `KUBEBUILDER_ASSETS` names a folder with both (as `setup-envtest use -p path` prints it). Without that
//! nothing is tested here: the installer's tests apply the same manifests to the lab's API server.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weft_cluster::{Watch, WatchFilter};
use weft_types::Kind;

/// How long the control plane may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both programs, ended when this is dropped.
struct ControlPlane {
    home: TempDir,
    programs: Vec<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl ControlPlane {
    fn start(assets: &Path) -> ControlPlane {
        let [client, peer, secure] = [(); 3].map(|()| free_port());
        let mut plane = ControlPlane { home: tempfile::tempdir().unwrap(), programs: Vec::new() };
        let etcd = format!("http://127.0.0.1:{client}");
        plane.run(
            assets.join("etcd"),
            &[
                format!("--data-dir={}", plane.file("etcd")),
                format!("--listen-client-urls={etcd}"),
                format!("--advertise-client-urls={etcd}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            ],
        );
        let key = plane.file("service-accounts.key");
        let made = Command::new("openssl").args(["genrsa", "-out", &key, "2048"]).output();
        assert!(made.expect("openssl runs (Debian: apt-get install openssl)").status.success());
        fs::write(plane.file("tokens"), "token,admin,1,system:masters\n").unwrap();
        plane.run(
            assets.join("kube-apiserver"),
            &[
                format!("--etcd-servers={etcd}"),
                format!("--cert-dir={}", plane.file("certificates")),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={secure}"),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={key}"),
                format!("--service-account-signing-key-file={key}"),
                "--authorization-mode=RBAC".to_owned(),
                "--allow-privileged=true".to_owned(),
                format!("--token-auth-file={}", plane.file("tokens")),
            ],
        );
        let kubeconfig = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, \
             clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{secure}', insecure-skip-tls-verify: true}}}}], \
             contexts: [{{name: c, context: {{cluster: c, user: c}}}}], users: [{{name: c, user: {{token: token}}}}]}}"
        );
        fs::write(plane.file("kubeconfig"), kubeconfig).unwrap();
        plane.until_ready();
        plane
    }

    fn file(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    fn run(&mut self, program: PathBuf, arguments: &[String]) {
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        let log = fs::File::create(self.file(&format!("{name}.log"))).unwrap();
        let mut command = Command::new(&program);
        command.args(arguments).stdout(Stdio::null()).stderr(log);
        let child = command.spawn();
        self.programs.push(child.unwrap_or_else(|error| panic!("{}: {error}", program.display())));
    }

    fn until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.kubectl(&["get", "--raw", "/readyz"]).is_err() {
            let log = || fs::read_to_string(self.file("kube-apiserver.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "kube-apiserver does not get ready: {}", log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let kubeconfig = self.file("kubeconfig");
        let output = Command::new("kubectl").args(["--kubeconfig", &kubeconfig]).args(arguments).output();
        let output = output.expect("kubectl runs (Debian: apt-get install kubernetes-client)");
        let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(told(&output.stdout)) } else { Err(told(&output.stderr)) }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // The API server first: it would complain about the other.
        for program in self.programs.iter_mut().rev() {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// An object of each kind that is watched in protobuf, as `kubectl` takes them.
const OBJECTS: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}},
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1", "labels": {"topology.kubernetes.io/zone": "east"}},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"nodeName": "node1", "containers": [{"name": "web", "image": "web",
            "ports": [{"name": "http", "containerPort": 8080}]}]}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "NodePort", "externalIPs": ["203.0.113.20"], "sessionAffinity": "ClientIP", "ports": [{"name": "http",
            "port": 80, "targetPort": "http"}, {"name": "dns", "protocol": "UDP", "port": 53}]}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "db.example.com"}},
    {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.244.1.7"], "nodeName": "node1", "hostname": "web-0",
            "conditions": {"ready": false, "serving": true, "terminating": true}, "hints": {"forZones": [{"name": "east"}]}}],
        "ports": [{"name": "http", "port": 8080}]}
]}"#;

/// The watch takes protobuf and streaming lists where the server has them, `kubectl` takes JSON.
#[test]
fn a_real_api_server_tells_the_watch_what_it_tells_kubectl() {
    let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") else { return };
    let plane = ControlPlane::start(Path::new(&assets));
    let (given, read) = (plane.file("objects.json"), plane.file("read.json"));
    fs::write(&given, OBJECTS).unwrap();
    plane.kubectl(&["apply", "--server-side", "-f", &given]).unwrap();
    let kinds = [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::Pod];
    let filter = WatchFilter { service_proxy: true, ..WatchFilter::network_policies() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut watch = runtime.block_on(async {
        let client = weft_cluster::client(Some(Path::new(&plane.file("kubeconfig")))).await.unwrap();
        Watch::start(client, &filter, &kinds)
    });
    for change in ["nothing", "a label", "a Service that goes"] {
        match change {
            "a label" => drop(plane.kubectl(&["label", "pod", "web-0", "tier=front"]).unwrap()),
            "a Service that goes" => drop(plane.kubectl(&["delete", "service", "db"]).unwrap()),
            _ => {}
        }
        let list = plane.kubectl(&["get", "services,endpointslices,nodes,pods", "-A", "-o", "json"]).unwrap();
        fs::write(&read, list).unwrap();
        let expected = weft_cluster::manifest::load(&filter, &[PathBuf::from(&read)]).unwrap();
        runtime.block_on(async {
            let same = async {
                while *watch.snapshot() != expected {
                    watch.next().await;
                }
            };
            let told = tokio::time::timeout(PATIENCE, same).await;
            told.unwrap_or_else(|_| panic!("after {change}, the watch does not tell what kubectl does"));
        });
    }
}

#[test]
fn a_real_api_server_takes_the_manifests_twice() {
    let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") else { return };
    let plane = ControlPlane::start(Path::new(&assets));
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("weft.yaml").display().to_string();
    plane.kubectl(&["apply", "--server-side", "-f", &manifests]).unwrap();
    let objects = |plane: &ControlPlane| {
        let kinds = "daemonsets,deployments,services,serviceaccounts";
        let line = "{range .items[*]}{.kind}/{.metadata.name} {.metadata.generation}{\"\\n\"}{end}";
        plane.kubectl(&["-n", "kube-system", "get", kinds, "-o", &format!("jsonpath={line}")]).unwrap()
    };
    let values = weft_installer::manifests::Values { cluster_network_policy: true, ..Default::default() };
    let whole = plane.file("whole.yaml");
    fs::write(&whole, weft_installer::manifests::render(&values)).unwrap();
    plane.kubectl(&["apply", "--server-side", "-f", &whole]).unwrap();
    let first = objects(&plane);
    for name in ["DaemonSet/weft-agent", "DaemonSet/weft-proxy", "weft-dns", "Service/kube-dns"] {
        assert!(first.contains(name), "no {name} in {first}");
    }
    plane.kubectl(&["apply", "--server-side", "-f", &manifests]).unwrap();
    assert_eq!(objects(&plane), first, "the same again changes nothing");
    judges_cluster_network_policies(&plane);
}

/// By the definition: what the API allows is taken, and what it limits is refused with the field's name.
fn judges_cluster_network_policies(plane: &ControlPlane) {
    let definition = "crd/clusternetworkpolicies.policy.networking.k8s.io";
    plane.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", definition]).unwrap();
    let apply = |spec: serde_json::Value| {
        let policy = serde_json::json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "guard"}, "spec": spec});
        let file = plane.file("policy.json");
        fs::write(&file, policy.to_string()).unwrap();
        plane.kubectl(&["apply", "--server-side", "-f", &file])
    };
    let rule = serde_json::json!({"action": "Deny", "to": [{"networks": ["10.0.0.0/8", "fd00::/8"]}],
        "protocols": [{"tcp": {"destinationPort": {"number": 80}}}]});
    let whole =
        serde_json::json!({"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}, "egress": [rule]});
    apply(whole.clone()).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        let mut spec = whole.clone();
        spec[field] = value;
        apply(spec)
    };
    let many: Vec<&serde_json::Value> = [&rule].into_iter().cycle().take(26).collect();
    let named = serde_json::json!([{"action": "Deny", "to": [{"domainNames": ["example.test"]}]}]);
    for (field, value) in [
        ("priority", serde_json::json!(1001)),
        ("tier", serde_json::json!("Network")),
        ("subject", serde_json::json!({})),
        ("egress", serde_json::json!(many)),
        ("egress", named),
    ] {
        let error = with(field, value).unwrap_err();
        assert!(error.contains(field), "{error}");
    }
}
