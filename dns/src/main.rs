//! The `weft-dns` program. All is in the library.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use weft_dns::daemon::{self, open_files};
use weft_dns::options::Options;

pub(crate) fn main() -> ExitCode {
    weft_daemon::exit_code("weft-dns", run(Options::parse()))
}

fn run(options: Options) -> Result<()> {
    options.log_format.start();
    open_files::allow_most();
    Ok(weft_daemon::block_on_all_cores(daemon::run(options))??)
}
