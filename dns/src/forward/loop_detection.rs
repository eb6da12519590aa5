//! Whether questions to an upstream come back to this server, so that they would go in circles for ever. Found as
//! CoreDNS finds it: a name that nobody knows is asked, and seen again or not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use tokio::time::{sleep, timeout};

use super::query::Ask;
use super::transport::{PATIENCE, exchange};
use super::upstream::Upstream;

/// How often the name is asked, should datagrams be lost or the upstream be starting too.
const TRIES: u32 = 3;
/// The pause before an upstream that was found out is looked at again.
const AGAIN: Duration = Duration::from_secs(30);

/// The names that are out.
#[derive(Debug, Default)]
pub(super) struct Circles(Mutex<HashMap<Box<[u8]>, Arc<Upstream>>>);

impl Circles {
    /// Sends out names through an upstream, and again from time to time where one came back, until none does.
    pub(super) async fn look(self: Arc<Self>, upstream: Arc<Upstream>) {
        while self.comes_back(&upstream).await {
            sleep(AGAIN).await;
            // Nobody asks it any more but us.
            if Arc::strong_count(&upstream) == 1 {
                return;
            }
        }
        if upstream.note_circular(false) {
            tracing::info!(upstream = %upstream.address(), "questions do not come back any more: asked again");
        }
    }

    async fn comes_back(&self, upstream: &Arc<Upstream>) -> bool {
        let name = random_name();
        self.lock().insert(name.clone(), upstream.clone());
        let ask = Ask::own(&name, RecordType::HINFO);
        for _ in 0..TRIES {
            if matches!(timeout(PATIENCE, exchange(upstream, &ask)).await, Ok(Ok(_))) {
                break;
            }
        }
        // Whoever saw it has taken it out.
        self.lock().remove(&name).is_none()
    }

    /// Tells of a question that came. True where it is one of ours, whose upstream is asked no more.
    pub(super) fn saw(&self, ask: &Ask) -> bool {
        if ask.record_type != RecordType::HINFO {
            return false;
        }
        let Some(upstream) = self.lock().remove(&ask.name) else { return false };
        if upstream.note_circular(true) {
            tracing::error!(
                upstream = %upstream.address(),
                "questions to the upstream come back to this server: it is not asked until they do not; \
                 name another with --upstream, or make it ask others"
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
