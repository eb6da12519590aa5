//! What a person is shown who asks why a packet does not get through.

use std::path::PathBuf;
use std::process::Command;

use weft_proxy::config::{Config, DetectLocal};
use weft_proxy::dry_run;

fn traced(config: Config, packet: &str) -> String {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/manifests/shop.yaml");
    let config = Config { node: "node1".into(), ..config };
    dry_run::trace(config, &[manifest], packet).unwrap_or_else(|error| format!("error: {error}\n"))
}

/// What the program itself prints, and what it says is wrong.
fn run(arguments: &[&str]) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_weft-proxy"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert_eq!(output.status.success(), output.stderr.is_empty());
    (text(output.stdout), text(output.stderr))
}

#[test]
fn the_program_traces_a_packet_through_the_rules_of_manifests_with_the_flags_that_it_is_given() {
    let packet = "10.244.1.9 -> 10.96.0.20:80/tcp";
    let flags = ["--hostname-override=node1", "--cluster-cidr=10.99.0.0/16", "--trace", packet];
    let (printed, _) = run(&[&flags[..], &["--dry-run", "tests/manifests/shop.yaml"]].concat());
    let end = "the packet goes to 10.244.1.2:8080 with an address of this node as its source";
    assert!(printed.lines().any(|line| line == end), "{printed}");
    let (_, error) = run(&["--trace", "10.96.0.20:80", "--dry-run", "tests/manifests/shop.yaml"]);
    assert!(
        error.starts_with("weft-proxy: cannot trace \"10.96.0.20:80\": there is no \"->\" in it"),
        "{error}"
    );
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
