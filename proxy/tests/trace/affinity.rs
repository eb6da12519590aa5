//! Session affinity: what rules remember of a client, and for how long.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_proxy::config::ProxyMode;
use weft_proxy::trace::{Memory, Outcome, Tracer};
use weft_types::{Service, TrafficPolicy};

use crate::cluster::{Cluster, ready, slices, two, web, with};

const THREE_HOURS: Duration = Duration::from_secs(10_800);

fn sticky(service: Service, time: Duration) -> Service {
    Service { affinity: Some(time), ..service }
}

/// Where a new connection goes, with that number drawn.
fn to(cluster: &Cluster, tracer: &Tracer, memory: &mut Memory, packet: &str, draw: u32) -> String {
    match tracer.trace(&cluster.packet(packet), draw, memory).unwrap().outcome {
        Outcome::Passed { to, .. } => to.to_string(),
        other => other.to_string(),
    }
}

#[test]
fn a_client_sticks_to_its_endpoint_of_a_service_port_whatever_the_frontend_and_others_do_not() {
    let cluster = Cluster::new(with(sticky(web(), THREE_HOURS), two()));
    let tracer = cluster.tracer();
    for first in [0, 1] {
        let mut memory = Memory::default();
        let mut to = |packet: &str, draw| to(&cluster, &tracer, &mut memory, packet, draw);
        let endpoint = to("172.30.0.1 -> 10.96.0.80:80/tcp", first);
        for packet in [
            "172.30.0.1 -> 172.30.0.11:30080/tcp",
            "172.30.0.1 -> 192.0.2.1:80/tcp",
            "172.30.0.1 -> 192.0.2.2:80/tcp",
        ] {
            assert_eq!(to(packet, 1 - first), endpoint, "{packet}");
        }
        // Another client, and another port of the Service.
        assert_ne!(to("172.30.0.2 -> 10.96.0.80:80/tcp", 1 - first), endpoint);
        assert_ne!(to("172.30.0.1 -> 10.96.0.80:80/udp", 1 - first), endpoint);
    }
}

#[test]
fn affinity_ends_after_its_timeout_and_every_new_connection_prolongs_it() {
    let cluster = Cluster::new(with(sticky(web(), Duration::from_secs(30)), two()));
    let (tracer, mut memory) = (cluster.tracer(), Memory::default());
    let connect =
        |draw, memory: &mut Memory| to(&cluster, &tracer, memory, "10.244.1.5 -> 10.96.0.80:80/tcp", draw);
    let first = connect(0, &mut memory);
    for _ in 0..4 {
        memory.pass(Duration::from_secs(20));
        assert_eq!(connect(1, &mut memory), first);
    }
    memory.pass(Duration::from_secs(30));
    assert_ne!(connect(1, &mut memory), first);
}

#[test]
fn affinity_does_not_stick_to_an_endpoint_that_left_and_sticks_to_the_next() {
    let one = || ready("10.244.1.2", "node1");
    let others =
        || [ready("10.244.2.2", "node2"), ready("10.244.3.2", "node3"), ready("10.244.4.2", "node4")];
    let mut cluster = Cluster::new(with(sticky(web(), THREE_HOURS), slices([one()])));
    let mut memory = Memory::default();
    let connect = |cluster: &Cluster, memory: &mut Memory, draw| {
        to(cluster, &cluster.tracer(), memory, "10.244.1.5 -> 10.96.0.80:80/tcp", draw)
    };
    assert_eq!(connect(&cluster, &mut memory, 0), "10.244.1.2:8080");
    cluster.put(slices(others()));
    assert_eq!(connect(&cluster, &mut memory, 1), "10.244.3.2:8080");
    for draw in 0..3 {
        assert_eq!(connect(&cluster, &mut memory, draw), "10.244.3.2:8080");
    }
    // Who comes back gets nobody back.
    cluster.put(slices([&others()[..], &[one()]].concat()));
    assert_eq!(connect(&cluster, &mut memory, 0), "10.244.3.2:8080");
}

#[test]
fn under_an_external_policy_local_a_client_from_outside_sticks_to_endpoints_of_this_node() {
    let service = Service { external_policy: TrafficPolicy::Local, ..sticky(web(), THREE_HOURS) };
    let cluster = Cluster::new(with(service, two()));
    let (tracer, mut memory) = (cluster.tracer(), Memory::default());
    // The client has affinity to the other node's endpoint by the ClusterIP; that one must not serve it at a
    // NodePort.
    let draws = (0..2)
        .map(|draw| to(&cluster, &tracer, &mut Memory::default(), "172.30.0.1 -> 10.96.0.80:80/tcp", draw));
    let remote = draws.into_iter().position(|endpoint| endpoint == "10.244.2.2:8080").unwrap() as u32;
    assert_eq!(
        to(&cluster, &tracer, &mut memory, "172.30.0.1 -> 10.96.0.80:80/tcp", remote),
        "10.244.2.2:8080"
    );
    assert_eq!(
        to(&cluster, &tracer, &mut memory, "172.30.0.1 -> 172.30.0.11:30080/tcp", 0),
        "10.244.1.2:8080"
    );
}

#[test]
fn in_the_mode_iptables_a_client_sticks_to_its_endpoint_until_its_time_ends() {
    let service = sticky(web(), Duration::from_secs(30));
    let mut cluster = Cluster::new(with(service, two()));
    cluster.config.mode = ProxyMode::Iptables;
    let tracer = cluster.tracer();
    let packet = "10.244.1.5 -> 10.96.0.80:80/tcp";
    let mut reached = BTreeSet::new();
    for draw in 0..2 {
        let mut memory = Memory::default();
        let first = to(&cluster, &tracer, &mut memory, packet, draw);
        for _ in 0..4 {
            memory.pass(Duration::from_secs(20));
            assert_eq!(to(&cluster, &tracer, &mut memory, packet, 1 - draw), first);
        }
        // Another client, and this one after its time.
        assert_ne!(to(&cluster, &tracer, &mut memory, "10.244.1.6 -> 10.96.0.80:80/tcp", 1 - draw), first);
        memory.pass(Duration::from_secs(31));
        assert_ne!(to(&cluster, &tracer, &mut memory, packet, 1 - draw), first);
        reached.insert(first);
    }
    assert_eq!(reached.len(), 2);
}

#[test]
fn without_affinity_nothing_is_remembered() {
    let cluster = Cluster::new(with(web(), two()));
    let (tracer, mut memory) = (cluster.tracer(), Memory::default());
    to(&cluster, &tracer, &mut memory, "10.244.1.5 -> 10.96.0.80:80/tcp", 0);
    assert_eq!(memory, Memory::default());
}
