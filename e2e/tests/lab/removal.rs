//! What is left behind: by objects that were deleted, and by labs that were taken down. Nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use weft_lab::netns;

use crate::lab::{Lab, Outcome, equal, poll};

pub(crate) fn deleting_everything(lab: &Lab) -> Outcome {
    lab.kubectl(&["delete", "namespace", "shop"])?;
    lab.kubectl(&["delete", "pods,services,deployments", "--all"])?;
    poll("no pod", || match lab.kubectl(&["get", "pods", "-A", "-o", "name"])? {
        pods if pods.is_empty() => Ok(()),
        pods => Err(pods),
    })?;
    for node in lab.nodes()? {
        poll(&format!("nothing left on {node}"), || empty(lab, &node))?;
    }
    let pods: Vec<String> = namespaces_of(lab).into_iter().filter(|name| name.contains("-pod-")).collect();
    equal("namespaces of pods", pods, Vec::new())?;
    equal("files of pods", entries(&lab.dir.root().join("pods"))?, Vec::new())
}

/// Fails when a node still holds something of a pod.
fn empty(lab: &Lab, node: &str) -> Outcome {
    let ruleset = lab.on_node(node, &["nft", "list", "table", "ip", "weft"])?;
    if ruleset.contains(": 10.244.") {
        return Err(format!("an endpoint in the kernel:\n{ruleset}"));
    }
    let links = lab.on_node(node, &["ip", "-o", "link", "show", "type", "veth"])?;
    // The node's own link to the underlay is one.
    equal("veth links", links.lines().filter(|line| !line.contains(": eth0")).count(), 0)?;
    let routes = lab.on_node(node, &["ip", "route"])?;
    equal(
        "routes to single pods",
        routes.lines().filter(|line| line.starts_with("10.244.") && !line.contains('/')).count(),
        0,
    )?;
    let reservations = entries(&lab.dir.node(node).cni_data().join("weft"))?;
    let addresses: Vec<String> =
        reservations.into_iter().filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect();
    equal("reservations", addresses, Vec::new())?;
    equal("cached results", entries(&lab.dir.node(node).cni_results())?, Vec::new())
}

pub(crate) fn nothing_is_left(lab: &Lab) -> Outcome {
    let other = Lab::up("e2e-other", 1, &[])?;
    let (mine, others) = (namespaces_of(lab), namespaces_of(&other));
    equal("namespaces of the other lab", others.len(), 2)?;
    // One is removed while it runs, the other after its process was killed.
    other.run(&["down"])?;
    equal("namespaces of the first lab", namespaces_of(lab), mine)?;
    lab.kubectl(&["get", "nodes"])?;
    let record = lab.dir.record().map_err(|error| error.to_string())?.ok_or("the lab has no record")?;
    if !record.process.kill_and_wait(Duration::from_secs(10)) {
        return Err("the lab's process does not end".to_owned());
    }
    poll("its daemons end with it", || match processes_of(lab)? {
        left if left.is_empty() => Ok(()),
        left => Err(left.join("\n")),
    })?;
    lab.run(&["down"])?;
    for lab in [lab, &other] {
        equal("namespaces", namespaces_of(lab), Vec::new())?;
        equal("processes", processes_of(lab)?, Vec::new())?;
        equal("the folder", lab.dir.root().exists(), false)?;
    }
    Ok(())
}

fn namespaces_of(lab: &Lab) -> Vec<String> {
    netns::list().into_iter().filter(|name| lab.name.owns(name)).collect()
}

/// The command lines of all processes that know the lab's folder, which is this run's own.
fn processes_of(lab: &Lab) -> Result<Vec<String>, String> {
    let folder = lab.dir.root().display().to_string();
    let mut found = Vec::new();
    for name in entries(Path::new("/proc"))? {
        let line = fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&folder) {
            found.push(line);
        }
    }
    Ok(found)
}

/// The names in a folder; none when it is not there.
fn entries(folder: &Path) -> Result<Vec<String>, String> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("{}: {error}", folder.display())),
        Ok(entries) => Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()),
    }
}
