//! Names that are not the cluster's: asked of upstreams, and cached for their TTL. Messages to and from
//! clients are not made here.
//!
//! ```text
//! query -> special-use names -> cache -> in flight (equal queries once) -> routes -> pool -> hedging -> transport
//! ```

mod cache;
mod capabilities;
mod encoded_answer;
mod hedging;
mod in_flight;
mod keeping;
mod loop_detection;
mod partition;
mod pool;
mod query;
mod routes;
mod settings;
mod special_use;
mod transport;
mod upstream;
mod upstreams;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_proto::op::{Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::sync::Semaphore;

use crate::error::Error;
use crate::metrics::Metrics;
use crate::wire::name::QueryName;
use cache::{Cache, Found};
use hedging::HedgedQuery;
use in_flight::{InFlight, Waiter};
use loop_detection::LoopDetection;
use partition::Failure;
use pool::Pool;
use query::UpstreamQuery;
use routes::Routes;
use transport::{Response, is_failure};
use upstream::Upstream;

pub use cache::is_negative;
pub use encoded_answer::EncodedAnswer;
pub use keeping::{Keeping, Limits};
pub use query::UpstreamQueryRef;
pub use settings::{Case, Manner, Overrides, Policy, Route, Settings};
pub use special_use::SpecialUsePolicy;
pub use upstreams::{foreign, parse_upstream, resolv_conf, search_list, unusable};

/// After so long an answer past its time is given, if there is one; the upstreams go on (RFC 8767 section 5).
const CLIENT_RESPONSE_TIMEOUT: Duration = Duration::from_millis(1800);
/// How many answers are asked for ahead of their end at the same time.
const MOST_REFRESHES: usize = 64;

/// How forwarding is done, whoever is asked.
#[derive(Clone, Copy, Debug)]
pub struct ForwardOptions {
    /// Which upstream is asked first.
    pub policy: Policy,
    /// How many answers are cached, and as many denials and failures.
    pub cache_size: usize,
    /// Which special-use names no upstream is told.
    pub keep_private: SpecialUsePolicy,
    /// How names are spelled to upstreams.
    pub case: Case,
}

impl Default for ForwardOptions {
    /// As CoreDNS does.
    fn default() -> ForwardOptions {
        ForwardOptions {
            policy: Policy::Random,
            cache_size: 9984,
            keep_private: SpecialUsePolicy::Names,
            case: Case::Random,
        }
    }
}

/// Upstreams, and what they answered. Shared by all who ask.
pub struct Forwarder {
    options: ForwardOptions,
    routes: ArcSwap<Routes>,
    cache: Mutex<Cache>,
    in_flight: InFlight,
    loops: Arc<LoopDetection>,
    refreshes: Semaphore,
    /// What is done with answers where nobody says otherwise.
    keeping: Keeping,
    metrics: Arc<Metrics>,
}

/// What became of a query.
#[derive(Debug)]
pub struct Forwarded {
    /// The answer.
    pub message: Message,
    /// Where it was had.
    pub origin: Origin,
}

/// Where an answer was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From an upstream just now.
    Upstream,
    /// It was cached, and still holds; or that nobody has an answer was.
    Cache,
    /// It was cached past its time, and no upstream has a better one (RFC 8767).
    Stale,
    /// It is a special-use name, which no upstream is told.
    SpecialUse,
}

impl Forwarder {
    /// A forwarder that leads nowhere yet.
    pub fn new(options: ForwardOptions, metrics: Arc<Metrics>) -> Forwarder {
        Forwarder {
            options,
            routes: ArcSwap::from_pointee(Routes::new(Settings::default(), options.case, None)),
            cache: Mutex::new(Cache::new(options.cache_size)),
            in_flight: InFlight::default(),
            loops: Arc::default(),
            refreshes: Semaphore::new(MOST_REFRESHES),
            keeping: Keeping::default(),
            metrics,
        }
    }

    /// Another one of the same server, for other names: each knows the queries by which the other looks for
    /// loops.
    pub fn beside(&self, options: ForwardOptions) -> Forwarder {
        let loops = self.loops.clone();
        Forwarder { loops, ..Forwarder::new(options, self.metrics.clone()) }
    }

    /// Asks by these settings from now on, and looks whether they loop. Equal settings change nothing. What
    /// was cached counts as long as the same upstreams are asked for the same names. True where the settings
    /// differ. Must be called within a runtime.
    pub fn configure(&self, settings: Settings) -> bool {
        let before = self.routes.load_full();
        if *before.settings() == settings {
            return false;
        }
        let same = before.settings().asks_like(&settings);
        let routes = Routes::new(settings, self.options.case, Some(&before));
        let known = |new: &Arc<Upstream>| before.upstreams().any(|old| Arc::ptr_eq(old, new));
        for upstream in routes.upstreams().filter(|upstream| !known(upstream)) {
            tokio::spawn(self.loops.clone().probe(upstream.clone()));
        }
        self.routes.store(Arc::new(routes));
        if !same {
            self.cache().clear();
        }
        true
    }

    /// The node's own search list, which pods have too.
    pub fn search(&self) -> Vec<Name> {
        self.routes.load().settings().search.clone()
    }

    /// Whether there is any upstream.
    pub fn has_upstreams(&self) -> bool {
        self.routes.load().is_any()
    }

    /// Whether there is any upstream for that name.
    pub fn has_upstream_for(&self, name: &Name) -> bool {
        QueryName::from_name(name).is_ok_and(|name| self.routes.load().of(&name).is_some())
    }

    /// Has `write` write what is cached of a query that comes at `now`, so many seconds after it was cached.
    /// None where more is to be done than that, and where somebody else looks just now: nobody waits here,
    /// and nothing is allocated. [`Forwarder::answer_now`] does all of it.
    pub fn answer_encoded<T>(
        &self,
        asked: UpstreamQueryRef<'_>,
        now: Instant,
        write: impl FnOnce(&EncodedAnswer, u32) -> Option<T>,
    ) -> Option<T> {
        // These are where loops are looked for.
        if asked.record_type == RecordType::HINFO {
            return None;
        }
        let mut cache = self.cache.try_lock().ok()?;
        let (encoded, negative, age) = cache.encoded(&UpstreamQueryRef { recursion: true, ..asked }, now)?;
        let written = write(encoded, age)?;
        drop(cache);
        self.metrics.forwarding().hit(negative);
        Some(written)
    }

    /// The answer to `query` where none needs to be waited for. `asked` is the header of the client's
    /// request.
    pub fn answer_now(
        self: &Arc<Self>,
        query: &Query,
        asked: &Metadata,
        dnssec_ok: bool,
    ) -> Option<Forwarded> {
        let ask = UpstreamQuery::new(query, asked, dnssec_ok).ok()?;
        if self.loops.is_probe(&ask) {
            return Some(Forwarded {
                message: failure(query, ResponseCode::Refused.into()),
                origin: Origin::SpecialUse,
            });
        }
        let (message, origin) = match self.special_use(query) {
            Some(message) => (message, Origin::SpecialUse),
            None => self.cached(query, &ask)?,
        };
        Some(self.for_client(message, origin, asked, dnssec_ok))
    }

    fn special_use(&self, query: &Query) -> Option<Message> {
        let name = QueryName::from_name(&query.name).ok()?;
        let routes = self.routes.load();
        if routes.stub_domain(&name).is_some() {
            return None;
        }
        special_use::answer(&name, query, self.options.keep_private, routes.settings().chosen)
    }

    fn cached(self: &Arc<Self>, query: &Query, ask: &UpstreamQuery) -> Option<(Message, Origin)> {
        let kept = UpstreamQuery { recursion: true, ..ask.clone() };
        // Not in the match: what it does must not wait for the lock.
        let found = self.cache().find(&kept, Instant::now());
        match found {
            Found::Fresh(message) => Some((message, Origin::Cache)),
            Found::Ending(message) => {
                self.refresh(kept);
                Some((message, Origin::Cache))
            }
            Found::Stale(message) => Some((message, Origin::Stale)),
            Found::Failed(failed) => Some((failure(query, failed), Origin::Cache)),
            Found::Expired(_) | Found::Nothing => None,
        }
    }

    /// Asks upstreams for `query`, on behalf of a client whose request had the header `asked`. Names are
    /// asked as they are: no search list is tried. To be called after [`Forwarder::answer_now`] gave nothing.
    ///
    /// # Errors
    /// What the last upstream did, where none gave an answer and none is cached.
    pub async fn ask(
        self: &Arc<Self>,
        query: &Query,
        asked: &Metadata,
        dnssec_ok: bool,
    ) -> Result<Forwarded, Arc<Error>> {
        let ask = UpstreamQuery::new(query, asked, dnssec_ok);
        let ask = ask.map_err(|_| Arc::new(Error::Question(query.name.to_string())))?;
        let waiter = self.join(&ask).wait();
        let found = self.cache().find(&UpstreamQuery { recursion: true, ..ask }, Instant::now());
        let outcome = match found {
            // What is there past its time limits how long it is worth waiting.
            Found::Expired(old) | Found::Stale(old) => {
                match tokio::time::timeout(CLIENT_RESPONSE_TIMEOUT, waiter).await {
                    Ok(Ok(message)) if !is_failure(&message) => Ok(message),
                    _ => return Ok(self.for_client(old, Origin::Stale, asked, dnssec_ok)),
                }
            }
            _ => waiter.await,
        };
        let message = Arc::unwrap_or_clone(outcome?);
        Ok(self.for_client(message, Origin::Upstream, asked, dnssec_ok))
    }

    /// Counts an answer, and makes it fit for the client who asked.
    fn for_client(
        &self,
        mut message: Message,
        origin: Origin,
        asked: &Metadata,
        dnssec_ok: bool,
    ) -> Forwarded {
        let metrics = self.metrics.forwarding();
        match origin {
            Origin::Upstream => metrics.missed(),
            Origin::Cache => metrics.hit(is_negative(&message)),
            Origin::Stale => metrics.served_stale(),
            Origin::SpecialUse => metrics.special_use(),
        }
        // RFC 6840 section 5.8: only who asked is told.
        message.metadata.authentic_data &= asked.authentic_data || dnssec_ok;
        Forwarded { message, origin }
    }

    /// Waits for the answer to a query that is under way, or gets it under way. It goes on when nobody waits
    /// any more: the answer is cached.
    fn join(self: &Arc<Self>, ask: &UpstreamQuery) -> Waiter {
        let (waiter, leader) = self.in_flight.join(ask);
        match leader {
            None => self.metrics.forwarding().coalesced(),
            Some(leader) => {
                let this = self.clone();
                tokio::spawn(async move {
                    let outcome = this.resolve(leader.query()).await;
                    leader.finish(outcome.map(|response| Arc::new(response.message)).map_err(Arc::new));
                });
            }
        }
        waiter
    }

    /// Asks for an answer anew, unless many are asked for already.
    fn refresh(self: &Arc<Self>, ask: UpstreamQuery) {
        let this = self.clone();
        tokio::spawn(async move {
            if let Ok(_place) = this.refreshes.try_acquire() {
                this.metrics.forwarding().prefetched();
                let _ = this.join(&ask).wait().await;
            }
        });
    }

    async fn resolve(&self, ask: &UpstreamQuery) -> Result<Response, Error> {
        let pool =
            QueryName::from_wire(&ask.name).ok().and_then(|name| self.routes.load().of(&name).cloned());
        let mut result = self.query_upstreams(ask, pool.as_ref()).await;
        let keeping = pool.as_ref().map_or(&self.keeping, |pool| pool.keeping());
        if let Ok(response) = &mut result
            && !is_failure(&response.message)
        {
            keeping.limit(&mut response.message, &mut response.bytes);
        }
        // Without recursion an upstream says what it happens to know: that is no answer for others.
        if ask.recursion {
            let (mut cache, now) = (self.cache(), Instant::now());
            match &result {
                Ok(response) if is_failure(&response.message) => {
                    cache.fail(ask.clone(), Failure::of(&response.message), now, now + keeping.failure);
                }
                Ok(response) if keeping.of(&response.message).kept => {
                    cache.put(ask.clone(), &response.message, &response.bytes, now);
                }
                Ok(_) => {}
                // Nothing is wrong with the name.
                Err(Error::NoSocket(_)) => {}
                Err(_) => {
                    cache.fail(ask.clone(), ResponseCode::ServFail.into(), now, now + cache::TIMEOUT_TTL)
                }
            }
            self.metrics.forwarding().cached(cache.len(), cache.evictions());
        }
        result
    }

    async fn query_upstreams(
        &self,
        ask: &UpstreamQuery,
        pool: Option<&Arc<Pool>>,
    ) -> Result<Response, Error> {
        let pool = pool.ok_or(Error::NoUpstream)?;
        if pool.is_down() {
            self.metrics.forwarding().all_down();
        }
        let order = pool.order(self.options.policy, rand::random::<u32>() as usize);
        HedgedQuery::new(ask.clone(), order, self.metrics.clone()).run().await
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // A panic while it was locked leaves at worst an entry less.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure(query: &Query, Failure { code, extended }: Failure) -> Message {
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.metadata.response_code = code;
    message.add_query(query.clone());
    if let Some(extended) = extended {
        message.edns.get_or_insert_default().options_mut().insert(extended.option());
    }
    message
}
