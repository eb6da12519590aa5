//! Nodes as real as they can be on one machine: Debian's containerd runs on two of the lab's nodes, with the
//! plugins as the DaemonSet installs them and the configuration that the agent wrote, and makes pods through
//! CRI.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};
use weft_lab::netns;
use weft_testkit::containerd::cri::{Dns, Pod};
use weft_testkit::containerd::{Containerd, Place};

use crate::case::{Case, Service};
use crate::daemons;
use crate::faults::no_address_leaked;
use crate::lab::{Lab, Outcome, holds, poll, succeed};

/// A node with a runtime.
struct Node<'a> {
    // Dropped in this order: the runtime ends before what it stands in.
    containerd: Containerd,
    power: Power,
    lab: &'a Lab,
    name: &'static str,
}

/// The mounts of a node that is switched on: in them the kernel tells the node's own boot. Held by a process,
/// as they must outlive a restart of the runtime.
struct Power(Child);

impl Power {
    fn on(lab: &Lab, node: &str) -> Result<Power, String> {
        let boot = lab.dir.node(node).boot_id();
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && echo on && exec sleep 1000000";
        let mut line = Command::new("unshare");
        line.args(["--mount", "--propagation", "slave", "sh", "-c", script]).arg(&boot);
        let mut holder = line.stdout(Stdio::piped()).spawn().map_err(|error| format!("unshare: {error}"))?;
        let mut said = [0; 3];
        let stdout = holder.stdout.as_mut().ok_or("no standard output")?;
        let told = std::io::Read::read_exact(stdout, &mut said);
        told.map(|()| Power(holder)).map_err(|error| format!("the mounts of {node}: {error}"))
    }

    fn place(&self, lab: &Lab, node: &str) -> Place {
        let mounts = Some(format!("/proc/{}/ns/mnt", self.0.id()).into());
        Place { network: netns::path(&lab.name.node(node)), mounts }
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pod with one container in it.
struct Running {
    sandbox: String,
    container: String,
    ips: Vec<IpAddr>,
}

impl<'a> Node<'a> {
    fn new(lab: &'a Lab, name: &'static str) -> Result<Node<'a>, String> {
        let folder = lab.state.path().join("runtimes").join(name);
        let plugins = folder.join("bin");
        fs::create_dir_all(&plugins).map_err(|error| format!("{}: {error}", plugins.display()))?;
        install(lab, &plugins)?;
        let power = Power::on(lab, name)?;
        let conf = lab.dir.node(name).cni_conf();
        let containerd =
            Containerd::start(&folder.join("containerd"), power.place(lab, name), &plugins, &conf);
        let node = Node { containerd, power, lab, name };
        node.await_network()?;
        Ok(node)
    }

    fn await_network(&self) -> Outcome {
        poll("containerd has a network configuration", || match self.containerd.cri.network_ready() {
            Ok(true) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    }

    /// Makes a pod that says its name to whoever connects to port 8080.
    fn run(&self, name: &str) -> Result<Running, String> {
        let servers = ["10.96.0.10", "fd00:10:96::a"].map(str::to_owned).to_vec();
        let dns = Some(Dns { servers, searches: vec!["svc.cluster.local".to_owned()] });
        let pod = Pod { dns, ..self.containerd.pod(name) };
        let cri = &self.containerd.cri;
        let sandbox = cri.run_sandbox(&pod).map_err(|status| format!("{}: {status}", self.name))?;
        let container = cri.start(&pod, &sandbox, &["nc", "-ll", "-p", "8080", "-e", "echo", name]);
        let ips = cri.addresses(&sandbox).iter().filter_map(|address| address.parse().ok()).collect();
        Ok(Running { sandbox, container, ips })
    }

    fn remove(&self, pods: &[&Running]) -> Outcome {
        pods.iter().try_for_each(|pod| {
            self.containerd.cri.remove_sandbox(&pod.sandbox).map_err(|status| status.to_string())
        })
    }

    /// What a command in a pod prints.
    fn exec(&self, pod: &Running, line: &str) -> Result<String, String> {
        self.containerd.cri.exec(&pod.container, &["sh", "-c", line])
    }

    /// The power of the node fails, and comes back: another boot, the same disk.
    fn reboot(&mut self) -> Outcome {
        self.containerd.lose_power();
        self.lab.run(&["stop", self.name])?;
        self.lab.run(&["start", self.name])?;
        self.power = Power::on(self.lab, self.name)?;
        self.containerd.place = self.power.place(self.lab, self.name);
        self.containerd.restart();
        self.await_network()
    }

    /// Waits until the addresses that are reserved on the node are those of the lab's own pods and of these.
    fn reserves_only(&self, pods: &[&Running]) -> Outcome {
        let ours = pods.iter().flat_map(|pod| pod.ips.clone()).collect();
        no_address_leaked(self.lab, self.name, &ours)
    }
}

/// What of a manifest matters here.
#[derive(Deserialize)]
struct Manifest {
    kind: String,
    #[serde(default)]
    spec: Value,
}

/// Runs the command of the DaemonSet's init container, with the built programs as its image and `plugins` as
/// the folder of the host.
pub(crate) fn install(lab: &Lab, plugins: &Path) -> Outcome {
    let programs = lab.program.parent().map(PathBuf::from).unwrap_or_default();
    let mut manifests = Command::new(programs.join("weft"));
    manifests.args(["manifests", "--api-host", "172.30.0.1"]);
    let command = init_command(&succeed(manifests)?)?;
    let words: Vec<String> = command
        .iter()
        .map(|word| match word.as_str() {
            "/" => programs.display().to_string(),
            "/host/opt/cni/bin" => plugins.display().to_string(),
            other => other.to_owned(),
        })
        .collect();
    let [program, arguments @ ..] = words.as_slice() else { return Err("an empty command".to_owned()) };
    let mut install = Command::new(programs.join(program.trim_start_matches('/')));
    install.args(arguments);
    succeed(install).map(drop)
}

/// The command of the init container that installs the plugins.
fn init_command(manifests: &str) -> Result<Vec<String>, String> {
    let is_object = |text: &&str| text.lines().any(|line| line.starts_with("kind:"));
    for text in manifests.split("\n---").filter(is_object) {
        let manifest: Manifest = serde_saphyr::from_str(text).map_err(|error| format!("{error}:\n{text}"))?;
        let containers = manifest.spec["template"]["spec"]["initContainers"].as_array().cloned();
        let installs = |one: &&Value| one["command"][1] == "install-plugins";
        if let ("DaemonSet", Some(found)) = (&*manifest.kind, containers.iter().flatten().find(installs)) {
            return serde_json::from_value(found["command"].clone()).map_err(|error| error.to_string());
        }
    }
    Err(format!("no DaemonSet installs plugins:\n{manifests}"))
}

/// Makes these pods the endpoints of a Service without a selector.
fn publish(case: &Case, pods: &[&Running]) -> Outcome {
    for (position, family) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let name = format!("web-{}", family.to_lowercase());
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|pod| json!({"addresses": [pod.ips[position]], "conditions": {"ready": true}}))
            .collect();
        let slice = json!({"metadata": {"name": name, "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": family, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints});
        match case.get("endpointslices", &name) {
            Ok(_) => case.patch("endpointslices", &name, &slice)?,
            Err(_) => case.create("endpointslices", &slice)?,
        };
    }
    Ok(())
}

/// Waits until a pod reaches all of them through the Service, over both families, and finds the Service by
/// its name.
fn reached(case: &Case, service: &Service, from: &Node, client: &Running, names: &[&str]) -> Outcome {
    let lookup = format!("nslookup web.{}.svc.cluster.local", case.namespace);
    for ip in &service.ips {
        let ask = format!("for n in 1 2 3 4 5 6 7 8; do nc -w 2 {ip} 80 </dev/null; done");
        for name in names {
            poll(&format!("{name} through {ip}"), || holds("answers", &from.exec(client, &ask)?, name))?;
        }
        poll("the name", || holds("nslookup", &from.exec(client, &lookup)?, &ip.to_string()))?;
    }
    Ok(())
}

pub(crate) fn pods_of_containerd(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "real-runtime")?;
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let service = case.service("web", json!({"selector": null, "ports": ports}))?;
    let (mut first, mut second) = (Node::new(lab, "node1")?, Node::new(lab, "node2")?);
    let (client, one, two) = (first.run("client")?, first.run("one")?, second.run("two")?);
    publish(&case, &[&one, &two])?;
    reached(&case, &service, &first, &client, &["one", "two"])?;

    // Runtime and agent are killed: what runs is not disturbed, and more pods can be made.
    first.containerd.restart();
    daemons::kill(lab, "node1", "weft-agent")?;
    reached(&case, &service, &first, &client, &["one", "two"])?;
    let three = first.run("three")?;
    publish(&case, &[&two, &three])?;
    reached(&case, &service, &first, &client, &["two", "three"])?;
    first.reserves_only(&[&client, &one, &three])?;

    // After a boot the pods of before hold nothing, and new ones are made and reached.
    second.reboot()?;
    let four = second.run("four")?;
    publish(&case, &[&four])?;
    reached(&case, &service, &first, &client, &["four"])?;
    reached(&case, &service, &second, &four, &["four"])?;
    second.reserves_only(&[&four])?;
    second.remove(&[&two])?;
    second.reserves_only(&[&four])?;

    second.remove(&[&four])?;
    first.remove(&[&client, &one, &three])?;
    [&first, &second].into_iter().try_for_each(|node| node.reserves_only(&[]))
}
