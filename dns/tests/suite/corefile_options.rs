//! The options of `kubernetes` in a Corefile, over the small cluster of the tests; and what a Corefile sets in
//! the place of flags, written out.

use std::sync::Arc;

use clap::Parser;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use weft_corefile::disk::Disk;
use weft_corefile::{Corefile, Target};
use weft_dns::corefile::{Given, Local, apply, settings, sites};
use weft_dns::options::Options;
use weft_dns::zone::{Zone, ZoneConfig};

use crate::fixture::*;

fn read(text: &str) -> Corefile {
    weft_corefile::read("Corefile", text, &Disk).unwrap()
}

fn options(text: &str, given: &[&str]) -> Result<Options, String> {
    let flags = Options::parse_from([&["weft-dns"], given].concat());
    let named =
        given.iter().map(|flag| flag.trim_start_matches('-').split('=').next().unwrap().replace('-', "_"));
    apply(&flags, &Given(named.collect()), &read(text))
}

/// The zone of the small cluster with these lines of `kubernetes`.
fn zone_of(zones: &str, lines: &str) -> Zone {
    let text = format!(". {{\n kubernetes {zones} {{\n{lines}\n}}\n}}\n");
    let options = options(&text, &[]).unwrap();
    let config = ZoneConfig {
        zone: options.zone,
        ttl: options.ttl,
        pods: options.pods,
        exposure: options.cluster.exposure,
        ..ZoneConfig::clone(&config())
    };
    Zone::compile(&cluster(), Arc::new(config), 1_700_000_000)
}

fn code(zone: &Zone, name: &str, record_type: RecordType) -> ResponseCode {
    ask(zone, name, record_type).metadata.response_code
}

/// What is not the cluster's is left to upstreams: the zone itself has nothing to say.
fn is_passed_on(zone: &Zone, name: &str) -> bool {
    use weft_dns::pipeline::classify::{Answer, classify};
    use weft_dns::wire::name::QueryName;
    let name = QueryName::from_name(&name.parse().unwrap()).unwrap();
    matches!(classify(zone, &name, RecordType::PTR), Answer::NotInZone)
}

#[test]
fn only_the_namespaces_that_are_named_have_names() {
    let zone = zone_of("cluster.local", "namespaces default kube-system");
    assert_eq!(code(&zone, "kubernetes.default.svc.cluster.local.", RecordType::A), ResponseCode::NoError);
    assert_eq!(code(&zone, "backend.shop.svc.cluster.local.", RecordType::A), ResponseCode::NXDomain);
    assert_eq!(code(&zone, "shop.svc.cluster.local.", RecordType::A), ResponseCode::NXDomain);
}

#[test]
fn zones_of_addresses_are_answered_alone_unless_they_fall_through() {
    let (known, unknown) = ("20.0.96.10.in-addr.arpa.", "99.0.96.10.in-addr.arpa.");
    let alone = zone_of("cluster.local 10.96.0.0/16", "");
    assert_eq!(code(&alone, known, RecordType::PTR), ResponseCode::NoError);
    let denied = ask(&alone, unknown, RecordType::PTR);
    assert_eq!(denied.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(denied.authorities[0].name.to_ascii(), "in-addr.arpa.");
    assert!(is_passed_on(&alone, "8.8.8.8.in-addr.arpa."), "not of its zones");
    let falls = zone_of("cluster.local in-addr.arpa", "fallthrough in-addr.arpa");
    assert_eq!(code(&falls, known, RecordType::PTR), ResponseCode::NoError);
    assert!(is_passed_on(&falls, unknown));
    let none = zone_of("cluster.local", "");
    assert!(is_passed_on(&none, known));
}

#[test]
fn names_of_the_cluster_may_fall_through_too() {
    let all = zone_of("cluster.local", "fallthrough");
    assert!(is_passed_on(&all, "nothing.shop.svc.cluster.local."));
    assert!(!is_passed_on(&all, "backend.shop.svc.cluster.local."));
    let some = zone_of("cluster.local", "fallthrough shop.svc.cluster.local");
    assert!(
        is_passed_on(&some, "nothing.shop.svc.cluster.local.")
            && !is_passed_on(&some, "nothing.default.svc.cluster.local.")
    );
}

#[test]
fn services_without_ready_endpoints_may_have_no_name() {
    let zone = zone_of("cluster.local", "ignore empty_service");
    assert_eq!(
        code(&zone, "kubernetes.default.svc.cluster.local.", RecordType::A),
        ResponseCode::NXDomain,
        "it has no slice"
    );
    assert_eq!(code(&zone, "backend.shop.svc.cluster.local.", RecordType::A), ResponseCode::NoError);
}

#[test]
fn flags_that_are_given_stand_above_the_corefile() {
    let text = ".:53 {\n health :8090 {\n  lameduck 7s\n }\n ready\n prometheus :9153\n cache {\n  success 5000\n  denial 3000\n }\n \
        kubernetes k8s.example {\n  ttl 9\n  pods verified\n }\n autopath @kubernetes\n forward . 192.0.2.1 {\n  max_concurrent 77\n }\n}\n";
    let taken = options(text, &[]).unwrap();
    assert_eq!(taken.zone.to_string(), "k8s.example.");
    let told = |options: &Options| {
        format!(
            "{} {:?} {} {} {} {} {} {:?}",
            options.ttl,
            options.pods,
            options.complete_search,
            options.cache_size,
            options.max_concurrent,
            options.health_bind_address,
            options.metrics_bind_address,
            options.lameduck
        )
    };
    assert_eq!(told(&taken), "9 Verified true 5000 77 0.0.0.0:8090 0.0.0.0:9153 7s");
    let given = [
        "--ttl=30",
        "--pods=insecure",
        "--cache-size=10",
        "--max-concurrent=5",
        "--health-bind-address=127.0.0.1:1",
        "--lameduck=1",
    ];
    assert_eq!(told(&options(text, &given).unwrap()), "30 Insecure true 10 5 127.0.0.1:1 0.0.0.0:9153 1s");
    assert!(options(text, &["--zone=cluster.local"]).unwrap_err().contains("k8s.example."));
    let nothing = options(". {\n forward . 192.0.2.1\n}\n", &[]).unwrap();
    assert!(nothing.cluster.is_away && nothing.cache_size == 0);
}

#[test]
fn blocks_stand_at_their_ports_and_addresses() {
    let text = "a:54 {\n forward . 192.0.2.1\n}\n.:53 {\n kubernetes c\n}\nb:54 {\n forward . 192.0.2.2\n}\n";
    let local = Local {
        interfaces: vec![
            ("lo".to_owned(), "127.0.0.1".parse().unwrap()),
            ("eth0".to_owned(), "fd00::2".parse().unwrap()),
        ],
    };
    let flags = Options::parse_from(["weft-dns", "--listen=10.244.0.2,fd00::2"]);
    let places = |text: &str, given: Given| -> Vec<String> {
        let sites = sites(&flags, &given, &read(text), &local).unwrap();
        sites.iter().map(|site| format!("{} {:?} {:?}", site.port, site.listen, site.servers)).collect()
    };
    assert_eq!(
        places(text, Given::default()),
        ["53 [0.0.0.0:53, [::]:53] [1]", "54 [0.0.0.0:54, [::]:54] [0, 2]"]
    );
    let given = || Given(["listen".to_owned()].into());
    assert_eq!(
        places(text, given()),
        ["53 [10.244.0.2:53, [fd00::2]:53] [1]", "54 [10.244.0.2:54, [fd00::2]:54] [0, 2]"]
    );
    let bound = ". {\n bind lo 10.0.0.1 eth0 {\n  except fd00::2\n }\n forward . 192.0.2.1\n}\n";
    assert_eq!(places(bound, Given::default()), ["53 [127.0.0.1:53, 10.0.0.1:53] [0]"]);
}

/// Each name is asked where CoreDNS asks it: by the first `forward` that takes it, wherever that stands.
#[test]
fn forwards_are_tried_in_order_and_decided_by_domain() {
    let text = ". {\n forward a.example 192.0.2.1 {\n  except x.a.example\n  policy sequential\n }\n forward example 192.0.2.2\n \
        forward b.example 192.0.2.3\n forward x.a.example 192.0.2.4\n cache 30 example {\n  disable success b.example\n }\n}\n";
    let corefile = read(text);
    assert!(corefile.notes.iter().any(|note| note.text.contains("never reached")), "{:?}", corefile.notes);
    let upstreams = |target: &Target| match target {
        Target::Address(address) => vec![*address],
        _ => Vec::new(),
    };
    let settings = settings(&corefile.servers[0], &upstreams, Vec::new());
    assert!(settings.upstreams.is_empty() && settings.chosen && !settings.manner.keeping.success.kept);
    let told = |name: &str| {
        let route = &settings.stub_domains[&weft_dns::wire::name::wire_name(name).unwrap()];
        let keeping = &route.manner.keeping;
        format!(
            "{:?} {} {}",
            route.upstreams.iter().map(|it| it.ip()).collect::<Vec<_>>(),
            keeping.success.kept,
            keeping.denial.kept
        )
    };
    assert_eq!(told("example"), "[192.0.2.2] true true");
    assert_eq!(told("a.example"), "[192.0.2.1] true true");
    assert_eq!(told("x.a.example"), "[192.0.2.2] true true", "excepted, so the next that takes it");
    assert_eq!(
        told("b.example"),
        "[192.0.2.2] false true",
        "never its own forward, and its answers are not kept"
    );
}
