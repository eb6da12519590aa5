//! `weft-ipam`, the CNI IPAM plugin as a program: environment and standard input in, JSON out. Installed under the
//! name `host-local` it stands in for the reference plugin.

use std::env;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use weft_ipam::Ipam;
use weft_types::cni::{Code, Failure, Version, dispatch};

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let failure = Failure::new(Code::Internal, format!("weft-ipam panicked: {panic}"));
        println!("{}", failure.to_json(Version::NEWEST));
    }));
    let lookup = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let read = || {
        let mut stdin = Vec::new();
        io::stdin().read_to_end(&mut stdin).map(|_| stdin)
    };
    let outcome = dispatch(&Ipam, &lookup, read);
    // Whoever closed these does not read them.
    let _ = io::stderr().write_all(outcome.stderr.as_bytes());
    let _ = io::stdout().write_all(outcome.stdout.as_bytes());
    if outcome.success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
