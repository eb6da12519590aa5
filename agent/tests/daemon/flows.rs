//! `/flows`: who talks with whom, with real connections, as long as somebody asks.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;

use weft_netlink::netns::Namespace;
use weft_testkit::wait::eventually_ok;
use weft_testkit::world::Connection;
use weft_types::flow::{FlowEvent, FlowPage, Happening, Traffic};

use crate::Machine;
use crate::policies::{Cluster, addresses, tcp};

fn ask(machine: &Machine, query: &str) -> FlowPage {
    let (status, body) = machine.ask(&format!("/flows?{query}"));
    assert_eq!(status, "200", "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Everything that is told until that is among it.
fn until(machine: &Machine, query: &str, what: &str, is_it: impl Fn(&FlowEvent) -> bool) -> FlowEvent {
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    let mut found = None;
    eventually_ok(what, || {
        let page = ask(machine, &format!("{query}&wait=1&from={cursor}"));
        assert_eq!((page.lost, page.overruns, page.problems), (0, 0, Vec::new()));
        cursor = page.cursor;
        seen.extend(page.flows);
        found = seen.iter().find(|event| is_it(event)).cloned();
        if found.is_some() { Ok(()) } else { Err(format!("{seen:?}\n{}", machine.log())) }
    });
    found.unwrap()
}

fn is_between(event: &FlowEvent, from: IpAddr, to: IpAddr, port: u16) -> bool {
    event.source.address == from && event.destination.address == to && event.destination.port == Some(port)
}

/// What there is of it in the kernel and in the process: rules, groups of conntrack, and a thread.
fn is_there(machine: &Machine) -> [bool; 4] {
    let rules = machine.sh("nft list ruleset");
    let pid = machine.daemon.as_ref().unwrap().id();
    let sockets = machine.sh("cat /proc/net/netlink");
    // Beginnings and ends are the groups 1 and 3 of netfilter, which is protocol 12.
    let hears = sockets.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&"12") && fields.get(3).is_some_and(|groups| groups.ends_with('5'))
    });
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let mut names = threads.filter_map(|it| fs::read_to_string(it.path().join("comm")).ok());
    let thread = names.any(|name| name.trim() == "flows");
    [
        rules.contains("table ip weft-flows"),
        rules.contains("log prefix \"weft-policy ingress\""),
        hears,
        thread,
    ]
}

/// Answers whatever comes with the code NXDOMAIN.
fn serve_dns(place: &Namespace, at: IpAddr) {
    let socket = place.run(|| UdpSocket::bind(SocketAddr::new(at, 53))).unwrap().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            bytes[2..4].copy_from_slice(&[0x81, 0x83]);
            socket.send_to(&bytes[..length], from).unwrap();
        }
    });
}

#[test]
fn who_talks_with_whom_is_told_while_somebody_asks_and_nothing_is_there_before_and_after() {
    let cluster = Cluster::with_policy_and_flags(&["--flows-keep=2"]);
    let Cluster { machine, pods: [web, client], outside } = &cluster;
    assert_eq!(is_there(machine), [false; 4]);
    let (first, began) = (ask(machine, ""), weft_time());
    assert!(first.flows.is_empty() && first.since.abs_diff(began) < 60_000, "{first:?}");
    machine.until("the rules", |machine| {
        ask(machine, "");
        is_there(machine) == [true; 4]
    });

    for (to, from) in addresses(1).into_iter().zip(addresses(2)) {
        machine.sh("sysctl -qw net.netfilter.nf_conntrack_acct=1");
        // A connection that begins, carries something, and ends.
        let mut connection = Connection::open(client, SocketAddr::new(to, 80)).unwrap();
        let begun = until(machine, "", "the beginning", |event| {
            event.event == Happening::Begins && is_between(event, from, to, 80)
        });
        assert_eq!((begun.protocol, begun.endpoint), (6, None));
        connection.ask();
        drop(connection);
        let family = if to.is_ipv4() { "ipv4" } else { "ipv6" };
        machine.sh(&format!("conntrack -D -f {family} -d {to} -p tcp --dport 80"));
        let is_end = |event: &FlowEvent| {
            matches!(event.event, Happening::Ends { .. }) && is_between(event, from, to, 80)
        };
        let end = until(machine, "", "the end", is_end);
        let Happening::Ends { answered: true, sent: Some(sent), received: Some(received) } = end.event else {
            panic!("{end:?}")
        };
        let is_some = |traffic: Traffic| traffic.packets >= 4 && traffic.bytes > traffic.packets * 40;
        assert!(is_some(sent) && is_some(received), "{end:?}");
        assert_eq!(end.source, begun.source);

        // What a policy denies.
        assert!(!tcp(client, to, 81));
        let denied = until(machine, "verdict=denied", "the denial", |event| is_between(event, from, to, 81));
        let policies = vec!["NetworkPolicy shop/web".to_owned()];
        let reason = "denied: isolated by NetworkPolicy shop/web, and no rule allows it".to_owned();
        let expected = Happening::Denied { direction: "ingress".to_owned(), policies, reason };
        assert_eq!(denied.event, expected);
        let allowed = ask(machine, "verdict=allowed");
        assert!(allowed.counts_traffic && allowed.flows.iter().all(|event| event.event.is_allowed()));
    }

    // A question to a DNS server.
    let server: IpAddr = "172.30.0.1".parse().unwrap();
    serve_dns(outside, server);
    let asking = web.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let question = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x02db\x04shop\0\0\x1c\0\x01";
    asking.send_to(question, (server, 53)).unwrap();
    let asked = until(machine, "", "the question", |event| matches!(event.event, Happening::Asked { .. }));
    let [name, record_type, code] = ["db.shop.", "AAAA", "NXDOMAIN"].map(str::to_owned);
    assert_eq!(asked.event, Happening::Asked { name, record_type, code });
    assert!(is_between(&asked, addresses(1)[0], server, 53), "{asked:?}");
    let figures = machine.ask("/metrics").1;
    for event in ["begins", "ends", "denied", "asked"] {
        let figure = format!("weft_agent_flow_events_total{{event=\"{event}\"}} ");
        let line = figures.lines().find(|line| line.starts_with(&figure));
        assert!(line.is_some_and(|line| !line.ends_with(" 0")), "{event}: {line:?}");
    }

    machine.until("nothing again", |machine| is_there(machine) == [false; 4]);
    assert!(!tcp(client, addresses(1)[0], 81), "what is denied stays denied");
    let anew = ask(machine, &format!("from={}-0-0-0", first.since));
    assert!(anew.flows.is_empty() && anew.since > first.since, "{anew:?}");
}

fn weft_time() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

#[test]
fn what_was_is_there_at_once_where_flows_are_always_looked_at_and_refused_where_never() {
    let cluster = Cluster::with_policy_and_flags(&["--flows=always"]);
    let Cluster { machine, pods: [_, client], .. } = &cluster;
    machine.until("the rules", |machine| is_there(machine) == [true; 4]);
    let (to, from) = (addresses(1)[0], addresses(2)[0]);
    assert!(!tcp(client, to, 81) && tcp(client, to, 80));
    until(machine, "", "what was", |event| is_between(event, from, to, 80));
    until(machine, "", "what was denied", |event| is_between(event, from, to, 81));
    for (query, told) in [("verdict=DROPPED", "expected allowed or denied"), ("from=x", "an earlier answer")]
    {
        let (status, body) = machine.ask(&format!("/flows?{query}"));
        assert!(status == "400" && body.contains(told), "{status} {body}");
    }

    let mut never = Machine::with_flags(&["--flows=never"]);
    never.start();
    never.until("an answer", |machine| machine.log().contains("serving HTTP"));
    let (status, body) = never.ask("/flows");
    assert!(status == "403" && body.contains("--flows=never"), "{status} {body}");
}

#[test]
fn a_group_of_nflog_that_another_program_reads_is_said_and_the_rest_is_told() {
    let cluster = Cluster::started();
    let Cluster { machine, pods: [_, client], .. } = &cluster;
    let _reader = machine.namespace.run(|| weft_netlink::nflog::Monitor::open(8)).unwrap().unwrap();
    let page = ask(machine, "");
    machine.until("a word about it", |machine| {
        let problems = ask(machine, "").problems;
        problems.iter().any(|problem| {
            problem.contains("DNS questions are not seen: group 8 of nflog has another reader")
        })
    });
    let to = addresses(1)[0];
    assert!(tcp(client, to, 80));
    machine.until("the connection", |machine| {
        let from = format!("from={}", page.cursor);
        ask(machine, &from).flows.iter().any(|event| is_between(event, addresses(2)[0], to, 80))
    });
}
