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
use crate::pipeline::blocks::Blocks;
use crate::pipeline::classify::Answer;
use crate::pipeline::cname_chain::{CnameChain, follow_cnames};
use crate::pipeline::encode::encode_zone;
use crate::pipeline::fair_share::FairSemaphore;
use crate::pipeline::parse::{Parsed, Question, parse};
use crate::pipeline::query_log::{Lane, QueryLog};
use crate::pipeline::rate_limit::ClientLimit;
use crate::pipeline::resolve::{Pending, Resolver, Response};
use crate::pipeline::rules::rewrite::{Back, lead_back};
use crate::pipeline::rules::{self, failure};
use crate::wire::decoder::decode;
use crate::wire::extended_error::ExtendedError;
use crate::wire::format::Transport;
use crate::wire::reply::Reply;
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
    asked: Box<Asked>,
    pending: Box<Pending>,
    arrival: Arrival,
}

/// A query, and what it became where a rule rewrites it.
struct Asked {
    question: Box<Question>,
    rewritten: Option<(Box<Question>, Vec<Back>)>,
}

impl Asked {
    /// The question to which an answer is looked for.
    fn effective(&self) -> &Question {
        match &self.rewritten {
            Some((question, _)) => question,
            None => &self.question,
        }
    }
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
        let blocks = ArcSwap::from_pointee(Blocks::one(forwarder));
        let resolver = Resolver { blocks, permits: Arc::new(FairSemaphore::new(most_waiting)), metrics };
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

    /// What is done with which names.
    pub fn blocks(&self) -> Guard<Arc<Blocks>> {
        self.resolver.blocks.load()
    }

    /// Handles queries by other blocks from now on.
    pub fn set_blocks(&self, blocks: Blocks) {
        self.resolver.blocks.store(Arc::new(blocks));
    }

    /// Whether names outside of the cluster are answered too.
    pub fn recurses(&self) -> bool {
        self.blocks().recurses()
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
        let block = self.blocks().of(&question.name).clone();
        let asked = match block.rules.as_ref().and_then(|rules| rules.rewrite(&question.name, record_type)) {
            None => Asked { question, rewritten: None },
            Some(rewritten) => {
                let new = rewritten.name.and_then(|name| question.for_another(name, rewritten.record_type));
                let Some(new) = new else {
                    let asked = Asked { question, rewritten: None };
                    let reply = failure("a rewrite of this name gives no name");
                    return Step::Reply(self.respond(&asked, &Response::Reply(reply, Source::Zone), arrival));
                };
                Asked { question, rewritten: Some((Box::new(new), rewritten.back)) }
            }
        };
        let respond = |response: Response<'_>| self.respond(&asked, &response, arrival);
        let effective = asked.effective();
        let by_rules = block.rules.as_ref().and_then(|rules| {
            rules.answer(rules::Asked {
                name: &effective.name,
                spelled: &effective.query.name,
                record_type: effective.query.query_type,
                client,
            })
        });
        if let Some(reply) = by_rules {
            return Step::Reply(respond(Response::Reply(reply, Source::Zone)));
        }
        let zone = self.zone.load();
        let chain = match block.serves_cluster {
            true => follow_cnames(&zone, &effective.name, effective.query.query_type),
            false => CnameChain { aliases: Vec::new(), end: Answer::NotInZone },
        };
        match self.resolver.resolve(&block, &zone, effective, &chain, client, &respond) {
            Ok(reply) => Step::Reply(reply),
            Err(pending) => {
                let (handler, asked) = (self.clone(), Box::new(asked));
                Step::Pending(Box::new(PendingReply { handler, asked, pending, arrival }))
            }
        }
    }

    /// The last stage: encodes a response, counts it and notes it in the log.
    fn respond(&self, asked: &Asked, response: &Response<'_>, arrival: Arrival) -> Vec<u8> {
        let (recurses, question, effective) = (self.recurses(), &asked.question, asked.effective());
        let (source, mut bytes) = match response {
            Response::Zone(zone, chain) => (Source::Zone, encode_zone(zone, effective, chain, recurses)),
            Response::Reply(reply, source) => (*source, reply.encode(&effective.head(), recurses)),
        };
        let mut code = match response {
            Response::Reply(reply, _) => reply.code,
            // The zone says nothing that takes more than the header's four bits.
            Response::Zone(..) => ResponseCode::from(0, bytes[3] & 0x0f),
        };
        if let Some((_, back)) = &asked.rewritten {
            let mut reply = reply_of(&bytes);
            lead_back(&mut reply, back);
            (code, bytes) = (reply.code, reply.encode(&question.head(), recurses));
        }
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
        let PendingReply { handler, asked, pending, arrival } = self;
        let respond = |response: Response<'_>| handler.respond(&asked, &response, arrival);
        pending.finish(&handler.resolver, asked.effective(), &respond).await
    }
}

/// A message of our own, taken apart again: a rule leads it back to the question that the client asked.
fn reply_of(bytes: &[u8]) -> Reply {
    let Ok(message) = decode(bytes) else {
        return failure("a rewritten query has an answer that cannot be read");
    };
    Reply {
        code: message.metadata.response_code,
        extended: ExtendedError::of(&message),
        authoritative: message.metadata.authoritative,
        authentic: message.metadata.authentic_data,
        answers: message.answers,
        authorities: message.authorities,
        additionals: message.additionals,
    }
}
