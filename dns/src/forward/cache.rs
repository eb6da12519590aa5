//! What upstreams said, for as long as they said it holds. Pure: the time is passed in, bytes are kept, nothing
//! is asked. Names of the cluster are never in it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};

/// The longest that an answer with records is believed, as CoreDNS has it.
const LONGEST_POSITIVE: Duration = Duration::from_secs(3600);
/// The longest that a denial is believed, as CoreDNS has it.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(1800);
/// How long past its time a message may stand in for an upstream that does not answer, as CoreDNS has it.
const STALE: Duration = Duration::from_secs(3600);
/// The time to live of such a message's records, in seconds (RFC 8767 section 4).
const STALE_TTL: u32 = 30;
/// A message larger than this is not worth its room.
const LARGEST: usize = 4096;

/// What is asked: two questions of equal keys have the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The name in lower-case wire form.
    pub(super) name: Box<[u8]>,
    /// The type.
    pub(super) record_type: RecordType,
    /// Whether DNSSEC's records are wanted.
    pub(super) dnssec_ok: bool,
    /// Whether the upstream is told not to validate.
    pub(super) checking_disabled: bool,
}

/// What the cache holds: messages as they came.
#[derive(Debug)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    message: Box<[u8]>,
    stored: Instant,
    expires: Instant,
}

impl Cache {
    /// A cache of at most `capacity` messages.
    pub(super) fn new(capacity: usize) -> Cache {
        Cache { entries: HashMap::new(), capacity }
    }

    /// How many messages it holds.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A message that still holds, its records' times to live reduced by the time it lay here.
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<Message> {
        let entry = self.entries.get(key).filter(|entry| now < entry.expires)?;
        let mut message = Message::from_vec(&entry.message).ok()?;
        let age = u32::try_from(now.saturating_duration_since(entry.stored).as_secs()).unwrap_or(u32::MAX);
        records(&mut message).for_each(|record| record.ttl = record.ttl.saturating_sub(age));
        Some(message)
    }

    /// A message that no longer holds, for want of a better one (RFC 8767).
    pub(super) fn get_stale(&self, key: &Key, now: Instant) -> Option<Message> {
        let entry = self.entries.get(key).filter(|entry| now < entry.expires + STALE)?;
        let mut message = Message::from_vec(&entry.message).ok()?;
        records(&mut message).for_each(|record| record.ttl = STALE_TTL);
        Some(message)
    }

    /// Keeps a message, if it says for how long it holds. `bytes` is `message` as it came.
    pub(super) fn put(&mut self, key: Key, message: &Message, bytes: &[u8], now: Instant) {
        let Some(lifetime) = lifetime(message).filter(|lifetime| !lifetime.is_zero()) else { return };
        if bytes.len() > LARGEST || self.capacity == 0 {
            return;
        }
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        self.entries.insert(key, Entry { message: bytes.into(), stored: now, expires: now + lifetime });
    }

    /// Drops what has expired, or else an eighth of the rest: the map's own order is as good as a random one.
    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.expires);
        if self.entries.len() >= self.capacity {
            let mut left = self.capacity / 8 + 1;
            self.entries.retain(|_, _| {
                left = left.saturating_sub(1);
                left == 0
            });
        }
    }
}

fn records(message: &mut Message) -> impl Iterator<Item = &mut Record> {
    [&mut message.answers, &mut message.authorities, &mut message.additionals].into_iter().flatten()
}

/// How long a message holds (RFC 2308 section 5 for denials); none where it must not be kept.
fn lifetime(message: &Message) -> Option<Duration> {
    let code = message.metadata.response_code;
    if message.metadata.truncation || !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return None;
    }
    let shortest = message.answers.iter().map(|record| record.ttl).min();
    let seconds = |ttl: u32| Duration::from_secs(u64::from(ttl));
    if is_negative(message) {
        let denied = message.authorities.iter().find_map(negative_ttl)?;
        return Some(seconds(denied.min(shortest.unwrap_or(u32::MAX))).min(LONGEST_NEGATIVE));
    }
    shortest.map(|ttl| seconds(ttl).min(LONGEST_POSITIVE))
}

/// Whether the message denies the name, or (behind any aliases) the type.
pub fn is_negative(message: &Message) -> bool {
    let asked = message.queries.first().map(|query| query.query_type);
    let answers = |record: &Record| {
        asked.is_some_and(|asked| asked == record.record_type() || asked == RecordType::ANY)
    };
    message.metadata.response_code == ResponseCode::NXDomain || !message.answers.iter().any(answers)
}

fn negative_ttl(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{MessageType, OpCode, Query};
    use hickory_proto::rr::Name;
    use hickory_proto::rr::rdata::{A, CNAME, SOA};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn key(number: u8) -> Key {
        Key {
            name: vec![1, number].into(),
            record_type: RecordType::A,
            dnssec_ok: false,
            checking_disabled: false,
        }
    }

    fn message(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> (Message, Vec<u8>) {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.metadata.response_code = code;
        message.add_query(Query::query(name("a."), RecordType::A));
        message.answers = answers;
        message.authorities = authorities;
        let bytes = message.to_vec().unwrap();
        (message, bytes)
    }

    fn address(ttl: u32) -> Record {
        Record::from_rdata(name("a."), ttl, RData::A(A::new(192, 0, 2, 1)))
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        Record::from_rdata(name("."), ttl, RData::SOA(SOA::new(name("."), name("."), 1, 1, 1, 1, minimum)))
    }

    fn ttl_after(stored: (Message, Vec<u8>), seconds: u64) -> Option<u32> {
        let (now, mut cache) = (Instant::now(), Cache::new(2));
        cache.put(key(0), &stored.0, &stored.1, now);
        let message = cache.get(&key(0), now + Duration::from_secs(seconds))?;
        message.all_sections().map(|record| record.ttl).min()
    }

    #[test]
    fn an_answer_ages_and_ends_with_its_shortest_record() {
        let answer = || message(ResponseCode::NoError, vec![address(60), address(20)], vec![]);
        assert_eq!(ttl_after(answer(), 0), Some(20));
        assert_eq!(ttl_after(answer(), 19), Some(1));
        assert_eq!(ttl_after(answer(), 20), None);
    }

    #[test]
    fn an_old_answer_stands_in_for_an_hour() {
        let (now, mut cache) = (Instant::now(), Cache::new(2));
        let (answer, bytes) = message(ResponseCode::NoError, vec![address(60)], vec![]);
        cache.put(key(0), &answer, &bytes, now);
        let ttl =
            |seconds| Some(cache.get_stale(&key(0), now + Duration::from_secs(seconds))?.answers[0].ttl);
        assert_eq!((ttl(3659), ttl(3660)), (Some(30), None));
    }

    #[test]
    fn a_denial_lives_as_long_as_the_soa_says() {
        for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
            assert_eq!(ttl_after(message(code, vec![], vec![soa(900, 10)]), 9), Some(891), "minimum 10");
            assert_eq!(ttl_after(message(code, vec![], vec![soa(900, 10)]), 10), None);
            assert_eq!(ttl_after(message(code, vec![], vec![]), 0), None, "no SOA, not kept");
        }
    }

    #[test]
    fn an_alias_without_its_target_is_a_denial() {
        let alias = Record::from_rdata(name("a."), 300, RData::CNAME(CNAME(name("b."))));
        assert_eq!(ttl_after(message(ResponseCode::NoError, vec![alias], vec![soa(30, 30)]), 30), None);
    }

    #[test]
    fn failures_and_zero_lifetimes_are_not_kept() {
        assert_eq!(ttl_after(message(ResponseCode::ServFail, vec![address(60)], vec![]), 0), None);
        assert_eq!(ttl_after(message(ResponseCode::NoError, vec![address(0)], vec![]), 0), None);
    }

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        let (now, mut cache) = (Instant::now(), Cache::new(10));
        let (answer, bytes) = message(ResponseCode::NoError, vec![address(60)], vec![]);
        for number in 0..=255 {
            cache.put(key(number), &answer, &bytes, now);
            assert!(cache.len() <= 10);
            assert!(cache.get(&key(number), now).is_some(), "the newest is there");
        }
        assert!(cache.len() > 5, "full, not thrown away");
    }
}
