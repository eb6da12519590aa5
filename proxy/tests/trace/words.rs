//! What a person is shown who asks why a packet does not get through.

use std::path::PathBuf;

use weft_proxy::config::{Config, DetectLocal};
use weft_proxy::dry_run;

fn traced(config: Config, packet: &str) -> String {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/manifests/shop.yaml");
    let config = Config { node: "node1".into(), ..config };
    dry_run::trace(config, &[manifest], packet).unwrap_or_else(|error| format!("error: {error}\n"))
}

#[test]
fn every_rule_that_is_asked_is_shown_with_what_it_found() {
    insta::assert_snapshot!(traced(Config::default(), "10.244.1.9 -> 10.96.0.20:80"));
}

#[test]
fn a_packet_that_nobody_answers_is_shown_to_its_end() {
    insta::assert_snapshot!(traced(Config::default(), "node -> [fd00:96::20]:81/udp"));
}

#[test]
fn what_is_not_known_is_an_error_that_says_what_to_add() {
    let config = Config { detect_local: DetectLocal::Interface("cni0".into()), ..Config::default() };
    insta::assert_snapshot!(traced(config, "10.244.1.9 -> 10.96.0.20:80"), @r#"error: cannot follow the packet through the rule `iifname != "cni0" jump outside` of chain prerouting: it asks for the interface; add "via INTERFACE" to the packet"#);
}
