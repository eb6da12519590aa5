//! Nodes whose pod CIDRs are their blocks.

use std::collections::BTreeMap;

use weft_types::{ChangeSet, IpNetwork, Snapshot};

/// The Nodes, with their blocks as their pod CIDRs: of this one, those that pods get addresses of.
pub(super) fn with_blocks(nodes: &Snapshot, blocks: &Snapshot, own: &str, served: &[IpNetwork]) -> Snapshot {
    let mut by_node: BTreeMap<&str, Vec<IpNetwork>> = BTreeMap::new();
    for block in blocks.ipam_blocks() {
        by_node.entry(&block.node).or_default().push(block.cidr);
    }
    let (mut snapshot, mut changes) = (Snapshot::default(), ChangeSet::default());
    for node in nodes.nodes() {
        let pod_cidrs = match node.name == own {
            true => served.to_vec(),
            false => by_node.remove(node.name.as_str()).unwrap_or_default(),
        };
        snapshot.apply(weft_types::Node { pod_cidrs, ..node.clone() }, &mut changes);
    }
    snapshot
}
