//! The signals that end a daemon, and those that must not.

use std::future::pending;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// These end a process on the spot by default, though who sends them hardly means that. So does SIGHUP, which
/// asks for files to be read again.
const HARMLESS: [SignalKind; 3] =
    [SignalKind::user_defined1(), SignalKind::user_defined2(), SignalKind::alarm()];

/// SIGTERM and SIGINT; one that cannot be had never comes.
#[derive(Debug)]
pub struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    /// From now on no signal ends the process where it stands. Must be called within a tokio runtime.
    #[expect(clippy::new_without_default, reason = "it acts on the process")]
    pub fn new() -> Signals {
        let had = |kind| signal(kind).inspect_err(|error| warn!(%error, "cannot listen to signals")).ok();
        // Who has listened to a signal once is not ended by it any more, though nobody listens.
        HARMLESS.into_iter().for_each(|kind| drop(had(kind)));
        Signals {
            terminate: had(SignalKind::terminate()),
            interrupt: had(SignalKind::interrupt()),
            hangup: had(SignalKind::hangup()),
        }
    }

    /// Waits for the next one, and says which.
    pub async fn next(&mut self) -> SignalKind {
        loop {
            tokio::select! {
                () = received(&mut self.terminate) => return SignalKind::terminate(),
                () = received(&mut self.interrupt) => return SignalKind::interrupt(),
                () = received(&mut self.hangup) => {
                    info!("SIGHUP changes nothing: settings are followed as they change, and flags need a restart");
                }
            }
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

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn only_those_that_are_meant_to_end_a_daemon_do() {
        let mut signals = Signals::new();
        for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM] {
            raise(signal).unwrap();
        }
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(signals.next().await, SignalKind::terminate());
        raise(Signal::SIGHUP).unwrap();
        raise(Signal::SIGINT).unwrap();
        assert_eq!(signals.next().await, SignalKind::interrupt());
    }
}
