//! From a client's message to the reply: the zone first, an upstream for what is not the zone's. No socket is
//! touched here.

mod walk;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::forward::{Forwarded, Forwarder, Origin};
use crate::metrics::{Metrics, Source, Tally};
use crate::pipeline::classify::Answer;
use crate::pipeline::cname_chain::{CnameChain, follow_cnames};
use crate::pipeline::fair_share::{FairSemaphore, Permit};
use crate::pipeline::query_log::{Lane, QueryLog};
use crate::pipeline::rate_limit::ClientLimit;
use crate::pipeline::records::reply;
use crate::pipeline::search_list::own_labels;
use crate::wire::extended_error::ExtendedError;
use crate::wire::format::Transport;
use crate::wire::message::{Question, Received, Reply, read};
use crate::wire::rotation::rotate;
use crate::zone::Zone;
use walk::Walk;

/// For how many seconds that stands in for everything.
const ANY_TTL: u32 = 3600;

/// All that a server needs to answer, shared by its sockets.
pub struct Handler {
    zone: Arc<ArcSwap<Zone>>,
    forwarder: Arc<Forwarder>,
    /// For queries that wait for upstreams.
    places: Arc<FairSemaphore>,
    metrics: Arc<Metrics>,
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

/// A query that an upstream must be asked for. Holds its place among those that wait.
pub struct PendingReply {
    handler: Arc<Handler>,
    question: Box<Question>,
    work: Work,
    arrival: Arrival,
    place: Permit,
    /// Whether it is a part of a search, which is noted as a whole.
    is_part: bool,
}

/// Who sent a query, and when.
#[derive(Clone, Copy)]
struct Arrival {
    client: IpAddr,
    started: Instant,
}

/// What is to be asked.
enum Work {
    /// The query, or what it leads to: `reply` is what the zone says so far, the aliases that lead to the name of
    /// `query`.
    UpstreamQuery { reply: Reply, query: Query },
    /// The names of a search.
    Walk(Walk),
}

impl Handler {
    /// A handler over the zone that `zone` holds at any moment. While the forwarder leads nowhere only the cluster's
    /// names are answered. `most_waiting` bounds the queries that wait for upstreams.
    pub fn new(
        zone: Arc<ArcSwap<Zone>>,
        forwarder: Arc<Forwarder>,
        most_waiting: usize,
        metrics: Arc<Metrics>,
    ) -> Handler {
        let tally = Mutex::new(metrics.tally());
        Handler {
            zone,
            forwarder,
            places: Arc::new(FairSemaphore::new(most_waiting)),
            metrics,
            tally,
            limit: None,
            log: None,
        }
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
        &self.forwarder
    }

    /// Whether names outside of the cluster are answered too.
    pub fn recurses(&self) -> bool {
        self.forwarder.has_upstreams()
    }

    /// Where queries and answers are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Handles one message: at once, where the zone suffices. Never panics, whatever the bytes.
    pub fn handle(self: &Arc<Self>, bytes: &[u8], client: IpAddr, transport: Transport) -> Step {
        let arrival = Arrival { client, started: Instant::now() };
        let step = match read(bytes, transport) {
            Received::Ignored => Step::Drop,
            Received::Rejected(reply) => Step::Reply(reply),
            Received::Question(question) => {
                self.tally().request(transport, client, question.query.query_type, bytes.len());
                self.answer(question, arrival)
            }
        };
        if let Step::Reply(reply) = &step {
            self.note(transport, reply, arrival);
        }
        step
    }

    fn note(&self, transport: Transport, reply: &[u8], Arrival { client, started }: Arrival) {
        if let Some(log) = self.log() {
            log.note(Lane::Full, client, transport, reply, started.elapsed());
        }
    }

    fn answer(self: &Arc<Self>, question: Box<Question>, arrival: Arrival) -> Step {
        let zone = self.zone.load();
        let record_type = question.query.query_type;
        let chain = follow_cnames(&zone, &question.name, record_type);
        let nothing = matches!(chain.end, Answer::NxDomain) && chain.aliases.is_empty();
        match nothing.then(|| own_labels(&zone, arrival.client, &question.name, record_type)).flatten() {
            Some(own) => self.search(&zone, question, own, arrival),
            None => self.say(&zone, question, &chain, arrival),
        }
    }

    /// Says what there is at the end of a chain, or forwards the query.
    fn say(
        self: &Arc<Self>,
        zone: &Zone,
        question: Box<Question>,
        chain: &CnameChain<'_>,
        arrival: Arrival,
    ) -> Step {
        let foreign = matches!(chain.end, Answer::NotInZone);
        match reply(zone, &question, chain) {
            Err(_) => self.finish(&question, &Reply::empty(ResponseCode::ServFail), Source::Zone, arrival),
            Ok(reply) if foreign => self.forward(question, reply, arrival),
            Ok(reply) => self.finish(&question, &reply, Source::Zone, arrival),
        }
    }

    fn forward(self: &Arc<Self>, question: Box<Question>, mut reply: Reply, arrival: Arrival) -> Step {
        let target =
            reply.answers.last().and_then(alias_target).unwrap_or_else(|| question.query.name.clone());
        if question.query.query_type == RecordType::ANY {
            reply.answers.push(any(target));
            return self.finish(&question, &reply, Source::Upstream, arrival);
        }
        let query = Query::query(target.clone(), question.query.query_type);
        if let Some(known) = self.forwarder.answer_now(&query, &question.metadata, question.dnssec_ok()) {
            extend(&mut reply, &target, known, &question);
            return self.finish(&question, &reply, Source::Upstream, arrival);
        }
        let refusal = match (self.forwarder.has_upstream_for(&target), self.place(arrival.client)) {
            // Whoever gets an alias alone from a server without recursion follows it elsewhere.
            (false, _) if !reply.answers.is_empty() => reply,
            (false, _) => refused("not a name of the cluster, and no upstream is configured"),
            (true, Some(place)) => {
                return self.wait(question, Work::UpstreamQuery { reply, query }, arrival, place);
            }
            (true, None) => {
                self.metrics.shed();
                refused("too many queries wait for upstreams")
            }
        };
        self.finish(&question, &refusal, Source::Upstream, arrival)
    }

    /// A place among those that wait for upstreams, if there is one for that client.
    fn place(&self, client: IpAddr) -> Option<Permit> {
        self.places.take(client).filter(|_| self.recurses())
    }

    fn wait(self: &Arc<Self>, question: Box<Question>, work: Work, arrival: Arrival, place: Permit) -> Step {
        Step::Pending(Box::new(PendingReply {
            handler: self.clone(),
            question,
            work,
            arrival,
            place,
            is_part: false,
        }))
    }

    fn finish(&self, question: &Question, reply: &Reply, source: Source, arrival: Arrival) -> Step {
        Step::Reply(self.encode(question, reply, source, arrival))
    }

    fn encode(&self, question: &Question, reply: &Reply, source: Source, arrival: Arrival) -> Vec<u8> {
        let bytes = question.encode(reply, self.recurses());
        let mut tally = self.tally();
        tally.response(question.transport(), source, reply.code, bytes.len());
        if question.dnssec_ok() {
            tally.wants_dnssec(source);
        }
        tally.took(source, 1, arrival.started.elapsed());
        bytes
    }

    /// Nothing that could panic is done while it is held, and numbers are always whole.
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingReply {
    /// Asks, and makes the reply.
    pub async fn finish(self) -> Vec<u8> {
        let (handler, transport) = (self.handler.clone(), self.question.transport());
        let (arrival, is_part) = (self.arrival, self.is_part);
        let reply = self.reply().await;
        if !is_part {
            handler.note(transport, &reply, arrival);
        }
        reply
    }

    async fn reply(self) -> Vec<u8> {
        let PendingReply { handler, question, work, arrival, place, .. } = self;
        let (mut reply, query) = match work {
            Work::Walk(walk) => return walk.finish(&handler, question, arrival, place).await,
            Work::UpstreamQuery { reply, query } => (reply, query),
        };
        match handler.forwarder.ask(&query, &question.metadata, question.dnssec_ok()).await {
            Ok(forwarded) => extend(&mut reply, &query.name, forwarded, &question),
            Err(error) => {
                tracing::warn!(name = %query.name, %error, "cannot resolve");
                reply.code = ResponseCode::ServFail;
                reply.extended = Some(ExtendedError::unreachable(error.to_string()));
            }
        }
        handler.encode(&question, &reply, Source::Upstream, arrival)
    }
}

/// Adds what is known of `target` to the aliases that led there. The code is that of the last name (RFC 6604
/// section 3).
fn extend(
    reply: &mut Reply,
    target: &Name,
    Forwarded { mut message, origin }: Forwarded,
    question: &Question,
) {
    rotate(&mut message.answers, question.metadata.id);
    let own = reply.answers.is_empty();
    reply.authoritative = !own;
    reply.authentic = own && message.metadata.authentic_data;
    let told = ExtendedError::of(&message);
    reply.add(target, message);
    reply.extended = reason(reply.code, origin, told);
}

/// Where an upstream told why, its words count, unless they are of another time.
fn reason(code: ResponseCode, origin: Origin, told: Option<ExtendedError>) -> Option<ExtendedError> {
    match (origin, code) {
        (Origin::Stale, code) => Some(ExtendedError::stale(code == ResponseCode::NXDomain)),
        (Origin::SpecialUse, ResponseCode::NXDomain) => {
            Some(ExtendedError::other("special-use name: not forwarded"))
        }
        (Origin::Cache, ResponseCode::ServFail) => Some(told.unwrap_or_else(ExtendedError::cached)),
        _ => told,
    }
}

fn refused(reason: &'static str) -> Reply {
    Reply { extended: Some(ExtendedError::other(reason)), ..Reply::empty(ResponseCode::Refused) }
}

/// All that is told to who asks for everything of a foreign name (RFC 8482 section 4.2): upstreams are not made to send
/// much because somebody asked for little.
fn any(name: Name) -> Record {
    Record::from_rdata(name, ANY_TTL, RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new())))
}

fn alias_target(record: &Record) -> Option<Name> {
    match &record.data {
        RData::CNAME(target) => Some(target.0.clone()),
        _ => None,
    }
}
