//! The Kubernetes DNS specification 1.1.0, clause by clause (S), and what CoreDNS adds to it (C).

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use weft_dns::zone::Zone;
use weft_types::{ChangeSet, ObjectKey, ServiceKind};

use crate::fixture::*;

use RecordType::{A, AAAA, ANY, CNAME, NS, PTR, SOA, SRV, TXT};

#[test]
fn s2_1_names_are_case_insensitive_and_echoed() {
    let name = "BackEnd.SHOP.svc.Cluster.LOCAL.";
    let reply = ask(&zone(), name, A);
    assert!(reply.queries[0].name.eq_case(&Name::from_ascii(name).unwrap()));
    assert!(reply.answers[0].name.eq_case(&Name::from_ascii(name).unwrap()));
    assert_eq!(reply.answers[0].data.to_string(), "10.96.0.20");
}

#[test]
fn s2_2_schema_version() {
    assert_eq!(answers(&zone(), "dns-version.cluster.local.", TXT), ["dns-version.cluster.local. TXT 1.1.0"]);
}

#[test]
fn s2_3_1_cluster_ip_has_an_address_record_per_family() {
    let (zone, name) = (zone(), "backend.shop.svc.cluster.local.");
    assert_eq!(answers(&zone, name, A), [format!("{name} A 10.96.0.20")]);
    assert_eq!(answers(&zone, name, AAAA), [format!("{name} AAAA fd00:10:96::20")]);
    assert!(
        !is_missing(&zone, "kubernetes.default.svc.cluster.local.", AAAA),
        "one family: no data, not no name"
    );
}

#[test]
fn s2_3_2_cluster_ip_has_a_service_record_per_named_port() {
    let zone = zone();
    let name = "_http._tcp.backend.shop.svc.cluster.local.";
    assert_eq!(answers(&zone, name, SRV), [format!("{name} SRV 0 100 80 backend.shop.svc.cluster.local.")]);
    let name = "_echo._udp.backend.shop.svc.cluster.local.";
    assert_eq!(answers(&zone, name, SRV), [format!("{name} SRV 0 100 7 backend.shop.svc.cluster.local.")]);
    assert!(is_missing(&zone, "_echo._tcp.backend.shop.svc.cluster.local.", SRV), "the protocol counts");
    assert!(is_missing(&zone, "_._tcp.bare.shop.svc.cluster.local.", SRV));
}

#[test]
fn s2_3_2_the_target_comes_with_its_addresses() {
    let reply = ask(&zone(), "_http._tcp.backend.shop.svc.cluster.local.", SRV);
    let name = "backend.shop.svc.cluster.local.";
    assert_eq!(
        lines(&reply.additionals),
        [format!("{name} A 10.96.0.20"), format!("{name} AAAA fd00:10:96::20")]
    );
}

#[test]
fn s2_3_3_cluster_ip_has_a_pointer() {
    let zone = zone();
    let name = "20.0.96.10.in-addr.arpa.";
    assert_eq!(answers(&zone, name, PTR), [format!("{name} PTR backend.shop.svc.cluster.local.")]);
    let name = "0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(answers(&zone, name, PTR), [format!("{name} PTR backend.shop.svc.cluster.local.")]);
}

#[test]
fn s2_4_1_headless_lists_every_ready_endpoint() {
    let (zone, name) = (zone(), "db.shop.svc.cluster.local.");
    let expected = ["10.244.1.7", "10.244.2.7", "10.244.2.8"].map(|address| format!("{name} A {address}"));
    assert_eq!(answers(&zone, name, A), expected);
    assert_eq!(answers(&zone, name, AAAA), [format!("{name} AAAA fd00:10:244:1::7")]);
}

#[test]
fn s2_4_1_endpoints_have_names() {
    let zone = zone();
    let name = "db-0.db.shop.svc.cluster.local.";
    assert_eq!(answers(&zone, name, A), [format!("{name} A 10.244.1.7")]);
    assert_eq!(answers(&zone, name, AAAA), [format!("{name} AAAA fd00:10:244:1::7")]);
    let name = "10-244-2-8.db.shop.svc.cluster.local.";
    assert_eq!(answers(&zone, name, A), [format!("{name} A 10.244.2.8")]);
    assert!(is_missing(&zone, "db-3.db.shop.svc.cluster.local.", A), "not ready");
    assert!(is_missing(&zone, "10-244-1-7.db.shop.svc.cluster.local.", A), "its hostname is its name");
}

#[test]
fn s2_4_1_headless_without_a_ready_endpoint_does_not_exist() {
    let zone = zone();
    for name in ["down.shop.svc.cluster.local.", "_http._tcp.down.shop.svc.cluster.local."] {
        for record_type in [A, AAAA, SRV] {
            assert!(is_missing(&zone, name, record_type), "{name} {record_type}");
        }
    }
}

#[test]
fn s2_4_2_headless_has_a_service_record_per_endpoint_and_named_port() {
    let name = "_pg._tcp.db.shop.svc.cluster.local.";
    let expected = ["10-244-2-8", "db-0", "db-1"]
        .map(|endpoint| format!("{name} SRV 0 33 15432 {endpoint}.db.shop.svc.cluster.local."));
    let reply = ask(&zone(), name, SRV);
    assert_eq!(lines(&reply.answers), expected);
    assert_eq!(reply.additionals.len(), 4, "the targets' addresses, of both families");
}

#[test]
fn s2_4_3_headless_endpoints_have_pointers() {
    let zone = zone();
    let name = "7.1.244.10.in-addr.arpa.";
    assert_eq!(answers(&zone, name, PTR), [format!("{name} PTR db-0.db.shop.svc.cluster.local.")]);
    let name = "8.2.244.10.in-addr.arpa.";
    assert_eq!(answers(&zone, name, PTR), [format!("{name} PTR 10-244-2-8.db.shop.svc.cluster.local.")]);
    assert_eq!(zone.pointers(ip("10.244.2.9")).len(), 0, "not ready");
    assert_eq!(
        zone.pointers(ip("10.244.1.5")).len(),
        0,
        "an endpoint of a ClusterIP Service, without hostname"
    );
}

#[test]
fn s2_4_3_a_hostname_is_a_better_pointer_than_an_address() {
    let shared = |name: &str, hostname| {
        let endpoints = vec![endpoint("10.244.1.7", hostname, true)];
        [service(name, ServiceKind::Headless, vec![]), slice(&name[5..], name, ("p", 1), endpoints)]
    };
    let objects = [shared("shop/a", None), shared("shop/db", Some("db-0")), shared("shop/z", None)].concat();
    let zone = Zone::compile(&snapshot(objects), config(), 0);
    let name = "7.1.244.10.in-addr.arpa.";
    assert_eq!(answers(&zone, name, PTR), [format!("{name} PTR db-0.db.shop.svc.cluster.local.")]);
}

#[test]
fn s2_5_external_name_is_an_alias() {
    let (zone, name) = (zone(), "ext.shop.svc.cluster.local.");
    assert_eq!(answers(&zone, name, CNAME), [format!("{name} CNAME www.example.com.")]);
    assert_eq!(
        answers(&zone, name, A),
        [format!("{name} CNAME www.example.com.")],
        "the rest is the upstream's"
    );
    assert!(!is_missing(&zone, name, SRV));
}

#[test]
fn s2_5_a_target_in_the_zone_is_resolved() {
    let (zone, name) = (zone(), "alias.shop.svc.cluster.local.");
    let target = "backend.shop.svc.cluster.local.";
    let chain = [format!("{name} CNAME {target}"), format!("{target} A 10.96.0.20")];
    assert_eq!(answers(&zone, name, A), chain);
    assert_eq!(answers(&zone, name, CNAME), [format!("{name} CNAME {target}")], "asked for itself: alone");
}

#[test]
fn s2_5_a_target_that_does_not_exist_is_said_so() {
    let reply = ask(&zone(), "gone.shop.svc.cluster.local.", A);
    // RFC 6604 section 3: the code is that of the last name.
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!((reply.answers.len(), reply.authorities.len()), (1, 1));
}

#[test]
fn c_a_chain_is_followed_ten_times() {
    let zone = zone();
    assert_eq!(answers(&zone, "step-2.shop.svc.cluster.local.", A).len(), 11, "ten aliases and the address");
    let reply = ask(&zone, "step-1.shop.svc.cluster.local.", A);
    assert!(reply.answers.iter().all(|record| record.record_type() == CNAME), "eleven are too many");
    let reply = ask(&zone, "circle.shop.svc.cluster.local.", A);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
}

#[test]
fn c_an_external_name_that_is_an_address_does_not_exist() {
    for record_type in [A, AAAA, CNAME] {
        assert!(is_missing(&zone(), "literal.shop.svc.cluster.local.", record_type));
    }
}

#[test]
fn c_endpoints_of_cluster_ip_services_have_names() {
    let zone = zone();
    for (label, address) in [("10-244-1-5", "10.244.1.5"), ("named", "10.244.2.5")] {
        let name = format!("{label}.backend.shop.svc.cluster.local.");
        assert_eq!(answers(&zone, &name, A), [format!("{name} A {address}")]);
    }
    assert!(is_missing(&zone, "10-244-2-6.backend.shop.svc.cluster.local.", A), "not ready");
    assert_eq!(answers(&zone, "5.2.244.10.in-addr.arpa.", PTR).len(), 1, "a hostname has a pointer");
}

#[test]
fn c_the_service_name_lists_the_records_of_all_ports() {
    let name = "backend.shop.svc.cluster.local.";
    let expected = ["7", "80", "99"].map(|port| format!("{name} SRV 0 33 {port} {name}"));
    assert_eq!(answers(&zone(), name, SRV), expected);
}

#[test]
fn c_a_service_without_ports_has_addresses_only() {
    let (zone, name) = (zone(), "bare.shop.svc.cluster.local.");
    assert_eq!(answers(&zone, name, A), [format!("{name} A 10.96.0.30")]);
    assert!(!is_missing(&zone, name, SRV));
    assert!(is_missing(&zone, "_tcp.bare.shop.svc.cluster.local.", SRV));
}

#[test]
fn c_pod_names_spell_their_address() {
    let zone = zone();
    let name = "10-244-9-9.shop.pod.cluster.local.";
    assert_eq!(answers(&zone, name, A), [format!("{name} A 10.244.9.9")]);
    assert!(!is_missing(&zone, name, AAAA));
    let name = "fd00-10--5.shop.pod.cluster.local.";
    assert_eq!(answers(&zone, name, AAAA), [format!("{name} AAAA fd00:10::5")]);
    assert!(!is_missing(&zone, name, A));
    for name in [
        "10-244-9-9.nowhere",
        "10-244-9-256.shop",
        "1-2-3.shop",
        "10.244.9.9.shop",
        "x.10-244-9-9.shop",
        "a--b--c.shop",
    ] {
        assert!(is_missing(&zone, &format!("{name}.pod.cluster.local."), A), "{name}");
    }
}

#[test]
fn c_names_that_exist_without_the_record_are_no_data() {
    let zone = zone();
    let existing = [
        "",
        "svc.",
        "pod.",
        "shop.svc.",
        "empty.svc.",
        "shop.pod.",
        "dns.",
        "ns.dns.",
        "dns-version.",
        "_tcp.backend.shop.svc.",
        "_http._tcp.backend.shop.svc.",
        "db-0.db.shop.svc.",
        "db.shop.svc.",
    ];
    for name in existing {
        assert!(!is_missing(&zone, &format!("{name}cluster.local."), RecordType::MX), "{name}");
    }
}

#[test]
fn c_names_that_do_not_exist_are_so_for_both_families() {
    let zone = zone();
    let missing = [
        "nowhere.svc.",
        "backend.nowhere.svc.",
        "nothing.shop.svc.",
        "backend.empty.svc.",
        "x.backend.shop.svc.",
        "a.b.c.backend.shop.svc.",
        "_sctp.backend.shop.svc.",
        "nowhere.pod.",
        "other.",
        "x.dns-version.",
        "x.dns.",
        "a.ns.dns.",
        "www.google.com.shop.svc.",
        "www.google.com.svc.",
        "www.google.com.",
    ];
    for name in missing {
        for record_type in [A, AAAA, SRV, TXT, ANY] {
            assert!(is_missing(&zone, &format!("{name}cluster.local."), record_type), "{name} {record_type}");
        }
    }
}

#[test]
fn c_a_namespace_exists_as_soon_as_one_of_its_services_is_seen() {
    let service = service("early/db", ServiceKind::ClusterIp(vec![ip("10.96.0.40")]), vec![]);
    let zone = Zone::compile(&snapshot(vec![service]), config(), 1_700_000_000);
    assert!(!is_missing(&zone, "early.svc.cluster.local.", A), "RFC 8020: a name below it exists");
    assert_eq!(answers(&zone, "10-1-2-3.early.pod.cluster.local.", A).len(), 1);
}

#[test]
fn c_the_apex_has_soa_and_ns_with_glue() {
    let zone = zone();
    assert_eq!(answers(&zone, "cluster.local.", SOA).len(), 1);
    let reply = ask(&zone, "cluster.local.", NS);
    assert_eq!(lines(&reply.answers), ["cluster.local. NS ns.dns.cluster.local."]);
    assert_eq!(
        lines(&reply.additionals),
        ["ns.dns.cluster.local. A 10.96.0.10"],
        "the Service it stands behind"
    );
    assert_eq!(answers(&zone, "ns.dns.cluster.local.", A), ["ns.dns.cluster.local. A 10.96.0.10"]);
}

#[test]
fn c_any_gets_one_small_record() {
    let reply = ask(&zone(), "backend.shop.svc.cluster.local.", ANY);
    assert_eq!(reply.answers[0].record_type(), RecordType::HINFO);
}

#[test]
fn c_before_the_first_list_nothing_is_denied() {
    let zone = Zone::unsynced(config());
    for name in ["backend.shop.svc.cluster.local.", "nothing.cluster.local.", "20.0.96.10.in-addr.arpa."] {
        let reply = ask(&zone, name, A);
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{name}");
    }
}

#[test]
fn c_replies_begin_at_different_records() {
    let zone = zone();
    let first = |id| {
        let mut query = query("db.shop.svc.cluster.local.", A);
        query.metadata.id = id;
        ask_message(&zone, &query).answers[0].data.to_string()
    };
    assert_eq!(
        [first(0), first(1), first(2), first(3)],
        ["10.244.1.7", "10.244.2.7", "10.244.2.8", "10.244.1.7"]
    );
}

#[test]
fn the_zone_of_a_change_is_the_zone_compiled_whole() {
    let mut snapshot = cluster();
    let before = Zone::compile(&snapshot, config(), 1);
    let mut changes = ChangeSet::default();
    snapshot.delete(&ObjectKey::Service("shop/bare".parse().unwrap()), &mut changes);
    snapshot.apply(
        slice("db-v4", "shop/db", ("pg", 15432), vec![endpoint("10.244.3.1", None, true)]),
        &mut changes,
    );
    let after = before.recompile(&snapshot, &changes, 2);
    assert!(ask(&after, "bare.shop.svc.cluster.local.", A).metadata.response_code == ResponseCode::NXDomain);
    assert_eq!(answers(&after, "db.shop.svc.cluster.local.", A), ["db.shop.svc.cluster.local. A 10.244.3.1"]);
    assert_eq!(after.pointers(ip("10.96.0.30")).len(), 0);
    assert_eq!(after.serial(), 2);
    assert_eq!(
        answers(&before, "bare.shop.svc.cluster.local.", A).len(),
        1,
        "the zone before stays as it was"
    );
}
