//! Another version of Weft, the former one again, and none: in a lab of its own, whose programs are replaced on
//! one node after the other under a steady load, as a rolling update of the manifests does. The load counts what
//! it is not answered: nothing may be.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft_lab::client::http;
use weft_lab::netns;

use crate::case::{Case, echo};
use crate::connection::Connection;
use crate::daemons::restart;
use crate::lab::{Lab, Outcome, equal, poll};
use crate::load::Tally;
use crate::probe::{Via, served};
use crate::real_runtime::install;
use crate::soak;

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The programs that a lab needs, and the one that installs them.
const PROGRAMS: [&str; 6] = ["weft-agent", "weft-proxy", "weft-dns", "weft-cni", "weft-ipam", "weft"];
/// What the next version of each daemon does otherwise. Each is seen from outside.
const NEXT: [(&str, &str); 3] = [
    ("weft-agent", "--mtu 1400 --fast-path ebpf"),
    ("weft-proxy", "--masquerade-all"),
    ("weft-dns", "--ttl 7"),
];

/// The programs that a lab's nodes have, which can be replaced. What runs goes on as it is.
pub(crate) struct Version {
    pub(crate) folder: PathBuf,
    /// Those to be tested.
    pub(crate) built: PathBuf,
    /// Those that the lab began with.
    former: PathBuf,
}

/// Which programs nodes are to have.
#[derive(Clone, Copy)]
enum Release {
    /// Those that are tested, told to do something otherwise.
    Next,
    /// Those that the lab began with.
    Former,
}

impl Version {
    /// Those of `WEFT_UPGRADE_FROM`, an earlier build, where it is set; else the same as are tested.
    fn before(lab: &Lab) -> Result<Version, String> {
        Version::of(lab, std::env::var_os("WEFT_UPGRADE_FROM").map(PathBuf::from))
    }

    /// Those of a folder, else the ones that are tested.
    pub(crate) fn of(lab: &Lab, from: Option<PathBuf>) -> Result<Version, String> {
        let built = lab.program.parent().map(PathBuf::from).unwrap_or_default();
        let former = from.unwrap_or_else(|| built.clone());
        let version = Version { folder: lab.state.path().join("version"), built, former };
        fs::create_dir(&version.folder).map_err(|error| error.to_string())?;
        for name in PROGRAMS {
            let found = symlink(version.former.join(name), version.folder.join(name));
            found.map_err(|error| format!("{name}: {error}"))?;
        }
        if version.former != version.built {
            version.release(Release::Former)?;
        }
        Ok(version)
    }

    /// Another program by that name.
    pub(crate) fn replace(&self, name: &str, script: &str) -> Outcome {
        let (next, place) = (self.folder.join("next"), self.folder.join(name));
        let written = fs::write(&next, format!("#!/bin/sh\n{script}\n"))
            .and_then(|()| fs::set_permissions(&next, fs::Permissions::from_mode(0o755)))
            .and_then(|()| fs::rename(&next, &place));
        written.map_err(|error| format!("{}: {error}", place.display()))
    }

    /// From now on, what starts is of that release.
    fn release(&self, release: Release) -> Outcome {
        NEXT.into_iter().try_for_each(|(name, flags)| match release {
            Release::Next => {
                self.replace(name, &format!("exec {} \"$@\" {flags}", self.built.join(name).display()))
            }
            Release::Former => self.replace(name, &with_known_flags(&self.former.join(name))?),
        })
    }

    /// No version: a daemon that is gone and has left what it set up.
    pub(crate) fn withdraw(&self, names: &[&str]) -> Outcome {
        names.iter().try_for_each(|name| self.replace(name, "exec sleep 1000000"))
    }
}

/// A shell's lines that start a program with those of the flags that it knows: the lab gives an earlier version
/// what its own manifests would not have.
fn with_known_flags(program: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", program.display());
    let help = Command::new(program).arg("--help").output().map_err(failed)?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let words = help.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    let known: BTreeSet<&str> = words.filter(|word| word.starts_with("--")).collect();
    let known = known.into_iter().collect::<Vec<_>>().join("|");
    Ok(format!(
        "for word; do shift\n\
         case \"$word\" in --*) case \"${{word%%=*}}\" in {known}) keep=yes;; *) keep=;; esac;; esac\n\
         if [ \"$keep\" ]; then set -- \"$@\" \"$word\"; fi; done\n\
         exec {} \"$@\"",
        program.display()
    ))
}

/// A connection that was not answered, or a name that only a second server knew, has been dropped.
fn nothing_dropped(what: &str, tallies: &[Tally]) -> Outcome {
    soak::report(what, tallies)?;
    let refused: u64 = tallies.iter().map(|tally| tally.killed + tally.second).sum();
    equal("questions that a server did not answer", refused, 0)
}

pub(crate) fn an_upgrade_drops_nothing(lab: &Lab) -> Outcome {
    let version = Version::before(lab)?;
    let other = Lab::new("e2e-upgrade")?;
    other.run(&["--bin-dir", &version.folder.display().to_string(), "up"])?;
    rolls(&other, &version)?;
    leaves_pods_alone(&other, &version)
}

/// To the next version and back. In between, and in either order, one daemon of a node is of another version than
/// those beside it.
fn rolls(lab: &Lab, version: &Version) -> Outcome {
    let case = Case::new(lab, "upgrade")?;
    lab.nodes()?.iter().try_for_each(|node| poll("direct routes", || is_direct(lab, node)))?;
    let load = soak::load(lab, &case)?;
    version.release(Release::Next)?;
    lab.nodes()?.iter().try_for_each(|node| roll(lab, &case, node, Release::Next))?;
    poll("packets on the fast path", || takes_fast_path(lab))?;
    nothing_dropped("agent, proxy, DNS and plugins replaced on three nodes, one by one", &load.finish())?;

    let case = Case::new(lab, "downgrade")?;
    let load = soak::load(lab, &case)?;
    version.release(Release::Former)?;
    roll(lab, &case, "node1", Release::Former)?;
    nothing_dropped("the former ones again on a node", &load.finish())?;
    version.release(Release::Next)?;
    roll(lab, &case, "node1", Release::Next)
}

/// One node: the plugins by the init container's own command, then each daemon, as a DaemonSet's pods are
/// replaced.
fn roll(lab: &Lab, case: &Case<'_>, node: &str, release: Release) -> Outcome {
    install(lab, &lab.dir.node(node).cni_bin())?;
    for (daemon, _) in NEXT {
        restart(lab, node, daemon, Signal::SIGTERM)?;
        let is_next = matches!(release, Release::Next);
        poll(&format!("another {daemon} on {node}"), || {
            equal("whether it is the next one", shows_next(lab, node, daemon)?, is_next)
        })?;
    }
    // Pods come and go meanwhile.
    let [pod] = case.run([echo(&format!("later-{node}")).app("later").on(node)])?;
    let server = SocketAddr::new(pod.ips[0], 8080);
    served(&lab.name.node("node1"), Via::Http, server, &[&pod.name])?;
    case.delete("pods", &pod.name)
}

/// Whether packets take the fast path, which the next version switches on, where clients of another node reach
/// a server: there, nothing of their connections is translated.
fn takes_fast_path(lab: &Lab) -> Outcome {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 10246));
    let ask = move || Ok(http::get(server, "agent", "/metrics", PATIENCE));
    let metrics = netns::run(&lab.name.node("node2"), ask).map_err(|error| error.to_string())??;
    let name = "weft_agent_fast_path_packets_total ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok());
    equal("whether packets took the fast path", count.is_some_and(|count| count > 0), true)
}

/// Whether a node's agent reaches all others directly. One that started before theirs begins with the tunnel,
/// and the kernel ends masqueraded flows whose interface changes later (nf_nat_oif_changed): no matter of
/// upgrades.
fn is_direct(lab: &Lab, node: &str) -> Outcome {
    let routes =
        ["-4", "-6"].map(|family| lab.on_node(node, &["ip", family, "route", "show", "proto", "119"]));
    let [v4, v6] = routes;
    let routes = v4? + &v6?;
    equal(
        &format!("whether {node} has routes, and none through the tunnel"),
        (routes.is_empty(), routes.contains("weft-vxlan")),
        (false, false),
    )
}

/// Whether a node shows the flags of the next version.
fn shows_next(lab: &Lab, node: &str, daemon: &str) -> Result<bool, String> {
    let address = &lab.node_at(node.trim_start_matches("node").parse().unwrap_or(1), 53)[0].ip().to_string();
    Ok(match daemon {
        "weft-agent" => {
            let path = lab.dir.node(node).cni_conf().join("10-weft.conflist");
            let text = fs::read(&path).map_err(|error| error.to_string())?;
            let conflist: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
            conflist["plugins"][0]["mtu"] == json!(1400)
        }
        // The rule of --masquerade-all.
        "weft-proxy" => {
            lab.on_node(node, &["nft", "list", "table", "ip", "weft"])?.contains("comment \"ClusterIP\"")
        }
        _ => {
            let question =
                ["dig", &format!("@{address}"), "+noall", "+answer", "kubernetes.default.svc.cluster.local"];
            let answer = lab.on_node(node, &question)?;
            let ttl = answer.split_whitespace().nth(1).ok_or_else(|| format!("no answer of {address}"))?;
            ttl == "7"
        }
    })
}

/// Agent and proxy go first, and nobody notices. Then what each set up goes, by the commands of the pod that
/// `weft uninstall` runs on every node: pods stay, and go on with those of their own node.
fn leaves_pods_alone(lab: &Lab, version: &Version) -> Outcome {
    let case = Case::new(lab, "uninstall")?;
    let load = soak::load(lab, &case)?;
    version.withdraw(&["weft-agent", "weft-proxy"])?;
    for node in lab.nodes()? {
        restart(lab, &node, "weft-agent", Signal::SIGTERM)?;
        restart(lab, &node, "weft-proxy", Signal::SIGTERM)?;
    }
    let [here, there] = case.run([echo("here").on("node1"), echo("there").app("client").on("node1")])?;
    nothing_dropped("agent and proxy gone from all nodes", &load.finish())?;

    let mut open = Vec::new();
    for &ip in &here.ips {
        open.push(Connection::open(&there.netns, SocketAddr::new(ip, 8080))?);
    }
    for node in lab.nodes()? {
        clean_up(lab, &node, &version.built)?;
        nothing_of_ours(lab, &node)?;
    }
    for connection in &mut open {
        equal("the server of the open connection", connection.ask()?, "here".to_owned())?;
    }
    for &ip in &here.ips {
        served(&there.netns, Via::Http, SocketAddr::new(ip, 8080), &["here"])?;
    }
    let plugin = lab.dir.node("node1").cni_bin().join("weft-cni");
    equal("the plugin by which its pods can be deleted", plugin.is_file(), true)
}

/// The commands of the cleanup pod's init containers, on a node.
pub(crate) fn clean_up(lab: &Lab, node: &str, built: &Path) -> Outcome {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../installer/src/cleanup.yaml");
    let text = fs::read_to_string(manifest).map_err(|error| format!("{manifest}: {error}"))?;
    let values = ["{{image}}", "{{cni_bin_dir}}", "{{cni_conf_dir}}"];
    let text = values.into_iter().fold(text, |text, value| text.replace(value, "x"));
    let set: Value = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    let containers =
        set["spec"]["template"]["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
    equal("steps of the cleanup", containers.len(), 4)?;
    let dir = lab.dir.node(node);
    let (conf, bin, data) = (dir.cni_conf(), dir.cni_bin(), dir.cni_data().join("weft"));
    let path = |path: &Path| path.display().to_string();
    for container in containers {
        let words: Vec<String> =
            serde_json::from_value(container["command"].clone()).map_err(|error| error.to_string())?;
        let mut line: Vec<String> = words
            .iter()
            .map(|word| match word.as_str() {
                "/host/opt/cni/bin" => path(&bin),
                "/host/var/lib/cni/networks/weft" => path(&data),
                program if program.starts_with('/') => path(&built.join(program.trim_start_matches('/'))),
                other => other.to_owned(),
            })
            .collect();
        if container["name"] == "agent" {
            line.extend(["--cni-conf-dir".to_owned(), path(&conf)]);
            line.extend(["--cni-data-dir".to_owned(), path(&dir.cni_data())]);
            let socket = lab.state.path().join("run").join(node).join("cni/dhcp.sock");
            line.extend(["--dhcp-socket".to_owned(), path(&socket)]);
        }
        if container["name"] == "proxy" {
            line.push(format!("--ebpf-bpffs={}", path(&lab.dir.bpffs())));
        }
        in_its_boot(lab, node, &line)?;
    }
    Ok(())
}

/// Runs a program on a node, which must succeed, in the boot that the node's own programs see.
pub(crate) fn in_its_boot(lab: &Lab, node: &str, line: &[String]) -> Outcome {
    let boot = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let file = lab.dir.node(node).boot_id().display().to_string();
    let place = ["unshare", "--mount", "sh", "-c", boot, &file];
    let line = line.iter().map(String::as_str);
    lab.on_node(node, &place.into_iter().chain(line).collect::<Vec<_>>()).map(drop)
}

fn nothing_of_ours(lab: &Lab, node: &str) -> Outcome {
    let tables = lab.on_node(node, &["nft", "list", "tables"])?;
    for table in ["ip weft\n", "ip6 weft\n", "weft-agent"] {
        equal(&format!("{table:?} among the tables of {node}:\n{tables}"), tables.contains(table), false)?;
    }
    equal(
        "routes to other nodes",
        lab.on_node(node, &["ip", "route", "show", "proto", "119"])?,
        String::new(),
    )?;
    let conflist = lab.dir.node(node).cni_conf().join("10-weft.conflist");
    equal("a CNI configuration", conflist.exists(), false)
}
