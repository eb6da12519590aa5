//! The names of the cluster as the servers and the client are told them: zone files, local data, queries.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use weft_bench::cluster::{PORT, Size, cluster_ip, name, namespace};

use crate::client::Kind;

/// The cluster's zone.
pub(crate) const ZONE: &str = "cluster.local";
/// A zone that weft-dns and Unbound must ask a third for.
pub(crate) const FOREIGN: &str = "example.com";
/// Its names.
const FOREIGN_NAMES: usize = 1000;
/// A file holds so many, and is gone through again and again.
const QUESTIONS: usize = 100_000;
const SOA: &str = "ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 30";

/// A Service's name.
pub(crate) fn service(number: usize) -> String {
    format!("{}.{}.svc.{ZONE}", name(number), namespace(number))
}

/// The name of an endpoint of a Service.
pub(crate) fn endpoint(number: usize, pod: Ipv4Addr) -> String {
    format!("{}.{}", pod.to_string().replace('.', "-"), service(number))
}

/// All records of the cluster in master-file form, without the last dot of owners and without TTL.
pub(crate) fn records(size: Size) -> impl Iterator<Item = (String, String)> {
    let apex = [(ZONE.to_owned(), format!("SOA {SOA}")), (ZONE.to_owned(), format!("NS ns.dns.{ZONE}."))];
    apex.into_iter().chain((0..size.services).flat_map(move |number| {
        let own = [
            (service(number), format!("A {}", cluster_ip(number))),
            (format!("_http._tcp.{}", service(number)), format!("SRV 0 100 {PORT} {}.", service(number))),
        ];
        let pods = size.endpoints_of(number).into_iter();
        own.into_iter().chain(pods.map(move |pod| (endpoint(number, pod), format!("A {pod}"))))
    }))
}

/// The cluster as a zone file.
pub(crate) fn zone_file(size: Size) -> String {
    records(size).fold(String::from("$TTL 30\n"), |mut text, (owner, data)| {
        let _ = writeln!(text, "{owner}. IN {data}");
        text
    })
}

/// The foreign zone as a zone file.
pub(crate) fn foreign_zone_file() -> String {
    let mut text = format!(
        "$TTL 3600\n{FOREIGN}. IN SOA ns hostmaster 1 2 3 4 5\n{FOREIGN}. IN NS ns\nns IN A 192.0.2.1\n"
    );
    for number in 0..FOREIGN_NAMES {
        let _ = writeln!(text, "host-{number} IN A 192.0.2.{}", number % 250);
    }
    text
}

/// A file of queries for dnsperf.
pub(crate) fn questions(kind: Kind, size: Size, folder: &Path) -> PathBuf {
    let mut text = String::new();
    for turn in 0..QUESTIONS {
        // Scattered, so that neighbours in memory are no neighbours in time.
        let number = turn * 7919 % size.services;
        let _ = match kind {
            Kind::Positive => writeln!(text, "{} A", service(number)),
            Kind::Negative => writeln!(text, "no-{} A", service(number)),
            Kind::Forwarded => writeln!(text, "host-{}.{FOREIGN} A", turn * 7 % FOREIGN_NAMES),
            Kind::Walk => walk(&mut text, turn, number),
        };
    }
    let file = folder.join(kind.name());
    std::fs::write(&file, text).unwrap();
    file
}

/// What a pod's resolver asks on its way to `service.namespace` with `ndots:5`, for both families each.
fn walk(text: &mut String, turn: usize, number: usize) -> std::fmt::Result {
    let short = format!("{}.{}", name(number), namespace(number));
    let search = [format!("{}.svc.{ZONE}", namespace(turn)), format!("svc.{ZONE}")];
    search.iter().try_for_each(|domain| writeln!(text, "{short}.{domain} A\n{short}.{domain} AAAA"))
}
