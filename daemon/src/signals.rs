//! The signals that end a daemon.

use std::future::pending;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

/// SIGTERM and SIGINT; one that cannot be had never comes.
#[derive(Debug)]
pub struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Signals {
    /// From now on no signal ends the process where it stands. Must be called within a tokio runtime.
    #[expect(clippy::new_without_default, reason = "it acts on the process")]
    pub fn new() -> Signals {
        let had = |kind| signal(kind).inspect_err(|error| warn!(%error, "cannot listen to signals")).ok();
        Signals { terminate: had(SignalKind::terminate()), interrupt: had(SignalKind::interrupt()) }
    }

    /// Waits for the next one, and says which.
    pub async fn next(&mut self) -> SignalKind {
        tokio::select! {
            () = received(&mut self.terminate) => SignalKind::terminate(),
            () = received(&mut self.interrupt) => SignalKind::interrupt(),
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => pending().await,
    }
}
