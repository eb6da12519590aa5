//! `--dry-run`: what would be programmed for manifests on disk, as nft text; and with `--trace`, what that would do with a
//! packet.

use std::path::PathBuf;

use weft_cluster::{WatchFilter, manifest};
use weft_types::Snapshot;

use crate::config::Config;
use crate::error::Error;
use crate::planner::{Planner, everything};
use crate::trace::{Memory, Packet, Tracer};

/// The tables that a fresh machine would get for the objects in these files.
///
/// # Errors
/// Which file cannot be read or parsed.
pub fn text(config: Config, files: &[PathBuf]) -> Result<String, Error> {
    let (_, planner) = planned(config, files)?;
    let tables: Vec<String> = planner.tables().iter().map(ToString::to_string).collect();
    Ok(tables.join("\n"))
}

/// A packet's way through these tables, on a machine that has its Node's addresses.
///
/// # Errors
/// Which file cannot be read or parsed, and what of the packet cannot be understood or followed.
pub fn trace(config: Config, files: &[PathBuf], packet: &str) -> Result<String, Error> {
    let node = config.node.clone();
    let (snapshot, planner) = planned(config, files)?;
    let node = snapshot.node(&node).cloned().unwrap_or_default();
    let packet = Packet::parse(packet, &node.addresses)?;
    let tracer = Tracer::new(planner.tables(), node.addresses).on_node(&node.pod_cidrs);
    tracer.explain(&packet, &Memory::default())
}

fn planned(config: Config, files: &[PathBuf]) -> Result<(Snapshot, Planner), Error> {
    let snapshot = manifest::load(&WatchFilter::service_proxy(), files)?;
    let mut planner = Planner::new(config);
    planner.update(&snapshot, &everything(&snapshot));
    Ok((snapshot, planner))
}
