//! The `weft-proxy` program: flags, log, runtime. All else is in the library.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use tracing::warn;
use tracing_subscriber::EnvFilter;
use weft_proxy::options::{LogFormat, Options};
use weft_proxy::{daemon, dry_run, sync, sysctl};

pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (options, notes) = Options::read(std::env::args_os())?;
    // Of a failed connection weft-cluster says more, and says it once.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    notes.iter().for_each(|note| warn!("{note}"));
    if options.cleanup {
        return Ok(sync::clean_up()?);
    }
    if options.init_only {
        let refused: Vec<_> = sysctl::apply(&options.limits).iter().map(|it| it.error.to_string()).collect();
        ensure!(refused.is_empty(), "{}", refused.join("\nweft-proxy: "));
        return Ok(());
    }
    if let Some(files) = &options.dry_run {
        print!("{}", dry_run::text(options.config()?, files)?);
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    Ok(runtime.block_on(daemon::run(options))?)
}
