//! What is programmed for manifests in the mode ipvs, as `ipvsadm -Ln` prints it and as nft text.

use std::path::PathBuf;

use weft_proxy::config::{Config, ProxyMode};
use weft_proxy::dry_run;
use weft_proxy::ipvs_options::{IpvsOptions, Scheduler};

fn planned(manifest: &str, scheduler: Scheduler) -> String {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/manifests/{manifest}.yaml"));
    let ipvs = IpvsOptions { scheduler, ..IpvsOptions::default() };
    let config = Config { node: "node1".into(), mode: ProxyMode::Ipvs, ipvs, ..Config::default() };
    dry_run::text(config, &[manifest]).expect("the manifest is well-formed")
}

/// The virtual servers alone.
fn servers(text: &str) -> &str {
    text.split_once("\ntable ip weft").expect("there are tables").0
}

#[test]
fn a_plan_prints_as_ipvsadm_does_and_as_nft_text_without_what_spreads_connections() {
    insta::assert_snapshot!(planned("shop", Scheduler::Rr));
}

#[test]
fn affinity_is_the_persistence_of_virtual_servers() {
    insta::assert_snapshot!(servers(&planned("affinity", Scheduler::Wlc)));
}

#[test]
fn schedulers_by_clients_have_the_settings_that_they_need() {
    let scheduling = |scheduler| {
        let text = planned("shop", scheduler);
        let line = text.lines().find(|line| line.starts_with("TCP ")).expect("there is a virtual server");
        line.splitn(3, ' ').nth(2).expect("it has an address").to_owned()
    };
    assert!(scheduling(Scheduler::Sh).ends_with(" sh (sh-fallback)"), "{}", scheduling(Scheduler::Sh));
    assert!(scheduling(Scheduler::Mh).ends_with(" mh (mh-port)"), "{}", scheduling(Scheduler::Mh));
    assert!(scheduling(Scheduler::Dh).ends_with(" dh"));
}
