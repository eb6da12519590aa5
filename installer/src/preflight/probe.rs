//! Looking at the machine. Nothing stays changed.

mod kernel;
mod listeners;
mod network;

use std::fs;
use std::path::Path;

use weft_netlink::{netns, sysctl};

use super::facts::{Facts, Feature};

/// Where container runtimes have their sockets.
const RUNTIMES: [&str; 3] =
    ["/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock"];

/// Everything about this machine, in the calling thread's network namespace.
pub(super) fn machine(cni_conf_dir: &Path) -> Result<Facts, weft_netlink::Error> {
    let mut facts = network::look()?;
    facts.is_root = nix::unistd::geteuid().is_root();
    facts.features = kernel::features();
    facts.wireguard = kernel::wireguard();
    facts.ebpf = ebpf();
    facts.fast_path = kernel::fast_path();
    facts.ipv4_forwarding = setting("net.ipv4.ip_forward");
    facts.ipv6_forwarding = setting("net.ipv6.conf.all.forwarding");
    facts.listeners = listeners::all();
    facts.cni_configs = cni_configs(cni_conf_dir);
    facts.legacy_tables = legacy_tables();
    facts.identity.hostname = hostname();
    facts.identity.machine_id = text("/etc/machine-id");
    facts.runtimes =
        RUNTIMES.iter().filter(|path| Path::new(path).exists()).map(ToString::to_string).collect();
    Ok(facts)
}

/// What programs that lead sockets are told apart by, attached to and pinned in.
fn ebpf() -> Vec<Feature> {
    let mounts = text("/proc/self/mounts");
    let is_mounted = |folder: &str, kind: &str| {
        let is_it = |line: &str| line.split(' ').skip(1).take(2).eq([folder, kind]);
        (!mounts.lines().any(is_it)).then(|| format!("no file system of type {kind} is mounted at {folder}"))
    };
    let cookie = netns::cookie().err().map(|error| error.to_string());
    vec![
        Feature { name: "kernel", needs: "Use Linux 5.14 or later", problem: cookie },
        Feature {
            name: "cgroups",
            needs: "Boot with cgroups of version 2 alone (systemd.unified_cgroup_hierarchy=1)",
            problem: is_mounted("/sys/fs/cgroup", "cgroup2"),
        },
        Feature {
            name: "pins",
            needs: "mount -t bpf bpf /sys/fs/bpf, and in /etc/fstab to keep it; systemd does it by itself",
            problem: is_mounted("/sys/fs/bpf", "bpf"),
        },
    ]
}

fn text(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn setting(name: &str) -> Option<bool> {
    Some(sysctl::read(name).ok()? != "0")
}

fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// The names that a runtime reads, in its order: the first one is the pod network.
fn cni_configs(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_config = |name: &String| {
        let suffix = Path::new(name).extension().and_then(|suffix| suffix.to_str());
        suffix.is_some_and(|suffix| ["conf", "conflist", "json"].contains(&suffix))
    };
    let mut names: Vec<String> = names.filter(is_config).collect();
    names.sort();
    names
}

/// The kernel tells which tables the legacy iptables has; asking for their chains needs its own protocol.
fn legacy_tables() -> Vec<String> {
    let names = |family: &str| text(&format!("/proc/thread-self/net/{family}_tables_names"));
    let of =
        |family: &str| names(family).lines().map(|table| format!("{family} {table}")).collect::<Vec<_>>();
    [of("ip"), of("ip6")].concat()
}
