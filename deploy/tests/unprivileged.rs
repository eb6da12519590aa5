//! The containers that do not run as root, started as a container runtime starts them: in a network namespace
//! with the pod's settings, and as a user who loses every capability when the program starts, whatever the
//! container adds (no runtime raises ambient ones).

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// What of a manifest matters here.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    spec: Value,
}

/// The spec of the pods of the one workload whose container has this name.
fn pod_of(container: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("weft.yaml");
    let manifests: Vec<Manifest> = serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap();
    let mut pods = manifests.into_iter().map(|manifest| manifest.spec["template"]["spec"].clone());
    pods.find(|pod| pod["containers"][0]["name"] == container).unwrap()
}

/// A folder that every user may enter and write to, with the image's program under this name.
fn image(program: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_weft-all"), folder.path().join(program)).unwrap();
    let nowhere = "{apiVersion: v1, kind: Config, current-context: c, users: [{name: c, user: {}}], \
                   clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], \
                   contexts: [{name: c, context: {cluster: c, user: c}}]}";
    fs::write(folder.path().join("kubeconfig"), nowhere).unwrap();
    folder
}

/// Starts the first container of a pod.
fn start(pod: &Value, folder: &Path) -> Child {
    let container = &pod["containers"][0];
    let settings = pod["securityContext"]["sysctls"].as_array().cloned().unwrap_or_default();
    let settings = settings.iter().map(|setting| {
        let path = setting["name"].as_str().unwrap().replace('.', "/");
        format!("echo {} >/proc/sys/{path}; ", setting["value"].as_str().unwrap())
    });
    let script = settings.collect::<String>() + "ip link set lo up && exec setpriv \"$@\"";
    let here = folder.display().to_string();
    let command = container["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    let command = command.map(|word| word.replace("$(POD_IPS)", "127.0.0.1").replace("/var/lib/weft", &here));
    let user = container["securityContext"]["runAsUser"].to_string();
    let mut line = Command::new("unshare");
    line.args(["--net", "sh", "-ec", &script, "sh", "--reuid", &user, "--regid", &user, "--clear-groups"]);
    line.args(["--inh-caps=-all", "--bounding-set=-all,+net_bind_service", "--no-new-privs", "--"]);
    line.args(command.enumerate().map(|(at, word)| if at == 0 { format!("{here}{word}") } else { word }));
    line.arg(format!("--kubeconfig={here}/kubeconfig"));
    line.stderr(Stdio::piped()).process_group(0).spawn().expect("unshare runs")
}

/// Whether a socket of the process's network listens on this TCP port.
fn listens(process: &Child, port: u16) -> bool {
    let sockets = fs::read_to_string(format!("/proc/{}/net/tcp", process.id())).unwrap_or_default();
    // Local address, remote address, and 0A for one that listens.
    sockets.lines().any(|line| line.contains(&format!(":{port:04X} 00000000:0000 0A")))
}

#[test]
fn the_dns_server_gets_port_53_without_root() {
    let pod = pod_of("dns");
    assert_eq!(pod["containers"][0]["securityContext"]["runAsNonRoot"], true);
    let folder = image("weft-dns");
    let mut server = start(&pod, folder.path());
    let deadline = Instant::now() + PATIENCE;
    while !listens(&server, 53) && server.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it does not listen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = server.try_wait().unwrap();
    let _ = server.kill();
    let said = server.wait_with_output().unwrap().stderr;
    assert!(ended.is_none(), "{}", String::from_utf8_lossy(&said));
}
