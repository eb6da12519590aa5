//! Processes: telling a recorded one from a later one with the same number, ending them, and finding those
//! that live in a lab's namespaces. Starting them is the sandbox's work.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process for good: the kernel gives its number to another one after its end, but not with the same start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<ProcessId> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, started) = state_and_start(&stat)?;
        // A zombie holds nothing any more; only its parent can remove it.
        (state != 'Z' && state != 'X').then_some(ProcessId { pid, started })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        ProcessId::of(self.pid) == Some(self)
    }

    /// Sends a signal, unless the process is gone.
    pub fn signal(self, signal: Signal) {
        if let Ok(number) = i32::try_from(self.pid)
            && self.is_alive()
        {
            // It may have ended in between: then there is nothing to do.
            let _ = kill(Pid::from_raw(number), signal);
        }
    }

    /// Sends SIGKILL and waits until the process is gone, at most for `patience`. Tells whether it is.
    pub fn kill_and_wait(self, patience: Duration) -> bool {
        self.signal(Signal::SIGKILL);
        self.wait(patience)
    }

    /// Waits until the process is gone, at most for `patience`. Tells whether it is.
    pub fn wait(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

/// The state and start time of a `/proc/<pid>/stat` line (proc(5), fields 3 and 22). The program's name,
/// field 2, may hold spaces and brackets itself.
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The processes whose network namespace is one of those files (`/run/netns/…`). The caller itself never is.
pub fn in_namespaces(namespaces: &[impl AsRef<Path>]) -> Vec<ProcessId> {
    let inodes: Vec<(u64, u64)> = namespaces.iter().filter_map(|path| identity(path.as_ref())).collect();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| pid != std::process::id())
        .filter(|pid| {
            identity(Path::new(&format!("/proc/{pid}/ns/net"))).is_some_and(|id| inodes.contains(&id))
        })
        .filter_map(ProcessId::of)
        .collect()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(state_and_start(stat), Some(('S', 777)));
        assert_eq!(state_and_start("garbage"), None);
    }

    #[test]
    fn another_process_with_the_same_number_is_not_the_recorded_one() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { started: me.started + 1, ..me }.is_alive());
    }

    #[test]
    fn a_child_is_killed_and_then_gone() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        assert!(id.kill_and_wait(Duration::from_secs(10)), "a zombie counts as gone");
        child.wait().unwrap();
    }
}
