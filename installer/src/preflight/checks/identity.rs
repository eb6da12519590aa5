//! Names and addresses that no two nodes may share. Cloned machines do.

use std::net::IpAddr;

use crate::finding::Id;
use crate::preflight::facts::Identity;
use crate::preflight::report::Check;

/// The longest name that a Node can have (RFC 1123 subdomain, as Kubernetes takes it).
const LONGEST: usize = 253;

pub(super) fn checks(own: &Identity, neighbours: &[(IpAddr, String)], others: &[Identity]) -> [Check; 3] {
    [hostname(own, others), machine_id(own, others), macs(own, neighbours, others)]
}

fn hostname(own: &Identity, others: &[Identity]) -> Check {
    let name = own.hostname.to_ascii_lowercase();
    let fix = "hostnamectl set-hostname NAME, another one on each node, before the kubelet registers";
    if !is_node_name(&name) || name == "localhost" {
        return Check::fail(
            Id::HostnameDuplicate,
            "hostname",
            format!("{name:?} cannot be a Node's name"),
            fix,
        );
    }
    match others.iter().any(|other| other.hostname.eq_ignore_ascii_case(&name)) {
        true => {
            Check::fail(Id::HostnameDuplicate, "hostname", format!("another node is called {name} too"), fix)
        }
        false => Check::pass("hostname", name),
    }
}

fn is_node_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner =
            label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= LONGEST && name.split('.').all(is_label)
}

fn machine_id(own: &Identity, others: &[Identity]) -> Check {
    let twin = others.iter().find(|other| !own.machine_id.is_empty() && other.machine_id == own.machine_id);
    match twin {
        Some(twin) => Check::warn(
            Id::MachineIdDuplicate,
            "machine id",
            format!("{} has the same /etc/machine-id", twin.hostname),
            "rm /etc/machine-id && systemd-machine-id-setup, then reboot: the machine is a copy of the other",
        ),
        None if own.machine_id.is_empty() => Check::pass("machine id", "none"),
        None => Check::pass("machine id", "unique as far as known"),
    }
}

fn macs(identity: &Identity, neighbours: &[(IpAddr, String)], others: &[Identity]) -> Check {
    let fix = "Give the interface an Ethernet address of its own (the virtual machine's settings, or ip link set LINK address MAC)";
    for own in &identity.macs {
        let twin = others.iter().find(|other| other.macs.iter().any(|mac| mac.mac == own.mac));
        let neighbour = neighbours.iter().find(|(_, mac)| *mac == own.mac);
        let who =
            twin.map(|other| other.hostname.clone()).or(neighbour.map(|(address, _)| address.to_string()));
        if let Some(who) = who {
            return Check::fail(
                Id::MacDuplicate,
                "Ethernet addresses",
                format!("{who} has that of {} too: {}", own.link, own.mac),
                fix,
            );
        }
    }
    let own: Vec<String> = identity.macs.iter().map(|own| format!("{} {}", own.link, own.mac)).collect();
    Check::pass("Ethernet addresses", if own.is_empty() { "none".to_owned() } else { own.join(", ") })
}
