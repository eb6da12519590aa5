//! The registry behind its one lock, and the bell that rings after every change.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::registry::Registry;

/// The state of the cluster as requests, watchers and controllers share it.
#[derive(Debug)]
pub(crate) struct Cluster {
    registry: Mutex<Registry>,
    changed: watch::Sender<u64>,
}

impl Cluster {
    /// Shares that registry.
    pub(crate) fn new(registry: Registry) -> Self {
        let (changed, _) = watch::channel(registry.store.version());
        Self { registry: Mutex::new(registry), changed }
    }

    /// Looks at the state. Nobody else reads or writes meanwhile, so look briefly.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state, at the present time, and rings the bell when anything has changed.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = self.lock();
        registry.store.set_time(Timestamp::now());
        let answer = change(&mut registry);
        let version = registry.store.version();
        drop(registry);
        self.changed.send_if_modified(|last| {
            let newer = *last < version;
            *last = version.max(*last);
            newer
        });
        answer
    }

    /// The bell: holds the newest version.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A panic under the lock is a fault of this program, but the lab is still of use after it.
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
