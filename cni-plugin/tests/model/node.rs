//! A node and its containers' namespaces, and what is there of each attachment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use weft_cni::host_name;
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{Link, RouteFilter, RtnetlinkClient};

use crate::model::{Attachment, CONTAINERS, NETWORKS, State};

/// A machine. Its containers' namespaces come and go.
pub(crate) struct Node {
    pub(crate) namespace: Namespace,
    folder: tempfile::TempDir,
    containers: BTreeMap<&'static str, Namespace>,
}

/// An interface as it is found inside a container.
struct Inside {
    addresses: Vec<IpNetwork>,
    destinations: Vec<IpNetwork>,
}

/// All that is there.
pub(crate) struct Found {
    /// Address -> content of its record, of each network by its name.
    records: BTreeMap<&'static str, BTreeMap<IpAddr, String>>,
    /// The host's ends of veth pairs by name.
    veths: BTreeMap<String, Link>,
    bridges: BTreeMap<String, u32>,
    /// By container and interface; of containers that have a namespace.
    inside: BTreeMap<(&'static str, String), Inside>,
    /// The nf_tables rules as `nft` prints them. Elements are commented with their owners.
    ruleset: String,
}

impl Node {
    pub(crate) fn new() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let mut node =
            Node { namespace: Namespace::temporary().unwrap(), folder, containers: BTreeMap::new() };
        CONTAINERS.iter().for_each(|container| node.revive(container));
        node
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn netns(&self, container: &str) -> PathBuf {
        self.folder.path().join(format!("netns-{container}"))
    }

    pub(crate) fn has_namespace(&self, container: &str) -> bool {
        self.containers.contains_key(container)
    }

    pub(crate) fn vanish(&mut self, container: &str) {
        if self.containers.remove(container).is_some() {
            Namespace::remove(self.netns(container)).unwrap();
        }
    }

    pub(crate) fn revive(&mut self, container: &'static str) {
        let namespace = Namespace::create(self.netns(container)).unwrap();
        self.containers.insert(container, namespace);
    }

    pub(crate) fn look(&self) -> Found {
        let links = self.namespace.run(|| RtnetlinkClient::open()?.links()).unwrap().unwrap();
        let of_kind =
            |kind: &'static str| links.iter().filter(move |link| link.kind.as_deref() == Some(kind)).cloned();
        let records = NETWORKS.iter().map(|network| (network.name, self.records(network.name)));
        Found {
            records: records.collect(),
            veths: of_kind("veth").map(|link| (link.name.clone(), link)).collect(),
            bridges: of_kind("bridge").map(|link| (link.name, link.index)).collect(),
            inside: self
                .containers
                .iter()
                .flat_map(|(container, namespace)| inside(container, namespace))
                .collect(),
            ruleset: self.ruleset(),
        }
    }

    fn ruleset(&self) -> String {
        let nft = || Command::new("nft").args(["list", "ruleset"]).output();
        let output = self.namespace.run(nft).unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// How many addresses of the first range set of a network are taken.
    pub(crate) fn taken(&self, network: &str) -> usize {
        self.records(network).keys().filter(|address| address.is_ipv4()).count()
    }

    fn names(&self, network: &str) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.data_dir().join(network)) else { return BTreeSet::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn records(&self, network: &str) -> BTreeMap<IpAddr, String> {
        let read = |name: String| {
            let address = name.parse().ok()?;
            Some((address, fs::read_to_string(self.data_dir().join(network).join(name)).unwrap()))
        };
        self.names(network).into_iter().filter_map(read).collect()
    }

    /// Says what is left where nothing may be.
    pub(crate) fn assert_clean(&self) {
        let found = self.look();
        assert!(found.veths.is_empty(), "left: {:?}", found.veths);
        assert!(found.inside.is_empty(), "left inside: {:?}", found.inside.keys());
        assert_eq!(found.ruleset, "", "left of the tables");
        for network in &NETWORKS {
            let names = self.names(network.name);
            let known = |name: &&String| {
                ["lock", "freed"].contains(&name.as_str()) || name.starts_with("last_reserved_ip.")
            };
            let left: Vec<&String> = names.iter().filter(|name| !known(name)).collect();
            assert!(left.is_empty(), "left of network {}: {left:?}", network.name);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for container in CONTAINERS {
            if self.containers.remove(container).is_some() {
                let _ = Namespace::remove(self.netns(container));
            }
        }
    }
}

fn inside(container: &'static str, namespace: &Namespace) -> Vec<((&'static str, String), Inside)> {
    let read = || {
        let mut route = RtnetlinkClient::open().unwrap();
        let mut found = Vec::new();
        for link in route.links().unwrap().into_iter().filter(|link| link.kind.as_deref() == Some("veth")) {
            let addresses = route.addresses(Some(link.index)).unwrap();
            let paths =
                route.routes(RouteFilter { link: Some(link.index), ..RouteFilter::default() }).unwrap();
            let inside = Inside {
                addresses: addresses.into_iter().map(|address| address.address).collect(),
                destinations: paths.into_iter().map(|path| path.destination).collect(),
            };
            found.push(((container, link.name), inside));
        }
        found
    };
    namespace.run(read).unwrap()
}

impl Attachment {
    fn host_name(&self) -> String {
        host_name(&weft_cni_spec::Attachment {
            container: self.container.parse().unwrap(),
            ifname: self.network.ifname.parse().unwrap(),
        })
    }

    fn record(&self) -> String {
        format!("{}\r\n{}", self.container, self.network.ifname)
    }
}

impl Found {
    /// That every record and veth pair is whole and somebody's.
    pub(crate) fn assert_known(&self, all: &[Attachment]) {
        for (network, records) in &self.records {
            let owners: BTreeSet<String> =
                all.iter().filter(|known| known.network.name == *network).map(Attachment::record).collect();
            for (address, content) in records {
                assert!(owners.contains(content), "{network}: the record of {address} is {content:?}");
            }
        }
        let names: BTreeSet<String> = all.iter().map(Attachment::host_name).collect();
        assert!(self.veths.keys().all(|name| names.contains(name)), "{:?}", self.veths);
    }

    /// That of an attachment exists what its state says.
    pub(crate) fn assert_is(&self, attachment: &Attachment, state: &State, has_namespace: bool) {
        let network = attachment.network;
        let records = self.records[network.name].iter();
        let owned: BTreeSet<IpAddr> = records
            .filter(|(_, content)| **content == attachment.record())
            .map(|(address, _)| *address)
            .collect();
        let host_end = self.veths.get(&attachment.host_name());
        let peer = self.inside.get(&(attachment.container, network.ifname.to_owned()));
        let owns_ports = self.ruleset.contains(&comment(&attachment.host_name()));
        match state {
            State::Absent => {
                assert!(!owns_ports, "{attachment} is gone and its ports are mapped: {}", self.ruleset);
                assert!(owned.is_empty(), "{attachment} is gone and has {owned:?}");
                assert!(host_end.is_none(), "{attachment} is gone and has {host_end:?}");
                assert!(peer.is_none(), "{attachment} is gone and its interface is inside");
            }
            State::Attached(result) => {
                let ips: Vec<IpNetwork> = parsed(&result["ips"], "address");
                assert_eq!(owned, ips.iter().map(IpNetwork::ip).collect(), "{attachment}: reserved");
                let host_end = host_end.unwrap_or_else(|| panic!("{attachment} lacks the host's end"));
                assert_eq!(
                    host_end.master,
                    self.bridges.get(network.bridge).copied(),
                    "{attachment}: bridge"
                );
                assert!(host_end.up && has_namespace);
                let peer = peer.unwrap_or_else(|| panic!("{attachment} lacks its interface"));
                assert!(
                    ips.iter().all(|ip| peer.addresses.contains(ip)),
                    "{attachment}: {:?}",
                    peer.addresses
                );
                let routes: Vec<IpNetwork> = parsed(&result["routes"], "dst");
                let all = routes.iter().all(|route| peer.destinations.contains(route));
                assert!(all, "{attachment}: {:?}", peer.destinations);
                self.assert_has_elements(attachment, &ips);
            }
            State::Torn => assert!(owned.len() <= 2, "{attachment} has {owned:?}"),
        }
    }

    /// That an attachment's ports lead to it, and that its network is masqueraded.
    fn assert_has_elements(&self, attachment: &Attachment, ips: &[IpNetwork]) {
        let owner = comment(&attachment.host_name());
        let is_mapped = |ip: &IpNetwork| self.ruleset.contains(&format!("{owner} : {} . 80", ip.ip()));
        let has_ports = attachment.ports() != json!([]);
        assert!(!has_ports || ips.iter().all(is_mapped), "{attachment}: {}", self.ruleset);
        let is_masqueraded = self.ruleset.contains(&comment(attachment.network.bridge));
        assert_eq!(is_masqueraded, attachment.network.masquerades, "{attachment}: {}", self.ruleset);
    }
}

/// As nft prints an element's owner.
fn comment(owner: &str) -> String {
    format!("comment \"{owner}\"")
}

fn parsed(list: &Value, key: &str) -> Vec<IpNetwork> {
    let items = list.as_array().into_iter().flatten();
    items.map(|item| item[key].as_str().unwrap().parse().unwrap()).collect()
}
