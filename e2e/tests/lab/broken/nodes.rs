//! Faults of machines: daemons, rules, interfaces, files.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use weft_lab::process::ProcessId;

use super::named;
use crate::lab::{Lab, Outcome};

/// A daemon of node2 stands still until it is mended.
fn stands_still(lab: &Lab, daemon: &str, id: &str) -> Outcome {
    let records = lab.dir.node("node2").daemons().map_err(|error| error.to_string())?;
    let pid = records.iter().find(|record| record.name == daemon).and_then(|record| record.pid);
    let process = pid.and_then(ProcessId::of).ok_or(format!("{daemon} of node2 does not run"))?;
    let signal = |signal| {
        process.signal(signal);
        Ok(())
    };
    named(lab, (id, "Node node2"), || signal(Signal::SIGSTOP), || signal(Signal::SIGCONT))
}

pub(super) fn agent_stands_still(lab: &Lab) -> Outcome {
    stands_still(lab, "weft-agent", "agent-silent")
}

pub(super) fn proxy_stands_still(lab: &Lab) -> Outcome {
    stands_still(lab, "weft-proxy", "proxy-silent")
}

/// Two commands on node1.
fn by_command(lab: &Lab, id: &str, make: &str, mend: &str) -> Outcome {
    let run = |line: &str| lab.on_node("node1", &["sh", "-ec", line]).map(drop);
    named(lab, (id, "Node node1"), || run(make), || run(mend))
}

pub(super) fn forward_dropped(lab: &Lab) -> Outcome {
    let make = "nft add table ip filter
        nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'";
    by_command(lab, "forward-dropped", make, "nft delete table ip filter")
}

pub(super) fn stale_proxy_rules(lab: &Lab) -> Outcome {
    let make = "nft add table ip nat; nft add chain ip nat KUBE-SVC-ERIFXISQEP7F7OF4";
    by_command(lab, "stale-proxy-rules", make, "nft delete table ip nat")
}

pub(super) fn policies_other(lab: &Lab) -> Outcome {
    let make = "nft add table ip filter; nft add chain ip filter cali-FORWARD";
    by_command(lab, "policies-other", make, "nft delete table ip filter")
}

pub(super) fn stale_network_links(lab: &Lab) -> Outcome {
    let id = "stale-network-links";
    by_command(lab, id, "ip link add flannel.1 type bridge", "ip link del flannel.1")
}

pub(super) fn mtu_differs(lab: &Lab) -> Outcome {
    let link = "$(ip -o -4 addr show to 172.30.0.0/16 | awk '{print $2; exit}')";
    let set = |mtu: u16| format!("ip link set {link} mtu {mtu}");
    let run = |mtu| lab.on_node("node1", &["sh", "-ec", &set(mtu)]).map(drop);
    named(lab, ("mtu-differs", "Nodes node1"), || run(1400), || run(1500))
}

pub(super) fn cni_shadowed(lab: &Lab) -> Outcome {
    let file = lab.dir.node("node1").cni_conf().join("00-other.conf");
    let text = r#"{"cniVersion": "1.0.0", "name": "other", "type": "weft-cni"}"#;
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let make = || fs::write(&file, text).map_err(failed);
    named(lab, ("cni-shadowed", "Node node1"), make, || fs::remove_file(&file).map_err(failed))
}

/// Reserves addresses of node1's range that nobody has, from the end of it.
fn reserve(lab: &Lab, id: &str, most: usize) -> Outcome {
    let range = lab.kubectl(&["get", "node", "node1", "-o", "jsonpath={.spec.podCIDR}"])?;
    let network: Ipv4Addr = range
        .split('/')
        .next()
        .and_then(|text| text.parse().ok())
        .ok_or(format!("{range:?} is no range of IPv4"))?;
    let folder = lab.dir.node("node1").cni_data().join("weft");
    let address = |last: u8| folder.join(Ipv4Addr::from(u32::from(network) + u32::from(last)).to_string());
    let free: Vec<PathBuf> = (2..=254).rev().map(address).filter(|file| !file.exists()).take(most).collect();
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let make = || {
        fs::create_dir_all(&folder).map_err(failed)?;
        free.iter().try_for_each(|file| fs::write(file, "4711\r\neth0").map_err(failed))
    };
    // The agent may have freed some.
    let mend = || {
        free.iter().for_each(|file| drop(fs::remove_file(file)));
        Ok(())
    };
    named(lab, (id, "Node node1"), make, mend)
}

pub(super) fn address_leaked(lab: &Lab) -> Outcome {
    reserve(lab, "addresses-leaked", 1)
}

pub(super) fn addresses_exhausted(lab: &Lab) -> Outcome {
    reserve(lab, "addresses-exhausted", 254)
}
