//! For how long answers of upstreams are given and kept, where that is not what the upstreams say: what
//! `cache` of a Corefile sets. Pure.

use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

use super::cache::{FAILURE_TTL, is_negative, lifetime};
use crate::wire::format::HEADER;

/// What is done with answers of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Answers with records.
    pub success: Limits,
    /// Denials.
    pub denial: Limits,
    /// For how long an upstream's failure is kept; nothing where it is zero.
    pub failure: Duration,
}

/// What is done with answers of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Their records' times to live, in seconds, at least and at most; as they are where there is none. As
    /// CoreDNS has it, all records of an answer get the shortest of them.
    pub ttl: Option<(u32, u32)>,
    /// Whether they are kept.
    pub kept: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { ttl: None, kept: true }
    }
}

impl Default for Keeping {
    /// Whatever upstreams say.
    fn default() -> Keeping {
        Keeping { success: Limits::default(), denial: Limits::default(), failure: FAILURE_TTL }
    }
}

impl Keeping {
    /// What is done with that answer.
    pub(super) fn of(&self, message: &Message) -> Limits {
        if is_negative(message) { self.denial } else { self.success }
    }

    /// Brings the times to live of an answer into their range: in the message, and in its bytes.
    pub(super) fn limit(&self, message: &mut Message, bytes: &mut [u8]) {
        let Some((shortest, longest)) = self.of(message).ttl else { return };
        // Where nothing tells how long it holds, it is the shortest.
        let told = lifetime(message).map_or(0, |told| u32::try_from(told.as_secs()).unwrap_or(u32::MAX));
        let ttl = told.max(shortest).min(longest);
        let records = [&mut message.answers, &mut message.authorities, &mut message.additionals];
        records.into_iter().flatten().for_each(|record| record.ttl = ttl);
        // The bytes are those of the message: they can be walked.
        let _ = set_ttls(bytes, ttl);
    }
}

/// Sets the time to live of all records but OPT. None where the message ends early.
fn set_ttls(bytes: &mut [u8], ttl: u32) -> Option<()> {
    let number = |bytes: &[u8], place: usize| {
        bytes.get(place..place + 2)?.first_chunk().map(|number| usize::from(u16::from_be_bytes(*number)))
    };
    let mut place = HEADER;
    for _ in 0..number(bytes, 4)? {
        place = after_name(bytes, place)? + 4;
    }
    let records = number(bytes, 6)? + number(bytes, 8)? + number(bytes, 10)?;
    for _ in 0..records {
        place = after_name(bytes, place)?;
        let is_opt = number(bytes, place)? == usize::from(u16::from(RecordType::OPT));
        let field = bytes.get_mut(place + 4..place + 8)?.first_chunk_mut::<4>()?;
        if !is_opt {
            *field = ttl.to_be_bytes();
        }
        place += 10 + number(bytes, place + 8)?;
    }
    Some(())
}

/// Where the name ends that begins there.
fn after_name(bytes: &[u8], mut place: usize) -> Option<usize> {
    loop {
        match usize::from(*bytes.get(place)?) {
            0 => return Some(place + 1),
            // A pointer ends a name (RFC 1035 section 4.1.4).
            0xc0.. => return Some(place + 2),
            length => place += 1 + length,
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, RData, Record};

    use super::*;
    use crate::wire::decoder::decode;

    fn keeping(ttl: (u32, u32)) -> Keeping {
        let limits = Limits { ttl: Some(ttl), kept: true };
        Keeping { success: limits, denial: Limits { ttl: Some((5, 10)), kept: true }, ..Keeping::default() }
    }

    /// The times to live that clients get, and those of what is kept.
    fn limited(ttls: &[u32], keeping: &Keeping) -> (Vec<u32>, Vec<u32>) {
        let name = Name::from_ascii("a.example.").unwrap();
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name.clone(), RecordType::A));
        message.edns.get_or_insert_default().set_max_payload(1232);
        let address = |ttl: &u32| Record::from_rdata(name.clone(), *ttl, RData::A(A::new(192, 0, 2, 1)));
        message.answers = ttls.iter().map(address).collect();
        if ttls.is_empty() {
            message.metadata.response_code = ResponseCode::NXDomain;
            let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, 900);
            message.authorities = vec![Record::from_rdata(name, 900, RData::SOA(soa))];
        }
        let mut bytes = message.to_vec().unwrap();
        keeping.limit(&mut message, &mut bytes);
        let ttls = |message: &Message| message.all_sections().map(|record| record.ttl).collect();
        let kept = decode(&bytes).unwrap();
        assert_eq!(kept.edns.as_ref().map(|edns| edns.max_payload()), Some(1232), "OPT has no time to live");
        (ttls(&message), ttls(&kept))
    }

    #[test]
    fn all_records_get_the_shortest_time_within_the_range() {
        let both = |ttls: Vec<u32>| (ttls.clone(), ttls);
        assert_eq!(limited(&[300, 60], &keeping((5, 30))), both(vec![30, 30]));
        assert_eq!(limited(&[300, 20], &keeping((5, 30))), both(vec![20, 20]));
        assert_eq!(limited(&[0, 300], &keeping((5, 30))), both(vec![5, 5]));
        assert_eq!(limited(&[], &keeping((5, 30))), both(vec![10]));
        assert_eq!(limited(&[300, 60], &Keeping::default()), both(vec![300, 60]));
    }
}
