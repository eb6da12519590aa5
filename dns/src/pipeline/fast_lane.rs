//! The fast lane: from datagram to datagram in one step, without the message codec and without allocation,
//! for the queries that make up nearly all of a cluster's traffic: for names of the cluster, and for others
//! whose answers are cached. It has the same stages as the full lane, to which it leaves whatever is unusual,
//! and the same encoder; a property test holds the two together.

use std::net::IpAddr;
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::forward::{EncodedAnswer, UpstreamQueryRef};
use crate::metrics::Source;
use crate::pipeline::blocks::Blocks;
use crate::pipeline::classify::{Answer, Authority, Records, classify};
use crate::pipeline::encode::ZoneReply;
use crate::pipeline::parse::PlainQuestion;
use crate::pipeline::search_list;
use crate::wire::encoder::{Buffer, Datagram, Encoder, Flags};
use crate::wire::format::{AUTHENTIC, CHECKING_DISABLED, LARGEST_UDP};
use crate::wire::name::QueryName;
use crate::zone::Zone;

/// What was answered, for those who count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The length of the reply.
    pub length: usize,
    /// The type that was asked for.
    pub record_type: RecordType,
    /// The response code.
    pub code: ResponseCode,
    /// Who knew the answer.
    pub source: Source,
    /// Whether the client wants DNSSEC's records.
    pub dnssec_ok: bool,
}

/// Writes the reply to a UDP client's `datagram` into `reply`, if this lane can: a plain query for the
/// addresses of a name of the cluster, or for anything that it does not have. `recursion_available` is the
/// server's flag of that name. `client` is who asks: where the search of a pod may go on, that is left to the
/// full lane.
pub fn respond(
    zone: &Zone,
    recursion_available: bool,
    client: IpAddr,
    datagram: &[u8],
    reply: &mut [u8; LARGEST_UDP as usize],
) -> Option<Answered> {
    respond_by(zone, None, recursion_available, client, datagram, reply)
}

/// The same by the block of the name; what is not the cluster's is answered with what is cached of it at `now`.
/// What a rule of the block may be about is left to the full lane.
pub fn respond_or_cached(
    zone: &Zone,
    by: (&Blocks, Instant),
    recursion_available: bool,
    client: IpAddr,
    datagram: &[u8],
    reply: &mut [u8; LARGEST_UDP as usize],
) -> Option<Answered> {
    respond_by(zone, Some(by), recursion_available, client, datagram, reply)
}

fn respond_by(
    zone: &Zone,
    by: Option<(&Blocks, Instant)>,
    recursion_available: bool,
    client: IpAddr,
    datagram: &[u8],
    reply: &mut [u8; LARGEST_UDP as usize],
) -> Option<Answered> {
    let mut name = QueryName::root();
    let question = PlainQuestion::parse(datagram, &mut name)?;
    let block = by.map(|(blocks, _)| blocks.of(question.name));
    if block.is_some_and(|block| block.touches(question.name, question.record_type)) {
        return None;
    }
    let answer = match block {
        Some(block) if !block.serves_cluster => Answer::NotInZone,
        _ => classify(zone, question.name, question.record_type),
    };
    match answer {
        Answer::NxDomain
            if search_list::own_labels(zone, client, question.name, question.record_type).is_some() =>
        {
            return None;
        }
        Answer::NxDomain
        | Answer::NoData(Authority::Zone)
        | Answer::Found(Records::A(_) | Records::Aaaa(_) | Records::Pod(_)) => {}
        Answer::NotInZone => {
            let ((_, now), block) = by.zip(block)?;
            let query = upstream_query(&question)?;
            return block.forwarder.answer_encoded(query, now, |answer, age| {
                cached(&question, recursion_available, answer, age, reply)
            });
        }
        _ => return None,
    }
    let response = ZoneReply { zone, name: question.name, aliases: &[], end: answer };
    let written = response.encode(Datagram::new(reply), &question.head(), recursion_available);
    Some(answered(&question, written.bytes().len(), response.code(), Source::Zone))
}

/// Writes what an upstream answered so many seconds ago.
fn cached(
    question: &PlainQuestion<'_>,
    recursion_available: bool,
    answer: &EncodedAnswer,
    age: u32,
    reply: &mut [u8; LARGEST_UDP as usize],
) -> Option<Answered> {
    let head = question.head();
    // RFC 6840 section 5.8: only who asks for it is told.
    let wants_authentic = head.header[3] & AUTHENTIC != 0 || question.dnssec_ok();
    let authentic = answer.authentic && wants_authentic;
    let flags = Flags { authoritative: false, authentic, recursion_available, code: answer.code };
    let mut encoder = Encoder::new(Datagram::new(reply), &head, flags);
    answer.write(encoder.encoded(&answer.records, answer.counts)?, head.id(), age)?;
    let extended = || answer.extended.as_ref().map(|extended| (extended.code, &*extended.text));
    let written = encoder.finish(&head, answer.code, extended);
    Some(answered(question, written.bytes().len(), answer.code, Source::Upstream))
}

/// Writes a reply that has nothing but the sign that there is more (TC): whoever the datagram is truly from
/// asks again over TCP. Returns its length, if this lane understands the datagram.
pub fn truncated(
    recursion_available: bool,
    datagram: &[u8],
    reply: &mut [u8; LARGEST_UDP as usize],
) -> Option<usize> {
    let mut name = QueryName::root();
    let head = PlainQuestion::parse(datagram, &mut name)?.head();
    let code = ResponseCode::NoError;
    let flags = Flags { authoritative: false, authentic: false, recursion_available, code };
    let mut encoder = Encoder::new(Datagram::new(reply), &head, flags);
    encoder.truncate();
    Some(encoder.finish(&head, code, || None).bytes().len())
}

/// As it is cached; none where the name is not spelled as it is kept.
fn upstream_query<'q>(question: &PlainQuestion<'q>) -> Option<UpstreamQueryRef<'q>> {
    let header = question.head().header;
    question.is_lower_case().then(|| UpstreamQueryRef {
        name: question.name.wire(0, question.name.len()),
        record_type: question.record_type,
        dnssec_ok: question.dnssec_ok(),
        checking_disabled: header[3] & CHECKING_DISABLED != 0,
        recursion: header[2] & 1 != 0,
    })
}

/// What is to be counted of a reply.
fn answered(question: &PlainQuestion<'_>, length: usize, code: ResponseCode, source: Source) -> Answered {
    let (record_type, dnssec_ok) = (question.record_type, question.dnssec_ok());
    Answered { length, record_type, code, source, dnssec_ok }
}
