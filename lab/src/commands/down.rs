//! `weft-lab down`.

use super::Here;
use crate::error::{Error, Result};
use crate::teardown;

/// Removes the lab and says what was removed.
pub(super) fn run(here: &Here) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    println!("{}", teardown::remove(&here.name, &here.dir)?);
    Ok(())
}
