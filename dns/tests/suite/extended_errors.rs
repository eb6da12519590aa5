//! Why a name does not resolve: the extended errors of RFC 8914 as the real `dig` shows them, and the walk of
//! a pod's resolver as `explain` tells it.

use std::net::UdpSocket;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::rr::RecordType;
use weft_dns::daemon::explain::{ExplainRequest, Resolver, explain};
use weft_dns::forward::{ForwardOptions, Forwarder};
use weft_dns::metrics::Metrics;
use weft_dns::pipeline::handler::Handler;
use weft_dns::zone::Zone;
use weft_types::ServiceKind;

use crate::fixture::*;
use crate::peers::*;

#[test]
fn what_does_not_exist_says_what_is_missing() {
    let server = Server::start(zone(), &[]);
    for (name, reason) in [
        ("backend.nowhere.svc", "no such namespace"),
        ("a.b.nowhere.svc", "no such namespace"),
        ("nowhere.pod", "no such namespace"),
        ("nothing.shop.svc", "no such service in the namespace"),
        ("www.example.com.shop.svc", "no such service in the namespace"),
        ("down.shop.svc", "the headless service has no ready endpoint"),
        ("_http._tcp.down.shop.svc", "the headless service has no ready endpoint"),
        ("literal.shop.svc", "the service's external name is not a domain name"),
        ("_nothing._tcp.backend.shop.svc", "the service has no such endpoint, hostname or port"),
        ("gone.shop.svc", "no such service in the namespace"),
        ("x.shop.pod", "the pod's name is not an address"),
        ("backend.shop", "no such name in a cluster"),
    ] {
        for transport in ["+notcp", "+tcp"] {
            let text = server.dig(&format!("{transport} {name}.cluster.local A"));
            assert!(text.contains("status: NXDOMAIN"), "{text}");
            assert!(text.contains(&format!("EDE: 0 (Other): ({reason}")), "{name}: {text}");
        }
    }
    assert!(!server.dig("backend.shop.svc.cluster.local A").contains("EDE"));
    assert!(!server.dig("+noedns nothing.shop.svc.cluster.local A").contains("EDE"));
    let cut = server.dig("+bufsize=512 nothing.shop.svc.cluster.local A");
    assert!(cut.contains("EDE: 0"), "there is room: {cut}");
}

#[test]
fn a_change_brings_another_reason() {
    let mut changes = weft_types::ChangeSet::default();
    let mut snapshot = snapshot(vec![service("shop/db", ServiceKind::Headless, vec![])]);
    let before = Zone::compile(&snapshot, config(), 1);
    let reason = |zone: &Zone| zone.missing(b"\x02db\x04shop").text();
    assert_eq!(reason(&before), "the headless service has no endpoints: its selector matches no pod");
    let not_ready = vec![endpoint("10.244.1.1", None, false)];
    snapshot.apply(slice("db-1", "shop/db", ("pg", 1), not_ready), &mut changes);
    let after = before.recompile(&snapshot, &changes, 2);
    assert_eq!(reason(&after), "the headless service has no ready endpoint");
}

#[test]
fn failures_say_who_is_to_blame() {
    let server = Server::start(Zone::unsynced(config()), &[]);
    let text = server.dig("backend.shop.svc.cluster.local A");
    assert!(text.contains("EDE: 14 (Not Ready): (the cluster has not been listed yet)"), "{text}");
    assert!(server.dig("www.example.com A").contains("no upstream is configured"));

    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = dead.local_addr().unwrap();
    let server = Server::start(zone(), &[address]);
    let text = server.dig("www.example.com A");
    let reason = format!("EDE: 22 (No Reachable Authority): (upstream {address} did not answer in time)");
    assert!(text.contains(&reason), "{text}");
    assert!(server.dig("www.test A").contains("special-use name"));
}

async fn explained(namespace: &str, name: &str, record_type: RecordType) -> String {
    let metrics = Arc::new(Metrics::new(53, "cluster.local."));
    let forwarder = Arc::new(Forwarder::new(ForwardOptions::default(), metrics.clone()));
    let handler = Arc::new(Handler::new(Arc::new(ArcSwap::from_pointee(zone())), forwarder, 1, metrics));
    explain(
        &handler,
        &ExplainRequest { resolver: Resolver::usual(namespace), name: name.to_owned(), record_type },
    )
    .await
}

#[tokio::test]
async fn the_walk_is_told_step_by_step() {
    let text = explained("shop", "backend.shop", RecordType::A).await;
    assert_eq!(
        text,
        "backend.shop A, asked by a pod in namespace shop (ndots:5):\n\
         1. backend.shop.shop.svc.cluster.local. NXDOMAIN\n     no such service in the namespace\n\
         2. backend.shop.svc.cluster.local. NOERROR\n     backend.shop.svc.cluster.local. 30 IN A 10.96.0.20\n\
         The pod takes this answer.\n"
    );
    let text = explained("nowhere", "backend", RecordType::AAAA).await;
    let reasons: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("     ")).collect();
    assert_eq!(reasons[..2], ["no such namespace"; 2], "{text}");
    assert!(text.contains("4. backend. REFUSED") && text.ends_with("The pod gets no answer.\n"), "{text}");
    let text = explained("shop", "db-1.db", RecordType::AAAA).await;
    assert!(text.contains("the name exists, but has no AAAA record"), "{text}");
    let text = explained("shop", "bare", RecordType::A).await;
    assert!(text.contains("no ready endpoint stands behind 10.96.0.30"), "{text}");
    assert!(explained("shop", "a..b", RecordType::A).await.contains("not a domain name"));
}
