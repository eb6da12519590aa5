//! Cgroups of version 2 for threads of a test, and a file system to pin what is attached to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::gettid;

use crate::wait::eventually_ok;

/// A cgroup below that of the test. A socket belongs to the one in which the thread was that opened it.
#[derive(Debug)]
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// A new one.
    pub fn new() -> ControlGroup {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[2] == "cgroup2").then(|| words[1].to_owned())
        });
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup v2 is there");
        let name = format!("weft-test-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(&root.expect("cgroup2 is mounted")).join(own).join(name);
        fs::create_dir(&folder).unwrap();
        // So that it can have some threads of a process that has others elsewhere.
        fs::write(folder.join("cgroup.type"), "threaded").unwrap();
        ControlGroup(folder)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs `work` on a thread in it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            fs::write(self.0.join("cgroup.threads"), gettid().to_string()).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A thread that has ended is in it for a moment still.
        eventually_ok("the cgroup is empty", || fs::remove_dir(&self.0));
    }
}

/// A file system of type bpf of one's own.
#[derive(Debug)]
pub struct Bpffs(tempfile::TempDir);

impl Bpffs {
    /// Mounts one.
    pub fn mount() -> Bpffs {
        let folder = tempfile::tempdir().unwrap();
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Bpffs(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // With it goes all that nobody else holds.
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}
