//! Whose packets leave the cluster under the node's address, and among whom pods keep their own.

use weft_types::{IpNetwork, is_subnet_of};

/// Nothing is masqueraded where there are no `pods`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MasqueradePlan {
    /// The ranges of the node's own pods.
    pub pods: Vec<IpNetwork>,
    /// The networks in which pods keep their addresses: none is part of another, in order.
    pub inside: Vec<IpNetwork>,
}

impl MasqueradePlan {
    /// For these pods. `inside` are the networks in which pods keep their addresses, besides those.
    pub(crate) fn new(pods: Vec<IpNetwork>, inside: impl Iterator<Item = IpNetwork>) -> MasqueradePlan {
        let inside = widest(inside.chain(pods.iter().copied()));
        MasqueradePlan { pods, inside }
    }
}

/// The networks without those that are part of another, in order. Usually one is left of each family: the
/// cluster's.
fn widest(networks: impl Iterator<Item = IpNetwork>) -> Vec<IpNetwork> {
    let mut networks: Vec<IpNetwork> = networks.collect();
    // A network comes before its own parts.
    networks.sort_by_key(|network| (network.ip(), network.prefix()));
    let mut widest: Vec<IpNetwork> = Vec::new();
    for network in networks {
        if !widest.last().is_some_and(|last| is_subnet_of(&network, last)) {
            widest.push(network);
        }
    }
    widest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_wider_networks_are_left_out() {
        let networks =
            ["10.244.1.0/24", "fd00::/64", "10.244.0.0/16", "10.9.0.0/16", "10.244.0.0/24", "fd00::/48"];
        let widest = widest(networks.iter().map(|text| text.parse().unwrap()));
        let texts: Vec<String> = widest.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.9.0.0/16", "10.244.0.0/16", "fd00::/48"]);
    }
}
