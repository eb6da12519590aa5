//! The packet tracer and the kernel agree: for random Services, whatever the tracer says of a packet, real
//! connections do. It says the same of the planned rules and of those that it reads from the kernel.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use weft_netlink::netns::Namespace;
use weft_nftables::{Client, Hook, Table};
use weft_proxy::config::{Config, ProxyMode};
use weft_proxy::dataplane::iptables::DesiredRules;
use weft_proxy::dataplane::nftables::DesiredTables;
use weft_proxy::dataplane::nftables::ruleset::TABLE;
use weft_proxy::services::planner::{Planner, Stage};
use weft_proxy::trace::{Memory, Origin, Outcome, Packet, Tracer, live};
use weft_testkit::world::{Connection, PATIENCE, World, pod_address, udp_within};
use weft_types::{Endpoint, Family, Object, Protocol, Service, TrafficPolicy};

use crate::{Cluster, EXTERNAL_V4, EXTERNAL_V6, NODE_PORT, PROTOCOLS, cluster_ip, external, on_nodes};

/// How many Services each mode is tried with.
const CASES: u32 = 12;
/// How long nothing must come for a packet to count as dropped.
const SILENCE: Duration = Duration::from_millis(300);
/// What the node has besides the address of its Node.
const NODE_V4: [&str; 3] = ["172.30.0.11", "10.244.1.1", "10.244.2.1"];
const NODE_V6: [&str; 3] = ["fd00:30::11", "fd00:244:1::1", "fd00:244:2::1"];

/// A Service, its endpoints and what the proxy is told, with the packets that are sent.
#[derive(Clone, Debug)]
struct Case {
    service: Service,
    endpoints: Vec<(usize, &'static str, State)>,
    family: Family,
    protocol: Protocol,
    config: Config,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Ready,
    Terminating,
    Unready,
}

fn case() -> impl Strategy<Value = Case> {
    let policy = || select(&[TrafficPolicy::Cluster, TrafficPolicy::Local][..]);
    let endpoint = |pod: usize| {
        let state =
            prop_oneof![4 => Just(State::Ready), 1 => Just(State::Terminating), 1 => Just(State::Unready)];
        prop::option::weighted(0.8, (Just(pod), select(&["node1", "node2"][..]), state))
    };
    let ranges = prop::sample::subsequence(vec!["172.30.0.1/32", "fd00:30::1/128", "10.244.2.0/24"], 0..=3);
    let options = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), ranges);
    let packets = (select(&Family::BOTH[..]), select(&PROTOCOLS[..]));
    ((policy(), policy()), (endpoint(1), endpoint(2)), options, packets).prop_map(
        |((internal_policy, external_policy), (one, two), options, (family, protocol))| {
            let (detect, masquerade_all, service_counters, sticky, ranges) = options;
            let Object::Service(service) = external(external_policy) else { panic!("no Service") };
            let source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
            let affinity = sticky.then(|| Duration::from_secs(10));
            let service = Service { internal_policy, source_ranges, affinity, ..service };
            let endpoints = [one, two].into_iter().flatten().collect();
            let cidrs = ["10.244.0.0/16", "fd00:244::/32"].map(|cidr| cidr.parse().unwrap());
            let cluster_cidrs = cidrs.into_iter().filter(|_| detect).collect();
            let config = Config { cluster_cidrs, masquerade_all, service_counters, ..Config::default() };
            Case { service, endpoints, family, protocol, config }
        },
    )
}

fn objects(case: &Case) -> Vec<Object> {
    let slices = Family::BOTH.map(|family| {
        let nodes: Vec<_> = case.endpoints.iter().map(|(pod, node, _)| (*pod, *node)).collect();
        let Object::EndpointSlice(mut slice) = on_nodes(family, &nodes) else { panic!("no slice") };
        for (endpoint, (.., state)) in slice.endpoints.iter_mut().zip(&case.endpoints) {
            let (ready, serving, terminating) = match state {
                State::Ready => (true, true, false),
                State::Terminating => (false, true, true),
                State::Unready => (false, false, false),
            };
            *endpoint = Endpoint { ready, serving, terminating, ..endpoint.clone() };
        }
        Object::EndpointSlice(slice)
    });
    [vec![Object::Service(case.service.clone())], slices.to_vec()].concat()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|address| address.parse().unwrap()).collect()
}

/// The machines of a world with their addresses, and how their packets come to the node's rules.
fn clients(world: &World, family: Family) -> [(&Namespace, IpAddr, Origin); 4] {
    let (outside, node) = match family {
        Family::V4 => ("172.30.0.1", NODE_V4[0]),
        Family::V6 => ("fd00:30::1", NODE_V6[0]),
    };
    let through = |name: &str| Origin::Interface(Some(name.into()));
    [
        (&world.outside, outside.parse().unwrap(), through("outside")),
        (&world.node, node.parse().unwrap(), Origin::Machine),
        (&world.pods[0], pod_address(family, 1), through("pod1")),
        (&world.pods[1], pod_address(family, 2), through("pod2")),
    ]
}

fn destinations(family: Family) -> [SocketAddr; 5] {
    let (node, external) = match family {
        Family::V4 => (NODE_V4[0], EXTERNAL_V4),
        Family::V6 => (NODE_V6[0], EXTERNAL_V6),
    };
    let at = |address: &str, port| SocketAddr::new(address.parse().unwrap(), port);
    let service = cluster_ip(family);
    [
        SocketAddr::new(service, 80),
        SocketAddr::new(service, 81),
        at(node, NODE_PORT),
        at(external[0], 80),
        at(external[1], 80),
    ]
}

/// What becomes of a packet that is really sent, in the tracer's words; more than one where that cannot be
/// told apart.
fn observed(from: &Namespace, packet: &Packet, patience: Duration) -> Vec<Outcome> {
    let to = packet.destination;
    let answer = match packet.protocol {
        Protocol::Udp => udp_within(from, to, patience),
        _ => Connection::open_within(from, to, patience).map(|mut connection| connection.ask()),
    };
    match answer {
        Ok(answer) => {
            let (pod, source) = answer.split_once(' ').unwrap();
            let address = pod_address(Family::of(to.ip()), pod.parse().unwrap());
            let masqueraded = source.parse::<IpAddr>().unwrap() != packet.source;
            vec![Outcome::Passed { to: SocketAddr::new(address, 8080), masqueraded }]
        }
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => vec![Outcome::Rejected],
            ErrorKind::TimedOut | ErrorKind::WouldBlock => vec![Outcome::Dropped],
            // The node's own datagrams cannot even be sent then.
            ErrorKind::PermissionDenied => vec![Outcome::Rejected, Outcome::Dropped],
            kind => panic!("{packet}: {kind}"),
        },
    }
}

/// A pod that is said to be on another node is not led back here when it reaches itself. And where rules leave
/// a Service's address alone, there is nobody.
fn is_possible(packet: &Packet, expected: &BTreeSet<Outcome>) -> bool {
    let to_nobody = |outcome: &Outcome| match outcome {
        Outcome::Passed { to, masqueraded } => {
            *to == packet.destination || !masqueraded && to.ip() == packet.source
        }
        Outcome::Rejected | Outcome::Dropped => false,
    };
    !expected.iter().any(to_nobody)
}

/// Sends one packet from a machine to each destination, and compares. Returns how many were sent.
fn compare(
    [tracer, live]: &[Tracer; 2],
    case: &Case,
    (from, source, origin): (&Namespace, IpAddr, Origin),
) -> usize {
    let mut sent = 0;
    for destination in destinations(case.family) {
        let packet = Packet { source, destination, protocol: case.protocol, origin: origin.clone() };
        let expected = tracer.outcomes(&packet, &Memory::default()).unwrap();
        assert_eq!(live.outcomes(&packet, &Memory::default()).unwrap(), expected, "{packet}");
        if !is_possible(&packet, &expected) {
            continue;
        }
        let silent = expected.contains(&Outcome::Dropped);
        let found = observed(from, &packet, if silent { SILENCE } else { PATIENCE });
        let way = tracer.explain(&packet, &Memory::default()).unwrap();
        let agrees = found.iter().any(|outcome| expected.contains(outcome));
        assert!(agrees, "the kernel: {found:?}\nthe tracer: {way}\n{case:#?}");
        sent += 1;
    }
    sent
}

/// The tables that the cluster comes to.
fn planned(cluster: &Cluster<'_>) -> Vec<Table> {
    let start = |stage: &mut dyn Stage| {
        Planner::new(&cluster.config.node).start(&cluster.snapshot, stage);
    };
    if cluster.is_iptables() {
        let mut planned = DesiredRules::new(&cluster.config);
        start(&mut planned);
        return planned.tables();
    }
    let mut planned = DesiredTables::new(&cluster.config);
    start(&mut planned);
    planned.tables()
}

fn run(world: &World, case: &Case) -> usize {
    let mut cluster = Cluster::new(world, case.config.clone());
    cluster.put(objects(case));
    let planned = planned(&cluster);
    let read = || {
        let mut kernel = Client::open().unwrap();
        (live::read(&mut kernel).unwrap().0, kernel.foreign(TABLE, &Hook::ALL).unwrap())
    };
    let (live, foreign) = world.node.run(read).unwrap();
    let tracer = |tables| Tracer::new(tables, addresses(&[NODE_V4, NODE_V6].concat()));
    // In the mode iptables, the tables are shared.
    let tracers = [tracer(planned), tracer(live).among(foreign)];
    // A client that happens on a port of an earlier one would be of its flow.
    world.node.run(|| crate::run("conntrack", &["-F"])).unwrap();
    let tracers = &tracers;
    thread::scope(|scope| {
        let threads =
            clients(world, case.family).map(|client| scope.spawn(move || compare(tracers, case, client)));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// Lets the kernel tell every client that it is rejected, however many there are.
fn answer_everybody() {
    for setting in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
        std::fs::write(format!("/proc/sys/net/{setting}"), "0").unwrap();
    }
}

in_modes_of_rules! { the_tracers_verdict_on_a_packet_is_the_kernels_for_random_services }

fn the_tracers_verdict_on_a_packet_is_the_kernels_for_random_services(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    world.node.run(answer_everybody).unwrap();
    let config = ProptestConfig {
        cases: CASES,
        max_shrink_iters: 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let sent = std::cell::Cell::new(0);
    TestRunner::new(config)
        .run(&case(), |case| {
            let service_counters = case.config.service_counters && mode == ProxyMode::Nftables;
            let case = Case { config: Config { mode, service_counters, ..case.config }, ..case };
            sent.set(sent.get() + run(&world, &case));
            Ok(())
        })
        .unwrap();
    assert!(sent.get() > CASES as usize * 8, "only {} packets were sent", sent.get());
}

#[test]
fn a_person_is_shown_the_way_through_the_kernels_rules_to_the_endpoint_that_a_client_sticks_to() {
    let world = World::new();
    world.serve(8080);
    let trace =
        |packet: &str| world.node.run(|| live::trace(packet)).unwrap().map_err(|error| error.to_string());
    let packet = "172.30.0.1 -> 10.96.0.80:80 via outside";
    assert_eq!(
        trace(packet).unwrap_err(),
        "cannot follow the packet through the tables ip weft and ip6 weft: weft-proxy has programmed nothing here, or \
         somebody deleted it"
    );
    let mut cluster = Cluster::new(&world, Config::default());
    let Object::Service(service) = external(TrafficPolicy::Cluster) else { panic!("no Service") };
    let service = Service { affinity: Some(Duration::from_secs(10_800)), ..service };
    let both = Family::BOTH.map(|family| on_nodes(family, &[(1, "node1"), (2, "node1")]));
    cluster.put([Object::Service(service)].into_iter().chain(both));
    assert!(
        trace(packet).unwrap().contains("or, as endpoints are chosen at random, it goes to 10.244.2.2:8080")
    );
    let answer = Connection::open(&world.outside, destinations(Family::V4)[0]).unwrap().ask();
    let pod = answer.split(' ').next().unwrap();
    let text = trace(packet).unwrap();
    let end = format!("\nthe packet goes to 10.244.{pod}.2:8080 with its source unchanged\n");
    assert!(text.ends_with(&end), "{text}");
    // Of the node's own connections it knows the address, and to its own Services the way.
    assert!(
        trace("node -> 172.30.0.11:30080").unwrap().contains(" with an address of this node as its source")
    );
    cluster.nft(&["flush", "map", "ip", "weft", "frontends"]);
    assert!(trace(packet).unwrap().ends_with("\nthe packet is rejected: the client gets an error at once\n"));
    cluster.nft(&["add", "rule", "ip", "weft", "services", "quota", "over", "5", "mbytes"]);
    assert!(trace(packet).unwrap_err().contains("a rule of chain services has the expression \"quota\""));
}
