//! What a plugin says when it succeeds (SPEC section 5, "ADD Success"), in every version of the protocol.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::Version;
use weft_types::Family;

/// A result, in the shape of the newest version. It also reads the `prevResult` of 0.3.0 and newer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Success {
    /// Interfaces made, on the host and in the container. An IPAM plugin names none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpConfig>,
    /// Routes set in the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Name resolution, for the runtime to set up.
    #[serde(skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

/// A network interface of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its Ethernet address, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its largest packet, in bytes (from 1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The namespace's file; none for the host's own interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// The socket that stands for it, of plugins that make such (from 1.1.0).
    #[serde(default, rename = "socketPath", skip_serializing_if = "Option::is_none")]
    pub socket_path: Option<String>,
    /// The PCI device that it is, of plugins that hand out such (from 1.1.0).
    #[serde(default, rename = "pciID", skip_serializing_if = "Option::is_none")]
    pub pci_id: Option<String>,
}

/// An address of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// The address, with the length of its network's prefix.
    pub address: IpNetwork,
    /// The gateway of that network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The place in `interfaces` of the one that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route, of a result or of an IPAM configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads.
    pub dst: IpNetwork,
    /// The next hop; where there is none, the gateway of the address's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// The largest packet, in bytes (from 1.1.0, as all below).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The segment size to announce to TCP peers, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric: the lowest is preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The routing table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope, by its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// Name resolution, as in resolv.conf(5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Name servers' addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Domains that short names are looked up in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options to the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// `ip4` and `ip6` of results before 0.3.0.
#[derive(Deserialize)]
pub(super) struct OldIp {
    ip: IpNetwork,
    gateway: Option<IpAddr>,
    #[serde(default)]
    routes: Vec<Route>,
}

/// Versions before 0.3.0 cannot express a result without an address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("a result without an address cannot be expressed in cniVersion {0}")]
pub struct NoAddress(pub Version);

impl Route {
    /// A route with nothing but a destination and a next hop.
    pub fn new(dst: IpNetwork, gw: Option<IpAddr>) -> Route {
        Route { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

impl Dns {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }
}

impl Success {
    /// Reads a result object of any version, as [`crate::parse`] gives it.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_json(value: &Value) -> Result<Success, serde_json::Error> {
        let mut success = Success::deserialize(value)?;
        // Before 0.3.0 there was one address of each family.
        for key in ["ip4", "ip6"] {
            let Some(old) = value.get(key) else { continue };
            let OldIp { ip, gateway, routes } = OldIp::deserialize(old)?;
            success.ips.push(IpConfig { address: ip, gateway, interface: None });
            success.routes.extend(routes);
        }
        Ok(success)
    }

    /// This result after that of the plugins before in a list (SPEC section 2, "ADD": prevResult is passed
    /// on).
    #[must_use]
    pub fn after(self, previous: Success) -> Success {
        let shift = previous.interfaces.len();
        let mut all = previous;
        all.interfaces.extend(self.interfaces);
        let shifted = |ip: IpConfig| IpConfig { interface: ip.interface.map(|index| index + shift), ..ip };
        all.ips.extend(self.ips.into_iter().map(shifted));
        all.routes.extend(self.routes);
        if !self.dns.is_empty() {
            all.dns = self.dns;
        }
        all
    }

    /// The result object, in that version of the protocol. What a version has no words for is left out.
    ///
    /// # Errors
    /// Before 0.3.0, where there is no address.
    pub fn to_json(&self, version: Version) -> Result<Value, NoAddress> {
        let mut result = Map::from_iter([("cniVersion".to_owned(), version.as_str().into())]);
        if version <= Version::V0_2_0 {
            self.by_family(version, &mut result)?;
        } else {
            self.by_list(version, &mut result);
        }
        if !self.dns.is_empty() {
            result.insert("dns".into(), json!(self.dns));
        }
        Ok(Value::Object(result))
    }

    /// 0.3.0 and newer: lists of interfaces, addresses and routes.
    fn by_list(&self, version: Version, result: &mut Map<String, Value>) {
        let newest = version >= Version::V1_1_0;
        let interfaces = self.interfaces.iter().map(|interface| match newest {
            true => json!(interface),
            false => json!(Interface { mtu: None, socket_path: None, pci_id: None, ..interface.clone() }),
        });
        let ips = self.ips.iter().map(|ip| {
            let mut value = json!(ip);
            if version < Version::V1_0_0 {
                value["version"] = if ip.address.is_ipv4() { "4" } else { "6" }.into();
            }
            value
        });
        let routes = self.routes.iter().map(|route| match newest {
            true => json!(route),
            false => json!(Route::new(route.dst, route.gw)),
        });
        let lists: [(&str, Vec<Value>); 3] =
            [("interfaces", interfaces.collect()), ("ips", ips.collect()), ("routes", routes.collect())];
        let filled = lists.into_iter().filter(|(_, list)| !list.is_empty());
        result.extend(filled.map(|(key, list)| (key.to_owned(), list.into())));
    }

    /// 0.1.0 and 0.2.0: the first address of each family, with the routes of that family.
    fn by_family(&self, version: Version, result: &mut Map<String, Value>) -> Result<(), NoAddress> {
        for (family, key) in [(Family::V4, "ip4"), (Family::V6, "ip6")] {
            let Some(ip) = self.ips.iter().find(|ip| Family::of_network(&ip.address) == family) else {
                continue;
            };
            let mut value = json!({ "ip": ip.address });
            if let Some(gateway) = ip.gateway {
                value["gateway"] = json!(gateway);
            }
            let of_family = self.routes.iter().filter(|route| Family::of_network(&route.dst) == family);
            let routes: Vec<Route> = of_family.map(|route| Route::new(route.dst, route.gw)).collect();
            if !routes.is_empty() {
                value["routes"] = json!(routes);
            }
            result.insert(key.to_owned(), value);
        }
        let none = !result.contains_key("ip4") && !result.contains_key("ip6");
        if none { Err(NoAddress(version)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> Success {
        Success {
            interfaces: vec![
                Interface {
                    name: "cni0".into(),
                    mac: Some("0a:58:0a:01:00:01".into()),
                    ..Interface::default()
                },
                Interface {
                    name: "eth0".into(),
                    mtu: Some(1400),
                    sandbox: Some("/run/netns/x".into()),
                    ..Interface::default()
                },
            ],
            ips: vec![
                IpConfig {
                    address: "10.1.0.2/24".parse().unwrap(),
                    gateway: Some("10.1.0.1".parse().unwrap()),
                    interface: Some(1),
                },
                IpConfig { address: "fd00::2/64".parse().unwrap(), gateway: None, interface: Some(1) },
            ],
            routes: vec![Route { priority: Some(7), ..Route::new("0.0.0.0/0".parse().unwrap(), None) }],
            dns: Dns::default(),
        }
    }

    #[test]
    fn a_result_goes_after_that_of_the_plugins_before() {
        let both = result().after(result());
        assert_eq!((both.interfaces.len(), both.ips.len(), both.routes.len()), (4, 4, 2));
        let places: Vec<_> = both.ips.iter().map(|ip| ip.interface).collect();
        assert_eq!(places, [Some(1), Some(1), Some(3), Some(3)]);
        assert_eq!(result().after(Success::default()), result());
    }

    #[test]
    fn the_newest_version_tells_everything() {
        let expected = json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "cni0", "mac": "0a:58:0a:01:00:01"},
                {"name": "eth0", "mtu": 1400, "sandbox": "/run/netns/x"},
            ],
            "ips": [
                {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1},
                {"address": "fd00::2/64", "interface": 1},
            ],
            "routes": [{"dst": "0.0.0.0/0", "priority": 7}],
        });
        assert_eq!(result().to_json(Version::V1_1_0), Ok(expected));
    }

    #[test]
    fn what_other_plugins_tell_of_their_interfaces_is_passed_on() {
        let told = json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "vf0", "socketPath": "/run/vf0.sock", "pciID": "0000:3b:02.1"}],
            "routes": [{"dst": "10.9.0.0/16", "scope": 253}],
        });
        let read = Success::from_json(&told).unwrap();
        assert_eq!(read.to_json(Version::V1_1_0), Ok(told));
        assert_eq!(read.to_json(Version::V1_0_0).unwrap()["interfaces"], json!([{"name": "vf0"}]));
    }

    #[test]
    fn before_1_1_0_the_newer_fields_are_left_out() {
        let value = result().to_json(Version::V1_0_0).unwrap();
        assert_eq!(value["interfaces"][1], json!({"name": "eth0", "sandbox": "/run/netns/x"}));
        assert_eq!(value["routes"], json!([{"dst": "0.0.0.0/0"}]));
        assert_eq!(value["ips"][0].get("version"), None);
    }

    #[test]
    fn before_1_0_0_each_address_tells_its_family() {
        for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
            let value = result().to_json(version).unwrap();
            assert_eq!(value["cniVersion"], json!(version.as_str()));
            assert_eq!(
                (&value["ips"][0]["version"], &value["ips"][1]["version"]),
                (&json!("4"), &json!("6"))
            );
        }
    }

    #[test]
    fn before_0_3_0_there_is_one_address_of_each_family() {
        let expected = json!({
            "cniVersion": "0.2.0",
            "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
            "ip6": {"ip": "fd00::2/64"},
        });
        assert_eq!(result().to_json(Version::V0_2_0), Ok(expected));
        assert_eq!(Success::default().to_json(Version::V0_1_0), Err(NoAddress(Version::V0_1_0)));
    }

    #[test]
    fn a_result_reads_back_from_every_version() {
        for version in Version::ALL {
            let read = Success::from_json(&result().to_json(version).unwrap()).unwrap();
            let addresses = |success: &Success| success.ips.iter().map(|ip| ip.address).collect::<Vec<_>>();
            assert_eq!(addresses(&read), addresses(&result()), "{version}");
            assert_eq!((read.ips[0].gateway, read.routes.len()), (result().ips[0].gateway, 1), "{version}");
        }
    }
}
