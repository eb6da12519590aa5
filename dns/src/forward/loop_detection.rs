//! Whether queries to an upstream come back to this server, so that they would loop for ever. Found as
//! CoreDNS finds it: a name that nobody knows is asked, and seen again or not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use tokio::time::{sleep, timeout};

use super::query::UpstreamQuery;
use super::transport::{TIMEOUT, exchange};
use super::upstream::Upstream;

/// How often the name is asked, should datagrams be lost or the upstream be starting too.
const TRIES: u32 = 3;
/// The pause before an upstream that was found out is looked at again.
const RECHECK: Duration = Duration::from_secs(30);

/// The names that are out.
#[derive(Debug, Default)]
pub(super) struct LoopDetection(Mutex<HashMap<Box<[u8]>, Arc<Upstream>>>);

impl LoopDetection {
    /// Sends out names through an upstream, and again from time to time where one came back, until none does.
    pub(super) async fn probe(self: Arc<Self>, upstream: Arc<Upstream>) {
        while self.returns(&upstream).await {
            sleep(RECHECK).await;
            // Nobody asks it any more but us.
            if Arc::strong_count(&upstream) == 1 {
                return;
            }
        }
        if upstream.note_loop(false) {
            tracing::info!(upstream = %upstream.address(), "the upstream no longer loops back to this server: asked again");
        }
    }

    async fn returns(&self, upstream: &Arc<Upstream>) -> bool {
        let name = random_name();
        self.lock().insert(name.clone(), upstream.clone());
        let query = UpstreamQuery::own(&name, RecordType::HINFO);
        for _ in 0..TRIES {
            if matches!(timeout(TIMEOUT, exchange(upstream, &query)).await, Ok(Ok(_))) {
                break;
            }
        }
        // Whoever saw it has taken it out.
        self.lock().remove(&name).is_none()
    }

    /// Tells of a query that came. True where it is one of ours, whose upstream is asked no more.
    pub(super) fn is_probe(&self, query: &UpstreamQuery) -> bool {
        if query.record_type != RecordType::HINFO {
            return false;
        }
        let Some(upstream) = self.lock().remove(&query.name) else { return false };
        if upstream.note_loop(true) {
            tracing::error!(
                upstream = %upstream.address(),
                "loop detected: the upstream sends queries back to this server. It is not asked until it no longer does; \
                 name another with --upstream, or make it query others"
            );
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, Arc<Upstream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two labels of random digits, as CoreDNS has it: nothing that a resolver on the way would answer by itself.
fn random_name() -> Box<[u8]> {
    let mut name = Vec::new();
    for number in [rand::random::<u64>(), rand::random()] {
        let digits = number.to_string();
        name.push(digits.len() as u8);
        name.extend_from_slice(digits.as_bytes());
    }
    name.into()
}
