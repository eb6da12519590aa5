//! What is programmed for manifests, as nft text.

use std::path::PathBuf;

use weft_proxy::config::{Config, NodePortAddresses};
use weft_proxy::dry_run;

fn planned(config: Config) -> String {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/manifests/shop.yaml");
    dry_run::text(Config { node: "node1".into(), ..config }, &[manifest])
        .expect("the manifest is well-formed")
}

#[test]
fn a_plan_prints_as_nft_text() {
    insta::assert_snapshot!(planned(Config::default()));
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
