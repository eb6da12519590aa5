//! The `weft-proxy` program: what its flags ask for. All else is in the library.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use tracing::warn;
use weft_proxy::options::Options;
use weft_proxy::{daemon, dry_run, sync, sysctl, trace};

pub(crate) fn main() -> ExitCode {
    weft_daemon::exit_code("weft-proxy", run())
}

fn run() -> Result<()> {
    let (options, notes) = Options::read(std::env::args_os())?;
    options.log_format.start();
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
        let text = match &options.trace {
            Some(packet) => dry_run::trace(options.config()?, files, packet)?,
            None => dry_run::text(options.config()?, files)?,
        };
        print!("{text}");
        return Ok(());
    }
    if let Some(packet) = &options.trace {
        print!("{}", trace::live::trace(packet)?);
        return Ok(());
    }
    Ok(weft_daemon::block_on(daemon::run(options))??)
}
