//! `weft-cni`, the CNI plugin as a program. Installed under the name `loopback` it is that plugin.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use weft_cni::{Bridge, Loopback};
use weft_ipam::program::{run, variable};

fn main() -> ExitCode {
    let program = env::args_os().next().unwrap_or_default();
    if Path::new(&program).file_name().is_some_and(|name| name == "loopback") {
        return run(&Loopback, "weft-cni");
    }
    let is_set = |value: String| value == "1" || value.eq_ignore_ascii_case("true");
    let allow_own_namespace = variable("CNI_NETNS_OVERRIDE").is_some_and(is_set);
    run(&Bridge { allow_own_namespace }, "weft-cni")
}
