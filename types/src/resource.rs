//! The kinds of object that Weft reads from the cluster: one file a kind, and one line a kind in the list
//! below. The list makes the enums that tell kinds apart, and the fields of [`crate::Snapshot`] and
//! [`crate::ChangeSet`].
//!
//! A new kind is a file here, a line in the list, and a file of the same name in `cluster/src/resource/`,
//! which says how the API server has it. A daemon that wants it names it to its watch, and needs a role that
//! lets it list and watch.

mod bfd_profile;
mod bgp_advertisement;
mod bgp_peer;
mod cluster_network_policy;
mod community;
mod config_map;
mod endpoint_slice;
mod ip_address_pool;
mod ipam_block;
mod l2_advertisement;
mod namespace;
mod network_policy;
mod node;
mod pod;
mod service;
mod service_cidr;

pub use bfd_profile::BfdProfile;
pub use bgp_advertisement::BgpAdvertisement;
pub use bgp_peer::{BgpPeer, Password, PeerAsn, PeerEndpoint, PeerPassword, PeerSettings};
pub use cluster_network_policy::{Action, ClusterNetworkPolicy, ClusterRule, Tier};
pub use community::{Community, CommunityValue, InvalidCommunity};
pub use config_map::ConfigMap;
pub use endpoint_slice::{ByService, Endpoint, EndpointPort, EndpointSlice, Hints};
pub use ip_address_pool::{IpAddressPool, PoolSelection, ServiceAllocation};
pub use ipam_block::IpamBlock;
pub use l2_advertisement::{L2Advertisement, PreferredNodes};
pub use namespace::Namespace;
pub use network_policy::NetworkPolicy;
pub use node::{Node, WireGuardEnd};
pub use pod::{ContainerPort, Pod, PodAddresses, PodDetails};
pub use service::{
    FamilyPolicy, LoadBalancer, Protocol, Service, ServiceKind, ServicePort, TrafficPolicy, UnknownProtocol,
};
pub use service_cidr::ServiceCidr;

/// Calls a macro with the list of all kinds: what a change set knows of the kind, the field's name, and the
/// kind's type.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_kind {
    ($macro:ident) => {
        $macro! {
            /// Services that came, went or changed, or whose endpoints did.
            services: Service,
            /// How many times an EndpointSlice came, went or changed.
            endpoint_slices: EndpointSlice,
            /// Nodes that came, went or changed.
            nodes: Node,
            /// Namespaces that came, went or changed.
            namespaces: Namespace,
            /// ServiceCIDRs that came, went or changed.
            service_cidrs: ServiceCidr,
            /// Pods that came, went or changed.
            pods: Pod,
            /// ConfigMaps that came, went or changed.
            config_maps: ConfigMap,
            /// NetworkPolicies that came, went or changed.
            network_policies: NetworkPolicy,
            /// ClusterNetworkPolicies that came, went or changed.
            cluster_network_policies: ClusterNetworkPolicy,
            /// IPAddressPools that came, went or changed.
            ip_address_pools: IpAddressPool,
            /// L2Advertisements that came, went or changed.
            l2_advertisements: L2Advertisement,
            /// BGPPeers that came, went or changed.
            bgp_peers: BgpPeer,
            /// BGPAdvertisements that came, went or changed.
            bgp_advertisements: BgpAdvertisement,
            /// Communities that came, went or changed.
            communities: Community,
            /// BFDProfiles that came, went or changed.
            bfd_profiles: BfdProfile,
            /// IPAMBlocks that came, went or changed.
            ipam_blocks: IpamBlock,
        }
    };
}
