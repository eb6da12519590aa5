//! The fast path beside network policies: what they deny ends, although its packets have long passed by their
//! rules.

use std::net::SocketAddr;

use weft_testkit::world::{Connection, put_on_bridge};

use crate::Machine;
use crate::policies::{Cluster, POLICIES, SILENCE, addresses, policy};

/// A cluster whose pods are what the plugin would have made.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.machine.flags = &["--fast-path=ebpf"];
    put_on_bridge(&cluster.machine.namespace);
    for number in [1, 2] {
        cluster.machine.sh(&format!("ip link set pod{number} alias weft/c{number}/eth0"));
        addresses(number)
            .iter()
            .for_each(|address| cluster.machine.reserve(&address.to_string(), &format!("c{number}")));
    }
    cluster.machine.start();
    cluster.until_ready();
    cluster
}

fn figure(machine: &Machine, name: &str) -> u64 {
    let text = machine.ask("/metrics").1;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[test]
fn a_policy_that_comes_later_ends_a_connection_on_the_fast_path_and_another_goes_on() {
    let cluster = cluster();
    let machine = &cluster.machine;
    machine.until("addresses", |machine| figure(machine, "weft_agent_fast_path_addresses") == 4);
    for to in addresses(1) {
        let open =
            |port| Connection::open_within(&cluster.pods[1], SocketAddr::new(to, port), SILENCE).unwrap();
        let (mut allowed, mut denied) = (open(80), open(81));
        let before = figure(machine, "weft_agent_fast_path_packets_total");
        for _ in 0..20 {
            assert_eq!((&allowed.ask()[..1], &denied.ask()[..1]), ("1", "1"));
        }
        machine
            .until("packets", |machine| figure(machine, "weft_agent_fast_path_packets_total") >= before + 60);
        machine.server.put(POLICIES, policy());
        cluster.until_judged(2);
        assert_eq!(&allowed.ask()[..1], "1");
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| denied.ask()));
        assert!(asked.is_err(), "it is reset");
        assert_eq!(&allowed.ask()[..1], "1");
        machine.server.delete(POLICIES, "web");
        cluster.until_planned(0);
    }
}

/// As where bandwidth is limited: who is handed packets waits in no queue.
#[test]
fn pods_come_and_go_and_one_with_a_limit_takes_no_part() {
    let cluster = cluster();
    let machine = &cluster.machine;
    let addresses =
        |count| move |machine: &Machine| figure(machine, "weft_agent_fast_path_addresses") == count;
    machine.until("both", addresses(4));
    machine.sh("tc qdisc add dev pod1 root tbf rate 1gbit burst 64kb latency 25ms");
    machine.until("the other", addresses(2));
    machine.sh("tc qdisc del dev pod1 root && ip link del pod2");
    machine.until("the first", addresses(2));
    assert!(!machine.log().contains("usual way"), "{}", machine.log());
}
