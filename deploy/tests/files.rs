//! The scripts and files for machines that this one is not, as far as they can be checked here: shell scripts
//! by shellcheck, kind's cluster file against what kind takes, and that both agree with the manifests.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

/// kind's `Cluster`, v1alpha4, as far as the file uses it: a field that is not here is a mistake.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Cluster {
    kind: String,
    api_version: String,
    name: String,
    networking: Networking,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Networking {
    #[serde(rename = "disableDefaultCNI")]
    disable_default_cni: bool,
    kube_proxy_mode: String,
    ip_family: String,
    pod_subnet: String,
    service_subnet: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    role: String,
}

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(workspace(path)).unwrap()
}

#[test]
fn shell_scripts_have_no_known_faults() {
    let scripts = [
        "deploy/bundle.sh",
        "deploy/deb.sh",
        "deploy/image.sh",
        "deploy/install.sh",
        "deploy/krew.sh",
        "deploy/kubectl.sh",
        "scripts/helm",
        "scripts/kernel",
        "scripts/need",
        "scripts/other-machines",
        "scripts/version",
        "e2e/kind/run.sh",
        "e2e/vagrant/run.sh",
        "e2e/vagrant/node.sh",
    ];
    let output = Command::new("shellcheck").args(scripts.map(workspace)).output();
    let output = output.expect("shellcheck runs (Debian: apt-get install shellcheck)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// As far as that can be told without the machines of the workflows.
#[test]
fn workflows_make_what_there_is_by_jobs_that_there_are() {
    let makefile = text("Makefile");
    for path in [".github/workflows/ci.yml", ".github/workflows/release.yml"] {
        let workflow: Value =
            serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let jobs = workflow["jobs"].as_object().unwrap();
        for (name, job) in jobs {
            assert!(job["runs-on"].is_string() && job["timeout-minutes"].is_u64(), "{path}: {name}");
            let needs = job["needs"].as_array().cloned().unwrap_or_else(|| vec![job["needs"].clone()]);
            let needs: Vec<&str> = needs.iter().filter_map(Value::as_str).collect();
            assert!(needs.iter().all(|other| jobs.contains_key(*other)), "{path}: {name} needs {needs:?}");
            for step in job["steps"].as_array().unwrap() {
                let run = step["run"].as_str().unwrap_or_default();
                let made =
                    run.split_once("make ").map_or("", |(_, rest)| rest.lines().next().unwrap_or_default());
                let targets =
                    made.split_whitespace().take_while(|word| *word != "&&" && !word.starts_with('>'));
                for target in targets.filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase())) {
                    assert!(makefile.contains(&format!("\n{target}:")), "{path}: make {target}");
                }
                let uses = step["uses"].as_str().unwrap_or("a@v1");
                assert!(
                    uses.split_once("@v").is_some_and(|(_, version)| !version.is_empty()),
                    "{path}: {uses}"
                );
            }
        }
        // What a job may do is said where it is more than reading.
        assert_eq!(workflow["permissions"], serde_json::json!({"contents": "read"}), "{path}");
    }
}

#[test]
fn the_kind_cluster_leaves_everything_to_weft() {
    let cluster: Cluster = serde_saphyr::from_str(&text("e2e/kind/cluster.yaml")).unwrap();
    assert_eq!((cluster.kind.as_str(), cluster.api_version.as_str()), ("Cluster", "kind.x-k8s.io/v1alpha4"));
    let Networking { disable_default_cni, kube_proxy_mode, ip_family, pod_subnet, service_subnet } =
        cluster.networking;
    assert!(disable_default_cni);
    assert_eq!((kube_proxy_mode.as_str(), ip_family.as_str()), ("none", "dual"));
    assert_eq!(cluster.nodes.iter().filter(|node| node.role == "control-plane").count(), 1);
    let run = text("e2e/kind/run.sh");
    assert!(run.contains(&format!("name={}", cluster.name)));
    assert_eq!(run.matches(&format!("--cluster-cidr {pod_subnet}")).count(), 3);
    assert!(run.contains(&format!("--service-cidr {service_subnet}")));
}

#[test]
fn the_image_has_everything_that_the_manifests_start() {
    let manifests = text("deploy/weft.yaml") + &text("installer/src/cleanup.yaml");
    let started = manifests
        .lines()
        .filter_map(|line| line.trim().strip_prefix("command: [/"))
        .map(|rest| rest.split([',', ']']).next().unwrap_or_default());
    let recipe = text("deploy/image.sh");
    for program in started {
        assert!(
            recipe.contains(&format!(" {program} ")) || recipe.contains(&format!(" {program};")),
            "{program}"
        );
    }
}

/// The instructions of the recipe, each with what follows it: lines that go on joined, comments left out.
fn instructions() -> Vec<(String, String)> {
    let joined = text("deploy/Dockerfile").replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split =
        |line: &str| line.split_once(' ').map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()));
    lines.map(|line| split(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

/// On nothing, not as root, and by instructions that docker and buildah both take, without a network.
#[test]
fn the_image_is_programs_on_nothing_and_says_what_it_is() {
    let all = instructions();
    let of = |word: &str| {
        all.iter().filter(|(first, _)| first == word).map(|(_, rest)| rest.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(all[0], ("FROM".to_owned(), "scratch".to_owned()));
    let known = ["FROM", "ARG", "LABEL", "COPY", "USER", "ENTRYPOINT"];
    assert!(all.iter().all(|(word, _)| known.contains(&word.as_str())), "{all:?}");
    let (user, group) = of("USER")[0].split_once(':').unwrap();
    assert!([user, group].iter().all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}:{group}");
    assert!(of("ARG").contains(&concat!("VERSION=", env!("CARGO_PKG_VERSION"))), "{:?}", of("ARG"));
    for label in ["title", "description", "version", "revision", "licenses"] {
        let key = format!("org.opencontainers.image.{label}=");
        assert_eq!(of("LABEL").join(" ").matches(&key).count(), 1, "{label}");
    }
    let entry: Vec<String> = serde_json::from_str(of("ENTRYPOINT")[0]).unwrap();
    assert!(
        text("deploy/image.sh").contains(&format!(" {} ", entry[0].trim_start_matches('/'))),
        "{entry:?}"
    );
}
