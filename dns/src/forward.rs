//! Names that are not the cluster's: asked of upstreams, one after the other, and remembered for their time.
//! Messages to and from clients are not made here.

mod cache;
mod exchange;
mod upstreams;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hickory_proto::op::{Message, Metadata, Query, ResponseCode};

use crate::error::Error;
use crate::message::write_query;
use crate::name::QueryName;
use cache::{Cache, Key};
use exchange::{Response, exchange};

pub use cache::is_negative;
pub use upstreams::{foreign, parse_upstream, resolv_conf};

/// How many answers are remembered, as CoreDNS has it.
const CACHE: usize = 9984;
/// At least this many tries are made, be there one upstream or more: a datagram may be lost.
const TRIES: usize = 2;
/// At most this many upstreams are tried for one question: the client does not wait longer.
const MOST_TRIES: usize = 4;

/// The upstreams, in the order in which they are tried, and what they said.
pub struct Forwarder {
    upstreams: Vec<SocketAddr>,
    /// The upstream that answered last: the first to be asked next.
    preferred: AtomicUsize,
    cache: Mutex<Cache>,
}

/// What became of a question.
pub struct Forwarded {
    /// The upstream's answer.
    pub message: Message,
    /// Where it was had.
    pub origin: Origin,
}

/// Where an upstream's answer was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the upstream just now.
    Upstream,
    /// It was remembered, and still holds.
    Cache,
    /// It was remembered past its time, and no upstream has a better one (RFC 8767).
    Stale,
}

impl Forwarder {
    /// A forwarder to these upstreams, of which there is at least one.
    pub fn new(upstreams: Vec<SocketAddr>) -> Forwarder {
        Forwarder { upstreams, preferred: AtomicUsize::new(0), cache: Mutex::new(Cache::new(CACHE)) }
    }

    /// How many answers are remembered.
    pub fn cached(&self) -> usize {
        self.cache().len()
    }

    /// Asks for `query`, on behalf of a client whose request had the header `asked`. Names are asked as they
    /// are: no search list is tried.
    ///
    /// # Errors
    /// What the last upstream did, where none gave an answer.
    pub async fn ask(&self, query: &Query, asked: &Metadata, dnssec_ok: bool) -> Result<Forwarded, Error> {
        let name = QueryName::from_name(&query.name).map_err(|_| Error::Question(query.name.to_string()))?;
        let key = Key {
            name: name.wire(0, name.len()).into(),
            record_type: query.query_type,
            dnssec_ok,
            checking_disabled: asked.checking_disabled,
        };
        if let Some(message) = self.cache().get(&key, Instant::now()) {
            return Ok(Forwarded { message, origin: Origin::Cache });
        }
        let answered = self.ask_upstreams(query, asked, dnssec_ok).await;
        if !matches!(&answered, Ok(response) if !is_failure(&response.message))
            && let Some(message) = self.cache().get_stale(&key, Instant::now())
        {
            return Ok(Forwarded { message, origin: Origin::Stale });
        }
        let Response { message, bytes } = answered?;
        // Without recursion an upstream says what it happens to know: that is no answer for others.
        if asked.recursion_desired {
            self.cache().put(key, &message, &bytes, Instant::now());
        }
        Ok(Forwarded { message, origin: Origin::Upstream })
    }

    /// Tries upstreams until one answers. A failure that an upstream reports is passed on only when no other
    /// has anything better.
    async fn ask_upstreams(
        &self,
        query: &Query,
        asked: &Metadata,
        dnssec_ok: bool,
    ) -> Result<Response, Error> {
        let first = self.preferred.load(Ordering::Relaxed);
        let tries = self.upstreams.len().clamp(TRIES, MOST_TRIES);
        let mut worst = Err(Error::Question(query.name.to_string()));
        for place in (first..first + tries).map(|place| place % self.upstreams.len()) {
            let request =
                write_query(query, asked, dnssec_ok).map_err(|_| Error::Question(query.name.to_string()))?;
            match exchange(self.upstreams[place], query, &request).await {
                Ok(response) if is_failure(&response.message) => worst = Ok(response),
                Ok(response) => {
                    self.preferred.store(place, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => {
                    tracing::debug!(%error, name = %query.name, "upstream failed");
                    worst = worst.or(Err(error));
                }
            }
        }
        worst
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // A panic while it was locked leaves at worst an entry less.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another upstream may know better.
fn is_failure(message: &Message) -> bool {
    matches!(
        message.metadata.response_code,
        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp
    )
}
