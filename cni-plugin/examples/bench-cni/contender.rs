//! Somebody who connects pods, on a node of its own, and how it is called.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;

use crate::bare;
use crate::cost::{Calls, Usage};

/// The reference bridge plugin. It finds host-local beside it.
const REFERENCE: &str = "/usr/lib/cni/bridge";

/// A plugin, or the bare calls.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    program: PathBuf,
    /// None for the bare calls, which need no configuration.
    config: Option<Value>,
    node: Namespace,
    folder: tempfile::TempDir,
}

/// A pod's namespace, gone when dropped.
pub(crate) struct Pod {
    id: String,
    netns: PathBuf,
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Namespace::remove(&self.netns);
    }
}

impl Contender {
    /// The bare calls, which this program makes itself.
    pub(crate) fn bare() -> Contender {
        let bare = Contender::new("bare netlink calls", &env::current_exe().unwrap());
        bare::prepare(&bare.node);
        bare
    }

    pub(crate) fn weft(name: &'static str, plugin: &Path, ip_masq: bool) -> Contender {
        Contender::new(name, plugin).configured(ip_masq)
    }

    pub(crate) fn reference(name: &'static str, ip_masq: bool) -> Contender {
        Contender::new(name, Path::new(REFERENCE)).configured(ip_masq)
    }

    fn new(name: &'static str, program: &Path) -> Contender {
        let (node, folder) = (Namespace::temporary().unwrap(), tempfile::tempdir().unwrap());
        Contender { name, program: program.into(), config: None, node, folder }
    }

    fn configured(self, ip_masq: bool) -> Contender {
        let config = json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "cni0",
            "isGateway": true, "isDefaultGateway": true, "ipMasq": ip_masq,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/22"}]], "dataDir": self.folder.path()},
        });
        Contender { config: Some(config), ..self }
    }

    pub(crate) fn gives_addresses(&self) -> bool {
        self.config.is_some()
    }

    pub(crate) fn pod(&self, id: &str) -> Pod {
        let netns = self.folder.path().join(format!("netns-{id}"));
        Namespace::create(&netns).unwrap();
        Pod { id: id.to_owned(), netns }
    }

    /// A pod that is connected.
    pub(crate) fn attached(&self, id: &str) -> Pod {
        let pod = self.pod(id);
        self.timed("ADD", &pod);
        pod
    }

    /// From the start of the program to its end.
    pub(crate) fn timed(&self, command: &str, pod: &Pod) -> Duration {
        let call = || {
            let mut process = self.command(&[], command, pod);
            let start = Instant::now();
            finish(process.spawn().unwrap());
            start.elapsed()
        };
        self.node.run(call).unwrap()
    }

    pub(crate) fn watched(&self, command: &str, pod: &Pod) -> Usage {
        let own = env::current_exe().unwrap();
        let tracer = [own.to_str().unwrap(), "watch"];
        Usage::parse(&self.node.run(|| finish(self.spawn(&tracer, command, pod))).unwrap())
    }

    pub(crate) fn traced(&self, command: &str, pod: &Pod) -> Calls {
        let log = self.folder.path().join("strace");
        let tracer = [&Calls::STRACE[..], &[log.to_str().unwrap()]].concat();
        self.node.run(|| finish(self.spawn(&tracer, command, pod))).unwrap();
        Calls::parse(&fs::read_to_string(&log).unwrap())
    }

    /// The time for all pods at once, and what each was told.
    pub(crate) fn parallel(&self, command: &str, pods: &[Pod]) -> (Duration, Vec<String>) {
        let call = || {
            let start = Instant::now();
            let children: Vec<Child> = pods.iter().map(|pod| self.spawn(&[], command, pod)).collect();
            let answers = children.into_iter().map(finish).collect();
            (start.elapsed(), answers)
        };
        self.node.run(call).unwrap()
    }

    /// To be called in the node's namespace.
    fn spawn(&self, tracer: &[&str], command: &str, pod: &Pod) -> Child {
        self.command(tracer, command, pod).spawn().unwrap()
    }

    /// The command line, which `tracer` may go before. The configuration is in the pipe before the program
    /// starts, so that none of them waits for this one to be woken.
    fn command(&self, tracer: &[&str], command: &str, pod: &Pod) -> Command {
        let words = tracer.iter().map(PathBuf::from).chain([self.program.clone()]);
        let mut words = words.collect::<Vec<_>>().into_iter();
        let mut process = Command::new(words.next().unwrap());
        process.args(words);
        if self.config.is_none() {
            process.args(["bare", command, &pod.id]).arg(&pod.netns);
        }
        let variables = [("CNI_COMMAND", command), ("CNI_CONTAINERID", &pod.id), ("CNI_IFNAME", "eth0")];
        process.env_clear().envs(variables).env("CNI_NETNS", &pod.netns);
        process.envs([("CNI_PATH", "/usr/lib/cni"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")]);
        let (input, mut end) = io::pipe().unwrap();
        end.write_all(self.config.as_ref().map(Value::to_string).unwrap_or_default().as_bytes()).unwrap();
        process.stdin(input).stdout(Stdio::piped());
        process
    }
}

fn finish(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{answer}");
    answer
}
