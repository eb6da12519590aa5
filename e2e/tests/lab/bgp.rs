//! A cluster whose nodes learn the ways to each other's pods by BGP, with a router of Debian's BIRD outside
//! that learns where load balancers' addresses lead. In a lab of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::case::{Case, echo};
use crate::daemons::restart;
use crate::lab::{Lab, Outcome, equal, holds, poll, succeed};
use crate::load_balancers::ingress;
use crate::probe::{Via, served};

/// The programs that a lab needs, and the command that asks them.
const PROGRAMS: [&str; 6] = ["weft-agent", "weft-proxy", "weft-dns", "weft-cni", "weft-ipam", "weft"];

/// A router outside of the cluster, ended when it is dropped.
struct Router(Child);

impl Router {
    /// A BIRD that puts what it learns into its kernel, both families, and answers whoever connects.
    fn start(lab: &Lab) -> Result<Router, String> {
        let address = lab.outside_ips()[0];
        let peers: String = (1..=3)
            .map(|number| {
                let node = lab.node_at(number, 179)[0].ip();
                format!("protocol bgp {{ local {address} as 65000; neighbor {node} as 64512; graceful restart on;
                    connect retry time 1; ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }}; }}\n")
            })
            .collect();
        let config = format!(
            "log stderr all; router id {address}; protocol device {{}}
             protocol kernel {{ merge paths; ipv4 {{ export all; }}; }} protocol kernel {{ merge paths; ipv6 {{ export all; }}; }}
             {peers}"
        );
        let path = |name: &str| lab.state.path().join(name).display().to_string();
        fs::write(path("bird.conf"), config).map_err(|error| error.to_string())?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lab.outside(), "/usr/sbin/bird", "-f"]);
        command.args(["-c", &path("bird.conf"), "-s", &path("bird.ctl")]);
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        child.map(Router).map_err(|error| format!("bird: {error}"))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder of the programs whose agents speak BGP, with a router.
fn programs(lab: &Lab, folder: &Path) -> Outcome {
    let built = lab.program.parent().unwrap_or(Path::new("/"));
    let router = lab.outside_ips()[0];
    let agent = format!(
        "#!/bin/sh\nexec {} \"$@\" --backend bgp --bgp-peer {router}:65000\n",
        built.join(PROGRAMS[0]).display()
    );
    let path = folder.join(PROGRAMS[0]);
    let made = fs::create_dir(folder)
        .and_then(|()| PROGRAMS[1..].iter().try_for_each(|name| symlink(built.join(name), folder.join(name))))
        .and_then(|()| fs::write(&path, agent))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)));
    made.map_err(|error| format!("{}: {error}", folder.display()))
}

/// `weft bgp status ARGUMENTS…` against the lab.
fn status(lab: &Lab, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(lab.program.with_file_name("weft"));
    command.args(["bgp", "status", "--kubeconfig"]).arg(lab.dir.kubeconfig()).args(arguments);
    succeed(command)
}

pub(crate) fn pods_and_load_balancers_are_routed(lab: &Lab) -> Outcome {
    let folder = lab.state.path().join("bgp");
    programs(lab, &folder)?;
    let other = Lab::new("e2e-bgp")?;
    other.run(&["--bin-dir", &folder.display().to_string(), "up"])?;
    let _router = Router::start(&other)?;
    let case = Case::new(&other, "bgp")?;
    let [near, far] = case.run([echo("near").on("node1"), echo("far").on("node2")])?;
    let between = |lab: &Lab| -> Outcome {
        for (family, count) in [("-4", 2), ("-6", 2)] {
            let routes = lab.on_node("node1", &["ip", family, "route", "show", "proto", "bgp"])?;
            equal(&format!("routes of node1:\n{routes}"), routes.lines().count(), count)?;
        }
        Ok(())
    };
    poll("the ways from node1 to the other nodes' pods", || between(&other))?;
    let reach = || {
        far.ips
            .iter()
            .try_for_each(|&ip| served(&near.netns, Via::Http, std::net::SocketAddr::new(ip, 8080), &["far"]))
    };
    poll("a pod of another node", reach)?;
    case.service("web", json!({"type": "LoadBalancer"}))?;
    let servers: Vec<std::net::SocketAddr> =
        ["198.51.100.80:80", "[2001:db8:51::80]:80"].iter().filter_map(|text| text.parse().ok()).collect();
    case.balance("web", ingress(&servers))?;
    let outside =
        || servers.iter().try_for_each(|&it| served(&other.outside(), Via::Http, it, &["near", "far"]));
    poll("the load balancer from outside", outside)?;
    // No agent at all: everything goes on as it was.
    restart(&other, "node2", "weft-agent", Signal::SIGKILL)?;
    between(&other)?;
    reach()?;
    outside()?;
    let told = poll("all sessions up", || status(&other, &["--routes"]))?;
    holds("sessions", &told, "node node1")?;
    holds("the load balancer's route", &told, "198.51.100.80/32 via")?;
    case.delete("services", "web")?;
    poll("the route outside gone", || {
        let routes = other.run_outside(&["ip", "route", "show", "198.51.100.80"])?;
        equal("the router's route", routes.trim(), "")
    })
}
