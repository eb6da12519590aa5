//! A node with a speaker, a router beside it, and a client behind the router.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use weft_announce::bfd::service::Listener;
use weft_announce::bgp::peer::{Peer, RemoteAs};
use weft_announce::bgp::rib::Announcements;
use weft_announce::bgp::speaker::{Speaker, Wanted};
use weft_announce::bgp::status::{PeerStatus, Status};
use weft_announce::bgp::wire::Attributes;
use weft_netlink::netns::Namespace;
use weft_testkit::namespace::{cable, end, forward, machine, route_by, sh, sh_output};
use weft_testkit::wait::{eventually, eventually_ok};

pub(crate) const NODE: &str = "10.0.0.1";
pub(crate) const NODE6: &str = "fd00::1";
pub(crate) const ROUTER: &str = "10.0.0.2";
pub(crate) const ROUTER6: &str = "fd00::2";
/// A number that takes four bytes.
pub(crate) const OURS: u32 = 4_200_000_001;
pub(crate) const THEIRS: u32 = 65000;

/// The machines, and the folder of the router's files.
pub(crate) struct World {
    pub(crate) node: Namespace,
    pub(crate) router: Namespace,
    pub(crate) client: Namespace,
    pub(crate) folder: TempDir,
}

/// A program of the router, which ends with this.
pub(crate) struct Daemon(Child);

/// The speaker on the node, which is killed with this.
pub(crate) struct Running {
    runtime: Option<Runtime>,
    speaker: Speaker,
}

impl World {
    pub(crate) fn new() -> World {
        let [node, router, client] = [(); 3].map(|()| machine());
        cable(
            &end(&node, "uplink", ["10.0.0.1/24", "fd00::1/64"]),
            &end(&router, "node", ["10.0.0.2/24", "fd00::2/64"]),
        );
        cable(
            &end(&router, "client", ["10.9.0.1/24", "fd09::1/64"]),
            &end(&client, "eth0", ["10.9.0.2/24", "fd09::2/64"]),
        );
        route_by(&client, ["10.9.0.1", "fd09::1"]);
        sh(&node, "ip route add 10.9.0.0/24 via 10.0.0.2 && ip route add fd09::/64 via fd00::2");
        forward(&router);
        World { node, router, client, folder: tempfile::tempdir().unwrap() }
    }

    /// Writes a file for the router and gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Starts a program on the router.
    pub(crate) fn daemon(&self, program: &str, arguments: &[&str]) -> Daemon {
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Daemon(
            self.router.run(|| command.spawn()).unwrap().unwrap_or_else(|error| panic!("{program}: {error}")),
        )
    }

    /// What the router's programs said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Starts a speaker on the node.
    pub(crate) fn speak(&self) -> Running {
        let build = || Builder::new_multi_thread().worker_threads(1).enable_all().build();
        // Its thread is made here, and so is in the namespace.
        let runtime = self.node.run(build).unwrap().unwrap();
        let speaker = runtime.block_on(async { Speaker::start(|| {}) });
        Running { runtime: Some(runtime), speaker }
    }

    /// Runs pings from the client to an address for as long as `during` takes; how many were sent, and how
    /// many were lost.
    pub(crate) fn pings(&self, address: &str, during: impl FnOnce()) -> (u32, u32) {
        let mut command = Command::new("ping");
        command.args(["-q", "-i", "0.01", "-w", "120", address]).stdout(Stdio::piped());
        let mut ping = self.client.run(|| command.spawn()).unwrap().unwrap();
        during();
        // As by the interrupt key: it sums up.
        sh(&self.client, &format!("kill -INT {}", ping.id()));
        let mut text = String::new();
        std::io::Read::read_to_string(ping.stdout.as_mut().unwrap(), &mut text).unwrap();
        ping.wait().unwrap();
        let sums = text.lines().find(|line| line.contains("packets transmitted")).unwrap();
        let mut numbers = sums.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
        let (sent, answered) = (numbers.next().unwrap(), numbers.next().unwrap());
        (sent, sent - answered)
    }
}

impl Daemon {
    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(crate) fn set(&self, peer: Peer, announcements: Announcements) {
        let wanted = Wanted { peers: vec![(peer, Arc::new(announcements))], listen: Some(179) };
        self.speaker.set(wanted);
    }

    /// What BFD is to tell of its peers.
    pub(crate) fn watcher(&self) -> Listener {
        self.speaker.watcher()
    }

    pub(crate) fn clear(&self) {
        self.speaker.set(Wanted::default());
    }

    pub(crate) fn status(&self) -> Status {
        let asker = self.speaker.asker();
        self.runtime.as_ref().unwrap().block_on(async { asker.status().await }).unwrap()
    }

    pub(crate) fn peer(&self) -> PeerStatus {
        eventually_ok("a peer", || self.status().peers.pop().ok_or("none"))
    }

    pub(crate) fn problems(&self) -> String {
        self.speaker.view().problems.join("; ")
    }

    pub(crate) fn routes(&self) -> BTreeMap<String, String> {
        let view = self.speaker.view();
        let words = |next_hops: &BTreeSet<IpAddr>| {
            next_hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        view.routes.iter().map(|(prefix, next_hops)| (prefix.to_string(), words(next_hops))).collect()
    }

    #[track_caller]
    pub(crate) fn wait_until_up(&self, world: &World) {
        eventually_ok("a session", || {
            let status = self.status();
            let is_up = status.peers.iter().any(|peer| peer.state == "Established");
            if is_up { Ok(()) } else { Err(format!("{status:?}\n{}", world.log())) }
        });
    }

    #[track_caller]
    pub(crate) fn wait_for_problem(&self, words: &str) {
        eventually_ok(words, || {
            let problems = self.problems();
            if problems.contains(words) { Ok(()) } else { Err(problems) }
        });
    }
}

impl Drop for Running {
    /// As a kill: no word to anybody.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The router as a peer.
pub(crate) fn router(address: &str) -> Peer {
    let router_id: Ipv4Addr = NODE.parse().unwrap();
    let next_hops = [NODE, NODE6].map(|text| text.parse::<IpAddr>().unwrap());
    Peer {
        name: "router".to_owned(),
        next_hops: next_hops.map(|address| (weft_types::Family::of(address), address)).into(),
        // Tests wait for it.
        connect_retry: Duration::from_secs(1),
        hold_time: 9,
        ..Peer::new(address.parse().unwrap(), RemoteAs::Number(THEIRS), OURS, router_id)
    }
}

/// These prefixes, without anything to be said of them.
pub(crate) fn plain(prefixes: &[&str]) -> Announcements {
    let attributes: Arc<Attributes> = Arc::default();
    prefixes.iter().map(|prefix| (prefix.parse().unwrap(), attributes.clone())).collect()
}

/// Waits until a command on the router prints all of these and none of those.
#[track_caller]
pub(crate) fn shows(world: &World, command: &str, all: &[&str], none: &[&str]) {
    eventually_ok(command, || {
        let output = sh_output(&world.router, command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_fine = all.iter().all(|it| text.contains(it)) && !none.iter().any(|it| text.contains(it));
        if is_fine { Ok(()) } else { Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))) }
    });
}

/// Waits until the router's kernel has a route, or has none.
#[track_caller]
pub(crate) fn routed(world: &World, prefix: &str, is_there: bool) {
    eventually(format!("a route to {prefix}: {is_there}"), || {
        sh(&world.router, &format!("ip route show {prefix}")).contains(prefix.trim_end_matches("/32"))
            == is_there
    });
}
