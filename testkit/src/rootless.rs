//! A machine where root is root of a user namespace only, as under rootless kind and k3s and in unprivileged
//! containers.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, Stdio};

use weft_netlink::netns::Namespace;

/// A user namespace with a network namespace and a mount namespace of its own. Gone when dropped.
#[derive(Debug)]
pub struct Rootless(Holder);

/// A process that does nothing but keep its namespaces.
#[derive(Debug)]
struct Holder(Child);

impl Rootless {
    /// A new one, with its loopback up.
    pub fn new() -> Rootless {
        Rootless(Holder::start(Command::new("unshare").arg("-Urnm"), "ip link set lo up"))
    }

    /// Its network.
    pub fn namespace(&self) -> Namespace {
        self.0.namespace()
    }

    /// A program that will run in it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "-U", "-n", "-m", "-t", &self.0.0.id().to_string()]);
        command.arg(program);
        command
    }

    /// Another network namespace in it, as a pod has one.
    pub fn pod(&self) -> Pod {
        Pod(Holder::start(self.command("unshare").arg("-n"), "true"))
    }
}

/// A pod's network namespace.
#[derive(Debug)]
pub struct Pod(Holder);

impl Pod {
    /// Its network.
    pub fn namespace(&self) -> Namespace {
        self.0.namespace()
    }
}

impl Holder {
    /// `first` is run inside, before this returns.
    fn start(command: &mut Command, first: &str) -> Holder {
        command.args(["sh", "-c", &format!("{first} && echo && exec cat")]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let begun = child.stdout.as_mut().unwrap().read_exact(&mut [0]);
        let holder = Holder(child);
        assert!(begun.is_ok(), "user namespaces are not allowed here");
        holder
    }

    fn namespace(&self) -> Namespace {
        Namespace::open(format!("/proc/{}/ns/net", self.0.id())).unwrap()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
