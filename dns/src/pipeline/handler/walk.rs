//! The walk of a pod's search list, name by name: the cluster's as far as the zone says, all others at the upstreams.
//! Which names there are to try is in [`crate::pipeline::search_list`].

use std::collections::VecDeque;
use std::sync::Arc;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{Arrival, Handler, PendingReply, Step, Work, extend};
use crate::forward::Forwarded;
use crate::metrics::Source;
use crate::pipeline::classify::Answer;
use crate::pipeline::cname_chain::{CnameChain, follow_cnames};
use crate::pipeline::fair_share::Permit;
use crate::pipeline::search_list::{Lookup, lookup, names_after};
use crate::wire::message::{Question, Reply};
use crate::wire::name::QueryName;
use crate::zone::Zone;

/// What is left of a walk that goes on outside of the cluster.
pub(super) struct Walk {
    /// The zone that the walk began with: all of it is of one moment.
    zone: Arc<Zone>,
    /// The name whose turn it is.
    name: Name,
    then: VecDeque<Name>,
}

/// A name of which nobody could say whether it has addresses.
struct Unknown;

impl Handler {
    /// Answers the first query of a search with the end of it. Of the name asked, so many labels are the pod's own.
    pub(super) fn search(
        self: &Arc<Self>,
        zone: &Arc<Zone>,
        question: Box<Question>,
        own: usize,
        arrival: Arrival,
    ) -> Step {
        let names = names_after(zone, &question.query.name, own, &self.forwarder.search());
        self.walk(zone, question, names.into(), arrival)
    }

    fn walk(
        self: &Arc<Self>,
        zone: &Arc<Zone>,
        question: Box<Question>,
        mut names: VecDeque<Name>,
        arrival: Arrival,
    ) -> Step {
        while let Some(name) = names.pop_front() {
            let Ok(wire) = QueryName::from_name(&name) else { continue };
            match lookup(zone, &wire) {
                Lookup::Nothing => {}
                Lookup::Address => {
                    self.metrics.completed();
                    let mut chain = follow_cnames(zone, &wire, question.query.query_type);
                    chain.aliases.insert(0, wire.wire(0, wire.len()));
                    return self.say(zone, question, &chain, arrival);
                }
                Lookup::Foreign => {
                    let Some(place) = self.place(arrival.client) else { break };
                    let work = Work::Walk(Walk { zone: zone.clone(), name, then: names });
                    return self.wait(question, work, arrival, place);
                }
            }
        }
        self.found_nothing(zone, question, arrival)
    }

    /// What the name asked has by itself. The resolver goes on alone.
    fn found_nothing(self: &Arc<Self>, zone: &Zone, question: Box<Question>, arrival: Arrival) -> Step {
        self.say(zone, question, &CnameChain { aliases: Vec::new(), end: Answer::NxDomain }, arrival)
    }

    /// The answer to a query for addresses of a foreign name, or none where it has none of any family. The next name
    /// may only be tried where that is certain.
    async fn addresses(
        self: &Arc<Self>,
        question: &Question,
        name: &Name,
    ) -> Result<Option<Forwarded>, Unknown> {
        let family = question.query.query_type;
        let forwarded = self.ask(question, name, family).await?;
        if forwarded.message.metadata.response_code == ResponseCode::NXDomain {
            return Ok(None);
        }
        let other = if family == RecordType::A { RecordType::AAAA } else { RecordType::A };
        let has =
            has_address(&forwarded.message) || has_address(&self.ask(question, name, other).await?.message);
        Ok(has.then_some(forwarded))
    }

    async fn ask(
        self: &Arc<Self>,
        question: &Question,
        name: &Name,
        family: RecordType,
    ) -> Result<Forwarded, Unknown> {
        let (query, asked) = (Query::query(name.clone(), family), &question.metadata);
        let forwarded = match self.forwarder.answer_now(&query, asked, question.dnssec_ok()) {
            Some(known) => known,
            None => self.forwarder.ask(&query, asked, question.dnssec_ok()).await.map_err(|_| Unknown)?,
        };
        match forwarded.message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(forwarded),
            _ => Err(Unknown),
        }
    }
}

impl Walk {
    /// Tries one name after the other, and makes the reply.
    pub(super) async fn finish(
        self,
        handler: &Arc<Handler>,
        question: Box<Question>,
        arrival: Arrival,
        place: Permit,
    ) -> Vec<u8> {
        let Walk { zone, name, then } = self;
        let step = match handler.addresses(&question, &name).await {
            Ok(Some(found)) => {
                handler.metrics.completed();
                let reply = led_to(&zone, &question, name, found);
                return handler.encode(&question, &reply, Source::Upstream, arrival);
            }
            Ok(None) => {
                drop(place);
                handler.walk(&zone, question, then, arrival)
            }
            Err(Unknown) => handler.found_nothing(&zone, question, arrival),
        };
        match step {
            Step::Drop => Vec::new(),
            Step::Reply(reply) => reply,
            Step::Pending(waiting) => Box::pin(PendingReply { is_part: true, ..*waiting }.finish()).await,
        }
    }
}

/// The reply that leads from the name asked to the one that was found.
fn led_to(zone: &Zone, question: &Question, name: Name, found: Forwarded) -> Reply {
    let mut reply = Reply { authoritative: true, ..Reply::empty(ResponseCode::NoError) };
    let alias = RData::CNAME(CNAME(name.clone()));
    reply.answers.push(Record::from_rdata(question.query.name.clone(), zone.config().ttl, alias));
    extend(&mut reply, &name, found, question);
    reply
}

fn has_address(message: &Message) -> bool {
    message.answers.iter().any(|record| matches!(record.data, RData::A(_) | RData::AAAA(_)))
}
