//! What upstreams answered, as replies: behind the aliases of the zone that led there, with the extended
//! error that tells where it was had. Pure.

use hickory_proto::ProtoError;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{CNAME, HINFO};
use hickory_proto::rr::{Name, RData, Record};

use crate::forward::{Forwarded, Origin};
use crate::pipeline::parse::Question;
use crate::wire::extended_error::ExtendedError;
use crate::wire::name::to_name;
use crate::wire::reply::Reply;
use crate::wire::rotation::rotate;

/// For how many seconds that stands in for everything.
const ANY_TTL: u32 = 3600;

/// The reply with the aliases alone that lead from the name asked out of the zone, and the last name.
pub(super) fn alias_reply(
    question: &Question,
    aliases: &[&[u8]],
    ttl: u32,
) -> Result<(Reply, Name), ProtoError> {
    let mut reply = Reply { authoritative: true, ..Reply::empty(ResponseCode::NoError) };
    let mut owner = question.query.name.clone();
    for alias in aliases {
        let target = to_name(&[alias])?;
        reply.answers.push(Record::from_rdata(owner, ttl, RData::CNAME(CNAME(target.clone()))));
        owner = target;
    }
    Ok((reply, owner))
}

/// Adds what is known of `target` to the aliases that led there. The code is that of the last name (RFC 6604
/// section 3).
pub(super) fn extend(reply: &mut Reply, target: &Name, forwarded: Forwarded, question: &Question) {
    let Forwarded { mut message, origin } = forwarded;
    rotate(&mut message.answers, question.metadata.id);
    let own = reply.answers.is_empty();
    reply.authoritative = !own;
    reply.authentic = own && message.metadata.authentic_data;
    let told = ExtendedError::of(&message);
    reply.add(target, message);
    reply.extended = extended_error(reply.code, origin, told);
}

/// Where an upstream told why, its words count, unless they are of another time.
fn extended_error(code: ResponseCode, origin: Origin, told: Option<ExtendedError>) -> Option<ExtendedError> {
    match (origin, code) {
        (Origin::Stale, code) => Some(ExtendedError::stale(code == ResponseCode::NXDomain)),
        (Origin::SpecialUse, ResponseCode::NXDomain) => {
            Some(ExtendedError::other("special-use name: not forwarded"))
        }
        (Origin::Cache, ResponseCode::ServFail) => Some(told.unwrap_or_else(ExtendedError::cached)),
        _ => told,
    }
}

/// A query that is not forwarded.
pub(super) fn refused(reason: &'static str) -> Reply {
    Reply { extended: Some(ExtendedError::other(reason)), ..Reply::empty(ResponseCode::Refused) }
}

/// All that is told to who asks for everything of a foreign name (RFC 8482 section 4.2): upstreams are not
/// made to send much because somebody asked for little.
pub(super) fn any(name: Name) -> Record {
    Record::from_rdata(name, ANY_TTL, RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new())))
}
