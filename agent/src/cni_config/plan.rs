//! The CNI configuration that a node needs.

use weft_cni_spec::{BridgeOptions, Ipam, NetworkList, Plugin};
use weft_ipam::range_sets;
use weft_types::{IpNetwork, Node};

use crate::config::Config;

/// The name of the plugin's program.
pub const PLUGIN: &str = "weft-cni";
/// The name of the file. Runtimes take the first by name of those that they find.
pub const FILE: &str = "10-weft.conflist";

/// The configuration of a node with these pod CIDRs; none without any. `mtu` is the pods', in bytes;
/// `retired` are ranges that running pods have addresses of from before.
pub(crate) fn plan(
    node: &Node,
    config: &Config,
    mtu: Option<u32>,
    retired: Vec<IpNetwork>,
) -> Option<NetworkList> {
    if node.pod_cidrs.is_empty() {
        return None;
    }
    let bridge = BridgeOptions {
        bridge: Some(config.bridge.to_string()),
        is_gateway: true,
        is_default_gateway: true,
        // A bridge that kept its address from an earlier pod CIDR would keep every pod from starting.
        force_address: true,
        mtu,
        // The host then routes between pods of one node too, so that Services work between them without
        // br_netfilter.
        port_isolation: true,
        boot: config.boot.clone(),
        retired,
        policy_timeout: config.policy_timeout,
        ..BridgeOptions::default()
    };
    let ipam = Ipam {
        kind: "weft-ipam".to_owned(),
        // Blocks come and go while the configuration stays.
        ranges: if config.blocks.is_none() { range_sets(&node.pod_cidrs) } else { Vec::new() },
        blocks: config.blocks.clone(),
        data_dir: Some(config.data_dir.clone()),
        ..Ipam::default()
    };
    // Only then do runtimes hand over the host's ports and the limits that a pod asks for.
    let capabilities = ["bandwidth", "portMappings"].map(|name| (name.to_owned(), true)).into();
    let plugin = Plugin { kind: PLUGIN.to_owned(), capabilities, bridge, ipam: Some(ipam) };
    Some(NetworkList {
        // Runtimes that know `cniVersions` take the newest of them, and with it STATUS and GC; older ones,
        // such as containerd 1.7, refuse a result of 1.1.0 and have to be told of 1.0.0 (CNI SPEC 1.1.0,
        // section 1).
        cni_version: "1.0.0".to_owned(),
        cni_versions: vec!["1.0.0".to_owned(), "1.1.0".to_owned()],
        name: config.network_name.to_string(),
        plugins: vec![plugin],
        ..NetworkList::default()
    })
}

/// A configuration as it stands in its file.
pub(crate) fn text(list: &NetworkList) -> String {
    // Plain structs of texts and numbers: there is nothing in them that JSON has no words for.
    serde_json::to_string_pretty(list).unwrap_or_default() + "\n"
}
