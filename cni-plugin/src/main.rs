//! `weft-cni`, the CNI plugin as a program. Under the name `loopback` it is that plugin, and under the names
//! `weft-ipam` and `host-local` it is Weft's IPAM, which it has inside anyway: the image holds one file for
//! all of them.

use std::env;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use weft_cni::{Bridge, Loopback, repair};
use weft_cni_spec::program::{run, variable};
use weft_ipam::Ipam;

fn main() -> ExitCode {
    let program = env::args_os().next().unwrap_or_default();
    match Path::new(&program).file_name().and_then(|name| name.to_str()) {
        Some("loopback") => return run(&Loopback, "weft-cni"),
        Some("weft-ipam" | "host-local") => return run(&Ipam, "weft-ipam"),
        _ => {}
    }
    if env::args_os().nth(1).is_some_and(|argument| argument == "repair") {
        return put_back();
    }
    let is_set = |value: String| value == "1" || value.eq_ignore_ascii_case("true");
    let allow_own_namespace = variable("CNI_NETNS_OVERRIDE").is_some_and(is_set);
    run(&Bridge { allow_own_namespace }, "weft-cni")
}

/// For the agent, which notices that something is missing: `weft-cni repair`, with the network's
/// configuration on standard input.
fn put_back() -> ExitCode {
    let mut config = Vec::new();
    let told = io::stdin().read_to_end(&mut config);
    let told = told.and_then(|_| writeln!(io::stdout(), "{}", repair(&config).to_json()));
    told.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}
