//! The agent itself against an API server: its memory, and changes from the event to the kernel.

use std::fs::{self, File, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use weft_bench::process::Daemon;
use weft_bench::table::{Table, ms, quantile};
use weft_netlink::netns::Namespace;
use weft_netlink::notifications::Source;
use weft_nftables::Monitor;
use weft_policy::ruleset::TABLE;
use weft_testkit::api_server::FakeApiServer;
use weft_testkit::namespace::sh;
use weft_testkit::wait::eventually;

use crate::cluster::{self, NAMESPACES, NODE, PODS};

pub(crate) const PODS_PATH: &str = "/api/v1/pods";
pub(crate) const NAMESPACES_PATH: &str = "/api/v1/namespaces";
pub(crate) const POLICIES_PATH: &str = "/apis/networking.k8s.io/v1/networkpolicies";
const NODES_PATH: &str = "/api/v1/nodes";
/// How long anything may take before the benchmark gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two changes: longer than the agent waits for more of them.
const PAUSE: Duration = Duration::from_millis(30);
/// How often all peers change their classes.
const HALVINGS: usize = 10;

/// A node with the agent's programs, and the API server on its loopback.
pub(crate) struct Machine {
    pub(crate) node: Namespace,
    pub(crate) server: FakeApiServer,
    has_policies: bool,
    folder: tempfile::TempDir,
    agent: PathBuf,
}

impl Machine {
    /// A cluster of 10,000 pods, with its policies or without.
    pub(crate) fn new(agent: &Path, has_policies: bool) -> Machine {
        let node = Namespace::temporary().unwrap();
        let links = "ip link set lo up && ip link add uplink type veth peer name wire && ip link set wire up && \
                     ip link set uplink up && ip addr add 172.30.0.11/16 dev uplink";
        sh(&node, links);
        let machine = Machine { has_policies, ..Machine::at(agent, node) };
        let server = &machine.server;
        (0..NAMESPACES).for_each(|number| server.put(NAMESPACES_PATH, cluster::namespace(number, 10)));
        (0..PODS).for_each(|number| server.put(PODS_PATH, cluster::pod(number, 0)));
        if has_policies {
            cluster::policies().for_each(|policy| server.put(POLICIES_PATH, policy));
        }
        machine
    }

    /// A cluster of that node alone.
    pub(crate) fn at(agent: &Path, node: Namespace) -> Machine {
        let server = node.run(FakeApiServer::start).unwrap();
        server.put(NODES_PATH, cluster::node(0));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        // The agent looks whether there is a plugin; here nobody starts it by that name.
        fs::write(folder.path().join("bin/weft-cni"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(folder.path().join("bin/weft-cni"), Permissions::from_mode(0o755)).unwrap();
        Machine { node, server, has_policies: false, folder, agent: agent.to_owned() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the agent, and waits until it has done all that it has to.
    pub(crate) fn start(&self) -> Daemon {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new(&self.agent);
        command.arg("--kubeconfig").arg(self.server.kubeconfig()).args(["--hostname-override", NODE]);
        command.arg("--cni-conf-dir").arg(self.path("net.d")).arg("--cni-bin-dir").arg(self.path("bin"));
        command.arg("--cni-data-dir").arg(self.path("networks")).args(["--cluster-cidr", "10.128.0.0/9"]);
        command.args(["--backend", "host-gw"]).env_remove("RUST_LOG").stderr(log);
        let agent = Daemon(self.node.run(|| command.spawn()).unwrap().unwrap());
        eventually("the agent is ready", || self.path("net.d/10-weft.conflist").exists());
        let is_closed = || sh(&self.node, "nft list set ip weft-policy ingress || true").contains("10.128.");
        eventually("the policies are in the kernel", || !self.has_policies || is_closed());
        eventually("the agent is at rest", || {
            let before = agent.cpu();
            sleep(Duration::from_secs(2));
            // Threads that ended meanwhile take their time with them.
            agent.cpu().saturating_sub(before) < Duration::from_millis(200)
        });
        agent
    }

    pub(crate) fn commits(&self) -> Commits {
        Commits(self.node.run(|| Monitor::open([TABLE])).unwrap().unwrap())
    }
}

/// Hears of commits to the tables of policies.
pub(crate) struct Commits(Monitor);

impl Commits {
    /// Forgets those that came.
    pub(crate) fn drain(&mut self) {
        while self.0.read().is_ok_and(|all| !all.is_empty()) {}
    }

    /// Waits for the next one.
    pub(crate) fn next(&mut self) {
        let start = Instant::now();
        while self.0.read().is_ok_and(|all| all.iter().all(|it| it.tables.is_empty())) {
            assert!(start.elapsed() < PATIENCE, "nothing was committed");
            let mut descriptors = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            poll(&mut descriptors, PollTimeout::from(1000u16)).unwrap();
        }
    }
}

/// Memory without policies.
pub(crate) fn measure_without(agent: &Path, table: &mut Table) {
    let machine = Machine::new(agent, false);
    let agent = machine.start();
    assert!(machine.server.queries(PODS_PATH, false).is_empty(), "nobody asks for pods");
    table.at_most("agent without policies: resident memory", agent.memory().0, 15.0, "MB");
}

pub(crate) fn measure(agent: &Path, changes: usize, table: &mut Table) {
    let machine = Machine::new(agent, true);
    let agent = machine.start();
    let (now, most) = agent.memory();
    table.at_most("agent with policies: resident memory", now, 40.0, "MB");
    table.note("agent with policies: at its highest", format!("{most:.1} MB"));
    let mut commits = machine.commits();
    let here: Vec<u32> = cluster::pods_here().collect();
    let mut row = |what: &str,
                   bar: f64,
                   rounds: usize,
                   event: &dyn Fn(u32) -> (&'static str, Result<Value, String>)| {
        let mut times: Vec<Duration> = (0..rounds as u32)
            .map(|round| {
                sleep(PAUSE);
                let (path, object) = event(round);
                let start = Instant::now();
                match object {
                    Ok(object) => machine.server.put(path, object),
                    Err(name) => machine.server.delete(path, &name),
                }
                commits.next();
                start.elapsed()
            })
            .collect();
        table.note(
            format!("{what}: event sent to committed, p50"),
            format!("{:.2} ms", ms(quantile(&mut times, 0.5))),
        );
        table.at_most(
            format!("{what}: event sent to committed, p99"),
            ms(quantile(&mut times, 0.99)),
            bar,
            "ms",
        );
    };
    row("a pod elsewhere changes its labels", 2.0, changes, &|round| {
        (PODS_PATH, Ok(cluster::pod_elsewhere(round)))
    });
    row("a pod of the node comes or goes", 2.0, changes, &|round| {
        let number = here[(round / 2) as usize % here.len()];
        let gone = Err(format!("pod-{number}"));
        (PODS_PATH, if round % 2 == 0 { gone } else { Ok(cluster::pod(number, 0)) })
    });
    row("a policy changes a port", 2.0, changes, &|round| (POLICIES_PATH, Ok(cluster::policy_here(round))));
    row("a policy that gives half of 10,000 pods other classes", 50.0, HALVINGS * 2, &|round| {
        let gone = Err("halves".to_owned());
        (POLICIES_PATH, if round % 2 == 0 { Ok(cluster::halving()) } else { gone })
    });
    table.note("agent with policies: resident memory after all that", format!("{:.1} MB", agent.memory().0));
}
