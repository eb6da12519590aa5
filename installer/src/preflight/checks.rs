//! What is good and what is not about a machine, and what to do about it: from facts to a report, without
//! looking at anything.

pub(super) mod between;
pub(crate) mod conflicts;
mod identity;

use weft_types::overlap;
use weft_types::well_known::{device, port};

use self::between::Port;
use super::Expectations;
use super::facts::{Between, Facts, Feature, Identity, Listener, Transport};
use super::report::{Check, Report};
use crate::finding::Id;
use crate::manifests::BACKENDS;

/// The devices that are Weft's own: what is on them is no conflict.
const OWN_LINKS: [&str; 4] = [device::BRIDGE, device::VXLAN, device::DNS, device::WIREGUARD];
/// The number by which Weft marks its routes (`rtm_protocol`).
const OWN_PROTOCOL: u8 = 119;
/// The TCP ports that Weft's daemons listen on in the host's network.
const OWN_PORTS: [(u16, &str); 3] = [
    (port::PROXY_HEALTH, "the proxy's health"),
    (port::PROXY_METRICS, "the proxy's metrics"),
    (port::AGENT, "the agent's health and metrics"),
];
/// Those of the DNS server of a node (`weft manifests --node-local-dns`).
const NODE_DNS_PORTS: [(u16, &str); 3] = [
    (10241, "the node's DNS server's health"),
    (10242, "the node's DNS server's readiness"),
    (port::DNS_METRICS, "the node's DNS server's metrics"),
];
/// What these ports are for.
const BGP: &str = "BGP between nodes";
const BFD: &str = "BFD, by which nodes see that another one is dead";
/// The ports that Services of type NodePort get, where the control plane does not say otherwise.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Checks a machine. `others` are the other nodes of the cluster, as far as they are known.
pub fn check(facts: &Facts, expected: &Expectations, others: &[Identity]) -> Report {
    let mut checks = vec![privileges(facts)];
    checks.extend(facts.features.iter().map(feature));
    checks.extend(facts.wireguard.iter().filter(|_| expected.is_encrypted()).map(feature));
    checks.extend(facts.ebpf.iter().filter(|_| expected.proxy_ebpf).map(ebpf));
    checks.extend(facts.fast_path.iter().filter(|_| expected.fast_path.is_asked_for()).map(fast_path));
    checks.extend(advertised(facts, expected));
    checks.extend(forwarding(facts, expected));
    checks.extend(ports(facts, expected));
    checks.push(node_ports(facts));
    checks.push(ranges(facts, expected));
    checks.extend(conflicts::checks(facts));
    checks.extend(identity::checks(&facts.identity, &facts.neighbours, others));
    checks.push(runtime(facts));
    Report { identity: facts.identity.clone(), checks, between: Between::default() }
}

/// Puts what only other machines show into the report on one.
pub(super) fn compare(report: &mut Report, others: &[Identity]) {
    for found in identity::checks(&report.identity, &[], others) {
        match report.checks.iter_mut().find(|check| check.name == found.name) {
            Some(check) if check.verdict >= found.verdict => {}
            Some(check) => *check = found,
            None => report.checks.push(found),
        }
    }
}

fn privileges(facts: &Facts) -> Check {
    match facts.is_root {
        true => Check::pass("privileges", "root"),
        false => Check::fail(
            Id::NotRoot,
            "privileges",
            "not root",
            "Run weft preflight as root: sudo weft preflight",
        ),
    }
}

fn feature(feature: &Feature) -> Check {
    let name = format!("kernel: {}", feature.name);
    match &feature.problem {
        None => Check::pass(name, "works"),
        Some(problem) => Check::fail(
            Id::KernelFeature,
            name,
            problem,
            format!("Load the module, or use a kernel that has it: {}", feature.needs),
        ),
    }
}

/// Without it Services are served all the same.
fn ebpf(feature: &Feature) -> Check {
    let without = "sockets are not led by eBPF, and Services are served by packets alone";
    optional(feature, Id::ProxyEbpf, ["eBPF", "there", without, feature.needs])
}

/// Without it packets between pods take the usual way.
fn fast_path(feature: &Feature) -> Check {
    let fix = format!("Use a kernel that has it: {}", feature.needs);
    optional(feature, Id::FastPath, ["fast path", "works", "packets between pods take the usual way", &fix])
}

/// What it is a part of, how it is said to be there, what is so without it, and what mends that.
fn optional(feature: &Feature, id: Id, [part, there, without, fix]: [&str; 4]) -> Check {
    let name = format!("{part}: {}", feature.name);
    match &feature.problem {
        None => Check::pass(name, there),
        Some(problem) => Check::warn(id, name, format!("{problem}; {without}"), fix),
    }
}

/// A machine that forwards IPv6 ignores router advertisements, and forgets what it has from them as soon as
/// it begins to (RFC 4861 section 6.2.8; ip-sysctl, accept_ra).
fn advertised(facts: &Facts, expected: &Expectations) -> Option<Check> {
    let links: Vec<&str> = match expected.has_ipv6() {
        true => facts.advertised.iter().filter(|link| !link.always).map(|link| link.link.as_str()).collect(),
        false => return None,
    };
    let name = "router advertisements";
    if links.is_empty() {
        return Some(Check::pass(name, "no default route is lost where IPv6 is forwarded"));
    }
    // sysctl(8) has a slash where an interface's name has a dot.
    let set = |link: &&str| format!("sysctl -w net.ipv6.conf.{}.accept_ra=2", link.replace('.', "/"));
    let fixes: Vec<String> = links.iter().map(set).collect();
    let found = format!(
        "the IPv6 default route of {} is lost as soon as forwarding is switched on",
        links.join(", ")
    );
    let fix =
        format!("Before that: {}, and the same in /etc/sysctl.d/weft.conf to keep it", fixes.join("; "));
    Some(Check::warn(Id::RouterAdvertisements, name, found, fix))
}

fn forwarding(facts: &Facts, expected: &Expectations) -> Vec<Check> {
    let one = |name: &str, value: Option<bool>| match value {
        Some(true) => Check::pass(name, "1"),
        Some(false) => Check::fail(
            Id::ForwardingOff,
            name,
            "0: packets for pods and from pods are dropped",
            format!("sysctl -w {name}=1, and the same line in /etc/sysctl.d/weft.conf to keep it"),
        ),
        None => Check::fail(
            Id::ForwardingOff,
            name,
            "the kernel has no such setting",
            "Boot without ipv6.disable=1, or give no IPv6 ranges",
        ),
    };
    let ipv6 = expected.has_ipv6().then(|| one("net.ipv6.conf.all.forwarding", facts.ipv6_forwarding));
    [one("net.ipv4.ip_forward", facts.ipv4_forwarding)].into_iter().chain(ipv6).collect()
}

fn tunnel(expected: &Expectations) -> Port {
    match expected.is_encrypted() {
        true => (Transport::Udp, expected.wireguard_port, "the encrypted tunnel between nodes (WireGuard)"),
        false => (Transport::Udp, expected.vxlan_port, "the tunnel between nodes (VXLAN)"),
    }
}

/// The ports at which nodes must hear each other.
pub(super) fn between_nodes(expected: &Expectations) -> Vec<Port> {
    let is_automatic = expected.backend == BACKENDS[0];
    let probes = (Transport::Tcp, port::AGENT, "the agents' probes of direct paths to pods");
    let own = match expected.backend.as_str() {
        "host-gw" => None,
        "bgp" => Some((Transport::Tcp, port::BGP, BGP)),
        _ => Some(tunnel(expected)),
    };
    let bfd = expected.load_balancers.then_some((Transport::Udp, port::BFD, BFD));
    own.into_iter().chain(is_automatic.then_some(probes)).chain(bfd).collect()
}

fn ports(facts: &Facts, expected: &Expectations) -> Vec<Check> {
    let tunnel = tunnel(expected);
    let node_dns = NODE_DNS_PORTS.into_iter().filter(|_| expected.node_local_dns);
    let own = OWN_PORTS.into_iter().chain(node_dns).map(|(port, what)| (Transport::Tcp, port, what));
    let bgp = (expected.backend == "bgp").then_some((Transport::Tcp, port::BGP, BGP));
    let bfd = expected.load_balancers.then_some((Transport::Udp, port::BFD, BFD));
    own.chain([tunnel]).chain(bgp).chain(bfd).map(|wanted| port(facts, wanted)).collect()
}

fn port(facts: &Facts, (transport, port, what): (Transport, u16, &str)) -> Check {
    let name = format!("port {}/{port}", transport.word());
    let mut holders = facts.listeners.iter().filter(|held| (held.transport, held.port) == (transport, port));
    // The tunnel's port is held by the kernel itself.
    let tunnels = [device::VXLAN, device::WIREGUARD];
    let has_tunnel =
        transport == Transport::Udp && facts.links.iter().any(|link| tunnels.contains(&link.as_str()));
    match holders.find(|holder| !(is_weft(holder) || has_tunnel && holder.program.is_none())) {
        None => Check::pass(name, format!("free for {what}, or held by Weft")),
        Some(holder) => Check::fail(
            Id::PortTaken,
            name,
            format!("{} listens on it; it is for {what}", program(holder)),
            match &holder.program {
                Some((program, process)) => {
                    format!("Stop {program} (process {process}) or give it another port")
                }
                None => format!(
                    "Find who holds it with ss -lnp sport = {port}; a device of the kernel: ip -d link show type vxlan, ip link show type wireguard"
                ),
            },
        ),
    }
}

fn node_ports(facts: &Facts) -> Check {
    let taken: Vec<String> = facts
        .listeners
        .iter()
        .filter(|held| NODE_PORTS.contains(&held.port) && !is_weft(held))
        .map(|held| format!("{}/{} ({})", held.transport.word(), held.port, program(held)))
        .collect();
    match taken.is_empty() {
        true => Check::pass("node ports", "nobody listens between 30000 and 32767"),
        false => Check::warn(
            Id::NodePortTaken,
            "node ports",
            taken.join(", "),
            "A Service that is given such a port takes it over; move the program to a port below 30000",
        ),
    }
}

fn ranges(facts: &Facts, expected: &Expectations) -> Check {
    let named = |what: &'static str, ranges: &[weft_types::IpNetwork]| -> Vec<_> {
        ranges.iter().map(|range| (what, *range)).collect()
    };
    let pods = named("the pods' range", &expected.cluster_cidrs);
    let services = named("the Services' range", &expected.service_cidrs);
    let foreign = facts.routes.iter().filter(|route| {
        route.protocol != OWN_PROTOCOL && !route.link.as_deref().is_some_and(|link| OWN_LINKS.contains(&link))
    });
    let mut found = Vec::new();
    for (index, (what, range)) in pods.iter().chain(&services).enumerate() {
        for (other, taken) in pods.iter().chain(&services).skip(index + 1) {
            if overlap(range, taken) {
                found.push(format!("{what} {range} overlaps {other} {taken}"));
            }
        }
        for route in foreign.clone().filter(|route| overlap(range, &route.destination)) {
            let link = route.link.as_deref().unwrap_or("nowhere");
            found.push(format!("{what} {range} overlaps the network {} on {link}", route.destination));
        }
    }
    match found.is_empty() {
        true => Check::pass("ranges", "pods, Services and this machine's networks are apart"),
        false => Check::fail(
            Id::RangesOverlap,
            "ranges",
            found.join("; "),
            "Give the cluster other ranges (--cluster-cidr, --service-cidr here and in the control plane), or remove the route",
        ),
    }
}

fn runtime(facts: &Facts) -> Check {
    match facts.runtimes.as_slice() {
        [] => Check::warn(
            Id::RuntimeMissing,
            "container runtime",
            "no CRI socket found",
            "Start containerd or CRI-O; addresses of pods that went without a word are freed against its list",
        ),
        sockets => Check::pass("container runtime", sockets.join(", ")),
    }
}

fn is_weft(listener: &Listener) -> bool {
    listener.program.as_ref().is_some_and(|(name, _)| name.starts_with("weft"))
}

fn program(listener: &Listener) -> String {
    match &listener.program {
        Some((name, process)) => format!("{name} (process {process})"),
        None => "the kernel or another container".to_owned(),
    }
}
