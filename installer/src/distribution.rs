//! Which distribution of Kubernetes a cluster is, and what that means for Weft: where its nodes' container
//! runtime looks for plugins and configurations, and by which socket it is reached. Pure: from what the API
//! server says.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;
use weft_types::{IpNetwork, is_subnet_of};

use crate::cluster::name;
use crate::manifests::{CNI_BIN, CNI_CONF, IpamMode, Values};

/// What the API server says of a cluster. What it did not tell is null or empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The Nodes.
    pub(crate) nodes: Vec<Value>,
    /// The configuration of one node's kubelet (its `/configz`).
    pub(crate) kubelet: Value,
    /// The Service `default/kubernetes`.
    pub(crate) service: Option<Value>,
    /// Its EndpointSlices.
    pub(crate) slices: Vec<Value>,
}

/// A distribution that sets up its runtime in a way of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distribution {
    K3s,
    Rke2,
    MicroK8s,
    Kind,
    Other,
}

/// Where things are with a distribution.
struct Places {
    bin_dir: &'static str,
    conf_dir: &'static str,
    socket: &'static str,
    /// What it gives pods their addresses from, unless it is told otherwise.
    pods: &'static str,
}

const USUAL: Places = Places {
    bin_dir: CNI_BIN,
    conf_dir: CNI_CONF,
    socket: "/run/containerd/containerd.sock",
    pods: "10.244.0.0/16",
};
const K3S: Places = Places {
    bin_dir: "/var/lib/rancher/k3s/data/cni",
    conf_dir: "/var/lib/rancher/k3s/agent/etc/cni/net.d",
    socket: "/run/k3s/containerd/containerd.sock",
    pods: "10.42.0.0/16",
};
/// Where k3s had plugins before the releases of October 2024.
const OLD_K3S_BIN: &str = "/var/lib/rancher/k3s/data/current/bin";
/// The first releases of k3s with the other folder, by their minor version: those before 28 have none.
const K3S_BIN_SINCE: [(u32, u32); 4] = [(28, 15), (29, 10), (30, 6), (31, 2)];
/// It takes the socket from k3s, of which it is made, and nothing else.
const RKE2: Places = Places { socket: K3S.socket, pods: K3S.pods, ..USUAL };
const MICROK8S: Places = Places {
    bin_dir: "/var/snap/microk8s/current/opt/cni/bin",
    conf_dir: "/var/snap/microk8s/current/args/cni-network",
    socket: "/var/snap/microk8s/common/run/containerd.sock",
    pods: "10.1.0.0/16",
};
const CRIO_SOCKET: &str = "/run/crio/crio.sock";

/// What was found, and what follows for flags that were not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    distribution: Distribution,
    /// By what it was known.
    evidence: String,
    /// What was changed: flag, value, and why.
    changes: Vec<(&'static str, String, &'static str)>,
}

impl Found {
    /// Looks at a cluster, and brings the values to it, but for those whose flags were `given`.
    pub(crate) fn adapt(facts: &Facts, values: &mut Values, given: &dyn Fn(&str) -> bool) -> Found {
        let (distribution, evidence) = Distribution::of(&facts.nodes);
        let found = Found { distribution, evidence, changes: Vec::new() };
        let mut adaptation = Adaptation { facts, given, found };
        adaptation.paths(values);
        adaptation.addresses(values);
        adaptation.found
    }
}

/// What is being found.
struct Adaptation<'a> {
    facts: &'a Facts,
    given: &'a dyn Fn(&str) -> bool,
    found: Found,
}

impl Adaptation<'_> {
    /// What a flag is to be instead, where nobody gave it; `id` is the name of its field.
    fn instead(
        &mut self,
        (id, flag): (&str, &'static str),
        held: &str,
        to: Option<String>,
        why: &'static str,
    ) -> Option<String> {
        let to = to.filter(|to| !(self.given)(id) && *to != held)?;
        self.found.changes.push((flag, to.clone(), why));
        Some(to)
    }

    fn paths(&mut self, values: &mut Values) {
        let distribution = self.found.distribution;
        let places = distribution.places();
        let socket = self.facts.socket().unwrap_or_else(|| places.socket.into()).display().to_string();
        let all = [
            (
                ("cni_bin_dir", "--cni-bin-dir"),
                &mut values.cni_bin_dir,
                distribution.bin_dir(&self.facts.nodes),
                "there its runtime finds plugins",
            ),
            (
                ("cni_conf_dir", "--cni-conf-dir"),
                &mut values.cni_conf_dir,
                Some(places.conf_dir.to_owned()),
                "there its runtime reads configurations",
            ),
            (
                ("cri_socket", "--cri-socket"),
                &mut values.cri_socket,
                Some(socket),
                "its runtime listens there",
            ),
        ];
        for (flag, path, to, why) in all {
            if let Some(to) = self.instead(flag, &path.display().to_string(), to, why) {
                *path = to.into();
            }
        }
    }

    fn addresses(&mut self, values: &mut Values) {
        let facts = self.facts;
        let ranges = facts.cluster_cidr(&self.found.distribution.places()).map(|range| range.to_string());
        let held = values.cluster_cidr.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let to = self.instead(
            ("cluster_cidr", "--cluster-cidr"),
            &held,
            ranges,
            "its Nodes' pod CIDRs are within",
        );
        if let Some(range) = to.and_then(|to| to.parse().ok()) {
            values.cluster_cidr = vec![range];
        }
        let why = "its kubelets give that to pods";
        let address = facts.cluster_dns().map(|address| address.to_string());
        let held = values.cluster_dns.to_string();
        let to = self.instead(("cluster_dns", "--cluster-dns"), &held, address, why);
        values.cluster_dns = to.and_then(|to| to.parse().ok()).unwrap_or(values.cluster_dns);
        let zone = facts.kubelet["kubeletconfig"]["clusterDomain"].as_str().filter(|zone| !zone.is_empty());
        let zone = zone.map(str::to_owned);
        if let Some(to) =
            self.instead(("cluster_domain", "--cluster-domain"), &values.cluster_domain, zone, why)
        {
            values.cluster_domain = to;
        }
        let has_none =
            self.found.distribution == Distribution::MicroK8s && !facts.nodes.iter().any(has_pod_cidr);
        let held = if values.ipam == IpamMode::Blocks { "blocks" } else { "node-cidr" };
        let blocks = has_none.then(|| "blocks".to_owned());
        if self.instead(("ipam", "--ipam"), held, blocks, "its Nodes have no pod CIDRs").is_some() {
            values.ipam = IpamMode::Blocks;
        }
    }
}

impl Distribution {
    fn of(nodes: &[Value]) -> (Distribution, String) {
        for node in nodes {
            let version = node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default();
            let known = [("+k3s", Distribution::K3s), ("+rke2", Distribution::Rke2)];
            if let Some((_, of)) = known.into_iter().find(|(mark, _)| version.contains(mark)) {
                return (of, format!("kubelet {version} of {}", name(node)));
            }
            if node["metadata"]["labels"]["microk8s.io/cluster"].is_string() {
                return (Distribution::MicroK8s, format!("label microk8s.io/cluster of {}", name(node)));
            }
            let provider = node["spec"]["providerID"].as_str().unwrap_or_default();
            if provider.starts_with("kind://") {
                return (Distribution::Kind, format!("provider {provider}"));
            }
        }
        (Distribution::Other, String::new())
    }

    fn places(self) -> Places {
        match self {
            Distribution::K3s => K3S,
            Distribution::Rke2 => RKE2,
            Distribution::MicroK8s => MICROK8S,
            Distribution::Kind | Distribution::Other => USUAL,
        }
    }

    /// Where plugins are on every node; none where nodes differ.
    fn bin_dir(self, nodes: &[Value]) -> Option<String> {
        let of = |node: &Value| match self {
            Distribution::K3s if is_old_k3s(node) => OLD_K3S_BIN,
            other => other.places().bin_dir,
        };
        let first = nodes.first().map(of)?;
        nodes.iter().all(|node| of(node) == first).then(|| first.to_owned())
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Distribution::K3s => "k3s",
            Distribution::Rke2 => "RKE2",
            Distribution::MicroK8s => "MicroK8s",
            Distribution::Kind => "kind",
            Distribution::Other => "no distribution with ways of its own",
        })
    }
}

/// For people: what was found, and what is done otherwise because of it.
impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.evidence.is_empty() {
            true => write!(f, "found {}", self.distribution)?,
            false => write!(f, "found {} ({})", self.distribution, self.evidence)?,
        }
        self.changes.iter().try_for_each(|(flag, to, why)| write!(f, "\n  {flag} {to}: {why}"))
    }
}

impl Facts {
    /// The runtime's socket, as the kubelet was told (since Kubernetes 1.27 in its configuration), or as the
    /// runtime has it.
    fn socket(&self) -> Option<PathBuf> {
        let told = self.kubelet["kubeletconfig"]["containerRuntimeEndpoint"].as_str();
        let told =
            told.map(|url| url.strip_prefix("unix://").unwrap_or(url)).filter(|path| path.starts_with('/'));
        let runtimes = || {
            self.nodes.iter().filter_map(|it| it["status"]["nodeInfo"]["containerRuntimeVersion"].as_str())
        };
        let is_crio =
            runtimes().next().is_some() && runtimes().all(|runtime| runtime.starts_with("cri-o://"));
        // /var/run is /run.
        let told = told
            .map(|path| path.strip_prefix("/var").filter(|rest| rest.starts_with("/run/")).unwrap_or(path));
        told.map(PathBuf::from).or_else(|| is_crio.then(|| CRIO_SOCKET.into()))
    }

    /// What the distribution gives pods their addresses from, where that is so: all Nodes' pod CIDRs are
    /// within.
    fn cluster_cidr(&self, places: &Places) -> Option<IpNetwork> {
        let range: IpNetwork = places.pods.parse().ok()?;
        let cidrs =
            self.nodes.iter().flat_map(|node| node["spec"]["podCIDRs"].as_array().into_iter().flatten());
        let cidrs: Vec<IpNetwork> = cidrs.filter_map(|cidr| cidr.as_str()?.parse().ok()).collect();
        cidrs.iter().all(|cidr| is_subnet_of(cidr, &range)).then_some(range)
    }

    /// The address of the DNS Service: what the kubelet gives to pods, or else the tenth of the Services'
    /// range, whose first one is the API server's (as kubeadm and k3s choose it).
    fn cluster_dns(&self) -> Option<IpAddr> {
        let told = self.kubelet["kubeletconfig"]["clusterDNS"][0].as_str();
        if let Some(told) = told.and_then(|address| address.parse().ok()) {
            return Some(told);
        }
        let address = self.service.as_ref()?["spec"]["clusterIP"].as_str()?.parse().ok()?;
        Some(match address {
            IpAddr::V4(address) => IpAddr::V4(u32::from(address).checked_add(9)?.into()),
            IpAddr::V6(address) => IpAddr::V6(u128::from(address).checked_add(9)?.into()),
        })
    }

    /// The address and port of an API server that nodes reach without Services.
    pub(crate) fn api_server(&self) -> Option<(String, u16)> {
        self.slices.iter().find_map(|slice| {
            let address = slice["endpoints"][0]["addresses"][0].as_str()?;
            let port = slice["ports"][0]["port"].as_u64()?;
            Some((address.to_owned(), u16::try_from(port).ok()?))
        })
    }
}

/// `v1.31.1+k3s1`
fn is_old_k3s(node: &Value) -> bool {
    let version = node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default();
    let mut numbers = version.trim_start_matches('v').split(['.', '+', '-']).map(str::parse::<u32>);
    let (Some(Ok(1)), Some(Ok(minor)), Some(Ok(patch))) = (numbers.next(), numbers.next(), numbers.next())
    else {
        return false;
    };
    match K3S_BIN_SINCE.iter().find(|(since, _)| *since == minor) {
        Some((_, since)) => patch < *since,
        None => minor < K3S_BIN_SINCE[0].0,
    }
}

fn has_pod_cidr(node: &Value) -> bool {
    node["spec"]["podCIDR"].is_string()
        || node["spec"]["podCIDRs"].as_array().is_some_and(|cidrs| !cidrs.is_empty())
}

#[cfg(test)]
mod tests;
