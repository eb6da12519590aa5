//! The daemon as a process: starts it on a node, and asks `/proc` what it costs.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_netlink::netns::Namespace;
use weft_netlink::route::{LinkChange, Route};

use crate::api::Server;
use crate::cluster::{NODE, POD_NETWORK, Size};

/// What the daemon logs once the kernel holds everything.
const IN_STEP: &str = "the kernel is in step with the cluster";
/// How long a start may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// What work takes, by the clock and of the calling thread's processor, the kernel's work for it included. The latter holds
/// where others keep the processors busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    pub(crate) processor: Duration,
}

impl Cost {
    pub(crate) fn of(work: impl FnOnce()) -> Cost {
        let thread = Path::new("/proc/thread-self");
        let (start, before) = (Instant::now(), on_processor(thread));
        work();
        Cost { wall: start.elapsed(), processor: on_processor(thread) - before }
    }
}

/// The time that a thread has spent on a processor.
fn on_processor(thread: &Path) -> Duration {
    let text = fs::read_to_string(thread.join("schedstat")).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// A node with an API server on its loopback.
pub(crate) struct Machine<'a> {
    pub(crate) namespace: Namespace,
    pub(crate) api: Server,
    program: &'a Path,
    log: tempfile::NamedTempFile,
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon(Child);

impl<'a> Machine<'a> {
    pub(crate) fn new(program: &'a Path, size: Size) -> Machine<'a> {
        let namespace = Namespace::temporary().unwrap();
        let work = || {
            let mut route = Route::open().unwrap();
            let loopback = route.link("lo").unwrap().index;
            route.change_link(loopback, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
            Server::start(size)
        };
        let api = namespace.run(work).unwrap();
        Machine { namespace, api, program, log: tempfile::NamedTempFile::new().unwrap() }
    }

    /// Starts the daemon, and waits until it says that the kernel is in step. Returns how long that took.
    pub(crate) fn start(&self) -> (Daemon, Duration) {
        let mut command = Command::new(self.program);
        command.arg("--kubeconfig").arg(self.api.kubeconfig());
        command.args(["--hostname-override", NODE, "--cluster-cidr", POD_NETWORK]);
        command.env_remove("RUST_LOG").stderr(File::create(self.log.path()).unwrap());
        let run = || {
            let start = Instant::now();
            let daemon = Daemon(command.spawn().unwrap());
            loop {
                let log = fs::read_to_string(self.log.path()).unwrap();
                if log.contains(IN_STEP) {
                    return (daemon, start.elapsed());
                }
                assert!(start.elapsed() < PATIENCE, "the daemon does not come up: {log}");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        self.namespace.run(run).unwrap()
    }
}

impl Daemon {
    /// Ends it as a service manager does; the rules stay.
    pub(crate) fn stop(mut self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        self.0.wait().unwrap();
    }

    /// Its resident memory now and at its highest, in MB (10^6 bytes, of which MiB are fewer).
    pub(crate) fn memory(&self) -> (f64, f64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
            kib * 1024.0 / 1e6
        };
        (value("VmRSS:"), value("VmHWM:"))
    }

    /// The time that its threads have spent on processors, those of the kernel's work for them included.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        threads.map(|thread| on_processor(&thread.unwrap().path())).sum()
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
