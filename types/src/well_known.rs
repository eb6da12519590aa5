//! Names and numbers that several parts of Weft, or Weft and others, must have in common. A number or name of
//! one part alone stands there.

/// TCP and UDP ports.
pub mod port {
    /// Where the proxy says whether it is in step, as kube-proxy does.
    pub const PROXY_HEALTH: u16 = 10256;
    /// Where the proxy has its metrics, as kube-proxy does.
    pub const PROXY_METRICS: u16 = 10249;
    /// Where the agent says how it is and has its metrics, and where the agents of other nodes try a direct
    /// path.
    pub const AGENT: u16 = 10246;
    /// BGP (RFC 4271).
    pub const BGP: u16 = 179;
    /// BFD between nodes on one link (RFC 5881).
    pub const BFD: u16 = 3784;
    /// BFD between nodes with routers in between (RFC 5883).
    pub const BFD_MULTIHOP: u16 = 4784;
    /// VXLAN, as Linux has it by default, flannel too. (IANA's number is 4789.)
    pub const VXLAN: u16 = 8472;
    /// WireGuard, as its own documentation has it.
    pub const WIREGUARD: u16 = 51820;
    /// Where a DNS server of the cluster says that it lives, as CoreDNS does.
    pub const DNS_HEALTH: u16 = 8080;
    /// Where a DNS server of the cluster says whether it is ready, as CoreDNS does.
    pub const DNS_READY: u16 = 8181;
    /// Where a DNS server has its metrics, as CoreDNS does.
    pub const DNS_METRICS: u16 = 9153;
}

/// How somebody shows an agent that they may ask it about its node.
pub mod access {
    /// The namespace of that ServiceAccount.
    pub const NAMESPACE: &str = "kube-system";
    /// The ServiceAccount whose tokens agents take. It may do nothing else: whoever may make tokens of it may
    /// ask.
    pub const ACCOUNT: &str = "weft-reader";
    /// Whom such a token is for: agents, and not the API server.
    pub const AUDIENCE: &str = "agent.weft.internal";
    /// The header that carries it. The API server's proxy takes `Authorization` for itself.
    pub const HEADER: &str = "weft-token";
}

/// Interfaces on a node.
pub mod device {
    /// The pods' bridge, where no other is asked for.
    pub const BRIDGE: &str = "cni0";
    /// The tunnel to the other nodes.
    pub const VXLAN: &str = "weft-vxlan";
    /// The encrypted tunnel to the other nodes.
    pub const WIREGUARD: &str = "weft-wg";
    /// What holds the addresses of a node's DNS server.
    pub const DNS: &str = "weft-dns";
}

/// Groups of nflog.
pub mod nflog {
    /// Where the kernel tells the agent of traffic that network policies deny.
    pub const DENIED: u16 = 7;
    /// Where the kernel tells the agent of answers of DNS servers, while somebody asks who talks with whom.
    pub const DNS_ANSWERS: u16 = 8;
}

/// nf_tables tables that more than their owner looks at.
pub mod table {
    /// The plugin's ports of the host that lead to containers.
    pub const HOST_PORTS: &str = "weft-cni-hostports";
}

/// Annotations of Nodes.
pub mod annotation {
    /// What all of them begin with.
    pub const PREFIX: &str = "weft.internal/";
    /// The public key of the node's end of the encrypted tunnel, as wg(8) writes it.
    pub const WIREGUARD_KEY: &str = "weft.internal/wireguard-public-key";
    /// Where packets of the encrypted tunnel get to the node: addresses with ports, with commas in between.
    pub const WIREGUARD_ENDPOINT: &str = "weft.internal/wireguard-endpoint";
    /// A public key that the node must not have any more: where it has, it makes another one.
    pub const WIREGUARD_RETIRED_KEY: &str = "weft.internal/wireguard-retired-key";
}

/// Labels of Kubernetes objects (kubernetes.io/docs/reference/labels-annotations-taints).
pub mod label {
    /// On an EndpointSlice: the name of its Service.
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
    /// On a Service and its EndpointSlices: another proxy serves them.
    pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
    /// On headless Services and their EndpointSlices, which no proxy serves.
    pub const HEADLESS: &str = "service.kubernetes.io/headless";
    /// On a Node: no load balancer outside of the cluster may send to it.
    pub const EXCLUDE_FROM_BALANCERS: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
    /// On what a program installed: which program.
    pub const APP_NAME: &str = "app.kubernetes.io/name";
    /// On what a program installed: which part of it.
    pub const APP_COMPONENT: &str = "app.kubernetes.io/component";
}
