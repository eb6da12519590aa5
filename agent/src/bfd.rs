//! The one BFD of this node: whoever has peers watched shares it, as its ports are had once.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use weft_announce::bfd::service::Bfd;

use crate::{Error, Result};

/// The way to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedBfd(Arc<Mutex<Weak<Bfd>>>);

impl SharedBfd {
    /// It runs from the first who asks until the last who has it lets go; then all peers hear that it ends.
    pub(crate) fn get(&self) -> Result<Arc<Bfd>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bfd) = running.upgrade() {
            return Ok(bfd);
        }
        let failed = |problem| Error::Runtime { operation: "watch peers by BFD", problem };
        let bfd = Arc::new(Bfd::start().map_err(failed)?);
        *running = Arc::downgrade(&bfd);
        Ok(bfd)
    }
}
