//! The control group under which a test's containers are: by it their processes are found and ended, and it
//! is deleted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ROOT: &str = "/sys/fs/cgroup";
/// A group is empty some moments after its last process was ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// A control group, in every hierarchy of version 1 or in the one of version 2. Runtimes make it.
#[derive(Debug)]
pub struct ControlGroup {
    name: String,
}

impl ControlGroup {
    /// With a name that no other test has at the same time: that of a folder.
    pub fn of(folder: &Path) -> ControlGroup {
        let folder = folder.display().to_string();
        let letters: String = folder.chars().filter(char::is_ascii_alphanumeric).collect();
        ControlGroup { name: format!("weft-test-{letters}") }
    }

    /// As a runtime is told it.
    pub fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// Ends every process in it, and deletes it.
    pub fn remove(&self) {
        let deadline = Instant::now() + PATIENCE;
        for folder in self.folders() {
            end_members(&folder);
            while delete(&folder).is_err() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn folders(&self) -> Vec<PathBuf> {
        let hierarchies = below(Path::new(ROOT)).into_iter().chain([ROOT.into()]);
        hierarchies.map(|folder| folder.join(&self.name)).filter(|folder| folder.is_dir()).collect()
    }
}

/// Ends a process of the test's.
pub fn end(pid: &str) {
    if let Ok(pid) = pid.parse() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn end_members(group: &Path) {
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    members.lines().for_each(end);
    below(group).iter().for_each(|child| end_members(child));
}

/// From the leaves on. The files in a group go with it.
fn delete(group: &Path) -> io::Result<()> {
    below(group).iter().try_for_each(|child| delete(child))?;
    fs::remove_dir(group)
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).collect()
}
