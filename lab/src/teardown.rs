//! Removing a lab, from what is on disk alone: its processes, its namespaces with the links in them, its
//! folder. Goes on after an error and reports all of them.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::error::{Error, Result};
use crate::names::LabName;
use crate::state::LabDir;
use crate::{cgroup, netns, process};

/// How long a killed process may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a teardown removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many processes.
    pub processes: usize,
    /// The network namespaces, by name.
    pub namespaces: Vec<String>,
    /// The lab's folder.
    pub folder: Option<PathBuf>,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Removed::default() {
            return f.write_str("nothing to remove");
        }
        write!(f, "removed {} processes", self.processes)?;
        if !self.namespaces.is_empty() {
            let names = self.namespaces.join(" ");
            write!(f, "\nremoved {} namespaces with their links: {names}", self.namespaces.len())?;
        }
        match &self.folder {
            Some(folder) => write!(f, "\nremoved {}", folder.display()),
            None => Ok(()),
        }
    }
}

/// Removes all that is left of a lab, running or not.
pub fn remove(name: &LabName, dir: &LabDir) -> Result<Removed> {
    let mut removed = Removed::default();
    let mut errors = Vec::new();
    match dir.record() {
        // First the process that would start others again.
        Ok(Some(record)) if record.process.is_alive() => {
            removed.processes += 1;
            if !record.process.kill_and_wait(PATIENCE) {
                errors.push(format!("process {} does not end", record.process.pid));
            }
        }
        Ok(_) => {}
        Err(error) => errors.push(error.to_string()),
    }
    let namespaces: Vec<String> = netns::list().into_iter().filter(|other| name.owns(other)).collect();
    remove_processes(&namespaces, &mut removed, &mut errors);
    for namespace in namespaces {
        match netns::delete(&namespace) {
            Ok(()) => removed.namespaces.push(namespace),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if let Err(error) = cgroup::remove(name) {
        errors.push(error.to_string());
    }
    match unmount(dir).and_then(|()| fs::remove_dir_all(dir.root())) {
        Ok(()) => removed.folder = Some(dir.root().to_path_buf()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => errors.push(Error::io("remove", dir.root())(error).to_string()),
    }
    // The folder of all labs, when this was the last one; it is an error when it was not.
    let _ = dir.root().parent().map(fs::remove_dir);
    if errors.is_empty() { Ok(removed) } else { Err(Error::Teardown(errors.join("\n"))) }
}

/// Takes away what is mounted in the lab's folder, so that its contents are not taken for files of it.
fn unmount(dir: &LabDir) -> std::io::Result<()> {
    for folder in [dir.bpffs(), dir.cgroups()] {
        match umount2(&folder, MntFlags::MNT_DETACH) {
            // Most labs have nothing there.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Ends all processes of the namespaces, those too that were started meanwhile.
fn remove_processes(namespaces: &[String], removed: &mut Removed, errors: &mut Vec<String>) {
    let files: Vec<PathBuf> = namespaces.iter().map(|name| netns::path(name)).collect();
    // Each round finds only what forked during the round before: a few suffice unless something forks on and
    // on.
    for _ in 0..10 {
        let processes = process::in_namespaces(&files);
        if processes.is_empty() {
            return;
        }
        removed.processes += processes.len();
        for process in &processes {
            process.signal(nix::sys::signal::Signal::SIGKILL);
        }
        for process in processes {
            if !process.wait(PATIENCE) {
                errors.push(format!("process {} does not end", process.pid));
            }
        }
    }
    errors.push("processes keep starting in the lab's namespaces".to_owned());
}
