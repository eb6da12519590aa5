//! What upstreams answered, for as long as they said that it holds, and for a while after. Pure: the time is
//! passed in, bytes are kept, nothing is asked. Names of the cluster are never in it.

use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};

use super::encoded_answer::EncodedAnswer;
use super::partition::{Entry, Failure, LARGEST, Partition, STALE};
use super::query::{UpstreamQuery, UpstreamQueryRef};

/// The longest that an answer with records is believed, as CoreDNS has it.
const LONGEST_POSITIVE: Duration = Duration::from_secs(3600);
/// The longest that a denial is believed, as CoreDNS has it.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(1800);
/// For so long nobody is asked again after an upstream told of a failure (RFC 2308 section 7.1), as CoreDNS
/// has it.
pub(super) const FAILURE_TTL: Duration = Duration::from_secs(5);
/// For so long nobody is asked again after no upstream answered (RFC 9520 section 3.2).
pub(super) const TIMEOUT_TTL: Duration = Duration::from_secs(1);
/// How many bytes are kept for each answer that may be: most are far smaller.
const BYTES_OF_ANSWER: usize = 1024;
/// The same for denials, of which two forms with their SOA are kept.
const BYTES_OF_DENIAL: usize = 512;

/// What the cache holds: messages as they came. Each kind has room of its own: names that do not exist, or
/// that nobody can resolve, are without number, and take no answer's place.
#[derive(Debug)]
pub(super) struct Cache {
    answers: Partition,
    denials: Partition,
    /// Of queries of which nothing else is known.
    failures: Partition,
}

/// What is cached of a query.
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
    /// A cache of at most `capacity` messages of each kind.
    pub(super) fn new(capacity: usize) -> Cache {
        Cache {
            answers: Partition::new(capacity, BYTES_OF_ANSWER),
            denials: Partition::new(capacity, BYTES_OF_DENIAL),
            failures: Partition::new(capacity, 0),
        }
    }

    /// How many positive answers and denials it holds; failures are told among the denials.
    pub(super) fn len(&self) -> [usize; 2] {
        [self.answers.len(), self.denials.len() + self.failures.len()]
    }

    /// How many messages had to make room for others, so far.
    pub(super) fn evictions(&self) -> u64 {
        [&self.answers, &self.denials, &self.failures].map(Partition::evictions).iter().sum()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.partitions().into_iter().for_each(Partition::clear);
    }

    /// What is cached of a query.
    pub(super) fn find(&mut self, key: &UpstreamQuery, now: Instant) -> Found {
        let Some(entry) = self.entry(key) else { return Found::Nothing };
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

    /// The reply to a plain query, whether it denies, and how many seconds it lay here: where there is
    /// nothing to do but to say it. Else [`Cache::find`] knows more. Allocates nothing.
    pub(super) fn encoded(
        &mut self,
        key: &UpstreamQueryRef<'_>,
        now: Instant,
    ) -> Option<(&EncodedAnswer, bool, u32)> {
        let known = match self.answers.get_mut(key) {
            Some(entry) => (entry, false),
            None => (self.denials.get_mut(key)?, true),
        };
        let (entry, denial) = Some(known).filter(|(entry, _)| now < entry.expires)?;
        let hits = entry.hits.saturating_add(1);
        if entry.is_ending(hits, now) && !entry.refreshing {
            return None;
        }
        (entry.used, entry.hits) = (true, hits);
        Some((entry.encoded.as_ref()?, denial, entry.age(now)))
    }

    /// Keeps a message, if it says for how long it holds. `bytes` is `message` as it came.
    pub(super) fn put(&mut self, key: UpstreamQuery, message: &Message, bytes: &[u8], now: Instant) {
        let Some(lifetime) = lifetime(message).filter(|lifetime| !lifetime.is_zero()) else { return };
        if bytes.len() > LARGEST {
            return;
        }
        let entry =
            Entry { encoded: EncodedAnswer::new(&key, message), ..Entry::new(bytes, now, now + lifetime) };
        self.partitions().into_iter().for_each(|partition| partition.remove(&key));
        let partition = if is_negative(message) { &mut self.denials } else { &mut self.answers };
        partition.insert(key, entry, now);
    }

    /// Caches until `until` that nobody had an answer. What is there past its time may stand in.
    pub(super) fn fail(&mut self, key: UpstreamQuery, failure: Failure, now: Instant, until: Instant) {
        let failed = Some((until, failure));
        match self.entry(&key) {
            Some(entry) => (entry.failed, entry.refreshing) = (failed, false),
            None => self.failures.insert(key, Entry { failed, ..Entry::new(&[], now, now) }, now),
        }
    }

    /// A query has one at most.
    fn entry(&mut self, key: &UpstreamQuery) -> Option<&mut Entry> {
        self.partitions().into_iter().find_map(|partition| partition.get_mut(key))
    }

    fn partitions(&mut self) -> [&mut Partition; 3] {
        [&mut self.answers, &mut self.denials, &mut self.failures]
    }
}

/// How long a message holds (RFC 2308 section 5 for denials); none where it must not be kept.
pub(super) fn lifetime(message: &Message) -> Option<Duration> {
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

    fn key(number: u8) -> UpstreamQuery {
        UpstreamQuery::own(&[1, number], RecordType::A)
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
        match cache.find(&key(0), now) {
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
        cache.put(key(0), &stored.0, &stored.1, now);
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
        cache.fail(key(0), ResponseCode::ServFail.into(), now, now + FAILURE_TTL);
        assert_eq!(found(&mut cache, now + seconds(4)), ("failed", None));
        assert_eq!(found(&mut cache, now + seconds(5)), ("nothing", None));
        let mut cache = holding(positive(60), now);
        cache.fail(key(0), ResponseCode::ServFail.into(), now + seconds(70), now + seconds(70) + FAILURE_TTL);
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
        cache.fail(key(0), ResponseCode::ServFail.into(), now + seconds(55), now + seconds(55) + FAILURE_TTL);
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
            cache.put(key(number), &answer, &bytes, now);
            assert!(cache.len()[0] <= 16);
            assert_eq!(found(&mut cache, now).0, "fresh", "the one that is asked for all the time is there");
        }
        assert!(cache.len()[0] > 8, "full, not thrown away");
        assert!(cache.evictions() > 200, "{}", cache.evictions());
    }

    #[test]
    fn what_stands_in_for_an_upstream_outlives_any_number_of_names_that_fail() {
        let (now, mut cache) = (Instant::now(), Cache::new(16));
        let (answer, bytes) = positive(60);
        let (denial, denied) = message(ResponseCode::NXDomain, vec![], vec![soa(60, 60)]);
        for number in 0..14 {
            cache.put(key(number), &answer, &bytes, now);
        }
        cache.put(key(200), &denial, &denied, now);
        let later = now + seconds(70);
        let unrelated = |number: u16| {
            UpstreamQuery::own(&[2, number.to_be_bytes()[0], 0, 1, number as u8], RecordType::A)
        };
        for number in 0..1000 {
            cache.fail(unrelated(number), ResponseCode::ServFail.into(), later, later + FAILURE_TTL);
        }
        assert!(matches!(cache.find(&key(200), later), Found::Expired(_)), "no failure drops a denial");
        for number in 0..1000 {
            cache.put(unrelated(number), &denial, &denied, later);
        }
        for number in 0..14 {
            assert!(matches!(cache.find(&key(number), later), Found::Expired(_)), "{number}");
        }
        let [answers, others] = cache.len();
        assert!(answers == 14 && others <= 32, "{answers} {others}");
    }

    #[test]
    fn a_question_is_remembered_once_whatever_becomes_of_it() {
        let (now, mut cache) = (Instant::now(), Cache::new(16));
        let (answer, bytes) = positive(60);
        let (denial, denied) = message(ResponseCode::NXDomain, vec![], vec![soa(60, 60)]);
        cache.fail(key(0), ResponseCode::ServFail.into(), now, now + FAILURE_TTL);
        assert_eq!((cache.len(), found(&mut cache, now).0), ([0, 1], "failed"));
        cache.put(key(0), &answer, &bytes, now);
        assert_eq!((cache.len(), found(&mut cache, now)), ([1, 0], ("fresh", Some(60))));
        cache.put(key(0), &denial, &denied, now);
        assert_eq!((cache.len(), found(&mut cache, now).0), ([0, 1], "fresh"));
        cache.clear();
        assert_eq!((cache.len(), found(&mut cache, now).0), ([0, 0], "nothing"));
    }
}
