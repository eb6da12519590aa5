//! Services get the addresses of their load balancers.

use super::*;

const SERVICES: &str = "/api/v1/services";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/weft-load-balancers";
const POOLS: &str = "/apis/metallb.io/v1beta1/ipaddresspools";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

fn service(name: &str, minute: u8) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
            "creationTimestamp": format!("2026-01-02T03:{minute:02}:00Z"),
        },
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}]},
    })
}

fn pool(addresses: &str) -> Value {
    json!({
        "metadata": {"name": "lan", "namespace": "metallb-system"},
        "spec": {"addresses": [addresses]},
    })
}

fn held_by(holder: &str, seconds: u64) -> Value {
    let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": seconds});
    json!({"metadata": {"name": "weft-load-balancers"}, "spec": spec})
}

impl Machine {
    pub(crate) fn with_flags(flags: &'static [&'static str]) -> Machine {
        let mut machine = Machine::new();
        machine.flags = flags;
        machine.server.put(NODES, node(1));
        machine
    }

    /// The address of a Service; empty where it has none.
    fn address(&self, name: &str) -> String {
        let all = self.server.objects(SERVICES);
        let service = all.iter().find(|service| service["metadata"]["name"] == name).unwrap();
        let ingress = &service["status"]["loadBalancer"]["ingress"];
        assert!(ingress.is_null() || ingress[0]["ipMode"] == "VIP", "{ingress}");
        ingress[0]["ip"].as_str().unwrap_or_default().to_owned()
    }

    fn until_address(&self, name: &str, address: &str) {
        self.until(&format!("{address} for {name}"), |machine| machine.address(name) == address);
    }

    /// Whether somebody was told so of a Service.
    fn told(&self, reason: &str, note: &str) -> bool {
        let is_it =
            |event: &Value| event["reason"] == reason && event["note"].as_str().unwrap().contains(note);
        self.server.objects(EVENTS).iter().any(is_it)
    }
}

#[test]
fn services_get_addresses_of_the_flags_pool_and_keep_them_when_the_agent_is_killed() {
    let mut machine = Machine::with_flags(&["--lb-pool", "192.0.2.10-192.0.2.11"]);
    machine.server.put(SERVICES, service("web", 5));
    machine.start();
    machine.until_address("web", "192.0.2.10");
    machine.until("an event", |machine| machine.told("IPAllocated", "192.0.2.10, of the pool default"));
    let lease = machine.server.objects(LEASES)[0].clone();
    assert_eq!(lease["spec"]["holderIdentity"], "node1");
    machine.until("figures", |machine| {
        let text = machine.ask("/metrics").1;
        text.contains("weft_agent_lb_pool_addresses_in_use{pool=\"default\"} 1")
            && text.contains("weft_agent_lb_leader 1")
    });
    machine.kill();

    // Others came meanwhile, and are older.
    machine.server.put(SERVICES, service("early", 1));
    machine.server.put(SERVICES, service("late", 2));
    machine.start();
    machine.until_address("early", "192.0.2.11");
    assert_eq!((machine.address("web"), machine.address("late")), ("192.0.2.10".into(), String::new()));
    let why = "no IPv4 address is free in the pool default";
    machine.until("why there is none", |machine| machine.told("AllocationFailed", why));
    machine.server.delete(SERVICES, "early");
    machine.until_address("late", "192.0.2.11");
    // One that is of another type gives its address back.
    let mut former = service("web", 5);
    former["spec"]["type"] = "ClusterIP".into();
    former["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.10", "ipMode": "VIP"}]}});
    machine.server.put(SERVICES, former);
    machine.until_address("web", "");
}

#[test]
fn without_its_flags_an_agent_looks_for_no_pools_services_or_lease() {
    let mut machine = Machine::with_flags(&[]);
    machine.server.put(NODES, node(2));
    machine.server.put(POOLS, pool("192.0.2.10"));
    machine.server.put(SERVICES, service("web", 1));
    machine.start();
    machine.until("a route to node2", |machine| machine.routes() == [TO_NODE2]);
    for path in [POOLS, SERVICES, LEASES, LEASE] {
        assert!(machine.server.queries(path, false).is_empty(), "{path}");
    }
}

#[test]
fn pools_of_the_cluster_are_used_once_there_are_some() {
    let mut machine = Machine::with_flags(&["--lb-crds"]);
    machine.server.put(NODES, node(2));
    machine.server.put(SERVICES, service("web", 1));
    machine.start();
    machine.until("a look at the pools", |machine| !machine.server.queries(POOLS, false).is_empty());
    machine.until("a route to node2", |machine| machine.routes() == [TO_NODE2]);
    assert!(machine.server.queries(LEASE, false).is_empty(), "there is nothing to give");
    // Node addresses are never given.
    machine.server.put(POOLS, pool("172.30.0.11-172.30.0.13"));
    machine.until_address("web", "172.30.0.13");
    // The pool goes, and the address stays.
    machine.server.delete(POOLS, "lan");
    machine.until("a word about the pool", |machine| machine.told("PoolGone", "172.30.0.13"));
    assert_eq!(machine.address("web"), "172.30.0.13");
}

#[test]
fn one_agent_gives_addresses_and_another_takes_over_when_it_is_gone() {
    let flags = &["--lb-pool", "192.0.2.10", "--lb-class", "example.com/lb", "--lb-l2=false"];
    let mut machine = Machine::with_flags(flags);
    let mut web = service("web", 1);
    web["spec"]["loadBalancerClass"] = "example.com/lb".into();
    machine.server.put(SERVICES, web);
    machine.server.put(SERVICES, service("other-class", 0));
    machine.server.put(LEASES, held_by("node9", 3600));
    machine.start();
    machine.until("three looks at the Lease", |machine| machine.server.queries(LEASE, false).len() >= 3);
    assert!(machine.server.queries(SERVICES, false).is_empty());
    machine.server.put(LEASES, held_by("node9", 1));
    machine.until_address("web", "192.0.2.10");
    assert_eq!(machine.address("other-class"), "");
    // It stops when another one has the Lease.
    machine.server.put(LEASES, held_by("node9", 3600));
    machine.until("a word about the Lease", |machine| machine.log().contains("it is held by node9"));
    assert!(machine.ask("/metrics").1.contains("weft_agent_lb_leader 0"));
}

#[test]
fn a_thousand_services_get_an_address_each() {
    let mut machine = Machine::with_flags(&["--lb-pool", "198.18.0.0/22"]);
    (0..1000).for_each(|number| machine.server.put(SERVICES, service(&format!("s{number}"), 1)));
    machine.start();
    machine.until("an address for each", |machine| {
        let all = machine.server.objects(SERVICES);
        let ingress = all.iter().map(|service| &service["status"]["loadBalancer"]["ingress"][0]["ip"]);
        let addresses: std::collections::BTreeSet<&str> = ingress.filter_map(Value::as_str).collect();
        addresses.len() == 1000
    });
}

#[test]
fn what_cannot_be_written_is_told_and_tried_again() {
    let mut machine = Machine::with_flags(&["--lb-pool", "192.0.2.10"]);
    let path = "/api/v1/namespaces/shop/services/web/status";
    machine.server.answer_once(path, axum::http::StatusCode::FORBIDDEN, "no");
    machine.server.put(SERVICES, service("web", 1));
    machine.start();
    machine.until("a word about it", |machine| {
        machine.log().contains("cannot write the addresses of Service shop/web")
    });
    machine.until_address("web", "192.0.2.10");
}
