//! What the network's configuration and the runtime ask for, apart from addresses: checked, with defaults
//! filled in.

use std::time::Duration;

use crate::interface::Mac;
use ipnetwork::IpNetwork;
use weft_cni_spec::{Args, Bandwidth, BridgeOptions, Dns, InterfaceName, InvalidCniName, Invocation, decode};

use super::{Limits, PortMapping, VlanGateway, Vlans, bandwidth, port_mapping, vlan};
use crate::{Error, Result};

/// The bridge where the configuration names none.
pub(crate) const DEFAULT_BRIDGE: &str = weft_types::well_known::device::BRIDGE;
/// How long a pod's policies are waited for where the configuration does not say.
const POLICY_TIMEOUT: Duration = Duration::from_secs(2);

/// The options of a network, with what the runtime asks for one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The bridge's name.
    pub bridge: InterfaceName,
    /// The interface that has the gateway's addresses: the bridge, or, within a VLAN, one of the VLAN's own.
    pub gateway_link: InterfaceName,
    /// Whether it has them, and the host routes.
    pub gateway: bool,
    /// Whether the gateway is the container's default route.
    pub default_route: bool,
    /// Whether to replace other addresses of the bridge.
    pub force_address: bool,
    /// Whether what leaves the network does so under the host's address.
    pub masquerade: bool,
    /// The largest packet, in bytes, where it is not the kernel's choice.
    pub mtu: Option<u32>,
    /// Whether the bridge may send frames back to the container that they came from.
    pub hairpin: bool,
    /// Whether the bridge receives all frames.
    pub promiscuous: bool,
    /// Whether the bridge forwards nothing between containers.
    pub isolated: bool,
    /// Whether to set the container's interface up.
    pub up: bool,
    /// Whether frames from other Ethernet addresses than the container's own are dropped.
    pub spoof_check: bool,
    /// Whether IPv6 addresses are used only once nobody else on the link is known to have them.
    pub detect_duplicates: bool,
    /// The container's Ethernet address, where somebody asks for one.
    pub mac: Option<Mac>,
    /// Ports of the host that lead to the container.
    pub ports: Vec<PortMapping>,
    /// The VLANs of the container's port, where it is a member of some.
    pub vlans: Option<Vlans>,
    /// Limits of what the container receives and sends.
    pub limits: Limits,
    /// Name resolution to tell the runtime, instead of IPAM's.
    pub dns: Dns,
    /// Networks that containers have addresses of and new ones get none of.
    pub retired: Vec<IpNetwork>,
    /// How long to wait for the policies of a pod that may have some.
    pub policy_timeout: Duration,
}

impl Options {
    /// Reads the options of a call.
    ///
    /// # Errors
    /// Code 6 for what cannot be decoded, 2 for an option that is not supported, 7 for an impossible value.
    pub fn read(invocation: &Invocation, args: &Args) -> Result<Options> {
        let config: BridgeOptions = decode(&invocation.json)?;
        let network = invocation.network.to_string();
        let invalid = |option: &str, reason: String| Error::Invalid {
            network: network.clone(),
            option: option.to_owned(),
            reason,
        };
        let name = config.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE);
        let name_of = |option| move |error: InvalidCniName| invalid(option, error.to_string());
        let bridge = name.parse().map_err(name_of("bridge"))?;
        if config.hairpin_mode && config.promisc_mode {
            return Err(invalid("hairpinMode", "cannot be set together with promiscMode".to_owned()));
        }
        let mac = wanted_mac(invocation, args)
            .map(|text| text.parse())
            .transpose()
            .map_err(|error: crate::interface::InvalidMac| invalid("mac", error.to_string()))?;
        let backend = config.ip_masq_backend.as_deref().unwrap_or_default();
        if !matches!(backend, "" | "iptables" | "nftables") {
            return Err(invalid("ipMasqBackend", format!("{backend:?} is neither iptables nor nftables")));
        }
        let ports = port_mapping::read(&invocation.config.runtime_config.port_mappings)
            .map_err(|reason| invalid("portMappings", reason))?;
        let gateway = config.is_gateway || config.is_default_gateway;
        let vlans = vlan::read(&config).map_err(|(option, reason)| invalid(option, reason))?;
        let vlan = vlans.as_ref().and_then(Vlans::own).filter(|_| gateway);
        let gateway_link = vlan.map_or(name.to_owned(), |vlan| VlanGateway::name(name, vlan));
        let gateway_link = gateway_link.parse().map_err(name_of("bridge"))?;
        let mtu = config.mtu.filter(|mtu| *mtu != 0);
        let limits = limits(invocation, mtu)?;
        Ok(Options {
            bridge,
            gateway_link,
            gateway,
            default_route: config.is_default_gateway,
            force_address: config.force_address,
            masquerade: config.ip_masq,
            mtu,
            hairpin: config.hairpin_mode,
            promiscuous: config.promisc_mode,
            isolated: config.port_isolation,
            up: !config.disable_container_interface,
            spoof_check: config.macspoofchk,
            detect_duplicates: config.enabledad,
            mac,
            ports,
            vlans,
            limits,
            dns: config.dns,
            retired: config.retired,
            policy_timeout: config.policy_timeout.map_or(POLICY_TIMEOUT, |it| Duration::from_secs(it.into())),
        })
    }

    /// The gateways of all networks that containers may have addresses of: those of IPAM's ranges, and of
    /// retired ones.
    pub(crate) fn gateways(&self, mut ranges: Vec<IpNetwork>) -> Vec<IpNetwork> {
        let first = |network: &IpNetwork| IpNetwork::new(network.iter().nth(1)?, network.prefix()).ok();
        ranges.extend(self.retired.iter().filter_map(first));
        ranges
    }
}

/// The capability's goes before `args.cni`, and that before `CNI_ARGS`.
fn wanted_mac<'a>(invocation: &'a Invocation, args: &'a Args) -> Option<&'a str> {
    let config = &invocation.config;
    config.runtime_config.mac.as_deref().or(config.args.cni.mac.as_deref()).or(args.mac.as_deref())
}

fn limits(invocation: &Invocation, mtu: Option<u32>) -> Result<Limits> {
    let (configured, asked): (Bandwidth, _) =
        (decode(&invocation.json)?, invocation.config.runtime_config.bandwidth.as_ref());
    let network = invocation.network.to_string();
    for given in [Some(&configured), asked].into_iter().flatten() {
        let subnets =
            [("shapedSubnets", &given.shaped_subnets), ("unshapedSubnets", &given.unshaped_subnets)];
        if let Some((option, subnets)) =
            subnets.into_iter().find_map(|(option, subnets)| Some((option, subnets.as_ref()?)))
        {
            return Err(Error::Unsupported { network, option: format!("{option} {subnets:?}") });
        }
    }
    bandwidth::read(configured, asked, mtu).map_err(|(option, reason)| Error::Invalid {
        network,
        option: option.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_cni_spec::{Network, Version};

    use super::*;

    fn read(mut config: Value, args: &Args) -> Result<Options> {
        config["name"] = "blue".into();
        let stdin = config.to_string().into_bytes();
        let json = weft_cni_spec::parse(&stdin).unwrap();
        let network: Network = serde_json::from_value(json.clone()).unwrap();
        let invocation = Invocation {
            version: Version::NEWEST,
            network: "blue".parse().unwrap(),
            config: network,
            json,
            stdin,
            plugin_path: Vec::new(),
        };
        Options::read(&invocation, args)
    }

    fn error(config: Value) -> (u32, String) {
        let failure = read(config, &Args::default()).unwrap_err().failure();
        (failure.code.number(), failure.msg)
    }

    #[test]
    fn the_defaults_are_the_references() {
        let options = read(json!({"mtu": 0, "bridge": "", "vlan": 0}), &Args::default()).unwrap();
        assert_eq!(options.bridge.as_str(), "cni0");
        assert_eq!((options.mtu, options.gateway, options.up, options.mac), (None, false, true, None));
        assert_eq!(options.policy_timeout, Duration::from_secs(2));
        let options = read(json!({"isDefaultGateway": true}), &Args::default()).unwrap();
        assert!(options.gateway && options.default_route, "a default gateway is a gateway");
    }

    #[test]
    fn a_gateway_within_a_vlan_is_an_interface_of_its_own() {
        let link = |config| read(config, &Args::default()).unwrap().gateway_link.to_string();
        assert_eq!(link(json!({"vlan": 5, "isGateway": true})), "cni0.5");
        assert_eq!(link(json!({"vlan": 5})), "cni0", "there is none");
        assert_eq!(
            link(json!({"vlanTrunk": [{"id": 7}], "isGateway": true})),
            "cni0",
            "without a tag it is the default VLAN's"
        );
        let long = json!({"bridge": "fourteen-bytes", "vlan": 5, "isGateway": true});
        let expected =
            "network blue: option bridge: interface name \"fourteen-bytes.5\" is longer than 15 bytes";
        assert_eq!(error(long), (7, expected.into()));
        assert_eq!(error(json!({"vlan": 5000})).0, 7);
    }

    #[test]
    fn limits_of_bandwidth_by_the_runtime_and_by_the_configuration() {
        let limits = json!({"ingressRate": 8000, "ingressBurst": 80000, "egressRate": 0});
        for config in [json!({"runtimeConfig": {"bandwidth": limits}}), limits] {
            let limits = read(config, &Args::default()).unwrap().limits;
            assert_eq!((limits.ingress.map(|bucket| bucket.rate), limits.egress), (Some(1000), None));
        }
        let half = json!({"runtimeConfig": {"bandwidth": {"egressRate": 8}}});
        let expected = "network blue: option egressRate: if rate is set, burst must also be set";
        assert_eq!(error(half), (7, expected.into()));
        let expected = "network blue: option unshapedSubnets [\"10.0.0.0/8\"] is not supported";
        assert_eq!(error(json!({"unshapedSubnets": ["10.0.0.0/8"]})), (2, expected.into()));
        assert_eq!(error(json!({"ingressRate": -1})).0, 6);
    }

    #[test]
    fn impossible_values_are_named() {
        assert_eq!(
            error(json!({"bridge": "a/b"})),
            (7, "network blue: option bridge: interface name \"a/b\" holds '/', ':' or white space".into())
        );
        assert_eq!(error(json!({"hairpinMode": true, "promiscMode": true})).0, 7);
        assert_eq!(error(json!({"runtimeConfig": {"mac": "nonsense"}})).0, 7);
        let (code, msg) = error(json!({"mtu": "large"}));
        assert!(code == 6 && msg.contains("mtu: invalid type"), "{msg}");
    }

    #[test]
    fn the_mac_comes_from_the_strongest_source() {
        let args = Args { mac: Some("02:00:00:00:00:03".into()), ..Args::default() };
        let mac = |config| read(config, &args).unwrap().mac.unwrap().to_string();
        let capability = json!({"mac": "02:00:00:00:00:01"});
        let section = json!({"cni": {"mac": "02:00:00:00:00:02"}});
        assert_eq!(mac(json!({"runtimeConfig": capability, "args": section})), "02:00:00:00:00:01");
        assert_eq!(mac(json!({ "args": section })), "02:00:00:00:00:02");
        let empty = json!({"runtimeConfig": {"mac": ""}, "args": section});
        assert_eq!(mac(empty), "02:00:00:00:00:02", "an empty one is none");
        assert_eq!(mac(json!({})), "02:00:00:00:00:03");
    }
}
