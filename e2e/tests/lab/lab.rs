//! A lab under test: starting it, and doing in it what a user would do.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::api::Api;
use tempfile::TempDir;
use weft_lab::addressing::IpFamily;
use weft_lab::demo::ProbeOrigin;
use weft_lab::names::LabName;
use weft_lab::state::LabDir;
use weft_testkit::wait::{PATIENCE, attempt_for};

/// What a scenario comes to: nothing, or what went wrong.
pub(crate) type Outcome = Result<(), String>;

/// A running lab, removed when it is dropped.
pub(crate) struct Lab {
    pub(crate) name: LabName,
    pub(crate) dir: LabDir,
    pub(crate) program: PathBuf,
    /// The folder of all labs' files.
    pub(crate) state: TempDir,
}

impl Lab {
    /// Starts a lab from the programs in `WEFT_BIN_DIR`.
    pub(crate) fn up(name: &str, nodes: u8, flags: &[&str]) -> Result<Lab, String> {
        let lab = Lab::new(name)?;
        lab.run(&[&["up", "--nodes", &nodes.to_string()], flags].concat())?;
        Ok(lab)
    }

    /// A lab by that name, which is not there yet.
    pub(crate) fn new(name: &str) -> Result<Lab, String> {
        let folder = std::env::var_os("WEFT_BIN_DIR").ok_or(
            "WEFT_BIN_DIR is not set: set it to the folder of the built programs, as `make test` does",
        )?;
        let program = Path::new(&folder).join("weft-lab");
        if !program.is_file() {
            return Err(format!("{} is missing: run `cargo build --workspace --bins`", program.display()));
        }
        let state = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let name: LabName = name.parse().map_err(|error| format!("{error}"))?;
        Ok(Lab { dir: LabDir::new(state.path(), &name), name, program, state })
    }

    /// The names of the lab's nodes.
    pub(crate) fn nodes(&self) -> Result<Vec<String>, String> {
        let record = self.dir.record().map_err(|error| error.to_string())?;
        Ok(record.ok_or("the lab has no record")?.nodes)
    }

    /// `weft-lab ARGUMENTS…`, which must succeed. Gives what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, String> {
        succeed(self.command(arguments))
    }

    /// `weft-lab ARGUMENTS…`, whatever comes of it.
    pub(crate) fn try_run(&self, arguments: &[&str]) -> Result<Output, String> {
        self.command(arguments).output().map_err(|error| format!("weft-lab: {error}"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--name").arg(self.name.to_string()).arg("--state-dir").arg(self.state.path());
        command.args(arguments);
        command
    }

    /// `kubectl ARGUMENTS…` against the lab.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.run(&[&["kubectl"], arguments].concat())
    }

    /// `weft dns explain ARGUMENTS…` against the lab, through its API server. Gives what it printed, or
    /// complained of.
    pub(crate) fn explain(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.program.with_file_name("weft"));
        command.args(["dns", "explain", "--kubeconfig"]).arg(self.dir.kubeconfig()).args(arguments);
        succeed(command)
    }

    /// `weft COMMAND ARGUMENTS…` against the lab. Gives its exit code, and what it printed or complained of.
    pub(crate) fn weft(&self, name: &str, arguments: &[&str]) -> Result<(i32, String), String> {
        let mut command = Command::new(self.program.with_file_name("weft"));
        command.args([name, "--kubeconfig"]).arg(self.dir.kubeconfig()).args(arguments);
        let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
    }

    /// `weft self-test ARGUMENTS…` against the lab. Gives what it printed.
    pub(crate) fn self_test(&self, arguments: &[&str]) -> Result<String, String> {
        let program = self.program.with_file_name("weft");
        let mut command = Command::new(&program);
        command.args(["self-test", "--kubeconfig"]).arg(self.dir.kubeconfig());
        // Pods of a lab are processes of this machine.
        command.arg("--program").arg(&program).args(arguments);
        let output = command.output().map_err(|error| format!("{}: {error}", program.display()))?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(told) } else { Err(told) }
    }

    /// `weft preflight --all-nodes` against the lab. Gives the report of every node, as JSON.
    pub(crate) fn preflight(&self) -> Result<String, String> {
        let program = self.program.with_file_name("weft");
        let mut command = Command::new(&program);
        command
            .args(["preflight", "--all-nodes", "--output=json", "--kubeconfig"])
            .arg(self.dir.kubeconfig());
        // Pods of a lab are processes of this machine, and see its files.
        command.arg("--program").arg(&program).arg("--host-root=/");
        let output = command.output().map_err(|error| format!("{}: {error}", program.display()))?;
        match output.status.code() {
            // It is the machine's own state whether every check passes.
            Some(0 | 1) if !output.stdout.is_empty() => {
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// The network namespace of a frontend pod.
    pub(crate) fn frontend_namespace(&self) -> Result<String, String> {
        let first = ["-l", "app=frontend", "-o", "jsonpath={.items[0].metadata.uid}"];
        let uid = self.kubectl(&[&["-n", "shop", "get", "pods"], &first[..]].concat())?;
        Ok(self.name.pod(&uid))
    }

    /// `kubectl apply -f -`.
    pub(crate) fn apply(&self, manifest: &str) -> Result<String, String> {
        let mut command = self.command(&["kubectl", "apply", "-f", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("kubectl: {error}"))?;
        let mut input = child.stdin.take().ok_or("no standard input")?;
        input.write_all(manifest.as_bytes()).map_err(|error| format!("kubectl: {error}"))?;
        drop(input);
        printed(&command, child.wait_with_output().map_err(|error| format!("kubectl: {error}"))?)
    }

    /// Runs a program in a pod of the application, which must succeed.
    pub(crate) fn exec(&self, pod: &str, line: &[&str]) -> Result<String, String> {
        self.run(&[&["exec", "-n", "shop", pod, "--"], line].concat())
    }

    /// Runs a program in a node's network namespace, which must succeed.
    pub(crate) fn on_node(&self, node: &str, line: &[&str]) -> Result<String, String> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name.node(node)]).args(line);
        succeed(command)
    }

    /// Where the demo's own checks look from.
    pub(crate) fn probe_origin(&self) -> ProbeOrigin {
        ProbeOrigin {
            name: self.name.clone(),
            dir: self.dir.clone(),
            lab_program: self.program.clone(),
            weft_program: self.program.with_file_name("weft"),
        }
    }

    /// A client for the lab's API server. Needs a runtime.
    pub(crate) fn client(&self) -> Result<kube::Client, String> {
        weft_lab::kubeconfig::client(self.api_port()?).map_err(|error| error.to_string())
    }

    /// The lab's API server, without a runtime.
    pub(crate) fn api(&self) -> Result<Api, String> {
        Ok(Api::new(self.api_port()?))
    }

    fn api_port(&self) -> Result<u16, String> {
        let record = self.dir.record().map_err(|error| error.to_string())?;
        record.and_then(|record| record.api_port).ok_or("the API server has no port".to_owned())
    }

    /// The addresses of the pods on a node, but for those on the node's own network.
    pub(crate) fn pod_ips_on(&self, node: &str) -> Result<BTreeSet<IpAddr>, String> {
        let pods = self.api()?.get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"))?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let own = pods.iter().filter(|pod| pod["spec"]["hostNetwork"] != true);
        let ips = own.flat_map(|pod| pod["status"]["podIPs"].as_array().into_iter().flatten());
        Ok(ips.filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect())
    }

    /// Waits until the namespaces of all scenarios are gone with what was in them.
    pub(crate) fn wait_for_scenarios(&self) -> Outcome {
        let Ok(api) = self.api() else { return Ok(()) };
        poll("the scenarios' namespaces gone", || {
            let left = api.get("/api/v1/namespaces?labelSelector=scenario");
            let left = left.map(|list| list["items"].as_array().map_or(0, Vec::len));
            // The last scenario of all takes the lab down.
            match left {
                Ok(0) | Err(_) => Ok(()),
                Ok(count) => Err(format!("{count} are left")),
            }
        })
    }

    /// The namespace that is outside of the cluster.
    pub(crate) fn outside(&self) -> String {
        self.name.underlay()
    }

    /// Runs a program outside of the cluster, which must succeed.
    pub(crate) fn run_outside(&self, line: &[&str]) -> Result<String, String> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.outside()]).args(line);
        succeed(command)
    }

    /// The addresses of a node at a port, IPv4 first.
    pub(crate) fn node_at(&self, number: u8, port: u16) -> Vec<SocketAddr> {
        IpFamily::Dual.node(number).into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
    }

    /// The addresses under which those outside are seen, IPv4 first.
    pub(crate) fn outside_ips(&self) -> Vec<IpAddr> {
        IpFamily::Dual.gateways()
    }

    /// Waits until all pods of a namespace are ready, and at least that many.
    pub(crate) fn wait_for_pods(&self, namespace: &str, selector: &str, count: usize) -> Outcome {
        let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        poll(&format!("{count} ready pods {selector} in {namespace}"), || {
            let seen = self.kubectl(&["-n", namespace, "get", "pods", "-l", selector, "-o", path])?;
            let statuses: Vec<&str> = seen.split_whitespace().collect();
            match statuses.len() >= count && statuses.iter().all(|&status| status == "True") {
                true => Ok(()),
                false => Err(seen),
            }
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down"]) {
            eprintln!("lab tests: {error}");
        }
    }
}

/// Runs a program, which must succeed. Gives what it printed.
pub(crate) fn succeed(mut command: Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    printed(&command, output)
}

fn printed(command: &Command, output: Output) -> Result<String, String> {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.success() {
        true => Ok(stdout.into_owned()),
        false => Err(format!("{command:?}: {}\n{stdout}{stderr}", output.status)),
    }
}

/// Tries until it succeeds, within the deadline.
pub(crate) fn poll<T>(what: &str, attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    attempt_for(PATIENCE, what, attempt)
}

/// Fails with both values unless they are equal.
pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, expected: T) -> Outcome {
    match seen == expected {
        true => Ok(()),
        false => Err(format!("{what}:\n     seen {seen:?}\n expected {expected:?}")),
    }
}

/// Fails unless the text holds the part.
pub(crate) fn holds(what: &str, text: &str, part: &str) -> Outcome {
    match text.contains(part) {
        true => Ok(()),
        false => Err(format!("{what}: no {part:?} in:\n{text}")),
    }
}
