//! What is programmed for manifests, as nft text.

use std::path::PathBuf;

use weft_cluster::{WatchFilter, manifest};
use weft_proxy::config::{Config, DetectLocal, NodePortAddresses};
use weft_proxy::dataplane::nftables::DesiredTables;
use weft_proxy::dry_run;
use weft_proxy::services::planner::Planner;

fn planned(config: Config) -> String {
    planned_for("shop", config)
}

fn planned_for(manifest: &str, config: Config) -> String {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/manifests/{manifest}.yaml"));
    dry_run::text(Config { node: "node1".into(), ..config }, &[manifest])
        .expect("the manifest is well-formed")
}

#[test]
fn a_plan_prints_as_nft_text() {
    insta::assert_snapshot!(planned(Config::default()));
}

#[test]
fn affinity_and_source_ranges_are_elements_of_maps_that_are_always_there() {
    let text = planned_for("affinity", Config::default());
    let (table, _) = text.split_once("table ip6").expect("there are two tables");
    let blocks = table.split("\n\n").filter(|block| {
        let name = block.trim_start_matches("table ip weft {").split_whitespace().nth(1).unwrap_or_default();
        ["affinity", "allowed", "restricted", "use-affinity", "remember"]
            .iter()
            .any(|part| name.starts_with(part))
    });
    insta::assert_snapshot!(blocks.collect::<Vec<_>>().join("\n\n"));
}

#[test]
fn with_networks_for_pods_and_node_ports() {
    let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a network")).collect();
    let text = planned(Config {
        cluster_cidrs: networks(&["10.244.0.0/16", "fd00:244::/56"]),
        nodeport_addresses: NodePortAddresses::Networks(networks(&["172.30.0.0/24", "0.0.0.0/0"])),
        ..Config::default()
    });
    let chains = text.find("\tchain").map(|start| text[start..].to_owned());
    insta::assert_snapshot!(chains.expect("there are chains"));
}

/// The lines about one Service's address, without indentation.
fn about(address: &str, text: &str) -> String {
    let lines = text.lines().filter(|line| line.contains(address)).map(str::trim);
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn hints_choose_the_endpoints_of_a_zone_or_node_and_the_traffic_distribution_is_not_read() {
    let text = planned_for("hints", Config::default());
    insta::assert_snapshot!(about("10.96.0.5", &text), @"
    10.96.0.50,
    10.96.0.51
    10.96.0.50 . tcp . 80 . 0 : 10.244.2.2 . 8080,
    10.96.0.51 . tcp . 80 . 0 : 10.244.1.3 . 8080
    10.96.0.50 . tcp . 80 : 0:1,
    10.96.0.51 . tcp . 80 : 0:1
    ");
}

/// The lines that hold one of these words, without indentation.
fn lines_with(words: &[&str], text: &str) -> String {
    let lines = text.lines().filter(|line| words.iter().any(|word| line.contains(word))).map(str::trim);
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn traffic_of_pods_is_told_by_networks_or_interfaces_or_not_at_all() {
    let told = |config| lines_with(&["jump outside", "@cluster-ips masquerade"], &planned(config));
    let interface = |name: &str| DetectLocal::Interface(name.to_owned());
    insta::assert_snapshot!(told(Config { detect_local: DetectLocal::NodeCidr, ..Config::default() }), @r#"
    ip saddr != 10.244.1.0/24 ct original ip daddr @cluster-ips masquerade fully-random comment "ClusterIP from outside of the pod network"
    ip saddr != 10.244.1.0/24 jump outside
    ip6 saddr != fd00:244:1::/64 ct original ip6 daddr @cluster-ips masquerade fully-random comment "ClusterIP from outside of the pod network"
    ip6 saddr != fd00:244:1::/64 jump outside
    "#);
    insta::assert_snapshot!(told(Config { detect_local: interface("cni0"), ..Config::default() }), @r#"
    iifname != "cni0" ct original ip daddr @cluster-ips masquerade fully-random comment "ClusterIP from outside of the pod network"
    iifname != "cni0" jump outside
    iifname != "cni0" ct original ip6 daddr @cluster-ips masquerade fully-random comment "ClusterIP from outside of the pod network"
    iifname != "cni0" jump outside
    "#);
    insta::assert_snapshot!(told(Config { detect_local: interface("veth*"), ..Config::default() }), @r#"
    iifname != "veth*" ct original ip daddr @cluster-ips masquerade fully-random comment "ClusterIP from outside of the pod network"
    iifname != "veth*" jump outside
    iifname != "veth*" ct original ip6 daddr @cluster-ips masquerade fully-random comment "ClusterIP from outside of the pod network"
    iifname != "veth*" jump outside
    "#);
    insta::assert_snapshot!(told(Config { masquerade_all: true, ..Config::default() }), @r#"
    ct original ip daddr @cluster-ips masquerade fully-random comment "ClusterIP"
    jump outside
    ct original ip6 daddr @cluster-ips masquerade fully-random comment "ClusterIP"
    jump outside
    "#);
}

#[test]
fn unallocated_addresses_of_service_networks_lead_nowhere() {
    let text = planned_for("networks", Config::default());
    let words = ["chain services", "@nodeports", "unallocated", "drop comment \"no Service"];
    insta::assert_snapshot!(lines_with(&words, &text), @r#"
    chain services {
    ip daddr @nodeport-addresses meta priority set meta l4proto . th dport map @nodeports meta priority vmap @dispatch
    ip daddr 10.96.0.0/16 jump unallocated
    ip daddr 10.97.0.0/24 jump unallocated
    chain unallocated {
    drop comment "no Service has this address"
    chain services {
    ip6 daddr @nodeport-addresses meta priority set meta l4proto . th dport map @nodeports meta priority vmap @dispatch
    ip6 daddr fd00:96::/112 jump unallocated
    chain unallocated {
    drop comment "no Service has this address"
    "#);
}

#[test]
fn counters_are_sets_and_chains_of_their_own_that_are_there_where_they_are_asked_for() {
    let about = |service_counters| {
        let text = planned(Config { service_counters, ..Config::default() });
        let (table, _) = text.split_once("table ip6").expect("there are two tables");
        let counts =
            |name: &str| ["count", "connections", "received", "sent"].iter().any(|part| name.contains(part));
        let blocks = table.split("\n\n").filter(|block| {
            let name =
                block.trim_start_matches("table ip weft {").split_whitespace().nth(1).unwrap_or_default();
            counts(name) || name == "prerouting" || name == "output"
        });
        blocks.collect::<Vec<_>>().join("\n\n")
    };
    insta::assert_snapshot!(about(true));
    assert!(!about(false).contains("count"));
}

/// What keeps parts of the manifest's Services from being served, a line each as a log would have it.
fn problems(manifest: &str) -> String {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/manifests/{manifest}.yaml"));
    let snapshot =
        manifest::load(&WatchFilter::service_proxy(), &[manifest]).expect("the manifest is well-formed");
    let mut planner = Planner::new("node1");
    planner.start(&snapshot, &mut DesiredTables::new(&Config::default()));
    let lines = planner.problems().iter().flat_map(|(service, problems)| {
        problems.iter().map(move |problem| format!("{service}: {}: {problem}", problem.reason()))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn hostile_and_conflicting_services_are_named_and_take_nothing_from_others() {
    let text = planned_for("hostile", Config::default());
    insta::assert_snapshot!(about("10.96.0.60", &text), @"
    10.96.0.60,
    10.96.0.60 . tcp . 443 . 0 : 10.244.1.60 . 8443,
    10.96.0.60 . tcp . 443 : 0:1,
    ");
    insta::assert_snapshot!(about("192.0.2.60", &text), @"
    192.0.2.60 . tcp . 443 . 0 : 10.244.1.60 . 8443,
    192.0.2.60 . udp . 53 . 0 : 10.244.1.61 . 53
    192.0.2.60
    192.0.2.60 . tcp . 443,
    192.0.2.60 . udp . 53
    192.0.2.60 . tcp . 443 : 0:1,
    192.0.2.60 . udp . 53 : 0:1
    ");
    insta::assert_snapshot!(about("30060", &text), @"
    tcp . 30060 . 0 : 10.244.1.60 . 8443
    tcp . 30060
    tcp . 30060 : 1000:1
    ");
    for forbidden in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.251", "10.244.6.6"] {
        assert_eq!(about(forbidden, &text), "", "{forbidden}");
    }
    insta::assert_snapshot!(problems("hostile"), @"
    shop/attacker: FrontendTaken: 10.96.0.60:443 (tcp) is not served for this Service: Service shop/victim has it
    shop/attacker: FrontendTaken: 10.96.0.60:53 (udp) is not served for this Service: Service shop/victim has it
    shop/attacker: FrontendTaken: 192.0.2.60:443 (tcp) is not served for this Service: Service shop/victim has it
    shop/attacker: FrontendTaken: NodePort 30060 (tcp, IPv4) is not served for this Service: Service shop/victim has it
    shop/attacker: ForbiddenAddress: 0.0.0.0 is not served: Services may not have loopback, link-local, unspecified or multicast addresses
    shop/attacker: ForbiddenAddress: 127.0.0.1 is not served: Services may not have loopback, link-local, unspecified or multicast addresses
    shop/attacker: ForbiddenAddress: 224.0.0.251 is not served: Services may not have loopback, link-local, unspecified or multicast addresses
    shop/attacker: ForbiddenEndpoints: 2 endpoint(s) of EndpointSlice attacker-1 get no connections, 127.0.0.1 among them: Services may not lead to loopback, link-local, unspecified or multicast addresses
    shop/old-attacker: FrontendTaken: 10.96.0.60:22 (tcp) is not served for this Service: Service shop/victim has it
    shop/old-attacker: PortRepeated: 10.96.0.60:22 (tcp) is used by two ports of this Service: only the first one is served
    shop/old-attacker: PortRepeated: 10.96.0.62:22 (tcp) is used by two ports of this Service: only the first one is served
    ");
}
