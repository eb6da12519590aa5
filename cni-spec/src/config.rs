//! Network configurations: what an administrator (or Weft's agent) writes into net.d, and what the runtime
//! hands to a plugin on standard input (SPEC sections 1 and 3). Keys that are not listed here are tolerated
//! everywhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Dns, Route};

/// A network configuration list: a `*.conflist` file (SPEC section 1, "Configuration format").
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkList {
    /// The protocol version of the list and of the calls made for it.
    pub cni_version: String,
    /// The versions of which a runtime may choose the newest that it knows (from 1.1.0); may be empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cni_versions: Vec<String>,
    /// The network's name, unique on a host.
    pub name: String,
    /// Runtimes must not call CHECK.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disable_check: bool,
    /// Runtimes must not call GC.
    #[serde(rename = "disableGC", default, skip_serializing_if = "is_false")]
    pub disable_gc: bool,
    /// The plugins to call, in this order for ADD.
    pub plugins: Vec<Plugin>,
}

/// A plugin of a list, as Weft writes its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plugin {
    /// The name of the plugin's program: `weft-cni`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The capabilities for which the plugin takes arguments at run time: `portMappings`, `mac`, `ips`, ...
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capabilities: BTreeMap<String, bool>,
    /// How the bridge is to be.
    #[serde(flatten)]
    pub bridge: BridgeOptions,
    /// Where the addresses come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<Ipam>,
}

/// The options of the bridge plugin, with the names and meanings of the reference `bridge` plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BridgeOptions {
    /// The bridge's interface name; `cni0` where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Give the bridge the gateway's address, so that the host routes for the containers.
    #[serde(skip_serializing_if = "is_false")]
    pub is_gateway: bool,
    /// The same, and make it the containers' default route.
    #[serde(skip_serializing_if = "is_false")]
    pub is_default_gateway: bool,
    /// Replace another address that the bridge may have.
    #[serde(skip_serializing_if = "is_false")]
    pub force_address: bool,
    /// Masquerade what leaves the network.
    #[serde(skip_serializing_if = "is_false")]
    pub ip_masq: bool,
    /// What masquerades: `iptables` or `nftables` with the reference plugin. Weft's always uses nf_tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_masq_backend: Option<String>,
    /// The largest packet, in bytes; where it is 0 or missing, the kernel's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Let the bridge send frames back out of the port that they came in by.
    #[serde(skip_serializing_if = "is_false")]
    pub hairpin_mode: bool,
    /// Let the bridge receive all frames.
    #[serde(skip_serializing_if = "is_false")]
    pub promisc_mode: bool,
    /// Let the bridge forward nothing between containers. With a gateway the host routes between them
    /// instead, so that Services and policies hold; without one they cannot reach each other at all.
    #[serde(skip_serializing_if = "is_false")]
    pub port_isolation: bool,
    /// The containers' VLAN, 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// VLANs that containers may tag frames with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_trunk: Option<Vec<VlanTrunk>>,
    /// Keep the bridge's default VLAN on the port too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserve_default_vlan: Option<bool>,
    /// Drop frames from other Ethernet addresses than the container's.
    #[serde(skip_serializing_if = "is_false")]
    pub macspoofchk: bool,
    /// Wait for duplicate address detection (IPv6).
    #[serde(skip_serializing_if = "is_false")]
    pub enabledad: bool,
    /// Leave the container's interface down.
    #[serde(skip_serializing_if = "is_false")]
    pub disable_container_interface: bool,
    /// Name resolution to pass on, instead of what IPAM says about it.
    #[serde(skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
    /// The boot in which the machine was prepared for this network: STATUS fails in any other. Not of the
    /// reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Networks that containers still have addresses of, by their first address as gateway, though new ones
    /// get none of them. Not of the reference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<IpNetwork>,
    /// How many seconds ADD waits for the policies of a pod that may have some; 2 where it is missing, 0 for
    /// not at all. Not of the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_timeout: Option<u32>,
    /// Why the machine is not prepared at present: STATUS fails with it. Not of the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
}

/// VLANs that containers may tag frames with: one (`id`), or all from one to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VlanTrunk {
    /// One VLAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
    /// The first.
    #[serde(rename = "minID", skip_serializing_if = "Option::is_none")]
    pub min_id: Option<u16>,
    /// The last.
    #[serde(rename = "maxID", skip_serializing_if = "Option::is_none")]
    pub max_id: Option<u16>,
}

/// The `ipam` section of Weft's IPAM and of the reference `host-local`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ipam {
    /// The name of the IPAM plugin's program: `weft-ipam` or `host-local`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Sets of ranges: a container gets one address out of each set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Vec<Range>>,
    /// A file that names the node's blocks of addresses, which count as further sets: one for each family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<PathBuf>,
    /// The one range of old configurations, which goes before `ranges`: its subnet. As in [`Range`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<IpNetwork>,
    /// The old range's first address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_start: Option<IpAddr>,
    /// The old range's last address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_end: Option<IpAddr>,
    /// The old range's gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Routes to set in containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// The folder that holds the networks' reservations; `/var/lib/cni/networks` where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// A file in the form of resolv.conf(5) to take name resolution from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolv_conf: Option<PathBuf>,
}

/// The section `ipam` of the plugin `dhcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DhcpIpam {
    /// Options that servers are told.
    pub provide: Vec<ProvidedOption>,
    /// Options that they are asked for.
    pub request: Vec<RequestedOption>,
    /// The metric of routes; 0 is the kernel's choice.
    pub priority: u32,
}

/// An option of DHCP that a server is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProvidedOption {
    /// Its number or name.
    pub option: String,
    /// What it says.
    pub value: String,
    /// The key of `CNI_ARGS` that says it instead.
    pub from_arg: String,
}

/// An option of DHCP that a server is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestedOption {
    /// Its number or name.
    pub option: String,
    /// Whether nothing is asked for but what is listed.
    pub skip_default: bool,
}

/// A range of addresses within a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// The subnet; its host bits must be zero.
    pub subnet: IpNetwork,
    /// The first address to give; where there is none, the subnet's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_start: Option<IpAddr>,
    /// The last address to give; where there is none, the subnet's last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_end: Option<IpAddr>,
    /// The gateway, never given to a container; where there is none, the subnet's first address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

impl Range {
    /// The whole of a subnet, with its first address as the gateway.
    pub fn of(subnet: IpNetwork) -> Range {
        Range { subnet, range_start: None, range_end: None, gateway: None }
    }
}

impl Ipam {
    /// The one range of an old configuration, if this is one.
    pub fn old_range(&self) -> Option<Range> {
        self.subnet.map(|subnet| Range {
            subnet,
            range_start: self.range_start,
            range_end: self.range_end,
            gateway: self.gateway,
        })
    }
}

/// What every plugin finds on standard input, apart from its own options (SPEC section 3, "Deriving execution
/// configuration").
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// The protocol version; none means 0.1.0.
    pub cni_version: Option<String>,
    /// The network's name.
    pub name: Option<String>,
    /// The IPAM plugin's section, whichever plugin that is.
    pub ipam: Option<Value>,
    /// Capability arguments.
    pub runtime_config: RuntimeConfig,
    /// Arguments of old runtimes.
    pub args: DelegateArgs,
    /// The result of the plugin before this one in the list, or of ADD.
    pub prev_result: Option<Value>,
    /// GC: the attachments that the runtime still knows.
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Vec<ValidAttachment>,
}

/// Capability arguments that Weft's plugins take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeConfig {
    /// `mac`: the container interface's Ethernet address.
    pub mac: Option<String>,
    /// `ips`: addresses asked for, with or without a prefix.
    pub ips: Vec<String>,
    /// `ipRanges`: ranges that go before the configured ones.
    pub ip_ranges: Vec<Vec<Range>>,
    /// `portMappings`: ports of the host that lead to the container.
    pub port_mappings: Vec<PortMapping>,
    /// `bandwidth`: limits of what the container receives and sends.
    pub bandwidth: Option<Bandwidth>,
}

/// Limits of what a container receives (`ingress`) and sends (`egress`), by the keys of the reference
/// `bandwidth` plugin: unchecked. They also stand in a plugin's configuration itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bandwidth {
    /// In bits per second.
    pub ingress_rate: Option<u64>,
    /// In bits.
    pub ingress_burst: Option<u64>,
    /// In bits per second.
    pub egress_rate: Option<u64>,
    /// In bits.
    pub egress_burst: Option<u64>,
    /// The only networks that the limits are for.
    pub shaped_subnets: Option<Vec<String>>,
    /// Networks that the limits are not for.
    pub unshaped_subnets: Option<Vec<String>>,
}

/// A port of the host that leads to a port of the container, as the runtime asks for it: unchecked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortMapping {
    /// The port on the host.
    pub host_port: i64,
    /// The port in the container.
    pub container_port: i64,
    /// `tcp`, `udp` or `sctp`, in whichever case.
    pub protocol: String,
    /// The one address of the host that it is for; all where it is empty.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
}

/// The `args` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DelegateArgs {
    /// The protocol's own part of it.
    pub cni: CniArgs,
}

/// `args.cni`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CniArgs {
    /// The container interface's Ethernet address.
    pub mac: Option<String>,
    /// Addresses asked for, with or without a prefix.
    pub ips: Vec<String>,
}

/// An attachment that GC must leave alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ValidAttachment {
    /// The container's id.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface's name inside the container.
    pub ifname: String,
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list() -> NetworkList {
        let ipam = Ipam {
            kind: "weft-ipam".into(),
            ranges: vec![vec![Range::of("10.244.1.0/24".parse().unwrap())]],
            ..Ipam::default()
        };
        let bridge = BridgeOptions {
            bridge: Some("cni0".into()),
            is_default_gateway: true,
            port_isolation: true,
            ..BridgeOptions::default()
        };
        let plugin = Plugin { kind: "weft-cni".into(), bridge, ipam: Some(ipam), ..Plugin::default() };
        NetworkList {
            cni_version: "1.0.0".into(),
            name: "weft".into(),
            plugins: vec![plugin],
            ..NetworkList::default()
        }
    }

    #[test]
    fn a_list_is_written_with_the_keys_of_the_specification_and_nothing_else() {
        let expected = json!({
            "cniVersion": "1.0.0",
            "name": "weft",
            "plugins": [{
                "type": "weft-cni",
                "bridge": "cni0",
                "isDefaultGateway": true,
                "portIsolation": true,
                "ipam": {"type": "weft-ipam", "ranges": [[{"subnet": "10.244.1.0/24"}]]},
            }],
        });
        assert_eq!(serde_json::to_value(list()).unwrap(), expected);
        assert_eq!(serde_json::from_value::<NetworkList>(expected).unwrap(), list());
    }

    #[test]
    fn unknown_keys_are_tolerated() {
        let network: Network = serde_json::from_value(json!({
            "cniVersion": "1.1.0", "name": "n", "type": "weft-cni", "fancy": [1],
            "runtimeConfig": {"aliases": [], "mac": "0a:58:0a:01:00:02"},
            "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0", "more": 1}],
            "ipam": {"type": "whereabouts", "range": "10.0.0.0/8"},
        }))
        .unwrap();
        assert_eq!(network.runtime_config.mac.as_deref(), Some("0a:58:0a:01:00:02"));
        assert_eq!(network.valid_attachments[0].container_id, "c1");
    }

    #[test]
    fn containerd_writes_capability_arguments_with_capitals() {
        let config = |mapping: Value, limits: Value| {
            let config = json!({"portMappings": [mapping], "bandwidth": limits});
            let config = crate::parse(config.to_string().as_bytes()).unwrap();
            serde_json::from_value::<RuntimeConfig>(config).unwrap()
        };
        let capitals = config(
            json!({"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "192.0.2.1"}),
            json!({"IngressRate": 1, "IngressBurst": 2, "EgressRate": 3, "EgressBurst": 4}),
        );
        let documented = config(
            json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"}),
            json!({"ingressRate": 1, "ingressBurst": 2, "egressRate": 3, "egressBurst": 4}),
        );
        assert_eq!(capitals, documented);
        assert_eq!(
            (capitals.port_mappings[0].host_port, &*capitals.port_mappings[0].host_ip),
            (8080, "192.0.2.1")
        );
        assert_eq!(capitals.bandwidth.and_then(|limits| limits.egress_burst), Some(4));
    }

    #[test]
    fn an_old_flat_range_stands_beside_ranges() {
        let ipam: Ipam = serde_json::from_value(json!({
            "type": "host-local", "subnet": "10.1.0.0/16", "rangeStart": "10.1.0.9",
            "ranges": [[{"subnet": "10.2.0.0/16", "gateway": "10.2.0.254"}]],
            "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/tmp/x",
        }))
        .unwrap();
        let flat = ipam.old_range().unwrap();
        assert_eq!(
            (flat.subnet.to_string(), flat.range_start),
            ("10.1.0.0/16".into(), "10.1.0.9".parse().ok())
        );
        assert_eq!(ipam.ranges[0][0].gateway, "10.2.0.254".parse().ok());
    }
}
