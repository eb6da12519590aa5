//! How the lab starts a process somewhere else: in another network namespace and cgroup, with its own host name
//! and its own view of a few files. The lab starts itself again with `sandbox-exec`, moves that process where it
//! belongs and replaces it by the program: so nothing has to be done between fork and exec.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getppid, sethostname};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::{cgroup, netns};

/// Where a process is to run. The default is: here.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The network namespace, as a file
    #[arg(long)]
    pub netns: Option<PathBuf>,
    /// The host name
    #[arg(long)]
    pub hostname: Option<String>,
    /// The cgroup, as a folder
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
    /// A file shown in the place of another, SOURCE:TARGET
    #[arg(long = "bind", value_parser = parse_bind)]
    pub binds: Vec<Bind>,
    /// End with this process, the one that starts the program
    #[arg(long)]
    pub die_with: Option<i32>,
}

/// A file that the program sees in the place of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The file to show.
    pub source: PathBuf,
    /// Where.
    pub target: PathBuf,
}

fn parse_bind(text: &str) -> std::result::Result<Bind, String> {
    match text.rsplit_once(':') {
        Some((source, target)) if !source.is_empty() && target.starts_with('/') => {
            Ok(Bind { source: source.into(), target: target.into() })
        }
        _ => Err(format!("{text:?} is not of the form SOURCE:/TARGET")),
    }
}

impl Sandbox {
    /// The same place, for a process that must not outlive this one.
    pub fn dying_with_me(mut self) -> Sandbox {
        self.die_with = i32::try_from(std::process::id()).ok();
        self
    }

    /// The arguments with which `weft-lab` starts a program here.
    pub fn arguments(&self, program: &OsStr) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["sandbox-exec".into()];
        if let Some(netns) = &self.netns {
            arguments.extend(["--netns".into(), netns.into()]);
        }
        if let Some(hostname) = &self.hostname {
            arguments.extend(["--hostname".into(), hostname.into()]);
        }
        if let Some(cgroup) = &self.cgroup {
            arguments.extend(["--cgroup".into(), cgroup.into()]);
        }
        for Bind { source, target } in &self.binds {
            let mut bind = source.clone().into_os_string();
            bind.push(":");
            bind.push(target);
            arguments.extend(["--bind".into(), bind]);
        }
        if let Some(parent) = self.die_with {
            arguments.extend(["--die-with".into(), parent.to_string().into()]);
        }
        arguments.extend(["--".into(), program.to_owned()]);
        arguments
    }

    /// A command that starts `program` here, through the lab's own program.
    pub fn command(&self, lab: &Path, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(lab);
        command.args(self.arguments(program.as_ref()));
        command
    }

    /// Moves this process here and replaces it by a program. Returns only when that failed.
    pub fn exec(&self, command: &[OsString]) -> Result<()> {
        let Some((program, arguments)) = command.split_first() else { return Ok(()) };
        self.enter()?;
        let source = Command::new(program).args(arguments).exec();
        Err(Error::Spawn { program: program.display().to_string(), source })
    }

    fn enter(&self) -> Result<()> {
        if let Some(parent) = self.die_with {
            die_with(parent)?;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup::enter(cgroup)?;
        }
        if let Some(netns) = &self.netns {
            netns::enter(netns)?;
        }
        if let Some(hostname) = &self.hostname {
            unshare(CloneFlags::CLONE_NEWUTS).map_err(Error::system("separate", "the host name"))?;
            sethostname(hostname).map_err(Error::system("set host name", hostname))?;
        }
        if self.binds.is_empty() { Ok(()) } else { self.mount() }
    }

    fn mount(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS).map_err(Error::system("separate", "the mounts"))?;
        // From here on nothing mounted reaches the host, while what the host unmounts goes here too.
        let flags = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
            .map_err(Error::system("separate the mounts of", "/"))?;
        // A sysfs shows the links of the namespace in which it is mounted.
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)
            .map_err(Error::system("mount", "/sys"))?;
        for Bind { source, target } in &self.binds {
            mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(Error::system("mount on", target.display()))?;
        }
        Ok(())
    }
}

/// Asks the kernel to end this process with the thread that started it.
fn die_with(parent: i32) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).map_err(Error::system("tie this process to", parent))?;
    // It may have ended before the kernel knew of our wish.
    if getppid().as_raw() == parent { Ok(()) } else { Err(Error::Interrupted) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sandbox: Sandbox,
        #[arg(last = true)]
        command: Vec<OsString>,
    }

    #[test]
    fn what_is_passed_on_is_what_arrives() {
        let sandbox = Sandbox {
            netns: Some("/run/netns/weft-node1".into()),
            hostname: Some("node1".to_owned()),
            cgroup: Some("/sys/fs/cgroup/weft-lab.weft-node1".into()),
            binds: vec![Bind { source: "/a:b/c".into(), target: "/etc/hosts".into() }],
            die_with: Some(7),
        };
        let arrived = Line::try_parse_from(sandbox.arguments(OsStr::new("--help"))).unwrap();
        assert_eq!(arrived.sandbox, sandbox);
        assert_eq!(arrived.command, ["--help"]);
    }

    #[test]
    fn a_bind_needs_both_ends() {
        for bad in ["", "/a", ":/a", "/a:", "/a:b"] {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
    }
}
