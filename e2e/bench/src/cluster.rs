//! The cluster that is measured with: Services of one TCP port, all alike, in as many namespaces and on as
//! many nodes as a cluster of that size has. Values only; as the API server shows them is in `api.rs`.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use weft_types::{
    ChangeSet, Endpoint, EndpointPort, EndpointSlice, NamespacedName, Node, Object, Protocol, Service,
    ServiceKind, ServicePort, Snapshot,
};

/// The node that the proxy runs on; one endpoint in a hundred is here.
pub const NODE: &str = "node-1";
/// Its address.
pub const NODE_ADDRESS: &str = "172.30.0.11";
/// Where pods have their addresses.
pub const POD_NETWORK: &str = "10.128.0.0/9";
/// The port of every Service.
pub const PORT: u16 = 80;
/// That of every endpoint.
pub const TARGET: u16 = 8080;
/// How many endpoints the control plane puts into one slice.
const ENDPOINTS_PER_SLICE: usize = 100;
const NODES: u32 = 100;
const NAMESPACES: usize = 100;
const FIRST_CLUSTER_IP: u32 = 0x0a60_0001;
const FIRST_POD: u32 = 0x0a80_0001;
/// Pods that come later have addresses from here on.
const FIRST_NEW_POD: u32 = 0x0ac0_0001;

/// So many Services with so many endpoints each.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Services, spread over the namespaces.
    pub services: usize,
    /// The endpoints of each.
    pub endpoints: usize,
}

impl Size {
    /// The addresses of a Service's endpoints.
    pub fn endpoints_of(self, service: usize) -> Vec<Ipv4Addr> {
        let first = FIRST_POD + (service * self.endpoints) as u32;
        (first..).take(self.endpoints).map(Ipv4Addr::from).collect()
    }

    /// The whole cluster.
    pub fn snapshot(self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let address = NODE_ADDRESS.parse().unwrap();
        let node = Node { name: NODE.to_owned(), addresses: vec![address], ..Node::default() };
        snapshot.apply(Object::Node(node), &mut ChangeSet::default());
        for number in 0..self.services {
            snapshot.apply(Object::Service(service(number)), &mut ChangeSet::default());
            set_endpoints(&mut snapshot, number, &self.endpoints_of(number));
        }
        snapshot
    }
}

/// A pod that was not there at the beginning.
pub fn new_pod(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(FIRST_NEW_POD + number as u32)
}

/// A Service's address.
pub fn cluster_ip(service: usize) -> Ipv4Addr {
    Ipv4Addr::from(FIRST_CLUSTER_IP + service as u32)
}

/// A Service's namespace.
pub fn namespace(service: usize) -> String {
    format!("team-{}", service % NAMESPACES)
}

/// All namespaces.
pub fn namespaces(size: Size) -> impl Iterator<Item = String> {
    (0..NAMESPACES.min(size.services)).map(namespace)
}

/// A Service's name.
pub fn name(service: usize) -> String {
    format!("service-{service}")
}

/// Both.
pub fn key(service: usize) -> NamespacedName {
    NamespacedName::new(namespace(service), name(service))
}

/// The node that a pod is on.
pub fn node_of(pod: Ipv4Addr) -> String {
    format!("node-{}", pod.to_bits() % NODES)
}

/// The names of a Service's slices, each with its share of the endpoints.
pub fn slices(service: usize, pods: &[Ipv4Addr]) -> impl Iterator<Item = (String, &[Ipv4Addr])> {
    let slice = move |(part, pods)| (format!("{}-{part}", name(service)), pods);
    pods.chunks(ENDPOINTS_PER_SLICE).enumerate().map(slice)
}

/// Gives a Service these endpoints. The number of its slices must not shrink. Returns what changed.
pub fn set_endpoints(snapshot: &mut Snapshot, service: usize, pods: &[Ipv4Addr]) -> ChangeSet {
    let mut changes = ChangeSet::default();
    for (name, pods) in slices(service, pods) {
        snapshot.apply(Object::EndpointSlice(slice(service, name, pods)), &mut changes);
    }
    changes
}

fn service(number: usize) -> Service {
    let port = ServicePort {
        name: "http".into(),
        protocol: Protocol::Tcp,
        port: NonZeroU16::new(PORT).unwrap(),
        node_port: None,
    };
    Service::new(key(number), ServiceKind::ClusterIp(vec![cluster_ip(number).into()]), vec![port])
}

fn slice(service: usize, name: String, pods: &[Ipv4Addr]) -> EndpointSlice {
    let port = NonZeroU16::new(TARGET).unwrap();
    EndpointSlice {
        key: NamespacedName::new(namespace(service), name),
        service: key(service),
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port }],
        endpoints: pods.iter().copied().map(endpoint).collect(),
    }
}

fn endpoint(pod: Ipv4Addr) -> Endpoint {
    Endpoint { node: Some(node_of(pod).into()), ..Endpoint::ready(pod.into()) }
}
