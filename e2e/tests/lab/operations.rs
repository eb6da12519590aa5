//! docs/operations.md promises a command for each question. Here every one of them that a lab can answer is
//! run, word for word but for names and addresses, on a node or against the API server.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::application::cluster_ip;
use crate::lab::{Lab, Outcome, equal, succeed};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
/// How commands begin that a lab has no answer for, and why.
const ELSEWHERE: [(&str, &str); 10] = [
    ("weft status", "a lab's daemons are no pods"),
    ("kubectl -n kube-system", "the same"),
    ("kubectl -n shop exec", "a lab has `weft-lab exec`"),
    ("kubectl describe pod", "the lab's API server keeps no events"),
    ("tcpdump", "it ends only when somebody ends it"),
    ("weft trace", "it has tests of its own, with names of pods"),
    ("weft flows --follow", "it ends only when somebody ends it"),
    ("weft policy explain", "it has tests of its own, with policies"),
    ("nft list table ip weft-policy", "there is no such table without policies"),
    ("nft list table ip6 weft-policy", "the same"),
];
/// Questions to which there may be no answer when all is in order.
const MAY_BE_EMPTY: [&str; 4] = [
    "conntrack -L -d 10.96.1.1",
    "nft list ruleset | grep -B1 'policy drop'",
    "sysctl net.bridge.bridge-nf-call-iptables",
    "bridge fdb show dev weft-vxlan",
];
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: b}\n\
                       spec: {clusterIP: 10.96.9.9, ports: [{port: 80}]}\n";

/// The commands of a row's second cell: `| question | command | in order |`.
fn commands(row: &str) -> Vec<String> {
    // A bar of a command is written so that it ends no cell.
    let row = row.replace("\\|", "\u{0}");
    let cell = row.split('|').nth(2).unwrap_or_default();
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.map(|command| command.replace('\u{0}', "|")).filter(|command| command.contains(' ')).collect()
}

/// What stands in the document, and what it is in this lab.
fn names(lab: &Lab) -> Result<Vec<(String, String)>, String> {
    let dir = lab.dir.node("node1");
    let pod = |app: &str, path: &str| {
        let path = format!("jsonpath={{.items[0].{path}}}");
        lab.kubectl(&["-n", "shop", "get", "pods", "-l", &format!("app={app}"), "-o", &path])
    };
    let frontend = pod("frontend", "status.podIP")?;
    let text = str::to_owned;
    Ok(vec![
        ("10.96.1.1".to_owned(), cluster_ip(lab, "backend")?),
        ("POD_ADDRESS".to_owned(), "172.30.0.12".to_owned()),
        ("10.244.1.5".to_owned(), pod("backend", "status.podIP")?),
        ("10.244.1.2".to_owned(), frontend),
        ("node NODE".to_owned(), text("node node1")),
        ("/etc/cni/net.d".to_owned(), dir.cni_conf().display().to_string()),
        ("/var/lib/cni/networks".to_owned(), dir.cni_data().display().to_string()),
        ("example.com".to_owned(), text("www.example.test")),
    ])
}

/// Asks again where nft gave up since the rules changed while it read them, as a person would: other
/// scenarios change them.
fn undisturbed(mut ask: impl FnMut() -> Result<String, String>) -> Result<String, String> {
    let is_disturbed = |answer: &Result<String, String>| {
        answer.as_ref().is_err_and(|error| error.contains("Interrupted system call"))
    };
    let mut answer = ask();
    for _ in 0..10 {
        if !is_disturbed(&answer) {
            break;
        }
        answer = ask();
    }
    answer
}

/// On the node, but for what asks the API server.
fn line(lab: &Lab, folder: &std::path::Path, command: &str) -> Command {
    let mut line = match command.starts_with("kubectl") {
        true => Command::new("sh"),
        false => Command::new("ip"),
    };
    if !command.starts_with("kubectl") {
        line.args(["netns", "exec", &lab.name.node("node1"), "sh"]);
    }
    let programs = lab.program.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    line.args(["-c", command]).current_dir(folder);
    line.env("KUBECONFIG", lab.dir.kubeconfig()).env("PATH", format!("{programs}:{path}"));
    line.env("KUBECACHEDIR", lab.dir.kubectl_cache());
    line
}

pub(crate) fn every_command_answers(lab: &Lab) -> Outcome {
    let document = fs::read_to_string(DOCUMENT).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    let (_, questions) =
        document.split_once("## A Service is unreachable").ok_or("the document has no questions")?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    for file in ["services.yaml", "nodes.yaml"] {
        fs::write(folder.path().join(file), SERVICE).map_err(|error| error.to_string())?;
    }
    let (names, mut tried, mut unused) = (names(lab)?, 0, BTreeSet::from(ELSEWHERE.map(|(start, _)| start)));
    for command in questions.lines().filter(|line| line.starts_with("| ")).flat_map(commands) {
        if let Some((start, _)) = ELSEWHERE.iter().find(|(start, _)| command.starts_with(start)) {
            unused.remove(start);
            continue;
        }
        let own = names.iter().fold(command.clone(), |text, (from, to)| text.replace(from, to));
        let answer = undisturbed(|| succeed(line(lab, folder.path(), &own)));
        if !MAY_BE_EMPTY.contains(&command.as_str()) {
            let is_empty = answer.map_err(|error| format!("{command}\n{error}"))?.trim().is_empty();
            equal(&format!("no answer to {command}"), is_empty, false)?;
        }
        tried += 1;
    }
    equal("commands that are said to be for elsewhere and are not there", unused, BTreeSet::new())?;
    equal(&format!("whether {tried} commands are most of them"), tried > 30, true)
}
