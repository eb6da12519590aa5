//! Services in the kernel of a machine, by the proxy's own plans and data plane, for tests of what packets to
//! Services meet on their way.

use std::net::IpAddr;
use std::num::NonZeroU16;

use weft_netlink::netns::Namespace;
use weft_proxy::config::Config;
use weft_proxy::services::planner::everything;
use weft_proxy::sync::Sync;
use weft_types::{
    ChangeSet, Endpoint, EndpointPort, EndpointSlice, NamespacedName, Object, Protocol, Service, ServiceKind,
    ServicePort, Snapshot,
};

/// Has a machine lead connections to these TCP ports of a ClusterIP to the same ports of one endpoint.
pub fn lead(machine: &Namespace, cluster_ip: &str, ports: &[u16], endpoint: &str) {
    let (cluster_ip, endpoint): (IpAddr, IpAddr) = (cluster_ip.parse().unwrap(), endpoint.parse().unwrap());
    let mut snapshot = Snapshot::default();
    for object in [service(cluster_ip, ports), slice(endpoint, ports)] {
        snapshot.apply(object, &mut ChangeSet::default());
    }
    let config = Config { node: "node1".into(), ..Config::default() };
    let mut sync = machine.run(|| Sync::open(config)).unwrap().unwrap();
    machine.run(|| sync.apply(&snapshot, &everything(&snapshot))).unwrap().unwrap();
}

fn name() -> NamespacedName {
    NamespacedName::new("shop", "web")
}

fn service(cluster_ip: IpAddr, ports: &[u16]) -> Object {
    let port = |port: &u16| ServicePort {
        name: port.to_string().into(),
        protocol: Protocol::Tcp,
        port: NonZeroU16::new(*port).unwrap(),
        node_port: None,
    };
    let kind = ServiceKind::ClusterIp(vec![cluster_ip]);
    Object::Service(Service::new(name(), kind, ports.iter().map(port).collect()))
}

fn slice(endpoint: IpAddr, ports: &[u16]) -> Object {
    let port = |port: &u16| EndpointPort {
        name: port.to_string().into(),
        protocol: Protocol::Tcp,
        port: NonZeroU16::new(*port).unwrap(),
    };
    Object::EndpointSlice(EndpointSlice {
        key: NamespacedName::new("shop", "web-1"),
        service: name(),
        ports: ports.iter().map(port).collect(),
        endpoints: vec![Endpoint::ready(endpoint)],
    })
}
