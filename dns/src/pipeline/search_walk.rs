//! The walk of a pod's search list, name by name: the cluster's as far as the zone says, all others at the
//! upstreams. Which names there are to try is in [`crate::pipeline::search_list`].

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::forward::Forwarded;
use crate::pipeline::blocks::Blocks;
use crate::pipeline::parse::Question;
use crate::pipeline::search_list::{Lookup, lookup};
use crate::wire::name::QueryName;
use crate::zone::Zone;

/// The names that are still to be tried.
pub(super) struct Walk {
    /// The zone that the walk began with: all of it is of one moment.
    zone: Arc<Zone>,
    names: VecDeque<Name>,
}

/// Where a walk goes on, or ended.
pub(super) enum Step {
    /// The cluster has a name with an address.
    InZone(Box<QueryName>),
    /// Upstreams must be asked for this name.
    Foreign(Name),
    /// No name is left.
    Nothing,
}

/// What a walk found.
pub(super) enum Found {
    /// A name of the cluster.
    InZone(Box<QueryName>),
    /// A name outside, and its answer.
    Upstream(Name, Box<Forwarded>),
    /// Nothing. The resolver goes on alone.
    Nothing,
}

/// A name of which nobody could say whether it has addresses.
struct Unknown;

impl Walk {
    /// A walk of those names.
    pub(super) fn new(zone: Arc<Zone>, names: Vec<Name>) -> Walk {
        Walk { zone, names: names.into() }
    }

    /// The zone that it began with.
    pub(super) fn zone(&self) -> &Arc<Zone> {
        &self.zone
    }

    /// Goes on as far as the zone leads.
    pub(super) fn step(&mut self) -> Step {
        while let Some(name) = self.names.pop_front() {
            let Ok(wire) = QueryName::from_name(&name) else { continue };
            match lookup(&self.zone, &wire) {
                Lookup::Nothing => {}
                Lookup::Address => return Step::InZone(Box::new(wire)),
                Lookup::Foreign => return Step::Foreign(name),
            }
        }
        Step::Nothing
    }

    /// Tries one name after the other, from the foreign one that is `first`.
    pub(super) async fn finish(
        &mut self,
        first: Name,
        blocks: &ArcSwap<Blocks>,
        question: &Question,
    ) -> Found {
        let mut step = Step::Foreign(first);
        loop {
            step = match step {
                Step::InZone(name) => return Found::InZone(name),
                Step::Nothing => return Found::Nothing,
                Step::Foreign(name) => match addresses(blocks, question, &name).await {
                    Ok(Some(found)) => return Found::Upstream(name, Box::new(found)),
                    Ok(None) => self.step(),
                    Err(Unknown) => return Found::Nothing,
                },
            }
        }
    }
}

/// The answer to a query for addresses of a foreign name, or none where it has none of any family. The next
/// name may only be tried where that is certain.
async fn addresses(
    blocks: &ArcSwap<Blocks>,
    question: &Question,
    name: &Name,
) -> Result<Option<Forwarded>, Unknown> {
    let family = question.query.query_type;
    let forwarded = ask(blocks, question, name, family).await?;
    if forwarded.message.metadata.response_code == ResponseCode::NXDomain {
        return Ok(None);
    }
    let other = if family == RecordType::A { RecordType::AAAA } else { RecordType::A };
    let has =
        has_address(&forwarded.message) || has_address(&ask(blocks, question, name, other).await?.message);
    Ok(has.then_some(forwarded))
}

async fn ask(
    blocks: &ArcSwap<Blocks>,
    question: &Question,
    name: &Name,
    family: RecordType,
) -> Result<Forwarded, Unknown> {
    let (query, asked) = (Query::query(name.clone(), family), &question.metadata);
    let forwarder = blocks.load().forwarder_of(name);
    let forwarded = match forwarder.answer_now(&query, asked, question.dnssec_ok()) {
        Some(known) => known,
        None => forwarder.ask(&query, asked, question.dnssec_ok()).await.map_err(|_| Unknown)?,
    };
    match forwarded.message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(forwarded),
        _ => Err(Unknown),
    }
}

fn has_address(message: &Message) -> bool {
    message.answers.iter().any(|record| matches!(record.data, RData::A(_) | RData::AAAA(_)))
}
