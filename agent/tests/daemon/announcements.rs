//! The node answers for load balancer addresses on its links.

use super::*;

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const POOLS: &str = "/apis/metallb.io/v1beta1/ipaddresspools";
const ADVERTISEMENTS: &str = "/apis/metallb.io/v1beta1/l2advertisements";

fn service(name: &str, address: &str, policy: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "type": "LoadBalancer", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}],
            "loadBalancerClass": "example.com/lb", "externalTrafficPolicy": policy,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
    })
}

fn endpoint_on(node: &str) -> Value {
    json!({
        "metadata": {"name": "local-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "local"}},
        "addressType": "IPv4", "ports": [{"port": 8080}],
        "endpoints": [{"addresses": ["10.244.1.9"], "nodeName": node, "conditions": {"ready": true}}],
    })
}

impl Machine {
    fn until_announced(&self, addresses: &str) {
        self.until(&format!("{addresses} announced"), |machine| {
            let told = machine.ask("/healthz").1;
            let line = told.lines().find_map(|line| line.strip_prefix("announced: "));
            line.unwrap_or_default() == addresses
        });
    }
}

#[test]
fn addresses_are_answered_for_and_those_of_policy_local_where_the_endpoints_are() {
    let mut machine = Machine::with_flags(&["--lb-l2=true"]);
    machine.server.put(SERVICES, service("web", "172.30.0.100", "Cluster"));
    machine.server.put(SERVICES, service("local", "172.30.0.101", "Local"));
    machine.server.put(SLICES, endpoint_on("node9"));
    machine.start();
    machine.until("a look at Services", |machine| !machine.server.queries(SERVICES, false).is_empty());
    machine.until_announced("172.30.0.100");
    machine.server.put(SLICES, endpoint_on("node1"));
    machine.until_announced("172.30.0.100, 172.30.0.101");
    machine.until("figures", |machine| machine.ask("/metrics").1.contains("weft_agent_l2_addresses 2"));
    machine.server.delete(SERVICES, "web");
    machine.until_announced("172.30.0.101");
    sh(&machine.namespace, "ip link set wire down");
    machine.until_announced("");
    sh(&machine.namespace, "ip link set wire up");
    machine.until_announced("172.30.0.101");
}

#[test]
fn addresses_of_pools_are_answered_for_once_an_l2advertisement_selects_the_pool() {
    let mut machine = Machine::with_flags(&["--lb-crds"]);
    let pool = json!({"metadata": {"name": "lan", "namespace": "metallb-system"}, "spec": {"addresses": ["172.30.0.100-172.30.0.103"]}});
    machine.server.put(POOLS, pool);
    machine.server.put(SERVICES, service("web", "172.30.0.100", "Cluster"));
    machine.server.put(SERVICES, service("other", "172.30.0.200", "Cluster"));
    machine.start();
    machine.until("a look for advertisements", |machine| {
        !machine.server.queries(ADVERTISEMENTS, false).is_empty()
    });
    machine.until_announced("");
    let advertisement = |interfaces: &[&str]| {
        let metadata = json!({"name": "lan", "namespace": "metallb-system"});
        json!({"metadata": metadata, "spec": {"ipAddressPools": ["lan"], "interfaces": interfaces}})
    };
    machine.server.put(ADVERTISEMENTS, advertisement(&["uplink"]));
    machine.until_announced("172.30.0.100");
    machine.server.put(ADVERTISEMENTS, advertisement(&["none"]));
    machine.until("a word about the interface", |machine| {
        machine
            .ask("/healthz")
            .1
            .contains("no interface of this node is fit to answer for the load balancer address 172.30.0.100")
    });
}
