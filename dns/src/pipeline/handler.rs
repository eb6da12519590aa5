//! The full lane: a client's message through all stages, each of which is called from here once. Counts what
//! is answered.
//!
//! ```text
//! parse -> classify (the zone's answer, and the CNAME chain behind it) -> resolve -> encode
//! ```

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};
use hickory_proto::op::ResponseCode;

use crate::forward::Forwarder;
use crate::metrics::{Metrics, Source, Tally};
use crate::pipeline::cname_chain::follow_cnames;
use crate::pipeline::encode::encode_zone;
use crate::pipeline::fair_share::FairSemaphore;
use crate::pipeline::parse::{Parsed, Question, parse};
use crate::pipeline::query_log::{Lane, QueryLog};
use crate::pipeline::rate_limit::ClientLimit;
use crate::pipeline::resolve::{Pending, Resolver, Response};
use crate::wire::format::Transport;
use crate::zone::Zone;

/// All that a server needs to answer, shared by its sockets.
pub struct Handler {
    zone: Arc<ArcSwap<Zone>>,
    resolver: Resolver,
    /// What the full lane counts.
    tally: Mutex<Tally>,
    limit: Option<ClientLimit>,
    log: Option<Arc<QueryLog>>,
}

/// What is to be done with a client's message.
pub enum Step {
    /// Nothing.
    Drop,
    /// Send this message.
    Reply(Vec<u8>),
    /// Wait for [`PendingReply::finish`], and send that.
    Pending(Box<PendingReply>),
}

/// A query for which upstreams must be asked.
pub struct PendingReply {
    handler: Arc<Handler>,
    question: Box<Question>,
    pending: Box<Pending>,
    arrival: Arrival,
}

/// Who sent a query, and when.
#[derive(Clone, Copy)]
struct Arrival {
    client: IpAddr,
    started: Instant,
}

impl Handler {
    /// A handler over the zone that `zone` holds at any moment. While the forwarder has no upstream only the
    /// cluster's names are answered. `most_waiting` bounds the queries that wait for upstreams.
    pub fn new(
        zone: Arc<ArcSwap<Zone>>,
        forwarder: Arc<Forwarder>,
        most_waiting: usize,
        metrics: Arc<Metrics>,
    ) -> Handler {
        let tally = Mutex::new(metrics.tally());
        let resolver = Resolver { forwarder, permits: Arc::new(FairSemaphore::new(most_waiting)), metrics };
        Handler { zone, resolver, tally, limit: None, log: None }
    }

    /// Takes no more than so many queries a second of each client over UDP.
    pub fn limited(self, client_rate: NonZeroU32) -> Handler {
        Handler { limit: Some(ClientLimit::new(client_rate.get())), ..self }
    }

    /// Notes all answers in `log`.
    pub fn logged(self, log: Arc<QueryLog>) -> Handler {
        Handler { log: Some(log), ..self }
    }

    /// The limit on queries of each client, if there is one.
    pub fn limit(&self) -> Option<&ClientLimit> {
        self.limit.as_ref()
    }

    /// The query log, while it is on.
    pub fn log(&self) -> Option<&QueryLog> {
        self.log.as_deref().filter(|log| log.is_on())
    }

    /// The zone as it is now.
    pub fn zone(&self) -> Guard<Arc<Zone>> {
        self.zone.load()
    }

    /// What is known of names outside of the cluster.
    pub fn forwarder(&self) -> &Forwarder {
        &self.resolver.forwarder
    }

    /// Whether names outside of the cluster are answered too.
    pub fn recurses(&self) -> bool {
        self.resolver.forwarder.has_upstreams()
    }

    /// Where queries and answers are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.resolver.metrics
    }

    /// Handles one message: at once, where the zone or the cache suffices. Never panics, whatever the bytes.
    pub fn handle(self: &Arc<Self>, bytes: &[u8], client: IpAddr, transport: Transport) -> Step {
        let arrival = Arrival { client, started: Instant::now() };
        let question = match parse(bytes, transport) {
            Parsed::Ignored => return Step::Drop,
            Parsed::Rejected(reply) => {
                self.note(transport, &reply, arrival);
                return Step::Reply(reply);
            }
            Parsed::Question(question) => question,
        };
        let record_type = question.query.query_type;
        self.tally().request(transport, client, record_type, bytes.len());
        let zone = self.zone.load();
        let chain = follow_cnames(&zone, &question.name, record_type);
        let respond = |response: Response<'_>| self.respond(&question, &response, arrival);
        match self.resolver.resolve(&zone, &question, &chain, client, &respond) {
            Ok(reply) => Step::Reply(reply),
            Err(pending) => {
                let handler = self.clone();
                Step::Pending(Box::new(PendingReply { handler, question, pending, arrival }))
            }
        }
    }

    /// The last stage: encodes a response, counts it and notes it in the log.
    fn respond(&self, question: &Question, response: &Response<'_>, arrival: Arrival) -> Vec<u8> {
        let recurses = self.recurses();
        let (source, bytes) = match response {
            Response::Zone(zone, chain) => (Source::Zone, encode_zone(zone, question, chain, recurses)),
            Response::Reply(reply, source) => (*source, reply.encode(&question.head(), recurses)),
        };
        let code = match response {
            Response::Reply(reply, _) => reply.code,
            // The zone says nothing that takes more than the header's four bits.
            Response::Zone(..) => ResponseCode::from(0, bytes[3] & 0x0f),
        };
        let mut tally = self.tally();
        tally.response(question.transport(), source, code, bytes.len());
        if question.dnssec_ok() {
            tally.wants_dnssec(source);
        }
        tally.took(source, 1, arrival.started.elapsed());
        drop(tally);
        self.note(question.transport(), &bytes, arrival);
        bytes
    }

    fn note(&self, transport: Transport, reply: &[u8], Arrival { client, started }: Arrival) {
        if let Some(log) = self.log() {
            log.note(Lane::Full, client, transport, reply, started.elapsed());
        }
    }

    /// Nothing that could panic is done while it is held, and numbers are always whole.
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingReply {
    /// Asks upstreams, and makes the reply.
    pub async fn finish(self) -> Vec<u8> {
        let PendingReply { handler, question, pending, arrival } = self;
        let respond = |response: Response<'_>| handler.respond(&question, &response, arrival);
        pending.finish(&handler.resolver, &question, &respond).await
    }
}
