//! Where the ends of a connection are, and which machine is who: by the objects of the API server. Pure.

use std::net::IpAddr;

use serde_json::Value;
use weft_types::{IpNetwork, NamespacedName};

use super::question::Party;
use crate::cluster::name;
use crate::dns::backends;
use crate::policy::places::Place;

/// The objects of a cluster that a packet's way depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) nodes: Vec<Value>,
    pub(super) pods: Vec<Value>,
    pub(super) services: Vec<Value>,
    pub(super) slices: Vec<Value>,
}

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Site {
    /// As people call it: `Pod shop/web`; empty for an address that is none's.
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
    /// The node that it is on; nothing where it is outside of the cluster.
    pub(super) node: Option<String>,
    /// It has a network of its own: that of a pod.
    pub(super) is_pod: bool,
}

impl World {
    /// Where an end is.
    ///
    /// # Errors
    /// Why there is no such end.
    pub(super) fn site(&self, party: &Party) -> Result<Site, String> {
        match party {
            Party::Pod(key) => match self.pod(key) {
                Some(pod) => site_of_pod(pod),
                None => match self.service(key) {
                    Some(service) => self.site_of_service(service),
                    None => Err(format!(
                        "there is no Pod {key}, and no Service: see kubectl get pods,services -A"
                    )),
                },
            },
            Party::Service(key) => match self.service(key) {
                Some(service) => self.site_of_service(service),
                None => Err(format!("there is no Service {key}: see kubectl get services -A")),
            },
            Party::Node(node) => {
                let found = self.nodes.iter().find(|one| name(one) == node);
                let found = found.ok_or_else(|| format!("there is no Node {node}: see kubectl get nodes"))?;
                let (name, addresses) = (format!("Node {node}"), internal(found));
                Ok(Site { name, addresses, node: Some(node.clone()), is_pod: false })
            }
            Party::Address(address) => Ok(self.site_of_address(*address)),
            Party::Name(name) => Err(format!("{name} is not resolved")),
        }
    }

    fn site_of_address(&self, address: IpAddr) -> Site {
        if let Some(service) = self.service_at(address) {
            let (name, addresses) = (format!("Service {}", key(service)), vec![address]);
            return Site { name, addresses, ..Site::default() };
        }
        if let Some(node) = self.node_at(address) {
            let name = format!("Node {node}");
            return Site { name, addresses: vec![address], node: Some(node.to_owned()), is_pod: false };
        }
        let place = Place::of_address(address, &self.pods);
        let is_pod = place.node.is_some();
        Site { name: place.name.unwrap_or_default(), addresses: vec![address], node: place.node, is_pod }
    }

    fn site_of_service(&self, service: &Value) -> Result<Site, String> {
        let key = key(service);
        if let Some(name) = service["spec"]["externalName"].as_str() {
            return Err(format!("Service {key} is a name for {name}: ask for that"));
        }
        let listed = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
        let all =
            listed.chain([&service["spec"]["clusterIP"]]).filter_map(|text| text.as_str()?.parse().ok());
        let mut addresses: Vec<IpAddr> = all.collect();
        addresses.dedup();
        addresses = addresses
            .iter()
            .enumerate()
            .filter(|(at, one)| !addresses[..*at].contains(one))
            .map(|(_, one)| *one)
            .collect();
        match addresses.is_empty() {
            true => Err(format!(
                "Service {key} is headless: its name leads to its pods; ask for one of them, or for the name"
            )),
            false => Ok(Site { name: format!("Service {key}"), addresses, ..Site::default() }),
        }
    }

    fn pod(&self, wanted: &NamespacedName) -> Option<&Value> {
        self.pods.iter().find(|pod| key(pod) == *wanted)
    }

    pub(super) fn service(&self, wanted: &NamespacedName) -> Option<&Value> {
        self.services.iter().find(|service| key(service) == *wanted)
    }

    /// The Service that an address is of.
    pub(super) fn service_at(&self, address: IpAddr) -> Option<&Value> {
        let is_it = |text: &Value| text.as_str().and_then(|text| text.parse().ok()) == Some(address);
        self.services.iter().find(|service| {
            let lists = ["clusterIPs", "externalIPs"]
                .map(|list| service["spec"][list].as_array().into_iter().flatten());
            let ingress = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
            lists.into_iter().flatten().any(is_it) || ingress.into_iter().any(|one| is_it(&one["ip"]))
        })
    }

    /// The Service that has a port of the nodes.
    pub(super) fn service_of_node_port(&self, port: u16) -> Option<&Value> {
        self.services.iter().find(|service| ports(service).any(|one| one["nodePort"] == port))
    }

    /// The node that has an address.
    pub(super) fn node_at(&self, address: IpAddr) -> Option<&str> {
        self.nodes.iter().find(|node| internal(node).contains(&address)).map(name)
    }

    /// The node whose pods have an address.
    pub(super) fn node_of_pods(&self, address: IpAddr) -> Option<String> {
        let has_it = |node: &&Value| {
            let ranges = node["spec"]["podCIDRs"].as_array().into_iter().flatten();
            let ranges = ranges.filter_map(|range| range.as_str()?.parse::<IpNetwork>().ok());
            ranges.into_iter().any(|range| range.contains(address))
        };
        // Of a pod that is there, it says so itself: with `--ipam blocks` Nodes have no ranges.
        let of_pod = Place::of_address(address, &self.pods).node;
        of_pod.or_else(|| self.nodes.iter().find(has_it).map(|node| name(node).to_owned()))
    }

    /// The address of a node in the family of another.
    pub(super) fn address_of(&self, node: &str, like: IpAddr) -> Option<IpAddr> {
        let node = self.nodes.iter().find(|one| name(one) == node)?;
        internal(node).into_iter().find(|address| address.is_ipv4() == like.is_ipv4())
    }

    /// How a pod is called that has an address.
    pub(super) fn pod_at(&self, address: IpAddr) -> Option<String> {
        Place::of_address(address, &self.pods).name
    }

    /// What is wrong with a Service's endpoints for what comes to one of its addresses, where no ready one is
    /// behind it.
    pub(super) fn without_endpoints(&self, service: &Value, to: IpAddr, node: &str) -> Option<String> {
        let (namespace, name) = (text(&service["metadata"]["namespace"]), name(service));
        let label = weft_types::well_known::label::SERVICE_NAME;
        let own = self.slices.iter().filter(|slice| {
            text(&slice["metadata"]["namespace"]) == namespace
                && text(&slice["metadata"]["labels"][label]) == name
        });
        let endpoints = own.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        let ready: Vec<&Value> = endpoints.filter(|one| one["conditions"]["ready"] != false).collect();
        if ready.is_empty() {
            let selector = backends::selector(service);
            let labels = service["spec"]["selector"].as_object();
            let matches = |pod: &&Value| {
                text(&pod["metadata"]["namespace"]) == namespace
                    && labels
                        .into_iter()
                        .flatten()
                        .all(|(key, value)| pod["metadata"]["labels"][key] == *value)
            };
            let pods: Vec<Value> = self.pods.iter().filter(matches).cloned().collect();
            return Some(backends::verdict(&format!("Service {namespace}/{name}"), &selector, &pods));
        }
        let mut own = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
        let is_internal = own.any(|text| text.as_str().and_then(|text| text.parse().ok()) == Some(to));
        let policy = if is_internal { "internalTrafficPolicy" } else { "externalTrafficPolicy" };
        let is_local = Some(policy).filter(|policy| service["spec"][*policy] == "Local")?;
        let is_here = ready.iter().any(|one| text(&one["nodeName"]) == node);
        (!is_here).then(|| {
            format!("Service {namespace}/{name} has {is_local} Local, and none of its ready endpoints is on {node}")
        })
    }

    /// The port that a Service has for people who name none.
    ///
    /// # Errors
    /// Which it has, where there is no such port, or more than one.
    pub(super) fn port(&self, service: &Value, protocol: &str, port: Option<u16>) -> Result<u16, String> {
        let fits = |one: &&Value| one["protocol"].as_str().unwrap_or("TCP").eq_ignore_ascii_case(protocol);
        let number = |one: &Value| one["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let own: Vec<u16> = ports(service).filter(fits).filter_map(number).collect();
        match (port, &own[..]) {
            (None, [only]) => Ok(*only),
            (Some(port), _) if own.contains(&port) => Ok(port),
            _ => {
                let listed: Vec<String> = own.iter().map(|port| format!("{port}/{protocol}")).collect();
                let what = port
                    .map_or_else(|| "name a port".to_owned(), |port| format!("no port {port}/{protocol}"));
                Err(format!("Service {}: {what}; it has: {}", key(service), listed.join(", ")))
            }
        }
    }
}

/// The pairs of addresses by which two talk, one a family.
pub(super) fn pairs(from: &Site, to: &Site) -> Vec<(IpAddr, IpAddr)> {
    let peer = |address: &IpAddr| to.addresses.iter().find(|other| other.is_ipv4() == address.is_ipv4());
    from.addresses.iter().filter_map(|address| Some((*address, *peer(address)?))).collect()
}

fn site_of_pod(pod: &Value) -> Result<Site, String> {
    let place = Place::of_pod(pod)?;
    let is_pod = place.node.is_some();
    let node = pod["spec"]["nodeName"].as_str().map(str::to_owned);
    Ok(Site { name: place.name.unwrap_or_default(), addresses: place.addresses, node, is_pod })
}

fn internal(node: &Value) -> Vec<IpAddr> {
    let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
    let own = addresses.filter(|one| one["type"] == "InternalIP");
    own.filter_map(|one| one["address"].as_str()?.parse().ok()).collect()
}

fn ports(service: &Value) -> impl Iterator<Item = &Value> {
    service["spec"]["ports"].as_array().into_iter().flatten()
}

pub(super) fn key(object: &Value) -> NamespacedName {
    NamespacedName::new(text(&object["metadata"]["namespace"]), name(object))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
