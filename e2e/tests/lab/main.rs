//! One lab, made from the programs in `WEFT_BIN_DIR`, and what a user relies on in it. Scenarios run in the order
//! of their names' numbers, on the same lab; the last one takes it down and looks for anything left behind.
//! Needs root, and `nft`, `dig`, `getent` and `kubectl` on the host.

mod cluster;
mod daemons;
mod lab;
mod removal;
mod services;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use crate::lab::{Lab, Outcome};

/// A scenario: what it shows, and how.
type Scenario = (&'static str, fn(&Lab) -> Outcome);

/// All scenarios, in their order. Later ones may rely on the application of the first.
const SCENARIOS: [Scenario; 16] = [
    ("01 every check of the demo passes", services::every_check_of_the_demo_passes),
    ("02 glibc resolves a Service by short name and in full", services::glibc_resolves_services),
    ("03 dig inside a pod answers over UDP and TCP", services::dig_inside_a_pod),
    ("04 datagrams reach a Service", services::datagrams_reach_a_service),
    ("05 nft lists all rules, none of them for one Service", services::no_rule_for_one_service),
    ("06 kubectl gets, applies and deletes", cluster::kubectl_gets_applies_and_deletes),
    ("07 a container that ends is started again", cluster::an_ended_container_is_started_again),
    ("08 a pod that cannot run says why", cluster::a_pod_that_cannot_run_says_why),
    ("09 a hostNetwork pod has its node's address", cluster::a_host_network_pod),
    ("10 a pod gets the kubelet's files and environment", cluster::files_and_environment),
    ("11 weft-agent is killed and nobody notices", daemons::agent_is_killed),
    ("12 weft-proxy is killed and nobody notices", daemons::proxy_is_killed),
    ("13 weft-dns is killed and comes back", daemons::dns_is_killed),
    ("14 a Node's routes go and come with it", cluster::a_nodes_routes_go_and_come),
    ("15 deleting everything leaves no element, route or reservation", removal::deleting_everything),
    ("16 two labs side by side, killed and removed, leave nothing", removal::nothing_is_left),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share one lab.
    arguments.test_threads = Some(1);
    if arguments.list {
        return libtest_mimic::run(
            &arguments,
            SCENARIOS.map(|(name, _)| Trial::test(name, || Ok(()))).into(),
        )
        .exit_code();
    }
    let lab = match Lab::up("e2e", 3) {
        Ok(lab) => Arc::new(lab),
        Err(error) => {
            eprintln!("lab tests: {error}");
            return ExitCode::FAILURE;
        }
    };
    let trial = |(name, scenario): Scenario| {
        let lab = lab.clone();
        Trial::test(name, move || scenario(&lab).map_err(Into::into))
    };
    let conclusion = libtest_mimic::run(&arguments, SCENARIOS.map(trial).into());
    conclusion.exit_code()
}
