//! `weft-cni`, the CNI plugin as a program: environment and standard input in, JSON out. Installed under the name
//! `loopback` it is that plugin.

use std::env;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use weft_cni::{Bridge, Loopback};
use weft_types::cni::{Code, Failure, Version, dispatch};

fn main() -> ExitCode {
    // A runtime that gets no JSON cannot tell what went wrong.
    std::panic::set_hook(Box::new(|panic| {
        let failure = Failure::new(Code::Internal, format!("weft-cni panicked: {panic}"));
        println!("{}", failure.to_json(Version::NEWEST));
    }));
    let lookup = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let read = || {
        let mut stdin = Vec::with_capacity(4096);
        io::stdin().read_to_end(&mut stdin).map(|_| stdin)
    };
    let program = env::args_os().next().unwrap_or_default();
    let outcome = match Path::new(&program).file_name().and_then(|name| name.to_str()) {
        Some("loopback") => dispatch(&Loopback, &lookup, read),
        _ => {
            let allow_own_namespace =
                lookup("CNI_NETNS_OVERRIDE").is_some_and(|value| value == "1" || value == "true");
            dispatch(&Bridge { allow_own_namespace }, &lookup, read)
        }
    };
    // Whoever closed these does not read them.
    let _ = io::stderr().write_all(outcome.stderr.as_bytes());
    let _ = io::stdout().write_all(outcome.stdout.as_bytes());
    if outcome.success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
