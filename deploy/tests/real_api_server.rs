//! The manifests against a real kube-apiserver with etcd, where `KUBEBUILDER_ASSETS` names a folder with both (as
//! `setup-envtest use -p path` prints it). Without that nothing is tested here: the installer's tests apply the same
//! manifests to the lab's API server.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

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
