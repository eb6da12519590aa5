//! Names outside of the cluster, through a little upstream: asked once, cached, passed on as they are.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{RData, Record, RecordType};
use weft_dns::forward::{ForwardOptions, Route, Settings, SpecialUsePolicy};
use weft_dns::wire::name::wire_name;
use weft_testkit::wait::eventually;

use crate::fixture::*;
use crate::peers::*;
use crate::scripted_upstream::ScriptedUpstream;

#[test]
fn other_names_are_asked_once_and_remembered() {
    let upstream = Upstream::start();
    let server = Server::start(zone(), &[upstream.address]);
    for name in ["www.example.com", "WWW.Example.com", "www.example.com"] {
        let text = server.dig(&format!("{name} A"));
        assert_eq!(answer_section(&text), [format!("{name}. A 192.0.2.80")]);
        assert!(text.contains("flags: qr rd ra;"), "not authoritative: {text}");
    }
    assert_eq!(upstream.asked(), 1);
    assert!(
        server
            .metrics
            .text()
            .contains(r#"coredns_cache_hits_total{server="dns://:53",view="",type="success",zones="."} 2"#)
    );
}

#[test]
fn denials_are_passed_on_and_remembered() {
    let upstream = Upstream::start();
    let server = Server::start(zone(), &[upstream.address]);
    // From now on the upstream is known to find names of the domain in random case, and is believed where it
    // does not.
    server.dig("www.example.com A");
    for _ in 0..2 {
        let text = server.dig("nothing.example.com A");
        assert!(text.contains("status: NXDOMAIN") && text.contains("AUTHORITY: 1"), "{text}");
    }
    assert_eq!(upstream.asked(), 2, "and no search list was tried");
}

#[test]
fn cluster_names_are_never_asked_elsewhere() {
    let upstream = Upstream::start();
    let server = Server::start(zone(), &[upstream.address]);
    for question in [
        "nothing.shop.svc.cluster.local A",
        "backend.shop.svc.cluster.local A",
        "-x 10.96.0.20",
        "x.cluster.local MX",
    ] {
        server.dig(question);
    }
    assert_eq!(upstream.asked(), 0);
    server.dig("-x 9.9.9.9");
    assert!(upstream.asked() > 0, "addresses that are not the cluster's");
}

#[test]
fn s2_5_an_external_target_is_resolved() {
    let upstream = Upstream::start();
    let server = Server::start(zone(), &[upstream.address]);
    let text = server.dig("ext.shop.svc.cluster.local A");
    let expected = ["ext.shop.svc.cluster.local. CNAME www.example.com.", "www.example.com. A 192.0.2.80"];
    assert_eq!(answer_section(&text), expected);
    assert!(text.contains("flags: qr aa rd ra;"), "{text}");
    assert_eq!(answer_section(&server.dig("ext.shop.svc.cluster.local CNAME")), expected[..1]);
    let text = server.dig("ext.shop.svc.cluster.local AAAA");
    assert_eq!(answer_section(&text), expected[..1], "{text}");
}

#[test]
fn an_external_target_is_resolved_for_every_type() {
    let upstream = ScriptedUpstream::start(|asked| {
        let (mut reply, name) = (asked.reply(ResponseCode::NoError), asked.message.queries[0].name.clone());
        reply.answers = vec![Record::from_rdata(name, 60, RData::TXT(TXT::new(vec!["hello".to_owned()])))];
        Some(reply)
    });
    let server = Server::start(zone(), &[upstream.address]);
    let expected = ["ext.shop.svc.cluster.local. CNAME www.example.com.", "www.example.com. TXT \"hello\""];
    for asked in ["TXT", "MX", "SRV", "HTTPS", "SOA", "NS", "TYPE65534"] {
        let text = server.dig(&format!("ext.shop.svc.cluster.local {asked}"));
        assert_eq!(answer_section(&text), expected, "the upstream says the same to {asked}: {text}");
    }
}

#[test]
fn s2_5_without_an_upstream_the_alias_is_answered_alone() {
    let text = Server::start(zone(), &[]).dig("ext.shop.svc.cluster.local A");
    assert!(text.contains("status: NOERROR"), "{text}");
    assert_eq!(answer_section(&text), ["ext.shop.svc.cluster.local. CNAME www.example.com."]);
}

#[test]
fn a_cut_answer_is_fetched_over_tcp() {
    let upstream = Upstream::start();
    let server = Server::start(zone(), &[upstream.address]);
    assert_eq!(answer_section(&server.dig("+tcp big.example.com A")).len(), 200);
    let text = server.dig("+notcp +ignore big.example.com A");
    assert!(text.contains(" tc "), "and cut again for a client of UDP: {text}");
}

#[test]
fn an_answer_longer_than_was_asked_for_is_taken_whole() {
    let upstream = ScriptedUpstream::start(|asked| {
        let (mut reply, name) = (asked.reply(ResponseCode::NoError), asked.message.queries[0].name.clone());
        let address = |number: u32| RData::A(A(Ipv4Addr::from_bits(0xc000_0200 + number)));
        reply.answers =
            (0..1500).map(|number| Record::from_rdata(name.clone(), 60, address(number))).collect();
        Some(reply)
    });
    let server = Server::start(zone(), &[upstream.address]);
    assert_eq!(answer_section(&server.dig("+tcp www.example.com A")).len(), 1500);
    assert!(upstream.asked().iter().all(|asked| !asked.tcp), "the datagram had it all");
}

#[test]
fn a_question_without_recursion_is_passed_on() {
    let upstream = Upstream::start();
    let server = Server::start(zone(), &[upstream.address]);
    let text = server.dig("+norecurse www.example.com A");
    assert_eq!(answer_section(&text), ["www.example.com. A 192.0.2.80"]);
    server.dig("+norecurse www.example.com A");
    assert_eq!(upstream.asked(), 2, "what it happens to know is not remembered");
}

#[test]
fn when_no_upstream_answers_the_client_is_told_in_time() {
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = Server::start(zone(), &[dead.local_addr().unwrap()]);
    let text = server.dig("+time=5 www.example.com A");
    assert!(text.contains("status: SERVFAIL"), "{text}");
    let text = server.dig("+time=5 ext.shop.svc.cluster.local A");
    assert!(text.contains("status: SERVFAIL") && answer_section(&text).len() == 1, "{text}");
}

#[test]
fn a_full_house_refuses_and_still_answers_the_cluster() {
    let upstream = Upstream::start();
    let server = Server::start_on("127.0.0.1:0", zone(), &[upstream.address], 0);
    assert!(server.dig("www.example.com A").contains("status: REFUSED"));
    assert!(server.dig("backend.shop.svc.cluster.local A").contains("status: NOERROR"));
    assert_eq!(upstream.asked(), 0);
    assert!(
        server
            .metrics
            .text()
            .contains("coredns_forward_max_concurrent_rejects_total{server=\"dns://:53\",view=\"\"} 1")
    );
}

#[test]
fn a_client_whose_questions_are_never_answered_leaves_places_for_others() {
    let upstream = Upstream::start();
    let server = Server::start_on("127.0.0.1:0", zone(), &[upstream.address], 8);
    let greedy = UdpSocket::bind("127.0.0.2:0").unwrap();
    greedy.connect(server.address).unwrap();
    greedy.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
    let question = query("silent.example.com.", RecordType::A).to_vec().unwrap();
    (0..20).for_each(|_| assert!(greedy.send(&question).is_ok()));
    let mut reply = [0; 512];
    greedy.recv(&mut reply).unwrap();
    assert_eq!(reply[3] & 0x0f, 5, "what is more than its share is refused");
    let text = server.dig("www.example.com A");
    assert!(text.contains("status: NOERROR"), "{text}");
}

#[test]
fn an_old_answer_is_better_than_none() {
    let upstream = Upstream::start();
    let server = Server::start(zone(), &[upstream.address]);
    let ask = || server.dig("brief.example.com A");
    assert_eq!(answer_section(&ask()), ["brief.example.com. A 192.0.2.81"]);
    drop(upstream);
    eventually("the answer is past its time", || {
        let text = ask();
        assert_eq!(answer_section(&text), ["brief.example.com. A 192.0.2.81"], "{text}");
        // RFC 8767 section 4: the mark of such an answer.
        text.contains("brief.example.com.\t30\tIN")
    });
    assert!(server.metrics.text().contains("coredns_cache_served_stale_total{"));
}

#[test]
fn private_names_stay_here() {
    let upstream = Upstream::start();
    let server = Server::start(zone(), &[upstream.address]);
    for question in ["-x 192.0.2.7", "-x fe80::1", "www.invalid A", "www.test AAAA", "a.onion A"] {
        let text = server.dig(question);
        assert!(text.contains("status: NXDOMAIN") && text.contains("AUTHORITY: 1"), "{text}");
    }
    assert_eq!(answer_section(&server.dig("localhost A")), ["localhost. A 127.0.0.1"]);
    assert_eq!(upstream.asked(), 0);
    assert!(server.metrics.text().contains(r#"weft_dns_private_names_total{server="dns://:53",view=""} 6"#));
}

#[test]
fn which_private_names_leave_is_chosen() {
    for (keep_private, names_leave, site_s_leave) in [
        (SpecialUsePolicy::None, true, true),
        // The resolvers of a company know its addresses and names; that they know those that are for tests
        // must be said.
        (SpecialUsePolicy::Names, false, true),
        (SpecialUsePolicy::All, false, false),
    ] {
        let upstream = Upstream::start();
        let manner = ForwardOptions { keep_private, ..ForwardOptions::default() };
        let settings = Settings { upstreams: vec![upstream.address], ..Settings::default() };
        let server = Server::start_with("127.0.0.1:0", zone(), settings, manner, MOST_WAITING);
        server.dig("www.test A");
        assert_eq!(upstream.asked() > 0, names_leave, "{keep_private:?}");
        for question in ["-x 10.244.9.9", "nothing.local A", "nothing.home.arpa A"] {
            let before = upstream.asked();
            assert!(server.dig(question).contains("status: NXDOMAIN"), "{question}");
            assert_eq!(upstream.asked() > before, site_s_leave, "{keep_private:?} {question}");
        }
    }
}

#[test]
fn of_upstreams_that_a_person_named_is_asked_what_a_network_may_know() {
    for (chosen, leaves) in [(true, true), (false, false)] {
        let upstream = Upstream::start();
        let settings = Settings { upstreams: vec![upstream.address], chosen, ..Settings::default() };
        let server =
            Server::start_with("127.0.0.1:0", zone(), settings, ForwardOptions::default(), MOST_WAITING);
        for question in [
            "-x 192.0.2.123",
            "-x 198.51.100.1",
            "-x 203.0.113.1",
            "-x 169.254.20.10",
            "-x 2001:db8::7",
            "-x fe80::1",
            "printer.test A",
        ] {
            let before = upstream.asked();
            assert!(server.dig(question).contains("status: NXDOMAIN"), "{question}");
            assert_eq!(upstream.asked() > before, leaves, "{question}");
        }
        let before = upstream.asked();
        for question in ["localhost A", "a.onion A", "www.invalid A", "-x 127.0.0.1", "-x ::1", "-x 0.0.0.0"]
        {
            server.dig(question);
            assert_eq!(upstream.asked(), before, "no network knows {question}");
        }
    }
}

#[test]
fn a_stub_domain_is_asked_of_its_own_servers() {
    let (everyone, corporate) = (Upstream::start(), Upstream::start());
    let stub = |domain: &str| (wire_name(domain).unwrap(), Route::from(vec![corporate.address]));
    let settings = Settings {
        upstreams: vec![everyone.address],
        stub_domains: [stub("corp.local"), stub("10.in-addr.arpa")].into(),
        ..Settings::default()
    };
    let server = Server::start_with("127.0.0.1:0", zone(), settings, ForwardOptions::default(), MOST_WAITING);
    assert_eq!(answer_section(&server.dig("www.corp.local A")), ["www.corp.local. A 192.0.2.80"]);
    let before = corporate.asked();
    server.dig("-x 10.244.9.9");
    assert!(everyone.asked() == 0 && corporate.asked() > before, "private names too");
    let before = corporate.asked();
    server.dig("www.example.com A");
    assert_eq!((everyone.asked(), corporate.asked()), (1, before));
    assert!(server.dig("backend.shop.svc.cluster.local A").contains("10.96.0.20"));
}

#[test]
fn whether_an_answer_was_validated_is_told_to_those_who_ask() {
    let upstream = ScriptedUpstream::start(|asked| {
        let mut reply = asked.address(7, 60);
        reply.metadata.authentic_data = true;
        Some(reply)
    });
    let server = Server::start(zone(), &[upstream.address]);
    for _ in 0..2 {
        assert!(!server.dig("+noadflag www.example.com A").contains(" ad"));
        assert!(server.dig("+adflag www.example.com A").contains(" ad;"));
    }
}

#[test]
fn a_popular_answer_is_asked_for_again_before_it_ends() {
    let upstream = ScriptedUpstream::start(|asked| Some(asked.address(7, 10)));
    let server = Server::start(zone(), &[upstream.address]);
    eventually("it is asked for again", || {
        let text = server.dig("www.example.com A");
        assert!(text.contains("192.0.2.7") && !text.contains("\t0\tIN"), "{text}");
        upstream.asked().len() >= 2
    });
    assert!(server.metrics.text().contains("coredns_cache_prefetch_total{"));
}
