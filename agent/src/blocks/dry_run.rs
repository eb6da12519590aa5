//! What an agent would claim and give up, going by objects alone: for `--dry-run`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Instant;

use weft_types::{IpNetwork, Snapshot};

use super::nodes::with_blocks;
use super::plan::{BlockPlanner, Known, Request, Settings};

/// The Nodes with the blocks that they have, this one also with those that it would claim; and what it would ask
/// of the API server, as comments. The node is taken for one without pods whose agent has just started.
pub(crate) fn claims(settings: Settings, node: &str, objects: &Snapshot) -> (Snapshot, String) {
    let held = BTreeSet::new();
    let known = Known {
        node: (node, objects.node(node).map(|node| node.uid.as_str())),
        nodes: objects.nodes().map(|node| node.name.as_str()).collect(),
        blocks: objects.ipam_blocks().collect(),
        served: &[],
        held: &held,
    };
    let plan = BlockPlanner::new(settings.clone(), String::new()).plan(&known, Instant::now());
    let (mut own, mut text): (Vec<IpNetwork>, String) = (plan.serve, String::new());
    for request in &plan.requests {
        let block = request.block();
        let verb = match request {
            Request::Claim(_) => "claims",
            Request::Renew(_) => "vouches for",
            Request::Release(_) => "gives up",
            Request::Collect(_) => "gives up, as its Node is gone,",
        };
        if matches!(request, Request::Claim(_) | Request::Renew(_)) {
            own.push(block.cidr);
        }
        // Writing into a string never fails.
        let _ = writeln!(text, "# {verb} the block {} (IPAMBlock {})", block.cidr, block.name);
    }
    for &family in &plan.exhausted {
        let _ = writeln!(text, "# finds no free block of {family} in the cluster CIDR");
    }
    own.sort_by_key(|block| {
        settings.cluster_cidrs.iter().position(|range| range.is_ipv4() == block.is_ipv4())
    });
    (with_blocks(objects, objects, node, &own), text)
}

#[cfg(test)]
mod tests {
    use weft_types::{ChangeSet, IpamBlock, Node};

    use super::*;

    fn settings(cidrs: &[&str]) -> Settings {
        let cluster_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        Settings { cluster_cidrs, prefixes: (26, 122), grace: std::time::Duration::from_secs(300) }
    }

    fn objects(blocks: &[(&str, &str)]) -> Snapshot {
        let (mut snapshot, mut changes) = (Snapshot::default(), ChangeSet::default());
        for name in ["node1", "node2"] {
            let node = Node { name: name.to_owned(), uid: format!("uid-{name}"), ..Node::default() };
            snapshot.apply(node, &mut changes);
        }
        for (cidr, node) in blocks {
            let cidr: IpNetwork = cidr.parse().unwrap();
            let block = IpamBlock {
                name: IpamBlock::name_of(&cidr),
                cidr,
                node: (*node).to_owned(),
                node_uid: format!("uid-{node}"),
                claim: "x".to_owned(),
                uid: "1".to_owned(),
                version: "1".to_owned(),
            };
            snapshot.apply(block, &mut changes);
        }
        snapshot
    }

    fn cidrs(snapshot: &Snapshot, node: &str) -> Vec<String> {
        snapshot.node(node).unwrap().pod_cidrs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_node_that_has_no_block_says_which_it_would_claim_and_plans_with_it() {
        let all = objects(&[("10.244.0.0/26", "node2")]);
        let (planned, text) = claims(settings(&["10.244.0.0/25", "fd00::/121"]), "node1", &all);
        let own = cidrs(&planned, "node1");
        assert_eq!((own.len(), own[0].as_str()), (2, "10.244.0.64/26"), "the other one is taken");
        assert_eq!(cidrs(&planned, "node2"), ["10.244.0.0/26"]);
        let first = "# claims the block 10.244.0.64/26 (IPAMBlock 10.244.0.64-26)\n# claims the block fd00::";
        assert!(text.starts_with(first), "{text}");
    }

    #[test]
    fn a_block_that_the_node_has_is_vouched_for_and_an_exhausted_range_is_told() {
        let both = [("10.244.0.0/26", "node1"), ("10.244.0.64/26", "node2")];
        let (planned, text) = claims(settings(&["10.244.0.0/25"]), "node1", &objects(&both));
        assert_eq!(cidrs(&planned, "node1"), ["10.244.0.0/26"]);
        assert_eq!(text, "# vouches for the block 10.244.0.0/26 (IPAMBlock 10.244.0.0-26)\n");
        let theirs = both.map(|(cidr, _)| (cidr, "node2"));
        let (planned, text) = claims(settings(&["10.244.0.0/25"]), "node1", &objects(&theirs));
        assert_eq!(cidrs(&planned, "node1"), Vec::<String>::new());
        assert_eq!(text, "# finds no free block of IPv4 in the cluster CIDR\n");
    }
}
