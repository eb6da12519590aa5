//! `--dry-run`: what would be programmed for manifests on disk, as text; and with `--trace`, what that would
//! do with a packet.

use std::path::PathBuf;

use weft_cluster::{WatchFilter, manifest};

use crate::config::Config;
use crate::dataplane::{self, Dataplane, Through};
use crate::error::Error;
use crate::services::planner::Planner;

/// What a fresh machine would get for the objects in these files.
///
/// # Errors
/// Which file cannot be read or parsed.
pub fn text(config: Config, files: &[PathBuf]) -> Result<String, Error> {
    Ok(staged(config, files)?.render())
}

/// A packet's way through that, on a machine that has its Node's addresses.
///
/// # Errors
/// Which file cannot be read or parsed, and what of the packet cannot be understood or followed.
pub fn trace(config: Config, files: &[PathBuf], packet: &str) -> Result<String, Error> {
    staged(config, files)?.trace(packet, Through::Staged)
}

fn staged(config: Config, files: &[PathBuf]) -> Result<Box<dyn Dataplane>, Error> {
    let snapshot = manifest::load(&WatchFilter::service_proxy(), files)?;
    let mut dataplane = dataplane::offline(&config);
    Planner::new(config.node).start(&snapshot, &mut *dataplane);
    Ok(dataplane)
}
