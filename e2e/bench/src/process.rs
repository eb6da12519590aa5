//! A daemon that is measured: asks `/proc` what it costs, and ends it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running daemon; killed when dropped.
pub struct Daemon(pub Child);

impl Daemon {
    /// Ends it as a service manager does.
    pub fn stop(mut self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        self.0.wait().unwrap();
    }

    /// Its resident memory now and at its highest, in MB (10^6 bytes, of which MiB are fewer).
    pub fn memory(&self) -> (f64, f64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
            kib * 1024.0 / 1e6
        };
        (value("VmRSS:"), value("VmHWM:"))
    }

    /// The time that its threads and children have spent on processors, those of the kernel's work for them
    /// included.
    pub fn cpu(&self) -> Duration {
        threads(self.0.id()).iter().filter_map(|thread| time_of(thread)).sum()
    }

    /// How often the clock's tick met its threads and children in user mode, and in the kernel: it takes
    /// hundreds for a true picture.
    pub fn ticks(&self) -> (f64, f64) {
        let of = |thread: PathBuf| -> (f64, f64) {
            let stat = fs::read_to_string(thread.join("stat")).unwrap();
            // The name of the program, which may hold spaces, ends with the last parenthesis.
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            (fields[11].parse().unwrap(), fields[12].parse().unwrap())
        };
        let add = |sum: (f64, f64), one: (f64, f64)| (sum.0 + one.0, sum.1 + one.1);
        threads(self.0.id()).into_iter().map(of).fold((0.0, 0.0), add)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The time that the thread with that folder below `/proc` has spent on a processor.
pub fn on_processor(thread: &Path) -> Duration {
    time_of(thread).unwrap()
}

/// Nothing of a thread that has ended.
fn time_of(thread: &Path) -> Option<Duration> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// The folders of all threads of a process and of its children, which not every kernel lists.
fn threads(process: u32) -> Vec<PathBuf> {
    let mut folders = folders(&format!("/proc/{process}/task"));
    for other in self::folders("/proc") {
        let stat = fs::read_to_string(other.join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        let number = other.file_name().and_then(|name| name.to_str()?.parse().ok());
        if let (Some(child), true) = (number, parent == Some(process)) {
            folders.extend(threads(child));
        }
    }
    folders
}

fn folders(path: &str) -> Vec<PathBuf> {
    fs::read_dir(path).unwrap().flatten().map(|entry| entry.path()).collect()
}
