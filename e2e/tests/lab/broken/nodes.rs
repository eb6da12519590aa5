//! Faults of machines: daemons, rules, interfaces, files.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use weft_lab::process::ProcessId;

use super::Named::Doctor;
use super::{Fault, Mend, Stage, by_command};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "an agent stands still (SIGSTOP)",
        named: Doctor("agent-silent", "Node node2"),
        breaks: |stage| stands_still(stage, "node2", "weft-agent"),
    },
    Fault {
        what: "a proxy stands still (SIGSTOP)",
        named: Doctor("proxy-silent", "Node node2"),
        breaks: |stage| stands_still(stage, "node2", "weft-proxy"),
    },
    Fault {
        what: "a chain FORWARD with the policy DROP",
        named: Doctor("forward-dropped", "Node node1"),
        breaks: |stage| {
            let make = "nft add table ip filter
                nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'";
            by_command(stage, "node1", make, "nft delete table ip filter")
        },
    },
    Fault {
        what: "the same for IPv6 alone",
        named: Doctor("forward-dropped", "Node node1"),
        breaks: |stage| {
            let make = "nft add table ip6 filter
                nft 'add chain ip6 filter FORWARD { type filter hook forward priority 0; policy drop; }'";
            by_command(stage, "node1", make, "nft delete table ip6 filter")
        },
    },
    Fault {
        what: "a rule that drops what is forwarded from pods",
        named: Doctor("forward-dropped", "Node node1"),
        breaks: |stage| {
            let make = "nft add table ip firewall
                nft 'add chain ip firewall forward { type filter hook forward priority 0; }'
                nft add rule ip firewall forward ip saddr 10.244.0.0/16 drop";
            by_command(stage, "node1", make, "nft delete table ip firewall")
        },
    },
    Fault {
        what: "`00-other.conf` beside `10-weft.conflist`",
        named: Doctor("cni-shadowed", "Node node1"),
        breaks: cni_shadowed,
    },
    Fault {
        what: "an address is reserved for nobody",
        named: Doctor("addresses-leaked", "Node node1"),
        breaks: |stage| reserve(stage, 1),
    },
    Fault {
        what: "all addresses are reserved",
        named: Doctor("addresses-exhausted", "Node node1"),
        breaks: |stage| reserve(stage, 254),
    },
    Fault {
        what: "MTU 1400 on one node's interface",
        named: Doctor("mtu-differs", "Nodes node1"),
        breaks: |stage| {
            let link = "$(ip -o -4 addr show to 172.30.0.0/16 | awk '{print $2; exit}')";
            let set = |mtu: u16| format!("ip link set {link} mtu {mtu}");
            by_command(stage, "node1", &set(1400), &set(1500))
        },
    },
    Fault {
        what: "a node takes another machine for node2 (ARP poisoned)",
        named: Doctor("neighbour-wrong", "Node node1"),
        breaks: |stage| {
            let make = "ping -c 1 -W 2 172.30.0.12 >/dev/null
                ip neigh replace 172.30.0.12 lladdr 02:00:00:00:66:66 dev eth0 nud permanent";
            // node3 must know it better.
            stage.lab.on_node("node3", &["ping", "-c", "1", "-W", "2", "172.30.0.12"])?;
            by_command(stage, "node1", make, "ip neigh del 172.30.0.12 dev eth0")
        },
    },
    Fault {
        what: "kube-proxy left rules",
        named: Doctor("stale-proxy-rules", "Node node1"),
        breaks: |stage| {
            let make = "nft add table ip nat; nft add chain ip nat KUBE-SVC-ERIFXISQEP7F7OF4";
            by_command(stage, "node1", make, "nft delete table ip nat")
        },
    },
    Fault {
        what: "Calico left rules",
        named: Doctor("policies-other", "Node node1"),
        breaks: |stage| {
            let make = "nft add table ip filter; nft add chain ip filter cali-FORWARD";
            by_command(stage, "node1", make, "nft delete table ip filter")
        },
    },
    Fault {
        what: "Flannel left an interface",
        named: Doctor("stale-network-links", "Node node1"),
        breaks: |stage| {
            by_command(stage, "node1", "ip link add flannel.1 type bridge", "ip link del flannel.1")
        },
    },
];

/// A daemon stands still until it is mended.
pub(super) fn stands_still<'a>(stage: &'a Stage<'a>, node: &str, daemon: &str) -> Result<Mend<'a>, String> {
    let records = stage.lab.dir.node(node).daemons().map_err(|error| error.to_string())?;
    let pid = records.iter().find(|record| record.name == daemon).and_then(|record| record.pid);
    let process = pid.and_then(ProcessId::of).ok_or(format!("{daemon} of {node} does not run"))?;
    process.signal(Signal::SIGSTOP);
    Ok(Box::new(move || {
        process.signal(Signal::SIGCONT);
        Ok(())
    }))
}

fn cni_shadowed<'a>(stage: &'a Stage<'a>) -> Result<Mend<'a>, String> {
    let file = stage.lab.dir.node("node1").cni_conf().join("00-other.conf");
    let text = r#"{"cniVersion": "1.0.0", "name": "other", "type": "weft-cni"}"#;
    fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(Box::new(move || fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))))
}

/// Reserves addresses of node1's range that nobody has, from the end of it.
fn reserve<'a>(stage: &'a Stage<'a>, most: usize) -> Result<Mend<'a>, String> {
    let range = stage.lab.kubectl(&["get", "node", "node1", "-o", "jsonpath={.spec.podCIDR}"])?;
    let network: Ipv4Addr = range
        .split('/')
        .next()
        .and_then(|text| text.parse().ok())
        .ok_or(format!("{range:?} is no range of IPv4"))?;
    let folder = stage.lab.dir.node("node1").cni_data().join("weft");
    let address = |last: u8| folder.join(Ipv4Addr::from(u32::from(network) + u32::from(last)).to_string());
    let free: Vec<PathBuf> = (2..=254).rev().map(address).filter(|file| !file.exists()).take(most).collect();
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    free.iter().try_for_each(|file| fs::write(file, "4711\r\neth0")).map_err(failed)?;
    // The agent may have freed some.
    Ok(Box::new(move || {
        free.iter().for_each(|file| drop(fs::remove_file(file)));
        Ok(())
    }))
}
