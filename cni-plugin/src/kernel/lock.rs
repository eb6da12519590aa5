//! A lock that all calls of the plugin share in one network namespace: the one whose tables they change. It
//! is taken on the namespace's own file, so that there is nothing to clean up, and the kernel releases it
//! when a call dies.

use std::fs::File;

use crate::{Error, Result};

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Held as long as this value lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until nobody holds it exclusively. Others may share it.
    pub(crate) fn shared() -> Result<Lock> {
        let file = File::open(OWN).map_err(Error::Lock)?;
        file.lock_shared().map_err(Error::Lock)?;
        Ok(Lock { _file: file })
    }

    /// Waits until nobody holds it.
    pub(crate) fn exclusive() -> Result<Lock> {
        let file = File::open(OWN).map_err(Error::Lock)?;
        file.lock().map_err(Error::Lock)?;
        Ok(Lock { _file: file })
    }
}
