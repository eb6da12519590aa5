//! The third stage: where the zone's answer is not the whole one, what upstreams know, and the names of a
//! pod's search list. At once where that can be, or pending where upstreams must be asked. Both end in a
//! [`Response`] for the encoder.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::forward::{Forwarded, Forwarder};
use crate::metrics::{Metrics, Source};
use crate::pipeline::blocks::{Block, Blocks};
use crate::pipeline::classify::Answer;
use crate::pipeline::cname_chain::{CnameChain, follow_cnames};
use crate::pipeline::fair_share::{FairSemaphore, Permit};
use crate::pipeline::parse::Question;
use crate::pipeline::search_list::{names_after, own_labels};
use crate::pipeline::search_walk::{Found, Step, Walk};
use crate::pipeline::upstream_answer::{alias_reply, any, extend, refused};
use crate::wire::extended_error::ExtendedError;
use crate::wire::name::QueryName;
use crate::wire::reply::Reply;
use crate::zone::Zone;

/// What is answered to a query.
pub(super) enum Response<'z> {
    /// What the zone says.
    Zone(&'z Zone, &'z CnameChain<'z>),
    /// Records of other origin, and who knew them.
    Reply(Reply, Source),
}

/// Everything that queries are resolved with, besides the zone.
pub(super) struct Resolver {
    pub(super) blocks: ArcSwap<Blocks>,
    /// For queries that wait for upstreams.
    pub(super) permits: Arc<FairSemaphore>,
    pub(super) metrics: Arc<Metrics>,
}

/// A query for which upstreams must be asked. Holds its place among those that wait.
pub(super) struct Pending {
    work: Work,
    permit: Permit,
    client: IpAddr,
}

/// What is to be asked.
enum Work {
    /// The query, or what it leads to: `reply` is what the zone says so far, the aliases that lead to the
    /// name of `query`.
    Ask { reply: Reply, query: Query, forwarder: Arc<Forwarder> },
    /// The names of a search list, from the first one outside of the cluster.
    Walk(Walk, Name),
}

impl Resolver {
    /// Who is asked for a name that a query leads to.
    pub(super) fn forwarder_of(&self, name: &Name) -> Arc<Forwarder> {
        self.blocks.load().forwarder_of(name)
    }

    /// Resolves a query of `client`, whose name is of `block`, and that led through the zone by `chain`. Has
    /// `respond` make the reply, now or by [`Pending::finish`].
    pub(super) fn resolve<T>(
        &self,
        block: &Block,
        zone: &Arc<Zone>,
        question: &Question,
        chain: &CnameChain<'_>,
        client: IpAddr,
        respond: &impl Fn(Response<'_>) -> T,
    ) -> Result<T, Box<Pending>> {
        let nothing = matches!(chain.end, Answer::NxDomain) && chain.aliases.is_empty();
        let own = nothing.then(|| own_labels(zone, client, &question.name, question.query.query_type));
        let Some(own) = own.flatten() else {
            // A name that was rewritten is still of the block that it came to.
            let own = chain.aliases.is_empty().then_some(&block.forwarder);
            return self.follow(zone, question, chain, client, (None, own), respond);
        };
        let names = names_after(zone, &question.query.name, own, &block.forwarder.search());
        let mut walk = Walk::new(zone.clone(), names);
        match walk.step() {
            Step::InZone(name) => self.completed(zone, question, &name, client, None, respond),
            Step::Foreign(name) => match self.permit(client, &block.forwarder) {
                Some(permit) => Err(Box::new(Pending { work: Work::Walk(walk, name), permit, client })),
                None => Ok(respond(Response::Zone(zone, chain))),
            },
            Step::Nothing => Ok(respond(Response::Zone(zone, chain))),
        }
    }

    /// The answer to a query whose search list ends at a name of the cluster.
    fn completed<T>(
        &self,
        zone: &Zone,
        question: &Question,
        name: &QueryName,
        client: IpAddr,
        permit: Option<Permit>,
        respond: &impl Fn(Response<'_>) -> T,
    ) -> Result<T, Box<Pending>> {
        self.metrics.completed();
        let mut chain = follow_cnames(zone, name, question.query.query_type);
        chain.aliases.insert(0, name.wire(0, name.len()));
        self.follow(zone, question, &chain, client, (permit, None), respond)
    }

    /// What there is at the end of a chain: the zone's own, or what upstreams know.
    fn follow<T>(
        &self,
        zone: &Zone,
        question: &Question,
        chain: &CnameChain<'_>,
        client: IpAddr,
        (permit, forwarder): (Option<Permit>, Option<&Arc<Forwarder>>),
        respond: &impl Fn(Response<'_>) -> T,
    ) -> Result<T, Box<Pending>> {
        if !matches!(chain.end, Answer::NotInZone) {
            return Ok(respond(Response::Zone(zone, chain)));
        }
        let from_upstreams = |reply| Ok(respond(Response::Reply(reply, Source::Upstream)));
        let Ok((mut reply, target)) = alias_reply(question, &chain.aliases, zone.config().ttl) else {
            return Ok(respond(Response::Reply(Reply::empty(ResponseCode::ServFail), Source::Zone)));
        };
        if question.query.query_type == RecordType::ANY {
            reply.answers.push(any(target));
            return from_upstreams(reply);
        }
        let query = Query::query(target, question.query.query_type);
        let forwarder = forwarder.cloned().unwrap_or_else(|| self.forwarder_of(&query.name));
        if let Some(known) = forwarder.answer_now(&query, &question.metadata, question.dnssec_ok()) {
            extend(&mut reply, &query.name, known, question);
            return from_upstreams(reply);
        }
        match (forwarder.has_upstream_for(&query.name), permit.or_else(|| self.permit(client, &forwarder))) {
            // Whoever gets an alias alone from a server without recursion follows it elsewhere.
            (false, _) if !reply.answers.is_empty() => from_upstreams(reply),
            (false, _) => from_upstreams(refused("not a name of the cluster, and no upstream is configured")),
            (true, Some(permit)) => {
                Err(Box::new(Pending { work: Work::Ask { reply, query, forwarder }, permit, client }))
            }
            (true, None) => {
                self.metrics.shed();
                from_upstreams(refused("too many queries wait for upstreams"))
            }
        }
    }

    /// A place among those that wait for upstreams, if there is one for that client.
    fn permit(&self, client: IpAddr, forwarder: &Forwarder) -> Option<Permit> {
        self.permits.take(client).filter(|_| forwarder.has_upstreams())
    }
}

impl Pending {
    /// Asks upstreams, and has `respond` make the reply.
    pub(super) async fn finish<T>(
        mut self,
        resolver: &Resolver,
        question: &Question,
        respond: &impl Fn(Response<'_>) -> T,
    ) -> T {
        loop {
            let Pending { work, permit, client } = self;
            let (mut walk, first) = match work {
                Work::Walk(walk, first) => (walk, first),
                Work::Ask { reply, query, forwarder } => {
                    let reply = ask(&forwarder, question, reply, &query).await;
                    return respond(Response::Reply(reply, Source::Upstream));
                }
            };
            match walk.finish(first, &resolver.blocks, question).await {
                Found::InZone(name) => {
                    let zone = walk.zone();
                    match resolver.completed(zone, question, &name, client, Some(permit), respond) {
                        Ok(response) => return response,
                        // The name is an alias that leads out of the cluster.
                        Err(pending) => self = *pending,
                    }
                }
                Found::Upstream(name, found) => {
                    resolver.metrics.completed();
                    let reply = led_to(walk.zone(), question, &name, *found);
                    return respond(Response::Reply(reply, Source::Upstream));
                }
                Found::Nothing => {
                    let chain = CnameChain { aliases: Vec::new(), end: Answer::NxDomain };
                    return respond(Response::Zone(walk.zone(), &chain));
                }
            }
        }
    }
}

async fn ask(forwarder: &Arc<Forwarder>, question: &Question, mut reply: Reply, query: &Query) -> Reply {
    match forwarder.ask(query, &question.metadata, question.dnssec_ok()).await {
        Ok(forwarded) => extend(&mut reply, &query.name, forwarded, question),
        Err(error) => {
            tracing::warn!(name = %query.name, %error, "cannot resolve");
            reply.code = ResponseCode::ServFail;
            reply.extended = Some(ExtendedError::unreachable(error.to_string()));
        }
    }
    reply
}

/// The reply that leads from the name asked to the one that was found outside of the cluster.
fn led_to(zone: &Zone, question: &Question, name: &Name, found: Forwarded) -> Reply {
    let mut reply = Reply { authoritative: true, ..Reply::empty(ResponseCode::NoError) };
    let alias = RData::CNAME(CNAME(name.clone()));
    reply.answers.push(Record::from_rdata(question.query.name.clone(), zone.config().ttl, alias));
    extend(&mut reply, name, found, question);
    reply
}
