//! What changes of network policies mean for connections that are open: those that are denied now end, the
//! others go on.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use serde_json::json;
use weft_netlink::conntrack::{ConntrackClient, Filter, Flow};
use weft_netlink::netns::Namespace;
use weft_testkit::world::Connection;

use crate::Machine;
use crate::policies::{Cluster, POLICIES, SILENCE, addresses, policy, tcp};

#[test]
fn connections_that_a_policy_denies_end_at_once_and_others_go_on() {
    let cluster = Cluster::started();
    for to in addresses(1) {
        let open =
            |port| Connection::open_within(&cluster.pods[1], SocketAddr::new(to, port), SILENCE).unwrap();
        let (mut allowed, mut denied) = (open(80), open(81));
        assert_eq!((&allowed.ask()[..1], &denied.ask()[..1]), ("1", "1"));
        cluster.machine.server.put(POLICIES, policy());
        cluster.until_judged(2);
        assert_eq!(&allowed.ask()[..1], "1");
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| denied.ask()));
        assert!(asked.is_err(), "it is reset");
        assert_eq!(&allowed.ask()[..1], "1");
        cluster.machine.server.delete(POLICIES, "web");
        cluster.until_planned(0);
    }
}

/// The server goes on sending: its datagrams must not open the way for the client's as if they had been
/// first.
#[test]
fn datagrams_of_a_flow_that_a_policy_denies_stop_in_both_directions() {
    let cluster = Cluster::started();
    for to in addresses(1) {
        let bind = |pod: &Namespace, address: IpAddr| {
            let socket = pod.run(|| UdpSocket::bind((address, 5000))).unwrap().unwrap();
            socket.set_read_timeout(Some(SILENCE)).unwrap();
            socket
        };
        let from = addresses(2)[usize::from(to.is_ipv6())];
        let (server, client) = (bind(&cluster.pods[0], to), bind(&cluster.pods[1], from));
        let passes = |one: &UdpSocket, other: &UdpSocket| {
            one.send_to(b"x", other.local_addr().unwrap()).unwrap();
            other.recv_from(&mut [0; 8]).is_ok()
        };
        assert!(passes(&client, &server) && passes(&server, &client) && passes(&client, &server));
        cluster.machine.server.put(POLICIES, policy());
        cluster.until_judged(2);
        assert!(!passes(&server, &client), "{to}");
        assert!(!passes(&client, &server), "{to}");
        cluster.machine.server.delete(POLICIES, "web");
        cluster.until_planned(0);
    }
}

/// By a peer's label that is taken away, and no policy.
#[test]
fn a_connection_ends_when_the_client_loses_the_label_that_let_it_in() {
    let cluster = Cluster::with_policy();
    for to in addresses(1) {
        let server = SocketAddr::new(to, 80);
        let mut connection = Connection::open_within(&cluster.pods[1], server, SILENCE).unwrap();
        assert_eq!(&connection.ask()[..1], "1");
        let is_peer =
            |machine: &Machine| machine.sh("nft list map ip weft-policy peers").contains("10.244.2.2");
        assert!(is_peer(&cluster.machine));
        cluster.put_pod("client", "stranger", 2);
        cluster.machine.until("a peer less", |machine| !is_peer(machine));
        cluster.until_judged(2);
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| connection.ask()));
        assert!(asked.is_err(), "it is reset");
        cluster.put_pod("client", "client", 2);
        cluster.machine.until("a way in", |_| tcp(&cluster.pods[1], to, 80));
    }
}

#[test]
fn tens_of_thousands_of_flows_are_judged_by_the_newest_plan_while_changes_go_on() {
    const PORTS: u16 = 15_000;
    const ALLOWED: u16 = 1_000;
    let cluster = Cluster::started();
    let [to, from] = [1, 2].map(|pod| addresses(pod)[0]);
    let sockets = cluster.pods[1].run(|| [(); 2].map(|()| UdpSocket::bind((from, 0)).unwrap())).unwrap();
    for socket in &sockets {
        (1..=PORTS).for_each(|port| drop(socket.send_to(b"x", (to, port))));
    }
    let mut client = cluster.machine.namespace.run(ConntrackClient::open).unwrap().unwrap();
    let mut count = || {
        let filter = Filter { protocol: Some(17), source: Some(from), ..Filter::default() };
        let flows = client.flows(weft_netlink::Family::Ip, &filter).unwrap();
        let allowed = |flow: &&Flow| flow.original.destination.port() <= ALLOWED;
        (flows.len(), flows.iter().filter(allowed).count())
    };
    let ports = |last: u16| json!([{"ports": [{"protocol": "UDP", "port": 1, "endPort": last}]}]);
    let (all, allowed) = (2 * usize::from(PORTS), 2 * usize::from(ALLOWED));
    assert_eq!(count(), (all, allowed), "some were lost on the way");

    let mut open = policy();
    open["spec"]["ingress"] = ports(PORTS);
    cluster.machine.server.put(POLICIES, open);
    cluster.until_judged(2);
    assert_eq!(count(), (all, allowed), "what is allowed goes on");

    let mut narrow = policy();
    narrow["spec"]["ingress"] = ports(ALLOWED);
    cluster.machine.server.put(POLICIES, narrow);
    // Changes of something else, one after the other, while these are judged.
    let other = json!({"metadata": {"name": "client", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Ingress"]}});
    cluster.machine.server.put(POLICIES, other);
    cluster.until_planned(4);
    cluster.machine.server.delete(POLICIES, "client");
    cluster.until_judged(2);
    assert_eq!(count(), (allowed, allowed));
    let figure = format!("weft_agent_policy_ended_connections_total {}\n", all - allowed);
    assert!(cluster.machine.ask("/metrics").1.contains(&figure));
}

/// As on a node without rules of Services, for a family that the agent does not translate.
#[test]
fn connections_that_nothing_tracked_before_the_first_policy_are_reset_and_tracked_ones_go_on() {
    let cluster = Cluster::started();
    cluster.machine.sh("nft delete table inet services");
    let [mut tracked, mut unknown] = [0, 1].map(|family| {
        let server = SocketAddr::new(addresses(1)[family], 80);
        Connection::open_within(&cluster.pods[1], server, SILENCE).unwrap()
    });
    assert_eq!((&tracked.ask()[..1], &unknown.ask()[..1]), ("1", "1"));
    cluster.machine.server.put(POLICIES, policy());
    cluster.until_judged(2);
    assert_eq!(&tracked.ask()[..1], "1");
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unknown.ask()));
    assert!(asked.is_err(), "it is reset");
    assert!(addresses(1).into_iter().all(|to| tcp(&cluster.pods[1], to, 80)));
}
