//! What the server knows of pods: their names, in each of the three modes.

use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType::{A, AAAA};
use weft_dns::daemon::snapshot_file::text::text;
use weft_dns::zone::{PodNames, Zone};
use weft_types::{Object, Snapshot};

use crate::api::{self, PODS};
use crate::daemon::{Daemon, await_status};
use crate::fixture::*;
use crate::peers::Server;

/// The cluster, with a pod of two families and one on a host's network.
fn with_pods() -> Snapshot {
    let mut snapshot = cluster();
    for pod in [
        pod("shop/web", &[ip("10.244.1.7"), ip("fd00:10:244:1::7")]),
        pod("kube-system/agent", &[ip("192.0.2.1")]),
        pod("default/on-host", &[ip("192.0.2.1")]),
        pod("shop/starting", &[]),
    ] {
        snapshot.apply(Object::Pod(pod), &mut weft_types::ChangeSet::default());
    }
    snapshot
}

fn zone_of(pods: PodNames) -> Zone {
    Zone::compile(&with_pods(), Arc::new(settings(pods)), 1_700_000_000)
}

#[test]
fn a_verified_name_needs_a_pod_with_the_address_in_the_namespace() {
    let zone = zone_of(PodNames::Verified);
    for (name, record_type, address) in [
        ("10-244-1-7.shop", A, "10.244.1.7"),
        ("fd00-10-244-1--7.shop", AAAA, "fd00:10:244:1::7"),
        ("192-0-2-1.default", A, "192.0.2.1"),
        ("192-0-2-1.kube-system", A, "192.0.2.1"),
    ] {
        let name = format!("{name}.pod.cluster.local.");
        assert_eq!(answers(&zone, &name, record_type), [format!("{name} {record_type} {address}")]);
    }
    for (name, exists) in [
        ("10-244-1-7.shop", true),
        ("fd00-10-244-1--7.shop", true),
        ("shop", true),
        ("", true),
        ("10-244-1-7.default", false),
        ("10-244-1-8.shop", false),
        ("192-0-2-1.shop", false),
        ("x.10-244-1-7.shop", false),
        ("10-244-1-7.nowhere", false),
    ] {
        let name = format!("{name}.pod.cluster.local.").trim_start_matches('.').to_owned();
        for record_type in [A, AAAA] {
            let reply = ask(&zone, &name, record_type);
            assert_eq!(
                reply.metadata.response_code != ResponseCode::NXDomain,
                exists,
                "{name} {record_type}"
            );
        }
    }
}

#[test]
fn disabled_there_is_no_name_of_a_pod() {
    let zone = zone_of(PodNames::Disabled);
    for name in ["pod.cluster.local.", "shop.pod.cluster.local.", "10-244-1-7.shop.pod.cluster.local."] {
        assert!(is_missing(&zone, name, A) && is_missing(&zone, name, AAAA), "{name}");
    }
}

#[test]
fn a_name_that_is_missing_says_why() {
    for (pods, name, reason) in [
        (PodNames::Verified, "10-244-1-8.shop", "no pod of the namespace has this address"),
        (PodNames::Verified, "x.shop", "the pod's name is not an address"),
        (PodNames::Verified, "10-244-1-7.nowhere", "no such namespace"),
        (
            PodNames::Disabled,
            "10-244-1-7.shop",
            "pods have no names here: the server runs with --pods disabled",
        ),
    ] {
        let server = Server::start(zone_of(pods), &[]);
        for transport in ["+notcp", "+tcp"] {
            let text = server.dig(&format!("{transport} {name}.pod.cluster.local A"));
            assert!(text.contains("status: NXDOMAIN") && text.contains(reason), "{text}");
        }
    }
}

#[test]
fn what_is_kept_on_disk_has_the_pods() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text(&with_pods())).unwrap();
    let read = weft_cluster::manifest::load(&weft_cluster::WatchFilter::default(), &[file.path().to_owned()])
        .unwrap();
    assert!(read.pods().eq(with_pods().pods()));
}

#[test]
fn the_program_follows_pods_where_it_is_asked_to() {
    let api = api::start();
    let daemon = Daemon::start_with(&api.address().to_string(), &["--pods", "verified"]);
    let question = "10-244-1-7.shop.pod.cluster.local A";
    await_status(&daemon, question, "NXDOMAIN");
    api::put_pod(&api, "web", "10.244.1.7");
    await_status(&daemon, question, "NOERROR");
    api.delete(PODS, "web");
    await_status(&daemon, question, "NXDOMAIN");
    drop(daemon);

    let api = api::start();
    let daemon = Daemon::start(&api.address().to_string(), "0");
    await_status(&daemon, question, "NOERROR");
    assert!(api.queries(PODS, false).is_empty(), "pods are listed though nobody asked to know them");
}
