//! Whose addresses these are: pods', Services' and nodes', by the objects of the API server. Pure.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use serde_json::Value;
use weft_types::NamespacedName;
use weft_types::flow::{FlowEnd, FlowEvent, Happening, protocol_name};

use crate::cluster::name;

/// Who an end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Party {
    Pod(NamespacedName),
    Service(NamespacedName),
    /// A node, or a pod on its network.
    Node(String),
    /// Nobody of the cluster, as far as is known.
    Unknown,
}

/// What has an address for itself, and where that is.
#[derive(Clone, Debug)]
struct Owner {
    party: Party,
    node: String,
}

/// The names of a cluster. Who is gone keeps its name until another has its address.
#[derive(Debug, Default)]
pub(super) struct Names {
    owners: HashMap<IpAddr, Owner>,
    /// Services by address and, of nodes' ports, by protocol and port.
    services: HashMap<IpAddr, NamespacedName>,
    node_ports: HashMap<(String, u16), NamespacedName>,
    nodes: BTreeSet<String>,
    /// Addresses that were nobody's when the objects were read last.
    nobody: BTreeSet<IpAddr>,
}

impl Names {
    /// Takes in the objects as they are now.
    pub(super) fn learn(&mut self, nodes: &[Value], pods: &[Value], services: &[Value]) {
        self.nobody.clear();
        self.nodes = nodes.iter().map(|node| name(node).to_owned()).collect();
        for node in nodes {
            let internal = each(&node["status"]["addresses"]).filter(|one| one["type"] == "InternalIP");
            for address in internal.filter_map(|one| parse(&one["address"])) {
                let owner = Owner { party: Party::Node(name(node).to_owned()), node: name(node).to_owned() };
                self.owners.insert(address, owner);
            }
        }
        for pod in pods {
            let (status, spec) = (&pod["status"], &pod["spec"]);
            let has_ended = ["Succeeded", "Failed"].iter().any(|phase| status["phase"] == *phase);
            if has_ended || spec["hostNetwork"] == true {
                continue;
            }
            let addresses = each(&status["podIPs"]).filter_map(|one| parse(&one["ip"]));
            for address in addresses.chain(parse(&status["podIP"])) {
                let node = spec["nodeName"].as_str().unwrap_or_default().to_owned();
                self.owners.insert(address, Owner { party: Party::Pod(key(pod)), node });
            }
        }
        (self.services, self.node_ports) = Default::default();
        for service in services {
            let spec = &service["spec"];
            let listed =
                each(&spec["clusterIPs"]).chain(each(&spec["externalIPs"])).chain([&spec["clusterIP"]]);
            let ingress = each(&service["status"]["loadBalancer"]["ingress"]).map(|one| &one["ip"]);
            for address in listed.chain(ingress).filter_map(parse) {
                self.services.insert(address, key(service));
            }
            for port in each(&spec["ports"]) {
                let number = port["nodePort"].as_u64().and_then(|port| u16::try_from(port).ok());
                let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
                self.node_ports.extend(number.map(|number| ((protocol, number), key(service))));
            }
        }
    }

    /// The names of the nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &String> {
        self.nodes.iter()
    }

    /// Who has an address, where it is whose own.
    pub(super) fn owner(&self, address: IpAddr) -> Party {
        self.owners.get(&address).map_or(Party::Unknown, |owner| owner.party.clone())
    }

    /// Whom somebody wants to reach by an end.
    pub(super) fn wanted(&self, end: &FlowEnd, protocol: u8) -> Party {
        if let Some(service) = self.services.get(&end.address) {
            return Party::Service(service.clone());
        }
        let owner = self.owner(end.address);
        let by_port = |port| self.node_ports.get(&(protocol_name(protocol), port));
        match (&owner, end.port.and_then(by_port)) {
            (Party::Node(_), Some(service)) => Party::Service(service.clone()),
            _ => owner,
        }
    }

    /// Whether a node is the one to tell of an event. Both nodes on the way of a packet see it: the one where
    /// it begins knows the most; of what comes from outside, the one that leads it to a Service's endpoint, or
    /// has who answers.
    pub(super) fn is_told_by(&self, node: &str, event: &FlowEvent) -> bool {
        if let Happening::Denied { .. } = event.event {
            return true;
        }
        let place = |address: IpAddr| self.owners.get(&address).map(|owner| &owner.node);
        match place(event.source.address) {
            Some(begins) => begins == node,
            None => event.endpoint.is_some() || place(event.destination.address).is_none_or(|at| at == node),
        }
    }

    /// Whether an event has an address that somebody may have by now. Those that were nobody's when the
    /// objects were read are not asked about again until they are read again.
    pub(super) fn misses(&self, event: &FlowEvent) -> bool {
        let ends = [event.source, event.destination].into_iter().chain(event.endpoint);
        ends.map(|end| end.address).any(|address| {
            is_private(address)
                && !self.owners.contains_key(&address)
                && !self.services.contains_key(&address)
                && !self.nobody.contains(&address)
        })
    }

    /// These addresses are nobody's, as far as the objects say.
    pub(super) fn give_up(&mut self, event: &FlowEvent) {
        let ends = [event.source, event.destination].into_iter().chain(event.endpoint);
        // A scan of many addresses must not fill the memory.
        let room = 4096_usize.saturating_sub(self.nobody.len());
        self.nobody.extend(ends.map(|end| end.address).take(room));
    }
}

/// An address that clusters use within (RFC 1918, RFC 4193, RFC 6598).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            address.is_private() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn parse(address: &Value) -> Option<IpAddr> {
    address.as_str()?.parse().ok()
}

fn key(object: &Value) -> NamespacedName {
    NamespacedName::new(object["metadata"]["namespace"].as_str().unwrap_or_default(), name(object))
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Pod(pod) => pod.fmt(f),
            Party::Service(service) => write!(f, "svc/{service}"),
            Party::Node(node) => write!(f, "node/{node}"),
            Party::Unknown => Ok(()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Two nodes, a pod on each, and a Service of the second one.
    pub(in crate::flows) fn names() -> Names {
        let node = |name: &str, address: &str| {
            json!({"metadata": {"name": name}, "status": {"addresses": [
                {"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]}})
        };
        let pod = |name: &str, node: &str, ips: [&str; 2]| {
            json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"nodeName": node},
                "status": {"phase": "Running", "podIP": ips[0], "podIPs": ips.map(|ip| json!({"ip": ip}))}})
        };
        let mut host = pod("host", "node1", ["172.30.0.11", "fd00:30::11"]);
        host["spec"]["hostNetwork"] = true.into();
        let mut ended = pod("ended", "node1", ["10.244.1.3", "fd00:244:2::3"]);
        ended["status"]["phase"] = "Succeeded".into();
        let service = json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7", "fd00:96::7"], "ports": [{"port": 5432, "nodePort": 30432}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}}});
        let mut names = Names::default();
        names.learn(
            &[node("node1", "172.30.0.11"), node("node2", "172.30.0.12")],
            &[
                ended,
                pod("web", "node1", ["10.244.0.2", "fd00:244:1::2"]),
                pod("db-0", "node2", ["10.244.1.3", "fd00:244:2::3"]),
                host,
            ],
            &[service],
        );
        names
    }

    pub(in crate::flows) fn event(source: &str, destination: &str, endpoint: Option<&str>) -> FlowEvent {
        let end = |text: &str| FlowEnd::from(text.parse::<std::net::SocketAddr>().unwrap());
        FlowEvent {
            time: 1_764_562_211_123,
            protocol: 6,
            source: end(source),
            destination: end(destination),
            endpoint: endpoint.map(end),
            event: Happening::Begins,
        }
    }

    #[test]
    fn addresses_have_the_names_that_people_know() {
        let names = names();
        let wanted = |text: &str| {
            let event = event("10.244.0.2:4000", text, None);
            names.wanted(&event.destination, event.protocol).to_string()
        };
        for (end, name) in [
            ("10.244.1.3:5432", "shop/db-0"),
            ("[fd00:244:2::3]:5432", "shop/db-0"),
            ("10.96.0.7:5432", "svc/shop/db"),
            ("[fd00:96::7]:5432", "svc/shop/db"),
            ("192.0.2.10:5432", "svc/shop/db"),
            ("172.30.0.12:30432", "svc/shop/db"),
            ("172.30.0.11:22", "node/node1"),
            ("10.244.1.3:30432", "shop/db-0"),
            ("198.51.100.7:443", ""),
        ] {
            assert_eq!(wanted(end), name, "{end}");
        }
    }

    #[test]
    fn a_connection_is_told_of_by_one_node() {
        let names = names();
        let tells = |source: &str, destination: &str, endpoint: Option<&str>| {
            let event = event(source, destination, endpoint);
            ["node1", "node2"].map(|node| names.is_told_by(node, &event))
        };
        let db = Some("10.244.1.3:5432");
        assert_eq!(tells("10.244.0.2:4000", "10.96.0.7:5432", db), [true, false]);
        assert_eq!(tells("10.244.0.2:4000", "10.244.1.3:5432", None), [true, false], "as node2 sees it too");
        assert_eq!(tells("172.30.0.11:4000", "10.244.1.3:5432", None), [true, false]);
        assert_eq!(tells("198.51.100.7:4000", "10.244.1.3:5432", None), [false, true]);
        assert_eq!(
            tells("198.51.100.7:4000", "172.30.0.11:30432", db),
            [true, true],
            "whoever leads it there"
        );
        let denied =
            Happening::Denied { direction: "ingress".into(), policies: Vec::new(), reason: String::new() };
        let denied = FlowEvent { event: denied, ..event("10.244.0.2:4000", "10.244.1.3:5432", None) };
        assert!(names.is_told_by("node2", &denied), "no other node knows");
    }

    #[test]
    fn objects_are_read_again_for_an_address_of_the_cluster_that_has_no_name_and_not_twice() {
        let mut names = names();
        let new = event("10.244.0.9:4000", "10.96.0.7:5432", Some("10.244.1.3:5432"));
        assert!(names.misses(&new));
        names.give_up(&new);
        assert!(!names.misses(&new));
        assert!(
            !names.misses(&event("10.244.0.2:4000", "198.51.100.7:443", None)),
            "the internet has no names here"
        );
        names.learn(&[], &[], &[]);
        assert!(names.misses(&new), "it may be somebody's by now");
        assert_eq!(names.owner([10, 244, 0, 2].into()).to_string(), "shop/web", "who is gone keeps its name");
    }
}
