//! What every session with a client needs, whatever the transport. A transport whose streams hold one query
//! each needs no more than [`Session::answer`].

use std::net::IpAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pipeline::handler::{Handler, Step};
use crate::server::connections::Limits;
use crate::wire::format::Transport;

/// The parts of the server that a session uses.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) handler: Arc<Handler>,
    pub(super) transport: Transport,
    pub(super) limits: Limits,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Session {
    /// The reply to one query of `client`; none where it deserves none.
    pub(super) async fn answer(&self, query: &[u8], client: IpAddr) -> Option<Vec<u8>> {
        match self.handler.handle(query, client, self.transport) {
            Step::Drop => None,
            Step::Reply(reply) => Some(reply),
            Step::Pending(pending) => Some(pending.finish().await),
        }
    }
}
