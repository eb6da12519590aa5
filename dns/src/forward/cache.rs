//! What upstreams said, for as long as they said it holds, and for a while after. Pure: the time is passed in, bytes
//! are kept, nothing is asked. Names of the cluster are never in it.

use std::hash::RandomState;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};

use super::ask::{Ask, Asked};
use super::said::Said;
use crate::reason::ExtendedError;
use crate::wire::decode;

/// The longest that an answer with records is believed, as CoreDNS has it.
const LONGEST_POSITIVE: Duration = Duration::from_secs(3600);
/// The longest that a denial is believed, as CoreDNS has it.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(1800);
/// How long past its time a message may stand in for an upstream that does not answer, as CoreDNS has it.
const STALE: Duration = Duration::from_secs(3600);
/// The time to live of such a message's records, in seconds (RFC 8767 section 4).
const STALE_TTL: u32 = 30;
/// For so long nobody is asked again after an upstream told of a failure (RFC 2308 section 7.1), as CoreDNS has it.
pub(super) const TOLD: Duration = Duration::from_secs(5);
/// For so long nobody is asked again after no upstream answered (RFC 9520 section 3.2).
pub(super) const UNTOLD: Duration = Duration::from_secs(1);
/// A message larger than this is not worth its room.
const LARGEST: usize = 4096;
/// How many bytes of messages are kept for each message that may be: most are far smaller.
const BYTES_EACH: usize = 1024;
/// A message that was asked for so often is worth asking for again before it ends.
const POPULAR: u32 = 2;
/// Shorter lives are not worth it: such messages would be asked for all the time.
const WORTHWHILE: Duration = Duration::from_secs(10);

/// What the cache holds: messages as they came.
#[derive(Debug)]
pub(super) struct Cache {
    /// By a hash that strangers, whose names these are, cannot foresee.
    entries: HashMap<Ask, Entry, RandomState>,
    capacity: usize,
    bytes: usize,
    denials: usize,
    /// How many messages made room for others.
    evictions: u64,
}

#[derive(Debug)]
struct Entry {
    /// Empty where only a failure is remembered.
    message: Box<[u8]>,
    /// The same as the reply to a plain question.
    said: Option<Said>,
    denial: bool,
    stored: Instant,
    expires: Instant,
    /// Until then nobody is asked.
    failed: Option<(Instant, Failure)>,
    hits: u32,
    /// It was asked for again since room was last made.
    used: bool,
    refreshing: bool,
}

/// How a question failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// What is said to clients.
    pub(super) code: ResponseCode,
    /// Why, as far as an upstream told.
    pub(super) extended: Option<ExtendedError>,
}

impl Failure {
    /// The one that an upstream tells of.
    pub(super) fn of(message: &Message) -> Failure {
        Failure { code: message.metadata.response_code, extended: ExtendedError::of(message) }
    }
}

impl From<ResponseCode> for Failure {
    fn from(code: ResponseCode) -> Failure {
        Failure { code, extended: None }
    }
}

/// What is remembered of a question.
#[derive(Debug)]
pub(super) enum Found {
    /// An answer that holds.
    Fresh(Message),
    /// An answer that holds, but not for long: whoever gets it should ask for a new one. Given once.
    Ending(Message),
    /// An answer past its time: to be given only when no better one is had (RFC 8767).
    Expired(Message),
    /// An answer past its time, and a better one was just asked for in vain.
    Stale(Message),
    /// No answer, and one was just asked for in vain.
    Failed(Failure),
    /// Nothing.
    Nothing,
}

impl Cache {
    /// A cache of at most `capacity` messages.
    pub(super) fn new(capacity: usize) -> Cache {
        Cache { entries: HashMap::default(), capacity, bytes: 0, denials: 0, evictions: 0 }
    }

    /// How many positive answers and denials it holds.
    pub(super) fn len(&self) -> [usize; 2] {
        [self.entries.len() - self.denials, self.denials]
    }

    /// How many messages had to make room for others, so far.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        (self.bytes, self.denials) = (0, 0);
    }

    /// What is remembered of a question.
    pub(super) fn find(&mut self, ask: &Ask, now: Instant) -> Found {
        let Some(entry) = self.entries.get_mut(ask) else { return Found::Nothing };
        let failed = entry.failed.as_ref().filter(|(until, _)| now < *until);
        if now < entry.expires {
            entry.used = true;
            entry.hits = entry.hits.saturating_add(1);
            let ending = entry.is_ending(entry.hits, now) && !std::mem::replace(&mut entry.refreshing, true);
            let kind = if ending { Found::Ending } else { Found::Fresh };
            return entry.aged(now).map_or(Found::Nothing, kind);
        }
        if entry.message.is_empty() || now >= entry.expires + STALE {
            return failed.map_or(Found::Nothing, |(_, failure)| Found::Failed(failure.clone()));
        }
        let kind = if failed.is_some() { Found::Stale } else { Found::Expired };
        entry.used = true;
        entry.stale().map_or(Found::Nothing, kind)
    }

    /// The reply to a plain question, whether it denies, and how many seconds it lay here: where there is nothing to do but
    /// to say it. Else [`Cache::find`] knows more. Allocates nothing.
    pub(super) fn say(&mut self, asked: &Asked<'_>, now: Instant) -> Option<(&Said, bool, u32)> {
        let entry = self.entries.get_mut(asked).filter(|entry| now < entry.expires)?;
        let hits = entry.hits.saturating_add(1);
        if entry.is_ending(hits, now) && !entry.refreshing {
            return None;
        }
        (entry.used, entry.hits) = (true, hits);
        Some((entry.said.as_ref()?, entry.denial, entry.age(now)))
    }

    /// Keeps a message, if it says for how long it holds. `bytes` is `message` as it came.
    pub(super) fn put(&mut self, ask: Ask, message: &Message, bytes: &[u8], now: Instant) {
        let Some(lifetime) = lifetime(message).filter(|lifetime| !lifetime.is_zero()) else { return };
        if bytes.len() <= LARGEST {
            let said = Said::new(&ask, message);
            let entry = Entry { said, ..Entry::new(bytes, is_negative(message), now, now + lifetime) };
            self.insert(ask, entry, now);
        }
    }

    /// Remembers until `until` that nobody had an answer. What is there past its time may stand in.
    pub(super) fn fail(&mut self, ask: Ask, failure: Failure, now: Instant, until: Instant) {
        let failed = Some((until, failure));
        match self.entries.get_mut(&ask) {
            Some(entry) => (entry.failed, entry.refreshing) = (failed, false),
            None => self.insert(ask, Entry { failed, ..Entry::new(&[], true, now, now) }, now),
        }
    }

    fn insert(&mut self, ask: Ask, entry: Entry, now: Instant) {
        if self.capacity == 0 {
            return;
        }
        self.remove(&ask);
        if self.entries.len() >= self.capacity || self.bytes + entry.weight() > self.most_bytes() {
            self.make_room(now);
        }
        self.bytes += entry.weight();
        self.denials += usize::from(entry.denial);
        self.entries.insert(ask, entry);
    }

    fn remove(&mut self, ask: &Ask) {
        if let Some(old) = self.entries.remove(ask) {
            self.bytes -= old.weight();
            self.denials -= usize::from(old.denial);
        }
    }

    fn most_bytes(&self) -> usize {
        (self.capacity * BYTES_EACH).max(2 * LARGEST)
    }

    /// Drops what has ended; or else an eighth of the rest, first what nobody asked for since the last time.
    fn make_room(&mut self, now: Instant) {
        let before = self.entries.len();
        self.entries.retain(|_, entry| now < entry.expires);
        for unused in [true, false] {
            let most = (self.capacity * 7 / 8, self.most_bytes() * 7 / 8);
            let (mut count, mut bytes) = (self.entries.len(), self.weight());
            self.entries.retain(|_, entry| {
                let keep = (count <= most.0 && bytes <= most.1) || (unused && entry.used);
                if !keep {
                    count -= 1;
                    bytes -= entry.weight();
                }
                keep
            });
        }
        self.entries.values_mut().for_each(|entry| entry.used = false);
        self.bytes = self.weight();
        self.denials = self.entries.values().filter(|entry| entry.denial).count();
        self.evictions += (before - self.entries.len()) as u64;
    }

    fn weight(&self) -> usize {
        self.entries.values().map(Entry::weight).sum()
    }
}

impl Entry {
    fn new(message: &[u8], denial: bool, stored: Instant, expires: Instant) -> Entry {
        let message = message.into();
        let (said, failed) = (None, None);
        Entry { message, said, denial, stored, expires, failed, hits: 0, used: false, refreshing: false }
    }

    /// Whether it is popular with so many hits, and in the last tenth of its life.
    fn is_ending(&self, hits: u32, now: Instant) -> bool {
        let life = self.expires - self.stored;
        hits >= POPULAR && life >= WORTHWHILE && self.expires - now <= life / 10
    }

    /// The message, its records' times to live reduced by the time it lay here.
    fn aged(&self, now: Instant) -> Option<Message> {
        let mut message = decode(&self.message).ok()?;
        let age = self.age(now);
        records(&mut message).for_each(|record| record.ttl = record.ttl.saturating_sub(age));
        Some(message)
    }

    /// In bytes, both forms of the message together.
    fn weight(&self) -> usize {
        self.message.len() + self.said.as_ref().map_or(0, |said| said.records.len())
    }

    /// In seconds.
    fn age(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.stored).as_secs()).unwrap_or(u32::MAX)
    }

    fn stale(&self) -> Option<Message> {
        let mut message = decode(&self.message).ok()?;
        records(&mut message).for_each(|record| record.ttl = STALE_TTL);
        Some(message)
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

    fn ask(number: u8) -> Ask {
        Ask::own(&[1, number], RecordType::A)
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

    fn positive(ttl: u32) -> (Message, Vec<u8>) {
        message(ResponseCode::NoError, vec![address(ttl)], vec![])
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        Record::from_rdata(name("."), ttl, RData::SOA(SOA::new(name("."), name("."), 1, 1, 1, 1, minimum)))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What is found, and the shortest time to live in it.
    fn found(cache: &mut Cache, now: Instant) -> (&'static str, Option<u32>) {
        let ttl = |message: Message| message.all_sections().map(|record| record.ttl).min();
        match cache.find(&ask(0), now) {
            Found::Fresh(message) => ("fresh", ttl(message)),
            Found::Ending(message) => ("ending", ttl(message)),
            Found::Expired(message) => ("expired", ttl(message)),
            Found::Stale(message) => ("stale", ttl(message)),
            Found::Failed(_) => ("failed", None),
            Found::Nothing => ("nothing", None),
        }
    }

    fn holding(stored: (Message, Vec<u8>), now: Instant) -> Cache {
        let mut cache = Cache::new(2);
        cache.put(ask(0), &stored.0, &stored.1, now);
        cache
    }

    fn after(stored: (Message, Vec<u8>), time: u64) -> (&'static str, Option<u32>) {
        let now = Instant::now();
        found(&mut holding(stored, now), now + seconds(time))
    }

    #[test]
    fn an_answer_ages_and_ends_with_its_shortest_record() {
        let answer = || message(ResponseCode::NoError, vec![address(60), address(20)], vec![]);
        assert_eq!(after(answer(), 0), ("fresh", Some(20)));
        assert_eq!(after(answer(), 19), ("fresh", Some(1)));
        assert_eq!(after(answer(), 20), ("expired", Some(30)));
    }

    #[test]
    fn an_old_answer_stands_in_for_an_hour() {
        assert_eq!(after(positive(60), 3659), ("expired", Some(30)));
        assert_eq!(after(positive(60), 3660), ("nothing", None));
    }

    #[test]
    fn after_a_failure_nobody_is_asked_for_five_seconds() {
        let now = Instant::now();
        let mut cache = Cache::new(2);
        cache.fail(ask(0), ResponseCode::ServFail.into(), now, now + TOLD);
        assert_eq!(found(&mut cache, now + seconds(4)), ("failed", None));
        assert_eq!(found(&mut cache, now + seconds(5)), ("nothing", None));
        let mut cache = holding(positive(60), now);
        cache.fail(ask(0), ResponseCode::ServFail.into(), now + seconds(70), now + seconds(70) + TOLD);
        assert_eq!(found(&mut cache, now + seconds(74)), ("stale", Some(30)));
        assert_eq!(found(&mut cache, now + seconds(75)), ("expired", Some(30)));
    }

    #[test]
    fn a_popular_answer_is_asked_for_again_once_before_it_ends() {
        let now = Instant::now();
        let mut cache = holding(positive(60), now);
        assert_eq!(found(&mut cache, now + seconds(55)).0, "fresh", "asked for once");
        assert_eq!(found(&mut cache, now + seconds(53)).0, "fresh", "before the last tenth");
        assert_eq!(found(&mut cache, now + seconds(54)), ("ending", Some(6)));
        assert_eq!(found(&mut cache, now + seconds(54)), ("fresh", Some(6)), "somebody asks already");
        cache.fail(ask(0), ResponseCode::ServFail.into(), now + seconds(55), now + seconds(55) + TOLD);
        assert_eq!(found(&mut cache, now + seconds(55)).0, "ending", "it was in vain");
    }

    #[test]
    fn a_denial_lives_as_long_as_the_soa_says() {
        for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
            assert_eq!(
                after(message(code, vec![], vec![soa(900, 10)]), 9),
                ("fresh", Some(891)),
                "minimum 10"
            );
            assert_eq!(after(message(code, vec![], vec![soa(900, 10)]), 10).0, "expired");
            assert_eq!(after(message(code, vec![], vec![]), 0).0, "nothing", "no SOA, not kept");
        }
    }

    #[test]
    fn an_alias_without_its_target_is_a_denial() {
        let alias = Record::from_rdata(name("a."), 300, RData::CNAME(CNAME(name("b."))));
        let denial = message(ResponseCode::NoError, vec![alias], vec![soa(30, 30)]);
        assert_eq!(holding(denial.clone(), Instant::now()).len(), [0, 1]);
        assert_eq!(after(denial, 30).0, "expired");
    }

    #[test]
    fn failures_and_zero_lifetimes_are_not_kept_as_answers() {
        assert_eq!(after(message(ResponseCode::ServFail, vec![address(60)], vec![]), 0).0, "nothing");
        assert_eq!(after(positive(0), 0).0, "nothing");
    }

    #[test]
    fn it_never_holds_more_than_its_capacity_and_keeps_what_is_used() {
        let (now, mut cache) = (Instant::now(), Cache::new(16));
        let (answer, bytes) = positive(60);
        for number in 0..=255 {
            cache.put(ask(number), &answer, &bytes, now);
            assert!(cache.len()[0] <= 16);
            assert_eq!(found(&mut cache, now).0, "fresh", "the one that is asked for all the time is there");
        }
        assert!(cache.len()[0] > 8, "full, not thrown away");
        assert!(cache.evictions() > 200, "{}", cache.evictions());
    }

    #[test]
    fn large_messages_are_bounded_too() {
        let (now, mut cache) = (Instant::now(), Cache::new(64));
        let (answer, _) = positive(60);
        for number in 0..=255 {
            cache.put(ask(number), &answer, &[0; LARGEST], now);
            assert!(cache.weight() == cache.bytes && cache.bytes <= 64 * BYTES_EACH);
        }
        cache.clear();
        assert_eq!((cache.len(), cache.bytes), ([0, 0], 0));
    }
}
