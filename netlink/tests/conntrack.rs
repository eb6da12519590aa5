//! The conntrack client against the real kernel, in a namespace made for each test, with the `conntrack`
//! program as the judge. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use weft_netlink::conntrack::{
    ConntrackClient, CtStatus, Event, Filter, Flow, Group, Monitor, TcpState, Traffic, Tuple,
};
use weft_netlink::netns::Namespace;
use weft_netlink::notifications::Source;
use weft_netlink::{Error, Family};
use weft_testkit::namespace::run_in;

const TCP: u8 = 6;
const UDP: u8 = 17;
const RULES: &str = "
    table ip t {
        chain c {
            type nat hook output priority -100;
            ip daddr 10.96.0.10 meta l4proto { tcp, udp } dnat to 10.244.1.2
        }
    }
    table ip6 t {
        chain c {
            type nat hook output priority -100;
            ip6 daddr fd00:96::10 meta l4proto { tcp, udp } dnat to fd00:244::2
        }
    }";

/// A machine that reaches itself at an address of its own, and at one that is translated to it.
struct Machine(Namespace);

impl Machine {
    fn new() -> Machine {
        let machine = Machine(Namespace::temporary().unwrap());
        for arguments in [
            "link set lo up",
            "address add 10.244.1.2/32 dev lo",
            "address add fd00:244::2/128 dev lo nodad",
            "route add 10.96.0.0/16 dev lo",
            "route add fd00:96::/64 dev lo",
        ] {
            machine.run("ip", &arguments.split(' ').collect::<Vec<_>>());
        }
        machine.run("nft", &[RULES]);
        machine
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        run_in(&self.0, program, arguments)
    }

    fn client(&self) -> ConntrackClient {
        self.0.run(ConntrackClient::open).unwrap().unwrap()
    }

    /// What `conntrack` lists of a family, a line each.
    fn judge(&self, family: Family) -> Vec<String> {
        let family = if family == Family::Ip { "ipv4" } else { "ipv6" };
        self.run("conntrack", &["-L", "-f", family]).lines().map(str::to_owned).collect()
    }

    /// A socket that has sent a datagram there.
    fn sent(&self, from: IpAddr, to: SocketAddr) -> UdpSocket {
        let socket = self.0.run(|| UdpSocket::bind((from, 0))).unwrap().unwrap();
        socket.send_to(b"?", to).unwrap();
        socket
    }
}

fn own(family: Family) -> IpAddr {
    match family {
        Family::Ip => "10.244.1.2".parse().unwrap(),
        Family::Ip6 => "fd00:244::2".parse().unwrap(),
    }
}

fn virtual_ip(family: Family) -> IpAddr {
    match family {
        Family::Ip => "10.96.0.10".parse().unwrap(),
        Family::Ip6 => "fd00:96::10".parse().unwrap(),
    }
}

/// The flow as a line of the judge has it.
fn line(flow: &Flow) -> String {
    let direction = |Tuple { source, destination }: Tuple| {
        let (from, to) = (source.ip(), destination.ip());
        format!("src={from} dst={to} sport={} dport={}", source.port(), destination.port())
    };
    direction(flow.original)
}

/// The flow's line among those of the judge, which must be there.
fn find<'a>(flow: &Flow, lines: &'a [String]) -> &'a str {
    let found = lines.iter().find(|text| text.contains(&line(flow)));
    found.unwrap_or_else(|| panic!("{flow} is not in {lines:#?}"))
}

#[test]
fn flows_of_both_families_are_counted_and_those_of_other_namespaces_are_not() {
    let (machine, other) = (Machine::new(), Machine::new());
    let count = |machine: &Machine| machine.0.run(ConntrackClient::open).unwrap().unwrap().count().unwrap();
    assert_eq!(count(&machine), 0);
    let sockets = Family::BOTH.map(|family| machine.sent(own(family), (virtual_ip(family), 53).into()));
    assert_eq!([count(&machine), count(&other)], [sockets.len(), 0]);
}

#[test]
fn flows_are_read_as_conntrack_lists_them() {
    let machine = Machine::new();
    for family in Family::BOTH {
        let (own, vip) = (own(family), virtual_ip(family));
        let server = machine.0.run(|| UdpSocket::bind((own, 53))).unwrap().unwrap();
        let listener = machine.0.run(|| TcpListener::bind((own, 53))).unwrap().unwrap();
        let asking = machine.sent(own, (vip, 53).into());
        let (_, asker) = server.recv_from(&mut [0; 8]).unwrap();
        server.send_to(b"!", asker).unwrap();
        asking.recv_from(&mut [0; 8]).unwrap();
        let mut stream = machine.0.run(|| TcpStream::connect((vip, 53))).unwrap().unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        stream.write_all(b"?").unwrap();
        accepted.read_exact(&mut [0; 1]).unwrap();

        let flows = machine.client().flows(family, &Filter::default()).unwrap();
        let lines = machine.judge(family);
        assert_eq!(flows.len(), 2, "{flows:?}");
        assert_eq!(lines.len(), 2, "{lines:#?}");
        for flow in &flows {
            let text = find(flow, &lines);
            assert_eq!((flow.original.destination, flow.reply.source), ((vip, 53).into(), (own, 53).into()));
            assert!(flow.status.contains(CtStatus::SEEN_REPLY | CtStatus::DST_NAT), "{flow:?}");
            assert!(!flow.status.contains(CtStatus::SRC_NAT), "{flow:?}");
            assert_eq!(text.starts_with("tcp"), flow.protocol == TCP);
            assert_eq!(flow.tcp_state, (flow.protocol == TCP).then_some(TcpState::Established));
            assert_eq!(text.contains("ESTABLISHED"), flow.tcp_state.is_some());
        }
    }
}

#[test]
fn a_filter_leaves_out_other_protocols_and_what_is_not_translated() {
    let machine = Machine::new();
    for family in Family::BOTH {
        let (own, vip) = (own(family), virtual_ip(family));
        let _listener = machine.0.run(|| TcpListener::bind((own, 53))).unwrap().unwrap();
        let _stream = machine.0.run(|| TcpStream::connect((vip, 53))).unwrap().unwrap();
        let _direct = machine.sent(own, (own, 5300).into());
        let _translated = machine.sent(own, (vip, 5301).into());
        let mut client = machine.client();
        let mut seen = |protocol, status| {
            ports(&client.flows(family, &Filter { protocol, status, ..Filter::default() }).unwrap())
        };
        assert_eq!(seen(None, CtStatus::default()), [(TCP, 53), (UDP, 5300), (UDP, 5301)]);
        assert_eq!(seen(Some(UDP), CtStatus::default()), [(UDP, 5300), (UDP, 5301)]);
        assert_eq!(seen(Some(UDP), CtStatus::DST_NAT), [(UDP, 5301)]);
        assert_eq!(seen(None, CtStatus::DST_NAT), [(TCP, 53), (UDP, 5301)]);
        let mut seen = |filter| ports(&client.flows(family, &filter).unwrap());
        let unanswered = Filter { without: CtStatus::SEEN_REPLY, ..Filter::default() };
        assert_eq!(seen(unanswered), [(UDP, 5300), (UDP, 5301)]);
        assert_eq!(seen(Filter { status: CtStatus::DST_NAT, ..unanswered }), [(UDP, 5301)]);
        let to = |destination, port| Filter { protocol: Some(UDP), destination, port, ..Filter::default() };
        assert_eq!(seen(to(Some(vip), None)), [(UDP, 5301)]);
        assert_eq!(seen(to(None, Some(5300))), [(UDP, 5300)]);
        assert_eq!(seen(to(Some(vip), Some(5300))), []);
    }
}

/// Without a protocol too, and whatever the kernel itself compares.
#[test]
fn a_filter_finds_the_flows_of_who_asks_and_of_who_answers_behind_translation() {
    let machine = Machine::new();
    for family in Family::BOTH {
        let (own, vip) = (own(family), virtual_ip(family));
        let _listener = machine.0.run(|| TcpListener::bind((own, 53))).unwrap().unwrap();
        let _stream = machine.0.run(|| TcpStream::connect((vip, 53))).unwrap().unwrap();
        let loopback: IpAddr =
            if family == Family::Ip { [127, 0, 0, 1].into() } else { Ipv6Addr::LOCALHOST.into() };
        let _local = machine.sent(loopback, (loopback, 5300).into());
        let mut client = machine.client();
        let mut seen = |source, answerer| {
            ports(&client.flows(family, &Filter { source, answerer, ..Filter::default() }).unwrap())
        };
        assert_eq!(seen(Some(own), None), [(TCP, 53)]);
        assert_eq!(seen(None, Some(own)), [(TCP, 53)]);
        assert_eq!(seen(None, Some(vip)), []);
        assert_eq!(seen(Some(loopback), None), [(UDP, 5300)]);
        assert_eq!(seen(None, Some(loopback)), [(UDP, 5300)]);
        assert_eq!(seen(Some(own), Some(loopback)), []);
    }
}

fn ports(flows: &[Flow]) -> Vec<(u8, u16)> {
    let mut ports: Vec<_> =
        flows.iter().map(|flow| (flow.protocol, flow.original.destination.port())).collect();
    ports.sort();
    ports
}

#[test]
fn a_deleted_flow_is_gone_and_no_other_is() {
    let machine = Machine::new();
    for family in Family::BOTH {
        let (own, vip) = (own(family), virtual_ip(family));
        let _sockets = [5300, 5301].map(|port| machine.sent(own, (vip, port).into()));
        let mut client = machine.client();
        let flows = client.flows(family, &Filter::default()).unwrap();
        let (gone, stays): (Vec<_>, Vec<_>) =
            flows.into_iter().partition(|flow| flow.original.destination.port() == 5300);
        assert_eq!(client.delete(&gone).unwrap(), 1);
        let lines = machine.judge(family);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        find(&stays[0], &lines);

        assert_eq!(client.delete(&gone).unwrap(), 0, "a second time");
    }
}

#[test]
fn thousands_of_flows_are_deleted_in_one_call() {
    let machine = Machine::new();
    let (own, vip) = (own(Family::Ip), virtual_ip(Family::Ip));
    let socket = machine.sent(own, (vip, 20000).into());
    for port in 20001..23000 {
        socket.send_to(b"?", (vip, port)).unwrap();
    }
    let mut client = machine.client();
    let flows = client.flows(Family::Ip, &Filter::default()).unwrap();
    assert_eq!(flows.len(), 3000);
    assert_eq!(client.delete(&flows).unwrap(), 3000);
    assert_eq!(machine.judge(Family::Ip).len(), 0);
    assert_eq!(client.delete(&flows).unwrap(), 0, "all are refused");
    assert_eq!(client.flows(Family::Ip, &Filter::default()).unwrap(), []);
}

#[test]
fn stale_flows_are_forgotten_while_the_table_is_read_and_the_others_stay() {
    let machine = Machine::new();
    let (own, vip) = (own(Family::Ip), virtual_ip(Family::Ip));
    let socket = machine.sent(own, (vip, 20000).into());
    for port in 20001..23000 {
        socket.send_to(b"?", (vip, port)).unwrap();
    }
    let mut client = machine.client();
    let is_even = |flow: &Flow| flow.original.destination.port().is_multiple_of(2);
    let mut forget = || client.delete_where(Family::Ip, &Filter::default(), is_even).unwrap();
    assert_eq!(forget(), 1500);
    assert_eq!(forget(), 0);
    let left = client.flows(Family::Ip, &Filter::default()).unwrap();
    assert_eq!((left.len(), left.iter().any(is_even)), (1500, false));
}

#[test]
fn a_flow_that_begins_and_ends_is_told() {
    let machine = Machine::new();
    let open = || Monitor::open(&[Group::New, Group::Destroy]);
    let mut monitor = machine.0.run(open).unwrap().unwrap();
    let asking = machine.sent(own(Family::Ip), (virtual_ip(Family::Ip), 53).into());
    let begun = monitor.read().unwrap();
    let [Event::New(flow)] = &begun[..] else { panic!("{begun:?}") };
    assert_eq!(flow.original.source, asking.local_addr().unwrap());
    assert!(flow.status.contains(CtStatus::DST_NAT), "{flow:?}");
    assert_eq!(machine.client().delete(std::slice::from_ref(flow)).unwrap(), 1);
    let ended = monitor.read().unwrap();
    let [Event::Destroyed { flow: gone, .. }] = &ended[..] else { panic!("{ended:?}") };
    assert_eq!((gone.id, gone.original), (flow.id, flow.original));
}

#[test]
fn what_went_each_way_is_told_at_the_end_where_the_kernel_counts() {
    let machine = Machine::new();
    let mut monitor = machine.0.run(|| Monitor::open(&[Group::Destroy])).unwrap().unwrap();
    for counts in [false, true] {
        machine.run("sysctl", &["-qw", &format!("net.netfilter.nf_conntrack_acct={}", u8::from(counts))]);
        let asking = machine.sent(own(Family::Ip), (own(Family::Ip), 53).into());
        asking.send(b"?").unwrap_err();
        machine.client().delete_where(Family::Ip, &Filter::default(), |_| true).unwrap();
        let ended = monitor.read().unwrap();
        let [Event::Destroyed { traffic, .. }] = &ended[..] else { panic!("{ended:?}") };
        // A datagram of one byte; whose answer, from ICMP, is of another flow.
        let expected = [Traffic { packets: 1, bytes: 29 }, Traffic::default()];
        assert_eq!(*traffic, counts.then_some(expected));
    }
}

#[test]
fn flows_without_ports_are_told_of_and_what_is_lost_is_said() {
    let machine = Machine::new();
    let mut monitor = machine.0.run(|| Monitor::open(&[Group::New])).unwrap().unwrap();
    machine.run("ping", &["-c", "1", "10.244.1.2"]);
    let mut begun = Vec::new();
    monitor.for_each(|event| begun.push(event)).unwrap();
    let [Event::New(flow)] = &begun[..] else { panic!("{begun:?}") };
    assert_eq!((flow.protocol, flow.original.source.port()), (1, 0));
    // More than any buffer of that size holds.
    monitor.set_receive_buffer(4096).unwrap();
    let socket = machine.sent(own(Family::Ip), (virtual_ip(Family::Ip), 20000).into());
    for port in 20001..20500 {
        socket.send_to(b"?", (virtual_ip(Family::Ip), port)).unwrap();
    }
    let (mut told, mut overruns) = (0, 0);
    while let Err(error) = monitor.for_each(|_| told += 1) {
        assert!(matches!(error, Error::Overrun), "{error}");
        overruns += 1;
    }
    assert!(overruns == 1 && told > 0 && told < 500, "{overruns} overruns, {told} events");
}
