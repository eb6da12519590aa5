//! The `weft-agent` program: flags, log, runtime. All else is in the library.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use weft_agent::options::{LogFormat, Options};
use weft_agent::{Error, Result, daemon};

/// Without RUST_LOG. The Kubernetes client repeats whole answers that it cannot read; the watch says what is wrong.
const FILTER: &str = "info,kube_client=error";

pub(crate) fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    match options.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    if options.cleanup {
        return daemon::clean_up(&options);
    }
    if !options.dry_run.is_empty() {
        print!("{}", daemon::dry_run(&options)?);
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|problem| Error::Runtime { operation: "start the runtime", problem })?;
    runtime.block_on(daemon::run(options))
}
