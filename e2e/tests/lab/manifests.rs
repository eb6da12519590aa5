//! What `weft manifests` prints, run: a cluster of IPv6 alone, whose daemons get the very arguments of the
//! manifests.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use weft_lab::addressing::{API_PORT, IpFamily};

use crate::case::{Case, Peer, echo};
use crate::dns::inside;
use crate::lab::{Lab, Outcome, equal, holds, poll, succeed};

const FAMILY: IpFamily = IpFamily::Ipv6;
/// What a node is asked of the lab's own flags, since its folders are not the machine's, nor its upstreams.
const OF_THE_LAB: &str = "--kubeconfig|--hostname-override|--cni-*|--upstream|--keep-private";

pub(crate) fn a_cluster_of_ipv6_alone(lab: &Lab) -> Outcome {
    let other = Lab::new("e2e-ipv6")?;
    let built = lab.program.parent().unwrap_or(Path::new("/"));
    let objects = manifests(built)?;
    let programs = other.state.path().join("programs");
    fs::create_dir(&programs).map_err(|error| error.to_string())?;
    for name in ["weft", "weft-cni", "weft-ipam"] {
        symlink(built.join(name), programs.join(name)).map_err(|error| format!("{name}: {error}"))?;
    }
    for name in ["weft-agent", "weft-proxy", "weft-dns"] {
        let path = programs.join(name);
        let script = script(&built.join(name), &command(&objects, name)?, other.state.path());
        let written = fs::write(&path, script)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let folder = programs.display().to_string();
    other.run(&["--bin-dir", &folder, "up", "--nodes", "2", "--ip-family", FAMILY.name()])?;
    holds("the self-test", &other.self_test(&[])?, "self-test passed")?;
    with_a_server_on_the_node(&other, built, &command(&objects, "weft-dns-node")?)
}

fn manifests(built: &Path) -> Result<Vec<Value>, String> {
    let [api, dns] = [FAMILY.api_server().ip(), FAMILY.cluster_dns()[0]];
    let mut command = Command::new(built.join("weft"));
    command.args(["manifests", "--node-local-dns", "--cluster-cidr", &FAMILY.cluster_cidr_flag()]);
    command.args(["--cluster-dns", &dns.to_string(), "--api-host", &api.to_string()]);
    command.args(["--api-port", &API_PORT.to_string()]);
    serde_saphyr::from_multiple(&succeed(command)?).map_err(|error| error.to_string())
}

/// The arguments of a workload's first container.
fn command(objects: &[Value], workload: &str) -> Result<Vec<String>, String> {
    let is_it = |object: &&Value| {
        object["metadata"]["name"] == workload
            && ["DaemonSet", "Deployment"].map(Value::from).contains(&object["kind"])
    };
    let object = objects.iter().find(is_it).ok_or(format!("no {workload} in the manifests"))?;
    let line = object["spec"]["template"]["spec"]["containers"][0]["command"].clone();
    let line: Vec<String> = serde_json::from_value(line).map_err(|error| error.to_string())?;
    Ok(line[1..].to_vec())
}

/// A program that is started as the manifests have it. Its pod's addresses are the node's, as the lab gives
/// them; the flags of the lab that it needs are put behind. A flag and its value are two words or one.
fn script(program: &Path, arguments: &[String], state: &Path) -> String {
    let quoted = |argument: &String| {
        let argument = argument.replace("$(POD_IPS)", "$POD_IPS");
        format!("\"{}\"", argument.replace("/var/lib/weft", &format!("{}/$NODE_NAME", state.display())))
    };
    let arguments = arguments.iter().map(quoted).collect::<Vec<_>>().join(" ");
    let program = program.display();
    format!(
        "#!/bin/sh\n\
         mkdir -p {state}/$NODE_NAME\n\
         while [ $# -gt 0 ]; do\n\
           case $1 in\n\
             *=*) shift; continue ;;\n\
             {OF_THE_LAB}) kept=\"$kept $1 $2\" ;;\n\
             --listen) POD_IPS=$(echo \"$2\" | sed 's/^\\[\\(.*\\)\\]:53$/\\1/') ;;\n\
           esac\n\
           shift 2\n\
         done\n\
         exec {program} {arguments} $kept\n",
        state = state.display(),
    )
}

/// A process that is ended when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pod asks the Service's address while the node's own server starts, is killed, and starts again: every
/// question is answered, and none waits for a resolver's timeout.
fn with_a_server_on_the_node(lab: &Lab, built: &Path, arguments: &[String]) -> Outcome {
    let case = Case::new(lab, "own-arguments")?;
    let [pod] = case.run([echo("client").on("node1")])?;
    let start = || {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lab.name.node("node1")]).arg(built.join("weft-dns"));
        // The node's other server is a pod's elsewhere, with ports of its own.
        command.args(arguments.iter().filter(|argument| !argument.starts_with("--metrics-bind-address")));
        command.args(["--metrics-bind-address", "[::1]:9163", "--kubeconfig"]);
        command.arg(lab.dir.node("node1").kubeconfig());
        command.args(["--upstream", &FAMILY.gateways()[0].to_string()]);
        command.stderr(Stdio::null()).spawn().map(Killed).map_err(|error| format!("weft-dns: {error}"))
    };
    for _ in 0..3 {
        let server = start()?;
        poll("the node's own rules", || {
            answered(&case, &pod)?;
            let tables = lab.on_node("node1", &["nft", "list", "tables"])?;
            holds("the tables", &tables, "table ip6 weft-dns-1")
        })?;
        (0..5).try_for_each(|_| answered(&case, &pod))?;
        drop(server);
        (0..5).try_for_each(|_| answered(&case, &pod))?;
        let tables = lab.on_node("node1", &["nft", "list", "tables"])?;
        equal("rules of a dead server", tables.contains("weft-dns-1"), false)?;
    }
    Ok(())
}

/// One question, which is not repeated.
fn answered(case: &Case, pod: &Peer) -> Outcome {
    let name = "kubernetes.default.svc.cluster.local";
    let text = inside(case, pod, &["dig", "+short", "+tries=1", "+time=5", name, "AAAA"])?;
    holds("the answer", &text, "fd00:10:96::")
}
