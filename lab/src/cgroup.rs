//! A cgroup of version 2 for each node: what is attached to one concerns the processes of that node and of its
//! pods, as on machines of their own. A lab does without where this machine has none.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::names::LabName;
use crate::process::ProcessId;

/// What stands before the name of a node's network namespace.
const PREFIX: &str = "weft-lab.";
/// How long a process that has ended may still be in its cgroup.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the hierarchy is mounted.
fn root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (folder, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| folder.into())
    })
}

/// Makes the cgroup of a node, by the name of its network namespace, where it is not there yet. None where
/// processes cannot be put into one.
pub fn create(namespace: &str) -> Option<PathBuf> {
    let folder = root()?.join(format!("{PREFIX}{namespace}"));
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    // Beside others that hold single threads, it may be of no use.
    let kind = fs::read_to_string(folder.join("cgroup.type")).ok()?;
    (kind.trim() == "domain").then_some(folder)
}

/// The cgroup that a process belongs to.
pub fn of(process: ProcessId) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(root()?.join(path))
}

/// Moves this process there.
pub fn enter(folder: &Path) -> Result<()> {
    let file = folder.join("cgroup.procs");
    fs::write(&file, "0").map_err(Error::io("enter cgroup by", &file))
}

/// Removes the cgroups of a lab's nodes, whose processes have ended.
pub fn remove(lab: &LabName) -> Result<()> {
    let Some(entries) = root().and_then(|root| fs::read_dir(root).ok()) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().and_then(|name| name.strip_prefix(PREFIX)).is_some_and(|name| lab.owns(name)) {
            remove_folder(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_folder(folder: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            removed => return removed.map_err(Error::io("remove", folder)),
        }
    }
}
