//! The `weft-dns` program. All is in the library.

use std::process::ExitCode;

use anyhow::Result;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use weft_dns::corefile::Given;
use weft_dns::daemon::{self, open_files};
use weft_dns::options::Options;

pub(crate) fn main() -> ExitCode {
    let matches = Options::command().get_matches();
    let given = matches.ids().map(|id| id.as_str());
    let given =
        given.filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine)).map(str::to_owned);
    let given = Given(given.collect());
    let options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    weft_daemon::exit_code("weft-dns", run(options, given))
}

fn run(options: Options, given: Given) -> Result<()> {
    options.log_format.start();
    open_files::allow_most();
    Ok(weft_daemon::block_on_all_cores(daemon::run(options, given))??)
}
