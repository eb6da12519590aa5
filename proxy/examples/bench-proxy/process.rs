//! Starts the daemon on a node.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use weft_bench::api::Server;
use weft_bench::cluster::{NODE, POD_NETWORK, Size};
use weft_bench::process::{Daemon, on_processor};
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{LinkChange, RtnetlinkClient};

/// What the daemon logs once the kernel holds everything.
const IN_STEP: &str = "the kernel is in step with the cluster";
/// How long a start may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// What work takes, by the clock and of the calling thread's processor, the kernel's work for it included.
/// The latter holds where others keep the processors busy.
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

/// A node with an API server on its loopback.
pub(crate) struct Machine<'a> {
    pub(crate) namespace: Namespace,
    pub(crate) api: Server,
    program: &'a Path,
    log: tempfile::NamedTempFile,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(program: &'a Path, size: Size) -> Machine<'a> {
        let namespace = Namespace::temporary().unwrap();
        let work = || {
            let mut route = RtnetlinkClient::open().unwrap();
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
