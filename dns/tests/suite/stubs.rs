//! Where names are asked, as the node's resolv.conf and stub domains say: what is named is used, and nothing
//! is forgotten or refused because a file changed for a moment.

use std::path::Path;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use tokio::runtime::Builder;
use weft_dns::forward::{ForwardOptions, Forwarder, Route, Settings, resolv_conf};
use weft_dns::metrics::Metrics;
use weft_dns::wire::name::wire_name;

use crate::fixture::*;
use crate::peers::*;
use crate::scripted_upstream::ScriptedUpstream;

fn stub(domain: &str, upstream: &Upstream) -> (Box<[u8]>, Route) {
    (wire_name(domain).unwrap(), vec![upstream.address].into())
}

#[test]
fn with_stub_domains_only_other_names_are_refused() {
    let corporate = Upstream::start();
    let settings =
        Settings { stub_domains: [stub("corp.example", &corporate)].into(), ..Settings::default() };
    let server = Server::start_with("127.0.0.1:0", zone(), settings, ForwardOptions::default(), MOST_WAITING);
    assert_eq!(answer_section(&server.dig("www.corp.example A")), ["www.corp.example. A 192.0.2.80"]);
    let text = server.dig("www.example.org A");
    assert!(text.contains("status: REFUSED"), "{text}");
    let text = server.dig("ext.shop.svc.cluster.local A");
    assert_eq!(answer_section(&text), ["ext.shop.svc.cluster.local. CNAME www.example.com."], "{text}");
}

#[test]
fn a_stub_domain_below_the_cluster_s_is_asked_of_its_servers() {
    let (everyone, consul) = (Upstream::start(), Upstream::start());
    let settings = Settings {
        upstreams: vec![everyone.address],
        stub_domains: [stub("consul.cluster.local", &consul), stub("far.svc.cluster.local", &consul)].into(),
        ..Settings::default()
    };
    let server = Server::start_with("127.0.0.1:0", zone(), settings, ForwardOptions::default(), MOST_WAITING);
    for name in ["www.consul.cluster.local", "www.far.svc.cluster.local", "www.deep.consul.cluster.local"] {
        // The second time by the fast lane.
        for _ in 0..2 {
            assert_eq!(
                answer_section(&server.dig(&format!("+noedns {name} A"))),
                [format!("{name}. A 192.0.2.80")]
            );
        }
    }
    for name in ["www.near.svc.cluster.local", "consult.cluster.local", "www.cluster.local"] {
        assert!(server.dig(&format!("{name} A")).contains("status: NXDOMAIN"), "{name}");
    }
    assert!(server.dig("backend.shop.svc.cluster.local A").contains("10.96.0.20"));
    assert_eq!(everyone.asked(), 0);
}

#[test]
fn a_name_server_is_used_with_the_zone_of_its_address() {
    in_new_namespace(&["fe80::53/64"], || {
        // The loopback interface is number 1.
        let upstream = ScriptedUpstream::start_at("[fe80::53%1]:53".parse().unwrap(), |asked| {
            Some(asked.address(7, 60))
        });
        let upstreams = resolv_conf("nameserver fe80::53%lo\n");
        assert_eq!(upstreams, [upstream.address]);
        let server = Server::start(zone(), &upstreams);
        assert_eq!(answer_section(&server.dig("www.example.com A")), ["www.example.com. A 192.0.2.7"]);
    });
}

#[test]
fn another_search_list_forgets_nothing() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    let settings = |upstreams: &[&Upstream], search: &str| Settings {
        upstreams: upstreams.iter().map(|upstream| upstream.address).collect(),
        search: vec![search.parse().unwrap()],
        ..Settings::default()
    };
    let metrics = Arc::new(Metrics::new(53, "cluster.local."));
    let forwarder = Arc::new(Forwarder::new(ForwardOptions::default(), metrics.clone()));
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let www = query("www.example.com.", hickory_proto::rr::RecordType::A);
    let is_known = || forwarder.answer_now(&www.queries[0], &www.metadata, false).is_some();
    runtime.block_on(async {
        forwarder.configure(settings(&[&upstream, &other], "a.example."));
        forwarder.ask(&www.queries[0], &www.metadata, false).await.unwrap();
        assert!(is_known());
        assert!(forwarder.configure(settings(&[&upstream, &other], "b.example.")));
        assert!(is_known(), "the upstreams are the same");
        assert!(forwarder.configure(settings(&[&other, &upstream], "b.example.")));
        assert!(is_known(), "in another order");
        assert!(forwarder.configure(settings(&[&upstream], "b.example.")));
        assert!(!is_known(), "others may say otherwise");
    });
}

/// RFC 8914: which name is blocked, or why it does not validate, is for people to read.
#[test]
fn why_an_upstream_has_no_answer_is_passed_on() {
    for code in [ResponseCode::NXDomain, ResponseCode::ServFail] {
        let upstream = ScriptedUpstream::start(move |asked| {
            let mut reply = asked.reply(code);
            let why =
                hickory_proto::rr::rdata::opt::EdnsOption::Unknown(15, b"\0\x0fby the house rules".to_vec());
            reply.edns.get_or_insert_default().options_mut().insert(why);
            let soa =
                hickory_proto::rr::rdata::SOA::new(Default::default(), Default::default(), 1, 2, 3, 4, 60);
            let soa = hickory_proto::rr::RData::SOA(soa);
            reply.authorities = vec![hickory_proto::rr::Record::from_rdata(Default::default(), 60, soa)];
            Some(reply)
        });
        let server = Server::start(zone(), &[upstream.address]);
        // Then as it is cached.
        for _ in 0..2 {
            let text = server.dig("www.example.com A");
            assert!(text.contains("; EDE: 15 (Blocked): (by the house rules)"), "{code}: {text}");
            assert!(!server.dig("+noedns www.example.com A").contains("EDE"));
        }
    }
}

#[test]
fn an_interface_may_be_missing_for_a_while() {
    assert!(Path::new("/proc/net/if_inet6").exists(), "IPv6 is off");
    assert_eq!(
        resolv_conf("nameserver fe80::53%nothing9\nnameserver 192.0.2.1\n"),
        ["192.0.2.1:53".parse().unwrap()]
    );
}
