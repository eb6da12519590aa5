//! The `weft-proxy` program: what its flags ask for. All else is in the library.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use tracing::{info, warn};
use weft_proxy::config::{Config, ProxyMode};
use weft_proxy::dataplane::{self, Through, ebpf, ipvs};
use weft_proxy::options::Options;
use weft_proxy::{daemon, dry_run, sysctl};

pub(crate) fn main() -> ExitCode {
    weft_daemon::exit_code("weft-proxy", run())
}

fn run() -> Result<()> {
    let (options, notes) = Options::read(std::env::args_os())?;
    options.log_format.start();
    notes.iter().for_each(|note| warn!("{note}"));
    if options.cleanup {
        return Ok(dataplane::clean_up(&options.ebpf.config())?);
    }
    if options.init_only {
        // A default that cannot be had keeps no node from its Services.
        let (asked, defaults): (Vec<_>, Vec<_>) =
            sysctl::apply(&options.limits, options.settings_dir.clone())
                .into_iter()
                .partition(|refused| refused.asked);
        defaults.iter().for_each(|refused| warn!("{}", refused.error));
        let asked: Vec<_> = asked.iter().map(|refused| refused.error.to_string()).collect();
        if options.proxy_mode == ProxyMode::Ipvs {
            ipvs::prepare(&options.ipvs, options.settings_dir.clone())?;
        }
        // Without a proxy that keeps them in step they would lead to endpoints that are gone.
        if ebpf::withdraw(&options.ebpf.config())? {
            info!("detached the eBPF programs of an earlier run");
        }
        ensure!(asked.is_empty(), "{}", asked.join("\nweft-proxy: "));
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
        let config = Config { mode: options.proxy_mode, ..Config::default() };
        print!("{}", dataplane::offline(&config).trace(packet, Through::Kernel)?);
        return Ok(());
    }
    Ok(weft_daemon::block_on(daemon::run(options))??)
}
