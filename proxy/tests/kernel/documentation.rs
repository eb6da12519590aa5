//! docs/data-plane.md shows a Service as nft lists it. Here the kernel is asked whether that is so.

use std::collections::BTreeSet;

use weft_proxy::config::Config;
use weft_testkit::world::World;
use weft_types::{
    Endpoint, EndpointPort, EndpointSlice, NamespacedName, Object, Protocol, Service, ServiceKind,
    ServicePort,
};

use super::Cluster;

const TEXT: &str = include_str!("../../../docs/data-plane.md");

/// The rest of the block of text in which a line stands.
fn block(after: &str) -> impl Iterator<Item = &'static str> {
    let (_, rest) = TEXT.split_once(after).unwrap_or_else(|| panic!("the document has: {after}"));
    rest.trim_start().trim_start_matches("```text").lines().take_while(|line| !line.starts_with("```"))
}

/// What a remark on the right leaves of a line.
fn without_remark(line: &str) -> &str {
    line.trim().split("   ").next().unwrap_or_default()
}

fn backend() -> [Object; 2] {
    let name = NamespacedName::new("shop", "backend");
    let (port, target) = (80.try_into().unwrap(), 8080.try_into().unwrap());
    let node_port = Some(30080.try_into().unwrap());
    let port = ServicePort { name: "".into(), protocol: Protocol::Tcp, port, node_port };
    let kind = ServiceKind::ClusterIp(vec!["10.96.7.1".parse().unwrap()]);
    let slice = EndpointSlice {
        key: NamespacedName::new("shop", "backend-1"),
        service: name.clone(),
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: target }],
        endpoints: ["10.244.1.5", "10.244.2.7", "10.244.3.4"]
            .map(|ip| Endpoint { node: Some("node2".into()), ..Endpoint::ready(ip.parse().unwrap()) })
            .to_vec(),
    };
    [Object::Service(Service::new(name, kind, vec![port])), Object::EndpointSlice(slice)]
}

#[test]
fn the_worked_example_of_one_service_is_what_nft_lists() {
    let world = World::new();
    let mut cluster = Cluster::new(&world, Config::default());
    cluster.put(backend());
    let listed = cluster.nft(&["list", "ruleset"]);
    let is_of_service = |line: &&str| line.contains("10.96.7.1") || line.contains("30080");
    let element = |line: &'static str| without_remark(line).to_owned();
    let bare = |line: &str| {
        line.trim().trim_start_matches("elements = { ").trim_end_matches([' ', '}', ',']).to_owned()
    };
    let listed_elements: BTreeSet<String> = listed.lines().filter(is_of_service).map(bare).collect();
    let shown: BTreeSet<String> = block("grep -E '10.96.7.1|30080'\n").map(element).collect();
    assert_eq!(shown, listed_elements);
    let rules = block("goes through these rules:\n").map(without_remark);
    for rule in rules.flat_map(|rule| rule.split([';', '{', '}'])).map(str::trim) {
        assert!(listed.contains(rule), "{rule}: {listed}");
    }
}
