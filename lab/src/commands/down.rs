//! `weft-lab down`.

use super::CommandContext;
use crate::error::{Error, Result};
use crate::teardown;

/// Removes the lab and says what was removed.
pub(super) fn run(context: &CommandContext) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    println!("{}", teardown::remove(&context.name, &context.dir)?);
    Ok(())
}
