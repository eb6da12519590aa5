//! The sets and maps of each table: what they are called and how they are declared. What is in them is in
//! `elements.rs`.

use weft_nftables::{DataType, Declaration, Family, SetKind};

use super::TABLE;

/// How many pairs of a client and a Service port each family remembers. The kernel makes room for them when
/// the map is made: 2 MB.
const MAX_AFFINITIES: u32 = 131_072;

/// How many endpoints are remembered to which connections were led.
const MAX_TRANSLATED: u32 = 16_384;

/// The sets and maps of each table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// Frontend and slot to endpoint.
    Endpoints,
    /// NodePort and slot to endpoint.
    NodePortEndpoints,
    /// Frontend under an external policy Local and slot to endpoint of this node.
    LocalEndpoints,
    /// NodePort under an external policy Local and slot to endpoint of this node.
    LocalNodePortEndpoints,
    /// Pairs of an endpoint's address with itself.
    Hairpins,
    /// The node's addresses that serve NodePorts.
    NodePortAddresses,
    /// NodePorts whose connections are masqueraded.
    NodePortMasquerade,
    /// NodePorts of which only the node's own connections are masqueraded.
    NodePortMasqueradeOwn,
    /// External frontends whose connections are masqueraded.
    ExternalMasquerade,
    /// External frontends of which only the node's own connections are masqueraded.
    ExternalMasqueradeOwn,
    /// Load balancer's frontend and who may connect to it.
    Allowed,
    /// Load balancer's frontends that not everybody may connect to.
    Restricted,
    /// Client and Service port to endpoint.
    Affinity,
    /// Frontend to Service port, where clients have affinity to endpoints.
    AffinityFrontends,
    /// NodePort to Service port, where clients have affinity to endpoints.
    AffinityNodePorts,
    /// Frontend and the endpoint's number to endpoint, where clients have affinity to it.
    AffinityEndpoints,
    /// NodePort and the endpoint's number to endpoint, where clients have affinity to it.
    AffinityNodePortEndpoints,
    /// The same for a frontend under an external policy Local.
    LocalAffinityEndpoints,
    /// The same for a NodePort under an external policy Local.
    LocalAffinityNodePortEndpoints,
    /// Service port to the chain that remembers its clients' endpoints.
    AffinityTimeouts,
    /// The number of a frontend to a chain.
    Dispatch,
    /// Frontend to number.
    Frontends,
    /// NodePort to number.
    NodePorts,
    /// Frontend under an external policy Local to number.
    LocalFrontends,
    /// NodePort under an external policy Local to number.
    LocalNodePorts,
    /// The ClusterIPs; behind the frontends, since what is here without a frontend is refused.
    ClusterIps,
    /// The external addresses of Services; behind the frontends, since what is here without a frontend may be
    /// refused.
    ExternalIps,
    /// Endpoints that connections were led to: written by packets.
    Translated,
    /// Frontends whose new connections are counted.
    Connections,
    /// NodePorts whose new connections are counted.
    NodePortConnections,
    /// Frontends to which packets are counted.
    Received,
    /// NodePorts to which packets are counted.
    NodePortReceived,
    /// Frontends from which packets are counted.
    Sent,
    /// NodePorts from which packets are counted.
    NodePortSent,
}

impl SetName {
    /// All of them: what leads to endpoints comes behind the endpoints, and what refuses behind that.
    pub const ALL: [SetName; 34] = [
        SetName::Endpoints,
        SetName::NodePortEndpoints,
        SetName::LocalEndpoints,
        SetName::LocalNodePortEndpoints,
        SetName::Hairpins,
        SetName::NodePortAddresses,
        SetName::NodePortMasquerade,
        SetName::NodePortMasqueradeOwn,
        SetName::ExternalMasquerade,
        SetName::ExternalMasqueradeOwn,
        SetName::Allowed,
        SetName::Restricted,
        SetName::Affinity,
        SetName::AffinityFrontends,
        SetName::AffinityNodePorts,
        SetName::AffinityEndpoints,
        SetName::AffinityNodePortEndpoints,
        SetName::LocalAffinityEndpoints,
        SetName::LocalAffinityNodePortEndpoints,
        SetName::AffinityTimeouts,
        SetName::Dispatch,
        SetName::Frontends,
        SetName::NodePorts,
        SetName::LocalFrontends,
        SetName::LocalNodePorts,
        SetName::ClusterIps,
        SetName::ExternalIps,
        SetName::Translated,
        SetName::Connections,
        SetName::NodePortConnections,
        SetName::Received,
        SetName::NodePortReceived,
        SetName::Sent,
        SetName::NodePortSent,
    ];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            SetName::Endpoints => "endpoints",
            SetName::NodePortEndpoints => "nodeport-endpoints",
            SetName::Hairpins => "hairpins",
            SetName::ClusterIps => "cluster-ips",
            SetName::ExternalIps => "external-ips",
            SetName::Translated => "translated",
            SetName::NodePortAddresses => "nodeport-addresses",
            SetName::NodePortMasquerade => "nodeport-masquerade",
            SetName::Dispatch => "dispatch",
            SetName::Frontends => "frontends",
            SetName::NodePorts => "nodeports",
            SetName::LocalEndpoints => "local-endpoints",
            SetName::LocalNodePortEndpoints => "local-nodeport-endpoints",
            SetName::NodePortMasqueradeOwn => "nodeport-masquerade-own",
            SetName::ExternalMasquerade => "external-masquerade",
            SetName::ExternalMasqueradeOwn => "external-masquerade-own",
            SetName::LocalFrontends => "local-frontends",
            SetName::LocalNodePorts => "local-nodeports",
            SetName::Allowed => "allowed",
            SetName::Restricted => "restricted",
            SetName::Affinity => "affinity",
            SetName::AffinityFrontends => "affinity-frontends",
            SetName::AffinityNodePorts => "affinity-nodeports",
            SetName::AffinityEndpoints => "affinity-endpoints",
            SetName::AffinityNodePortEndpoints => "affinity-nodeport-endpoints",
            SetName::LocalAffinityEndpoints => "local-affinity-endpoints",
            SetName::LocalAffinityNodePortEndpoints => "local-affinity-nodeport-endpoints",
            SetName::AffinityTimeouts => "affinity-timeouts",
            SetName::Connections => "connections",
            SetName::NodePortConnections => "nodeport-connections",
            SetName::Received => "received",
            SetName::NodePortReceived => "nodeport-received",
            SetName::Sent => "sent",
            SetName::NodePortSent => "nodeport-sent",
        }
    }

    /// What nft shows beside it. It is part of the declaration: where it differs from what an earlier release
    /// wrote, the table is made anew, and clients lose their affinity.
    fn comment(self) -> &'static str {
        match self {
            SetName::Endpoints => "Service address . protocol . port . slot : endpoint",
            SetName::NodePortEndpoints => "protocol . NodePort . slot : endpoint",
            SetName::Hairpins => "endpoints of this node that reach themselves through a Service",
            SetName::ClusterIps => "ClusterIPs of all Services",
            SetName::ExternalIps => "external and load balancers' addresses of all Services",
            SetName::Translated => "endpoints that connections to Services were led to",
            SetName::NodePortAddresses => "addresses of this node that serve NodePorts",
            SetName::NodePortMasquerade => "NodePorts whose connections get this node's address as source",
            SetName::Dispatch => {
                "number of a frontend : the chain that balances its connections; 0:3 for three endpoints, none for none"
            }
            SetName::Frontends => "Service address . protocol . port : choice among its endpoints",
            SetName::NodePorts => "protocol . NodePort : choice among its endpoints",
            SetName::LocalEndpoints => "external address . protocol . port . slot : endpoint of this node",
            SetName::LocalNodePortEndpoints => "protocol . NodePort . slot : endpoint of this node",
            SetName::NodePortMasqueradeOwn => {
                "NodePorts of which only this node's own connections get its address"
            }
            SetName::ExternalMasquerade => {
                "external frontends whose connections get this node's address as source"
            }
            SetName::ExternalMasqueradeOwn => {
                "external frontends of which only this node's own connections get its address"
            }
            SetName::LocalFrontends => "external address . protocol . port : choice for clients from outside",
            SetName::LocalNodePorts => "protocol . NodePort : choice for clients from outside",
            SetName::Allowed => "load balancer address . protocol . port . who may connect",
            SetName::Restricted => "load balancer's frontends that not everybody may connect to",
            SetName::Affinity => "client . Service port : the endpoint that it sticks to",
            SetName::AffinityFrontends => "Service address . protocol . port : Service port with affinity",
            SetName::AffinityNodePorts => "protocol . NodePort : Service port with affinity",
            SetName::AffinityEndpoints => "Service address . protocol . port . endpoint's number : endpoint",
            SetName::AffinityNodePortEndpoints => "protocol . NodePort . endpoint's number : endpoint",
            SetName::LocalAffinityEndpoints => {
                "external address . protocol . port . endpoint's number : endpoint of this node"
            }
            SetName::LocalAffinityNodePortEndpoints => {
                "protocol . NodePort . endpoint's number : endpoint of this node"
            }
            SetName::AffinityTimeouts => "Service port : for how long clients stick to their endpoints",
            SetName::Connections => {
                "Service address . protocol . port, with the first packets of its connections"
            }
            SetName::NodePortConnections => "protocol . NodePort, with the first packets of its connections",
            SetName::Received => "Service address . protocol . port, with the packets to it",
            SetName::NodePortReceived => "protocol . NodePort, with the packets to it",
            SetName::Sent => "Service address . protocol . port, with the packets from it",
            SetName::NodePortSent => "protocol . NodePort, with the packets from it",
        }
    }

    fn key(self, address: DataType) -> Vec<DataType> {
        use DataType::{ClassId, InetProto, InetService, Integer};
        match self {
            SetName::Endpoints | SetName::LocalEndpoints => vec![address, InetProto, InetService, Integer],
            SetName::NodePortEndpoints | SetName::LocalNodePortEndpoints => {
                vec![InetProto, InetService, Integer]
            }
            SetName::Hairpins => vec![address, address],
            SetName::ClusterIps | SetName::ExternalIps | SetName::NodePortAddresses => vec![address],
            SetName::Translated => vec![address, InetService],
            SetName::NodePortMasquerade
            | SetName::NodePortMasqueradeOwn
            | SetName::NodePorts
            | SetName::LocalNodePorts
            | SetName::AffinityNodePorts
            | SetName::NodePortConnections
            | SetName::NodePortReceived
            | SetName::NodePortSent => vec![InetProto, InetService],
            SetName::ExternalMasquerade
            | SetName::ExternalMasqueradeOwn
            | SetName::Restricted
            | SetName::AffinityFrontends
            | SetName::Frontends
            | SetName::LocalFrontends
            | SetName::Connections
            | SetName::Received
            | SetName::Sent => vec![address, InetProto, InetService],
            SetName::Allowed => vec![address, InetProto, InetService, address],
            SetName::Affinity => vec![address, ClassId],
            SetName::AffinityEndpoints | SetName::LocalAffinityEndpoints => {
                vec![address, InetProto, InetService, ClassId]
            }
            SetName::AffinityNodePortEndpoints | SetName::LocalAffinityNodePortEndpoints => {
                vec![InetProto, InetService, ClassId]
            }
            SetName::AffinityTimeouts | SetName::Dispatch => vec![ClassId],
        }
    }

    fn kind(self, address: DataType) -> SetKind {
        match self {
            SetName::Endpoints
            | SetName::NodePortEndpoints
            | SetName::LocalEndpoints
            | SetName::LocalNodePortEndpoints
            | SetName::AffinityEndpoints
            | SetName::AffinityNodePortEndpoints
            | SetName::LocalAffinityEndpoints
            | SetName::LocalAffinityNodePortEndpoints => {
                SetKind::DataMap(vec![address, DataType::InetService])
            }
            SetName::AffinityFrontends
            | SetName::AffinityNodePorts
            | SetName::Frontends
            | SetName::NodePorts
            | SetName::LocalFrontends
            | SetName::LocalNodePorts => SetKind::DataMap(vec![DataType::ClassId]),
            SetName::Dispatch | SetName::AffinityTimeouts => SetKind::VerdictMap,
            SetName::Affinity => SetKind::ExpiringMap(vec![DataType::ClassId], MAX_AFFINITIES),
            SetName::Allowed => SetKind::RangeSet,
            SetName::Translated => SetKind::ExpiringSet(MAX_TRANSLATED),
            _ if self.counts() => SetKind::CountingSet,
            _ => SetKind::Set,
        }
    }

    /// Whether several Services may want one element of it. The keys of all others are frontends, each of
    /// which one Service has.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, SetName::Hairpins | SetName::ExternalIps)
    }

    /// Whether it is there to spread connections over endpoints, which in the mode ipvs are virtual servers'.
    pub fn balances(self) -> bool {
        matches!(
            self,
            SetName::Endpoints
                | SetName::NodePortEndpoints
                | SetName::LocalEndpoints
                | SetName::LocalNodePortEndpoints
                | SetName::Affinity
                | SetName::AffinityFrontends
                | SetName::AffinityNodePorts
                | SetName::AffinityEndpoints
                | SetName::AffinityNodePortEndpoints
                | SetName::LocalAffinityEndpoints
                | SetName::LocalAffinityNodePortEndpoints
                | SetName::AffinityTimeouts
                | SetName::Translated
        )
    }

    /// Whether it is there to count only: where that is not asked for, it is not there.
    pub fn counts(self) -> bool {
        matches!(
            self,
            SetName::Connections
                | SetName::NodePortConnections
                | SetName::Received
                | SetName::NodePortReceived
                | SetName::Sent
                | SetName::NodePortSent
        )
    }

    /// How it is declared in the table of that family.
    pub fn declaration(self, family: Family) -> Declaration {
        let address = DataType::address(family);
        Declaration {
            family: family.into(),
            table: TABLE.into(),
            name: self.name().into(),
            key: self.key(address),
            kind: self.kind(address),
            comment: Some(self.comment()),
        }
    }
}
