//! `weft-all`: the daemons and the `weft` command in one program, which acts by the name that it was started
//! by. They share most of their code, so that the image is a third of what its programs are apart. Each
//! program's own `main.rs` is compiled in as it stands; nothing of them is said here.

#[path = "../../agent/src/main.rs"]
mod agent;
#[path = "../../dns/src/main.rs"]
mod dns;
#[path = "../../installer/src/main.rs"]
mod installer;
#[path = "../../proxy/src/main.rs"]
mod proxy;

use std::env;
use std::path::Path;
use std::process::ExitCode;

/// A program: its name, and its `main`.
type Program = (&'static str, fn() -> ExitCode);

const PROGRAMS: [Program; 5] = [
    ("weft", installer::main),
    // As a plugin of kubectl.
    ("kubectl-weft", installer::main),
    ("weft-agent", agent::main),
    ("weft-proxy", proxy::main),
    ("weft-dns", dns::main),
];

fn main() -> ExitCode {
    let called = env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default();
    match PROGRAMS.iter().find(|(program, _)| name == *program) {
        Some((_, main)) => main(),
        None => {
            let names = PROGRAMS.map(|(program, _)| program).join(", ");
            eprintln!("weft-all: {called:?} is no program of it; start it by a link called one of {names}");
            ExitCode::FAILURE
        }
    }
}
