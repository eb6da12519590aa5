//! A packet's way through a made-up machine, by planned tables: what each answer says.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::net::{IpAddr, SocketAddr};

use weft_nftables::evaluator::Ruleset;
use weft_nftables::{
    Base, Expression, Family, Header, Hook, Nat, Numgen, Operand, Operator, Payload, Rule, Statement, Table,
    Translation, Value, Verdict,
};
use weft_trace::{
    Cause, End, Entered, Entry, Machine, NodeTrace, Packet, Question, Routed, Socket, Step,
    Translation as Rewritten, Tuple, follow,
};

const POD: &str = "10.244.1.2";
const SERVICE: &str = "10.96.0.7";
const ENDPOINTS: [&str; 2] = ["10.244.1.3", "10.244.2.3"];
const NODE: &str = "172.30.0.11";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// node1, with pods at cni0, and node2's behind a tunnel.
struct Node;

impl Machine for Node {
    fn entered(&mut self, question: &Question) -> Entered {
        let device = if question.entry == Entry::Pod { "cni0" } else { "eth0" }.to_owned();
        let step = Step::Enters { device: device.clone(), port: None, mtu: 1450 };
        Entered { device: Ok(device), steps: vec![step], notes: Vec::new() }
    }

    fn route(&mut self, packet: &Packet<'_>) -> Result<Routed, End> {
        let to = packet.destination;
        let routed = |is_local, device: &str, gateway: Option<&str>| {
            let gateway = gateway.map(ip);
            Ok(Routed { is_local, device: device.to_owned(), gateway, table: 254, mtu: 1450 })
        };
        match to.to_string() {
            _ if self.is_local(to) => routed(true, "lo", None),
            text if text.starts_with("10.244.1.") => routed(false, "cni0", None),
            text if text.starts_with("10.244.2.") => routed(false, "weft-vxlan", Some("10.244.2.0")),
            text if text.starts_with("172.30.0.") => routed(false, "eth0", None),
            _ => Err(Cause::NoRoute { place: "on the node".to_owned(), to }.into()),
        }
    }

    fn own_address_to(&mut self, _: IpAddr) -> Option<IpAddr> {
        Some(ip(NODE))
    }

    fn is_local(&self, address: IpAddr) -> bool {
        address == ip(NODE)
    }

    fn first_address(&self, _: &str, _: Family) -> Option<IpAddr> {
        Some(ip(NODE))
    }

    fn deliver(&mut self, routed: &Routed, packet: &Tuple, _: &Question) -> End {
        let device = routed.device.clone();
        match routed.gateway {
            None if device == "cni0" => End::Pod { device: "veth1".to_owned(), socket: Socket::Listens },
            gateway => {
                let next_hop = gateway.unwrap_or(packet.destination);
                End::Leaves { device, kind: None, next_hop, remote: gateway.map(|_| ip("172.30.0.12")) }
            }
        }
    }

    fn take(&mut self, _: &Tuple, _: &Question) -> End {
        End::Host { socket: Socket::Nothing }
    }
}

/// A Service of two endpoints, and clients masqueraded that leave the node.
fn service() -> Table {
    let mut table = Table::new(Family::Ip, "weft");
    let to = |address: &str| {
        Statement::Nat(Nat::Destination(Family::Ip, Translation::To(ip(address), Some(8080))))
    };
    let is_service =
        Statement::compare(Expression::daddr(Family::Ip), Operator::Equal, Value::Address(ip(SERVICE)));
    let numgen = Numgen { modulus: 2, offset: 0, is_random: true };
    let first = Statement::compare(numgen.into(), Operator::Equal, Value::Integer(0));
    let rules = vec![
        Rule::new([is_service.clone(), first, to(ENDPOINTS[0])]),
        Rule::new([is_service, to(ENDPOINTS[1])]),
    ];
    table.chain("prerouting", Some(Base::nat(Hook::Prerouting, -100)), rules.clone());
    table.chain("output", Some(Base::nat(Hook::Output, -100)), rules);
    let tunnelled =
        Statement::compare(Expression::daddr(Family::Ip), Operator::Equal, Value::Address(ip(ENDPOINTS[1])));
    let masquerade = vec![Rule::new([tunnelled, Statement::masquerade()])];
    table.chain("postrouting", Some(Base::nat(Hook::Postrouting, 100)), masquerade);
    table
}

/// Another program's, that forwards nothing to port 8080 of one endpoint.
fn firewall(verdict: &[Statement]) -> Table {
    let mut table = Table::new(Family::Ip, "filter");
    let port = Statement::compare(Expression::DPORT, Operator::Equal, Value::Port(8080));
    let rule = Rule::new([&[port], verdict].concat());
    table.chain("FORWARD", Some(Base::filter(Hook::Forward, 0)), vec![rule]);
    table
}

fn question(entry: Entry, source: &str, to: &str, port: u16) -> Question {
    let packet =
        Tuple { source: ip(source), source_port: Some(49152), destination: ip(to), port: Some(port) };
    Question::new(entry, packet, 6)
}

fn traced(tables: &[Table], question: &Question) -> NodeTrace {
    follow(question, "node1", &Ruleset::new(tables), &mut Node)
}

fn chosen(endpoint: &str) -> Question {
    Question { endpoint: Some(SocketAddr::new(ip(endpoint), 8080)), ..question(Entry::Pod, POD, SERVICE, 80) }
}

#[test]
fn a_pod_s_packet_to_a_service_is_followed_to_each_endpoint_by_what_decides() {
    let near = traced(&[service()], &question(Entry::Pod, POD, SERVICE, 80));
    let endpoints: Vec<IpAddr> = near.endpoints.iter().map(SocketAddr::ip).collect();
    assert_eq!(endpoints, ENDPOINTS.map(ip));
    assert_eq!(near.end, End::Pod { device: "veth1".to_owned(), socket: Socket::Listens });
    let far = traced(&[service()], &chosen(ENDPOINTS[1]));
    assert_eq!(far.left.to_string(), "172.30.0.11 -> 10.244.2.3:8080");
    insta::assert_snapshot!(serde_json::to_string_pretty(&far).unwrap());
    let gone = traced(&[service()], &chosen("10.244.9.9"));
    assert!(matches!(gone.end, End::Unknown { .. }), "{:?}", gone.end);
}

#[test]
fn a_ping_is_told_from_what_neighbours_find_each_other_by() {
    let kind = Payload { header: Header::Transport, offset: 0, length: 1 };
    let is_of = |kinds: std::ops::RangeInclusive<u8>, end: Verdict| {
        let compare = |operator, number: &u8| {
            let bytes = Operand::Bytes { mask: None, bytes: [*number].into() };
            Statement::compare(Expression::Payload(kind), operator, bytes)
        };
        let icmpv6 = Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(58));
        let [first, last] = [(Operator::AtLeast, kinds.start()), (Operator::AtMost, kinds.end())];
        Rule::new([icmpv6, compare(first.0, first.1), compare(last.0, last.1), Statement::Verdict(end)])
    };
    let end = |rules: [Rule; 2], answers| {
        let mut table = Table::new(Family::Ip6, "filter");
        table.chain("raw", Some(Base::filter(Hook::Prerouting, -300)), rules.into());
        let packet =
            Tuple { source: ip("fd00::1"), source_port: None, destination: ip("fd00::2"), port: None };
        let question = Question { answers, ..Question::new(Entry::Pod, packet, 58) };
        traced(&[table], &question).end
    };
    let is_dropped = |end: End| matches!(end, End::Stops { cause: Cause::Dropped(_) });
    let rules = |kind| [is_of(133..=137, Verdict::Accept), is_of(kind..=kind, Verdict::Drop)];
    assert!(is_dropped(end(rules(128), None)), "a ping");
    assert!(is_dropped(end(rules(129), Some(true))), "its answer");
    assert!(!is_dropped(end(rules(129), None)), "{:?}", end(rules(129), None));
}

#[test]
fn what_another_program_drops_is_told_with_its_rule_or_its_policy() {
    let drop = Statement::Verdict(Verdict::Drop);
    let dropped = traced(&[service(), firewall(&[drop])], &question(Entry::Pod, POD, SERVICE, 80));
    let End::Stops { cause: Cause::Dropped(chain) } = &dropped.end else { panic!("{:?}", dropped.end) };
    assert_eq!(chain.to_string(), "hook forward, table ip filter, chain FORWARD: th dport 8080 drop");
    let mut closed = Table::new(Family::Ip, "filter");
    closed.chain("FORWARD", Some(Base::filter(Hook::Forward, 0).dropping()), Vec::new());
    let dropped = traced(&[closed], &question(Entry::Pod, POD, ENDPOINTS[0], 8080));
    let End::Stops { cause: Cause::Dropped(chain) } = &dropped.end else { panic!("{:?}", dropped.end) };
    assert_eq!(chain.to_string(), "hook forward, table ip filter, policy of chain FORWARD");
}

#[test]
fn rules_of_which_it_is_not_known_what_they_do_are_told() {
    let limit = Statement::Limit(weft_nftables::Limit::packets(1, 1));
    let tables = [service(), firewall(&[limit, Statement::Verdict(Verdict::Drop)])];
    let trace = traced(&tables, &question(Entry::Pod, POD, SERVICE, 80));
    assert!(matches!(trace.end, End::Pod { .. }));
    assert!(matches!(&trace.doubts[..], [doubt] if doubt.stops && doubt.chain.table == "ip filter"));
}

#[test]
fn the_node_s_own_packets_are_routed_again_where_a_rule_leads_them_elsewhere() {
    let own = traced(&[service()], &question(Entry::Here, NODE, SERVICE, 80));
    // Without a route to it, nothing is asked of rules.
    assert_eq!(own.end, Cause::NoRoute { place: "on the node".to_owned(), to: ip(SERVICE) }.into());
    let local = traced(&[], &question(Entry::Here, NODE, NODE, 22));
    assert_eq!(local.end, End::Host { socket: Socket::Nothing });
}

#[test]
fn an_answer_goes_back_as_connection_tracking_has_it_and_meets_no_nat() {
    let there = traced(&[service()], &chosen(ENDPOINTS[1]));
    let rewritten = Rewritten { before: there.came, after: there.left };
    let answer = there.left.reversed();
    let restored = rewritten.undone(&answer).unwrap();
    assert_eq!(restored.to_string(), "10.96.0.7 -> 10.244.1.2:49152");
    assert_eq!(rewritten.undone(&restored), None);
    let socket = |address, port: Option<u16>| Some(SocketAddr::new(address, port.unwrap()));
    let back = Question {
        answers: Some(true),
        source_becomes: socket(restored.source, restored.source_port),
        destination_becomes: socket(restored.destination, restored.port),
        ..Question::new(Entry::Link, answer, 6)
    };
    let drop_new = {
        let mut table = Table::new(Family::Ip, "filter");
        let new = Statement::compare(
            weft_nftables::Ct::STATE.into(),
            Operator::Equal,
            weft_nftables::Operand::Bits(Value::CtState(8 | 1)),
        );
        let rule = Rule::new([new, Statement::Verdict(Verdict::Drop)]);
        table.chain("FORWARD", Some(Base::filter(Hook::Forward, 0)), vec![rule]);
        table
    };
    let trace = traced(&[service(), drop_new.clone()], &back);
    assert_eq!(trace.left, restored);
    assert_eq!(trace.end, End::Pod { device: "veth1".to_owned(), socket: Socket::Listens });
    let restores = trace.steps.iter().any(|step| matches!(step, Step::Restored { .. }));
    assert!(restores, "{:?}", trace.steps);
    // Of a node that has not seen the connection's first packet, it is none of any connection.
    let strange = traced(&[drop_new], &Question { answers: Some(false), ..back });
    assert!(matches!(strange.end, End::Stops { cause: Cause::Dropped(_) }), "{:?}", strange.end);
}

#[test]
fn a_question_survives_its_way_through_an_url() {
    let whole = Question {
        via: Some(ip("172.30.0.12")),
        tunnel: Some("weft-vxlan".to_owned()),
        answers: Some(true),
        source_becomes: Some("[fd00::1]:80".parse().unwrap()),
        ..chosen(ENDPOINTS[0])
    };
    let query = whole.query();
    assert_eq!(
        query,
        "entry=pod&source=10.244.1.2&destination=10.96.0.7&protocol=6&source_port=49152&port=80&via=172.30.0.12\
         &tunnel=weft-vxlan&endpoint=10.244.1.3:8080&answers=true&source_becomes=%5Bfd00::1%5D:80"
    );
}
