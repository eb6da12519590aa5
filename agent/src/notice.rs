//! What about the cluster keeps a plan from being complete, in words that name the object and the remedy.

use std::net::IpAddr;

use thiserror::Error;
use weft_types::well_known::{annotation, port};
use weft_types::{Family, IpNetwork};

use crate::cidr_allocations::{Conflict, Owner};
use crate::routing::probe::plan::PORT as PROBE_PORT;
use crate::routing::wireguard::key::NotAKey;
use crate::uplink::Tunnel;

/// Something about the cluster that somebody should know of and mend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Notice {
    /// This node's object is missing, or left out as malformed.
    #[error(
        "there is no usable Node {0}: it appears when the kubelet registers; where it has another name, give \
         --hostname-override NODE. Nothing is changed until then"
    )]
    NoNode(String),
    /// This node has no range for its pods.
    #[error(
        "Node {0} has no pod CIDR, so that no pod can start on it: let kube-controller-manager allocate one \
         (--allocate-node-cidrs, --cluster-cidr) or set spec.podCIDRs; waiting for it"
    )]
    NoPodCidr(String),
    /// Another node's pods cannot be reached, as no address leads there.
    #[error(
        "Node {node} has the pod CIDR {cidr} but neither an InternalIP nor an ExternalIP of {family}: its pods are not \
         reachable from here"
    )]
    NoAddress {
        /// The other node.
        node: String,
        /// Its range.
        cidr: IpNetwork,
        /// The family of the range.
        family: Family,
    },
    /// Another node's pods cannot be reached, as nobody told the way.
    #[error(
        "no BGP peer tells of the pod CIDR {cidr} of Node {node}: its pods are not reachable from here; see `weft bgp status`, \
         and that TCP port 179 is open between the nodes"
    )]
    NotLearned {
        /// The other node.
        node: String,
        /// Its range.
        cidr: IpNetwork,
    },
    /// Another node's pods are behind the tunnel, and there is none.
    #[error(
        "the pod CIDR {cidr} of Node {node} needs a VXLAN tunnel, but this node has neither an InternalIP nor an \
         ExternalIP to send from: see that the kubelet or the cloud provider sets one"
    )]
    NoTunnel {
        /// The other node.
        node: String,
        /// Its range.
        cidr: IpNetwork,
    },
    /// Another node's pods are not reached directly, though they should be.
    #[error(
        "Node {node} shares a link with this one ({address}), but packets sent directly to its pods ({cidr}) do not \
         arrive: they are reached through the tunnel; if the network between nodes drops pod addresses on purpose, set \
         --backend {} on all nodes, and if not, allow TCP port {port} between nodes from pod addresses",
        of_tunnel(*tunnel).0, port = PROBE_PORT
    )]
    NotDirect {
        /// The other node.
        node: String,
        /// Its address.
        address: IpAddr,
        /// Its range.
        cidr: IpNetwork,
        /// What leads there.
        tunnel: Tunnel,
    },
    /// Another node's pods are reached neither directly nor through the tunnel.
    #[error(
        "Node {node} answers under its address {address}, but its pods ({cidr}) are reached neither directly nor \
         through the tunnel: see that weft-agent runs there, and allow UDP port {} (--{}-port) and TCP port \
         {port} between the nodes",
        of_tunnel(*tunnel).1, of_tunnel(*tunnel).0, port = PROBE_PORT
    )]
    Unreachable {
        /// The other node.
        node: String,
        /// Its address.
        address: IpAddr,
        /// Its range.
        cidr: IpNetwork,
        /// What should lead there.
        tunnel: Tunnel,
    },
    /// Another node has told of no key yet.
    #[error(
        "Node {node} has no WireGuard key ({key}): {}; see that weft-agent runs there with the same --backend and --tunnel, and that it may patch \
         nodes/status",
        meanwhile(*is_held), key = annotation::WIREGUARD_KEY
    )]
    NoWireGuardKey {
        /// The other node.
        node: String,
        /// Whether packets are held meanwhile.
        is_held: bool,
    },
    /// What another node told of is no key.
    #[error(
        "the WireGuard key of Node {node} ({key}) cannot be used, as {problem}: {}; its agent writes the right one when \
         the annotation is deleted",
        meanwhile(*is_held), key = annotation::WIREGUARD_KEY
    )]
    NotAWireGuardKey {
        /// The other node.
        node: String,
        /// What is wrong.
        problem: NotAKey,
        /// Whether packets are held meanwhile.
        is_held: bool,
    },
    /// Two nodes have one key.
    #[error(
        "Node {node} has the WireGuard key of Node {other}: {}; where a machine was copied with its key, \
         delete the key's file on Node {node} (.wireguard-key), and its agent makes another one",
        meanwhile(*is_held)
    )]
    SharedWireGuardKey {
        /// The other node.
        node: String,
        /// Who has it already.
        other: String,
        /// Whether packets are held meanwhile.
        is_held: bool,
    },
    /// Nobody knows where another node is to be reached.
    #[error(
        "Node {node} has no WireGuard endpoint that can be used here ({}): its pods are reached once it has sent something itself",
        annotation::WIREGUARD_ENDPOINT
    )]
    NoWireGuardEndpoint {
        /// The other node.
        node: String,
    },
    /// What is not known of the cluster's ranges is not held.
    #[error(
        "the cluster CIDR {range} holds {owner}: packets to addresses in it that no Node's pods have leave this node unencrypted, \
         where a route leads there; choose ranges that do not overlap"
    )]
    NotHeld {
        /// The cluster CIDR.
        range: IpNetwork,
        /// What else is in it.
        owner: Owner,
    },
    /// This node is known under an address that it does not have.
    #[error(
        "Node {node} has the address {address}, which is on no interface of this machine: packets to other nodes \
         leave from {}; other nodes reach this one's pods only if {address} leads here (UDP port {port}); set \
         --node-ip or --iface to send from another address or interface",
        used.map_or_else(|| "none".to_owned(), |used| used.to_string())
    )]
    NotHere {
        /// This node.
        node: String,
        /// Its address.
        address: IpAddr,
        /// The address that is used instead.
        used: Option<IpAddr>,
        /// The tunnel's port.
        port: u16,
    },
    /// Running pods have addresses of a range that the Node does not have any more.
    #[error(
        "{pods} running pods of Node {node} have addresses of {cidr}, which is no pod CIDR of that Node any more: \
         the node serves them until they end, but other nodes have no route to them; restart them"
    )]
    Former {
        /// This node.
        node: String,
        /// The range that it had.
        cidr: IpNetwork,
        /// How many.
        pods: usize,
    },
    /// Two ranges overlap.
    #[error("{range} ({owner}) overlaps {other_range} ({other}): {}", remedy(owner, other))]
    Overlap {
        /// The range of the one who goes without.
        range: IpNetwork,
        /// Who that is.
        owner: Owner,
        /// The range that stays.
        other_range: IpNetwork,
        /// Whose it is.
        other: Owner,
    },
}

/// What a tunnel is called in flags, and its usual UDP port.
fn of_tunnel(tunnel: Tunnel) -> (&'static str, u16) {
    match tunnel {
        Tunnel::Vxlan => ("vxlan", port::VXLAN),
        Tunnel::WireGuard => ("wireguard", port::WIREGUARD),
    }
}

fn meanwhile(is_held: bool) -> &'static str {
    match is_held {
        true => "packets to its pods are held (--encryption strict)",
        false => "packets to its pods leave unencrypted (--encryption prefer)",
    }
}

fn remedy(owner: &Owner, other: &Owner) -> &'static str {
    match (owner, other) {
        (Owner::Address(_), Owner::Address(_)) => {
            "only one of them is reached; give each kubelet its own address (--node-ip), as machines of Vagrant have \
             the same one on their first interface"
        }
        (Owner::Node(_), _) => "no pod is reached there; give every range to one owner only",
        (Owner::Address(_), _) => "that Node is not reached from pods; choose other pod or Service ranges",
        (Owner::Services, _) => "name each range once (--service-cidr)",
    }
}

impl From<Conflict> for Notice {
    fn from(Conflict { range: (range, owner), other: (other_range, other) }: Conflict) -> Notice {
        Notice::Overlap { range, owner, other_range, other }
    }
}
