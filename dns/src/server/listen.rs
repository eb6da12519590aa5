//! What every transport offers to the daemon, so that a new one is a file of its own.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::pipeline::handler::Handler;

/// The bound sockets of a transport at one address.
pub trait Listen: Send {
    /// The transport, as the log has it.
    fn transport(&self) -> &'static str;

    /// The address and port that it is bound to.
    fn address(&self) -> SocketAddr;

    /// Duplicates of all sockets, for the next server.
    ///
    /// # Errors
    /// The process may not open more files.
    fn duplicates(&self) -> io::Result<Vec<OwnedFd>>;

    /// Serves all sockets on `tasks` and on threads that `tasks` waits for, until `stop`. Queries that were
    /// taken by then are still answered. Must be called within a runtime.
    ///
    /// # Errors
    /// The system gives no more threads.
    fn serve(self: Box<Self>, handler: Arc<Handler>, tasks: &TaskTracker, stop: Stop) -> Result<(), Error>;
}

/// When to end what.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Neither datagrams nor connections are taken any more; connections that are there go on, but for those
    /// of QUIC, which are made of datagrams.
    pub accepting: CancellationToken,
    /// Everything.
    pub all: CancellationToken,
}

impl Default for Stop {
    fn default() -> Stop {
        let all = CancellationToken::new();
        Stop { accepting: all.child_token(), all }
    }
}
