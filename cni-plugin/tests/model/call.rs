//! One call of the plugin, as a runtime makes it, which may be killed.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use weft_cni_spec::Version;
use weft_netlink::netns::Namespace;

use crate::model::{Attachment, Command, Outcome};

/// When to kill the plugin.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kill {
    Never,
    /// After so long.
    After(Duration),
    /// By strace, as it enters a system call of this kind for the n-th time.
    At(&'static str, usize),
}

/// A call to make.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) attachment: Attachment,
    pub(crate) command: Command,
    /// Of `CNI_NETNS`.
    pub(crate) netns: String,
    pub(crate) kill: Kill,
}

impl Command {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Del => "DEL",
            Command::Check(_) => "CHECK",
            Command::Gc(_) => "GC",
        }
    }
}

impl Call {
    /// Makes it on a node and waits for its end.
    pub(crate) fn make(&self, node: &Namespace, data_dir: &Path) -> Outcome {
        let mut process = self.process();
        let mut child = node.run(|| process.spawn()).unwrap().unwrap();
        // It may be dead already.
        let _ = child.stdin.take().unwrap().write_all(self.config(data_dir).to_string().as_bytes());
        if let Kill::After(time) = self.kill {
            thread::sleep(time);
            let _ = child.kill();
        }
        self.outcome(child)
    }

    fn process(&self) -> Process {
        let program = env!("CARGO_BIN_EXE_weft-cni");
        let mut process = match self.kill {
            Kill::At(kind, place) => {
                let mut strace = Process::new("strace");
                let inject = format!("inject={kind}:signal=SIGKILL:when={place}");
                strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &inject, program]);
                strace
            }
            _ => Process::new(program),
        };
        process.env_clear().env("PATH", "/usr/bin:/bin").env("CNI_COMMAND", self.command.name());
        process.env("CNI_CONTAINERID", self.attachment.container);
        process.env("CNI_IFNAME", self.attachment.network.ifname);
        process.env("CNI_NETNS", &self.netns);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        process
    }

    fn config(&self, data_dir: &Path) -> Value {
        let network = self.attachment.network;
        let ranges = match network.name {
            "weft" => json!([[{"subnet": "10.244.1.0/29"}], [{"subnet": "fd00:1::/64"}]]),
            _ => json!([[{"subnet": "10.5.0.0/28"}]]),
        };
        let mut config = json!({
            "cniVersion": "1.1.0", "name": network.name, "type": "weft-cni", "bridge": network.bridge,
            "isGateway": true, "isDefaultGateway": network.name == "weft", "forceAddress": true,
            "ipMasq": network.masquerades, "runtimeConfig": {"portMappings": self.attachment.ports(), "bandwidth": network.limits()},
            "ipam": {"type": "weft-ipam", "ranges": ranges, "dataDir": data_dir},
        });
        match &self.command {
            Command::Check(previous) => config["prevResult"] = previous.clone(),
            Command::Gc(valid) => {
                let known = |valid: &Attachment| json!({"containerID": valid.container, "ifname": valid.network.ifname});
                config["cni.dev/valid-attachments"] = valid.iter().map(known).collect();
            }
            _ => {}
        }
        config
    }

    /// An error is always valid JSON and always printed; success prints what the protocol says and no more.
    fn outcome(&self, child: Child) -> Outcome {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let printed: Option<Value> = serde_json::from_str(&text).ok();
        assert!(printed.is_some() || text.is_empty(), "{self:?} printed {text:?}");
        // strace ends as its child did.
        if output.status.signal().is_some() || output.status.code() == Some(128 + 9) {
            return Outcome::Killed;
        }
        if output.status.success() {
            assert_eq!(printed.is_some(), self.command == Command::Add, "{self:?} printed {text:?}");
            return Outcome::Ended(Ok(printed.unwrap_or_default()));
        }
        let error = printed.unwrap_or_else(|| panic!("{self:?} printed no error"));
        assert!(error["code"].as_u64().is_some_and(|code| code > 0 && code != 999), "{self:?}: {error}");
        assert!(error["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{self:?}: {error}");
        assert_eq!(error["cniVersion"], Version::NEWEST.as_str(), "{self:?}");
        Outcome::Ended(Err(error))
    }
}
