//! `--dry-run`: what would be programmed for manifests on disk, as nft text.

use std::path::PathBuf;

use weft_cluster::{View, manifest};

use crate::config::Config;
use crate::error::Error;
use crate::planner::{Planner, everything};

/// The tables that a fresh machine would get for the objects in these files.
///
/// # Errors
/// Which file cannot be read or parsed.
pub fn text(config: Config, files: &[PathBuf]) -> Result<String, Error> {
    let snapshot = manifest::load(View::Proxied, files)?;
    let mut planner = Planner::new(config);
    planner.update(&snapshot, &everything(&snapshot));
    let tables: Vec<String> = planner.tables().iter().map(ToString::to_string).collect();
    Ok(tables.join("\n"))
}
