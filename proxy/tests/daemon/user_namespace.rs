//! The daemon as root of a user namespace: all that it needs it may do there, and not all that makes it
//! faster.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::machine::{Machine, SERVICES, SLICES};

/// So many that their rules do not fit into one message of an unprivileged socket.
const MANY: usize = 4_000;

/// A Service with two endpoints, and that one's EndpointSlice.
fn one_of_many(number: usize, first_pod: &str) -> (Value, Value) {
    let (name, ip) = (format!("web-{number}"), format!("10.96.{}.{}", number / 250, number % 250 + 1));
    let service = json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]},
    });
    let pod = |pod: &str| json!({"addresses": [pod], "nodeName": "node2"});
    let slice = json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [pod(first_pod), pod("10.244.2.200")],
    });
    (service, slice)
}

fn put_many(machine: &Machine, first_pod: &str) {
    for number in 0..MANY {
        let (service, slice) = one_of_many(number, first_pod);
        machine.server.put(SERVICES, service);
        machine.server.put(SLICES, slice);
    }
}

fn count(machine: &Machine, text: &str) -> usize {
    machine.rules().matches(text).count()
}

#[test]
fn the_proxy_works_as_root_of_a_user_namespace_whatever_the_load() {
    let mut machine = Machine::rootless();
    put_many(&machine, "10.244.2.1");
    machine.start();
    machine.until("all of them", |machine| count(machine, ": 10.244.2.1 . 8080") == MANY);
    let log = machine.log();
    assert_eq!(log.matches("sockets are kept to net.core.rmem_max").count(), 1, "said once: {log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");

    // What it finds after a restart differs in more than one message can correct.
    machine.stop(Signal::SIGTERM);
    put_many(&machine, "10.244.2.2");
    machine.start();
    machine.until("corrected", |machine| count(machine, ": 10.244.2.2 . 8080") == MANY);
    assert_eq!(count(&machine, ": 10.244.2.1 . 8080"), 0);
    let log = machine.log();
    assert_eq!(log.matches("making the tables anew").count(), log.matches("WARN").count(), "{log}");
}
