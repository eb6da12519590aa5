//! The search list, walked by the server on behalf of a pod: whatever a resolver finds with it, it finds
//! without, with fewer queries.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType::{A, AAAA};
use hickory_proto::rr::{Name, RData, RecordType};
use weft_dns::forward::{ForwardOptions, Policy, Settings};
use weft_dns::pipeline::search_list::own_labels;
use weft_dns::wire::name::QueryName;
use weft_dns::zone::{PodNames, Zone, ZoneConfig};
use weft_types::{ChangeSet, Object, Pod};

use weft_testkit::api_server::FakeApiServer;

use crate::api::{self, PODS};
use crate::daemon::{Daemon, await_status};
use crate::fixture::*;
use crate::peers::{MOST_WAITING, Server, Upstream, answer_section, dig};

/// The cluster, with a pod in `shop` at 127.0.0.1, where the tests ask from, and others elsewhere.
fn zone_that_walks(complete_search: bool) -> Zone {
    let mut snapshot = cluster();
    let on_host = |name| Pod { searches: false, ..pod(name, &[ip("127.0.0.3")]) };
    for pod in [
        pod("shop/client", &[ip("127.0.0.1")]),
        on_host("kube-system/agent"),
        pod("default/one", &[ip("127.0.0.4")]),
        pod("shop/another", &[ip("127.0.0.4")]),
    ] {
        snapshot.apply(Object::Pod(pod), &mut ChangeSet::default());
    }
    let config = ZoneConfig { complete_search, ..settings(PodNames::Insecure) };
    Zone::compile(&snapshot, Arc::new(config), 1_700_000_000)
}

fn server_that_walks(complete_search: bool, upstream: &Upstream) -> Server {
    let search = vec![Name::from_ascii("corp.example.").unwrap()];
    let settings = Settings { upstreams: vec![upstream.address], search, ..Settings::default() };
    let manner = ForwardOptions { policy: Policy::Sequential, ..ForwardOptions::default() };
    Server::start_with("127.0.0.1:0", zone_that_walks(complete_search), settings, manner, MOST_WAITING)
}

/// A resolver as glibc has it, in a pod of `shop` at an address: it asks for A and AAAA of one name after the
/// other, until there is an address.
struct Resolver {
    socket: UdpSocket,
    questions: usize,
}

impl Resolver {
    fn new(address: &str, server: &Server) -> Resolver {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.connect(server.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Resolver { socket, questions: 0 }
    }

    fn ask(&mut self, name: &str, record_type: RecordType) -> Message {
        self.questions += 1;
        self.socket.send(&query(name, record_type).to_vec().unwrap()).unwrap();
        let mut reply = [0; 1232];
        let length = self.socket.recv(&mut reply).unwrap();
        Message::from_vec(&reply[..length]).unwrap()
    }

    /// The addresses of a short name, and how many queries that took.
    fn resolve(&mut self, name: &str) -> (BTreeSet<String>, usize) {
        self.questions = 0;
        let search = ["shop.svc.cluster.local.", "svc.cluster.local.", "cluster.local.", "corp.example.", ""];
        for domain in search {
            let name = format!("{name}.{domain}");
            let replies = [A, AAAA].map(|family| self.ask(&name, family));
            let answers = replies.iter().flat_map(|reply| &reply.answers);
            let addresses: BTreeSet<String> = answers
                .filter(|record| matches!(record.data, RData::A(_) | RData::AAAA(_)))
                .map(|record| record.data.to_string())
                .collect();
            if !addresses.is_empty() {
                return (addresses, self.questions);
            }
        }
        (BTreeSet::new(), self.questions)
    }
}

#[test]
fn the_walk_ends_where_it_would_and_takes_two_questions() {
    let upstream = Upstream::start();
    let [without, with] = [false, true].map(|complete| server_that_walks(complete, &upstream));
    let [mut alone, mut helped] = [&without, &with].map(|server| Resolver::new("127.0.0.1", server));
    for (name, questions) in [
        ("backend", 2),
        ("six", 2),
        ("backend.shop", 4),
        ("kubernetes.default", 4),
        ("kubernetes.default.svc", 6),
        ("db-0.db.shop", 4),
        ("10-1-2-3.shop.pod", 6),
        ("www", 8),
        ("www.example.com", 8),
        ("brief.other.example", 8),
        ("kubernetes.default.svc.cluster.local", 10),
        ("ext", 2),
        ("ext.shop", 4),
    ] {
        let (found, took) = alone.resolve(name);
        assert_eq!(took, questions, "{name}: {found:?}");
        assert!(!found.is_empty(), "{name}");
        assert_eq!(helped.resolve(name), (found, 2), "{name}");
    }
    for name in ["nothing", "nothing.shop", "nothing.example.com", "shop", "_tcp.backend"] {
        assert_eq!(helped.resolve(name).0, BTreeSet::new(), "{name}");
    }
    let completed = "coredns_autopath_success_total{server=\"dns://:53\",view=\"\"} 20";
    assert!(with.metrics.text().contains(completed), "{}", with.metrics.text());
    assert!(!without.metrics.text().contains("autopath_success_total{server=\"dns://:53\",view=\"\"} 1"));
}

#[test]
fn a_and_aaaa_are_led_to_the_same_name() {
    let upstream = Upstream::start();
    let server = server_that_walks(true, &upstream);
    for (name, target) in [
        ("kubernetes.default", "kubernetes.default.svc.cluster.local."),
        ("six.shop", "six.shop.svc.cluster.local."),
        ("www.other.example", "www.other.example.corp.example."),
    ] {
        let question = format!("{name}.shop.svc.cluster.local");
        for family in ["A", "AAAA"] {
            let text = server.dig(&format!("{question} {family}"));
            assert!(text.contains("status: NOERROR"), "{text}");
            assert!(answer_section(&text).contains(&format!("{question}. CNAME {target}")), "{text}");
        }
    }
    let text = server.dig("nothing.example.com.shop.svc.cluster.local A");
    assert!(text.contains("status: NXDOMAIN") && text.contains("no such service in the namespace"), "{text}");
    // Another type is not searched for, and neither is what lies below another namespace.
    assert!(server.dig("backend.shop.shop.svc.cluster.local SRV").contains("status: NXDOMAIN"));
    assert!(server.dig("backend.shop.default.svc.cluster.local A").contains("status: NXDOMAIN"));
    assert!(server.dig("+tcp backend.shop.shop.svc.cluster.local A").contains("10.96.0.20"));
}

#[test]
fn only_a_pod_that_is_known_for_certain_is_helped() {
    let zone = zone_that_walks(true);
    let name = |text: &str| QueryName::from_name(&Name::from_ascii(text).unwrap()).unwrap();
    let own = |client, text| own_labels(&zone, ip(client), &name(text), A);
    assert_eq!(own("127.0.0.1", "a.b.shop.svc.cluster.local."), Some(2));
    assert_eq!(own("127.0.0.1", "shop.svc.cluster.local."), None, "nothing is looked for");
    assert_eq!(own("127.0.0.1", "a.default.svc.cluster.local."), None, "another namespace");
    for (client, why) in
        [("127.0.0.2", "no pod"), ("127.0.0.3", "on the host"), ("127.0.0.4", "of two namespaces")]
    {
        assert_eq!(own(client, "a.b.shop.svc.cluster.local."), None, "{why}");
        assert_eq!(own(client, "a.b.default.svc.cluster.local."), None, "{why}");
    }
    let upstream = Upstream::start();
    let server = server_that_walks(true, &upstream);
    assert_eq!(Resolver::new("127.0.0.2", &server).resolve("www.example.com").1, 8);
}

#[test]
fn what_upstreams_do_not_tell_is_not_guessed() {
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    let settings = Settings { upstreams: vec![dead.local_addr().unwrap()], ..Settings::default() };
    let zone = zone_that_walks(true);
    let server = Server::start_with("127.0.0.1:0", zone, settings, ForwardOptions::default(), MOST_WAITING);
    let mut resolver = Resolver::new("127.0.0.1", &server);
    let first = resolver.ask("www.example.com.shop.svc.cluster.local.", A);
    assert_eq!(first.metadata.response_code, ResponseCode::NXDomain, "the resolver goes on by itself");
    let last = resolver.ask("www.example.com.", A);
    assert_eq!(last.metadata.response_code, ResponseCode::ServFail, "and learns that it should try again");
}

#[test]
fn the_program_knows_the_pods_of_its_node() {
    let api = api::start();
    let flags = ["--complete-search", "--hostname-override", "node1"];
    let daemon = Daemon::start_with(&api.address().to_string(), &flags);
    let question = "backend.shop.shop.svc.cluster.local A";
    await_status(&daemon, question, "NXDOMAIN");
    api::put_pod(&api, "client", "127.0.0.1");
    let text = await_status(&daemon, question, "NOERROR");
    assert!(text.contains("10.96.0.20"), "{text}");
    let of_this_node = |api: &FakeApiServer| -> Vec<bool> {
        let is_named = |selector: &String| selector.contains("spec.nodeName=node1");
        api.queries(PODS, false)
            .iter()
            .map(|query| query.get("fieldSelector").is_some_and(is_named))
            .collect()
    };
    assert_eq!(of_this_node(&api), [true]);
    drop(daemon);

    let api = api::start();
    let flags = [&flags[..], &["--pods", "verified"]].concat();
    let daemon = Daemon::start_with(&api.address().to_string(), &flags);
    await_status(&daemon, question, "NXDOMAIN");
    assert_eq!(of_this_node(&api), [false], "verified names are of all nodes");
    assert!(dig("127.0.0.1", daemon.dns.port(), question).contains("status: NXDOMAIN"));
}
