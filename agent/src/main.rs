//! The `weft-agent` program: what its flags ask for. All else is in the library.

use std::process::ExitCode;

use clap::Parser;
use weft_agent::options::Options;
use weft_agent::{Result, daemon};

pub(crate) fn main() -> ExitCode {
    weft_daemon::exit_code("weft-agent", run(Options::parse()))
}

fn run(options: Options) -> Result<()> {
    options.log_format.start();
    if options.cleanup {
        return daemon::clean_up(&options);
    }
    if !options.dry_run.is_empty() {
        print!("{}", daemon::dry_run(&options)?);
        return Ok(());
    }
    weft_daemon::block_on(daemon::run(options))?
}
