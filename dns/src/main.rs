//! The `weft-dns` program. All is in the library.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use weft_dns::options::Options;
use weft_dns::{daemon, files};

pub(crate) fn main() -> ExitCode {
    weft_daemon::exit_code("weft-dns", run(Options::parse()))
}

fn run(options: Options) -> Result<()> {
    options.log_format.start();
    files::allow_most();
    Ok(weft_daemon::block_on_all_cores(daemon::run(options))??)
}
