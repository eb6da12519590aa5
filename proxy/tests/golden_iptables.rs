//! What is programmed for manifests in the mode iptables, as `iptables -S` prints it. That the kernel takes
//! it, and that `iptables-nft` prints just this, is tested in `kernel/`.

use std::path::PathBuf;

use weft_proxy::config::{Config, DetectLocal, NodePortAddresses, ProxyMode};
use weft_proxy::dry_run;

fn planned(manifest: &str, config: Config) -> String {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/manifests/{manifest}.yaml"));
    let config = Config { node: "node1".into(), mode: ProxyMode::Iptables, ..config };
    dry_run::text(config, &[manifest]).expect("the manifest is well-formed")
}

#[test]
fn a_plan_prints_as_iptables_prints_the_rules_of_kube_proxy() {
    insta::assert_snapshot!(planned("shop", Config::default()));
}

#[test]
fn affinity_and_source_ranges_are_rules_of_a_services_own_chains() {
    let cluster_cidrs = vec!["10.244.0.0/16".parse().expect("a network")];
    let text = planned("affinity", Config { cluster_cidrs, ..Config::default() });
    let (text, _) = text.split_once("# ip6tables").expect("there are two families");
    insta::assert_snapshot!(text);
}

/// The lines that hold one of these words.
fn lines_with(words: &[&str], text: &str) -> String {
    let lines = text.lines().filter(|line| words.iter().any(|word| line.contains(word)));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn traffic_of_pods_is_told_by_networks_or_interfaces_or_not_at_all() {
    let words = ["443 -j KUBE-MARK-MASQ", "pod traffic"];
    let told = |config| lines_with(&words, &planned("shop", config));
    let interface = |name: &str| DetectLocal::Interface(name.to_owned());
    insta::assert_snapshot!(told(Config::default()), @"");
    insta::assert_snapshot!(told(Config { detect_local: DetectLocal::NodeCidr, ..Config::default() }));
    insta::assert_snapshot!(told(Config { detect_local: interface("cni0"), ..Config::default() }));
    insta::assert_snapshot!(told(Config { detect_local: interface("veth*"), ..Config::default() }));
    insta::assert_snapshot!(told(Config { masquerade_all: true, ..Config::default() }));
}

#[test]
fn node_ports_are_served_at_all_addresses_at_those_of_networks_or_at_the_first_one() {
    let told = |networks: &[&str]| {
        let networks = networks.iter().map(|text| text.parse().expect("a network")).collect();
        let nodeport_addresses = NodePortAddresses::Networks(networks);
        lines_with(
            &["-j KUBE-NODEPORTS"],
            &planned("shop", Config { nodeport_addresses, ..Config::default() }),
        )
    };
    insta::assert_snapshot!(told(&["0.0.0.0/0", "::/0"]));
    insta::assert_snapshot!(told(&["172.30.0.0/24", "127.0.0.0/8", "fd00:30::/64"]));
}
