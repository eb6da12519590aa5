//! A cached answer as the full lane would write it, made when it is cached: whoever asks plainly gets a copy.
//! Pure.

use std::ops::Range;

use hickory_proto::op::{Message, ResponseCode};

use super::query::UpstreamQuery;
use crate::wire::encoder::Head;
use crate::wire::extended_error::ExtendedError;
use crate::wire::format::HEADER;
use crate::wire::name::to_name;
use crate::wire::reply::Reply;
use crate::wire::rotation::{first, runs};

/// What precedes a record's time to live, after its owner: type and class (RFC 1035 section 4.1.3).
const BEFORE_TTL: usize = 4;
/// What follows its start: the time itself, and the length of the data.
const TTL_AND_LENGTH: usize = 6;

/// All of a reply that does not depend on who asks, for a name that is spelled in lower case.
#[derive(Debug)]
pub struct EncodedAnswer {
    /// The response code.
    pub code: ResponseCode,
    /// Whether the upstream vouches for it.
    pub authentic: bool,
    /// Why there is no better answer, as the upstream has it.
    pub extended: Option<ExtendedError>,
    /// How many answers, authorities and additionals there are, as the header has it.
    pub counts: [u16; 3],
    /// What follows the question section, as it was at first.
    pub records: Box<[u8]>,
    /// Where in there the times to live are.
    pub ttls: Box<[u16]>,
    /// The addresses that change places.
    pub(crate) runs: Box<[Run]>,
}

/// Addresses of a name as they stand together in a message, all equally long.
#[derive(Debug)]
pub(crate) struct Run {
    start: u16,
    /// The length of each.
    size: u16,
    count: u16,
}

impl Run {
    /// As [`crate::wire::rotation::rotate`] does. `records` begin where they did when this was made.
    pub(crate) fn rotate(&self, records: &mut [u8], id: u16) {
        let [start, size, count] = [self.start, self.size, self.count].map(usize::from);
        if let Some(addresses) = records.get_mut(start..start + size * count) {
            addresses.rotate_left(size * first(id, count));
        }
    }
}

impl EncodedAnswer {
    /// The reply that `message` makes to `ask`; none where it cannot be written.
    pub(super) fn new(query: &UpstreamQuery, message: &Message) -> Option<EncodedAnswer> {
        let name = to_name(&[&query.name]).ok()?;
        let mut reply = Reply::empty(ResponseCode::NoError);
        reply.add(&name, message.clone());
        let section = [&query.name[..], &[0], &u16::from(query.record_type).to_be_bytes(), &[0, 1]].concat();
        let limit = usize::from(u16::MAX);
        let head = Head { header: &[0; HEADER], section: &section, edns: None, limit };
        let bytes = reply.encode(&head, false);
        let counts: [[u8; 2]; 3] = *bytes.get(HEADER - 6..HEADER)?.as_chunks().0.first_chunk()?;
        let counts = counts.map(u16::from_be_bytes);
        let records = bytes.get(HEADER + section.len()..)?;
        let sum = counts.into_iter().map(usize::from).sum();
        let (ttls, ends) = ttls(records, sum)?;
        let runs =
            runs(&reply.answers).map(|run| run_of(records, run, &ttls, &ends)).collect::<Option<_>>()?;
        Some(EncodedAnswer {
            code: reply.code,
            authentic: message.metadata.authentic_data,
            extended: ExtendedError::of(message),
            counts,
            records: records.into(),
            ttls: ttls.into(),
            runs,
        })
    }
}

impl EncodedAnswer {
    /// Makes a copy of the records fit for a query of that id, so many seconds after they were cached.
    pub(crate) fn write(&self, records: &mut [u8], id: u16, age: u32) -> Option<()> {
        self.runs.iter().for_each(|run| run.rotate(records, id));
        for &place in &self.ttls {
            let ttl = records[usize::from(place)..].first_chunk_mut::<4>()?;
            *ttl = u32::from_be_bytes(*ttl).saturating_sub(age).to_be_bytes();
        }
        Some(())
    }
}

/// Those addresses. None where they are not equally long or the names of their owners are not written alike,
/// so that they cannot simply change places.
fn run_of(records: &[u8], run: Range<usize>, ttls: &[u16], ends: &[u16]) -> Option<Run> {
    let start_of = |number: usize| number.checked_sub(1).map_or(0, |before| ends[before]);
    let (start, count) = (start_of(run.start), run.len() as u16);
    let size = ends[run.start] - start;
    let owner = |number: usize| &records[usize::from(start_of(number))..usize::from(ttls[number])];
    let alike = |number: usize| ends[number] - start_of(number) == size && owner(number) == owner(run.start);
    run.clone().all(alike).then_some(Run { start, size, count })
}

/// Where the times to live of so many records are, and where the records end. They must be all that there is.
fn ttls(records: &[u8], count: usize) -> Option<(Vec<u16>, Vec<u16>)> {
    let (mut ttls, mut ends, mut place) = (Vec::with_capacity(count), Vec::with_capacity(count), 0);
    for _ in 0..count {
        place += owner(records.get(place..)?)? + BEFORE_TTL;
        ttls.push(u16::try_from(place).ok()?);
        let (_, length) = records.get(place..place + TTL_AND_LENGTH)?.split_last_chunk()?;
        place += TTL_AND_LENGTH + usize::from(u16::from_be_bytes(*length));
        ends.push(u16::try_from(place).ok()?);
    }
    (place == records.len()).then_some((ttls, ends))
}

/// How many bytes the name at the start takes.
fn owner(bytes: &[u8]) -> Option<usize> {
    let mut place = 0;
    loop {
        match usize::from(*bytes.get(place)?) {
            0 => return Some(place + 1),
            // A pointer ends a name (RFC 1035 section 4.1.4).
            0xc0.. => return Some(place + 2),
            length => place += 1 + length,
        }
    }
}
