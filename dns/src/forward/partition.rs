//! What is cached of one kind - answers, denials or failures - within room of its own. Pure.

use std::hash::{Hash, RandomState};
use std::time::{Duration, Instant};

use hashbrown::{Equivalent, HashMap};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::Record;

use super::encoded_answer::EncodedAnswer;
use super::query::UpstreamQuery;
use crate::wire::decoder::decode;
use crate::wire::extended_error::ExtendedError;

/// How long past its time a message may stand in for an upstream that does not answer, as CoreDNS has it.
pub(super) const STALE: Duration = Duration::from_secs(3600);
/// The time to live of such a message's records, in seconds (RFC 8767 section 4).
const STALE_TTL: u32 = 30;
/// A message larger than this is not worth its room.
pub(super) const LARGEST: usize = 4096;
/// A message that was asked for so often is worth asking for again before it ends.
const POPULAR: u32 = 2;
/// Shorter lives are not worth it: such messages would be asked for all the time.
const WORTHWHILE: Duration = Duration::from_secs(10);

/// A table of so many entries and bytes at most.
#[derive(Debug)]
pub(super) struct Partition {
    /// By a hash that strangers, whose names these are, cannot foresee.
    entries: HashMap<UpstreamQuery, Entry, RandomState>,
    capacity: usize,
    most_bytes: usize,
    bytes: usize,
    /// How many entries made room for others.
    evictions: u64,
}

/// A message, or that there was none.
#[derive(Debug)]
pub(super) struct Entry {
    /// Empty where only a failure is cached.
    pub(super) message: Box<[u8]>,
    /// The same as the reply to a plain query.
    pub(super) encoded: Option<EncodedAnswer>,
    pub(super) stored: Instant,
    pub(super) expires: Instant,
    /// Until then nobody is asked.
    pub(super) failed: Option<(Instant, Failure)>,
    pub(super) hits: u32,
    /// It was asked for again since room was last made.
    pub(super) used: bool,
    pub(super) refreshing: bool,
}

/// How a query failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// What clients are told.
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

impl Partition {
    /// A partition for `capacity` messages, and for so many bytes of each.
    pub(super) fn new(capacity: usize, bytes_each: usize) -> Partition {
        let most_bytes = (capacity * bytes_each).max(2 * LARGEST);
        Partition { entries: HashMap::default(), capacity, most_bytes, bytes: 0, evictions: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    pub(super) fn get_mut<Q: Hash + Equivalent<UpstreamQuery> + ?Sized>(
        &mut self,
        key: &Q,
    ) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    pub(super) fn insert(&mut self, key: UpstreamQuery, entry: Entry, now: Instant) {
        if self.capacity == 0 {
            return;
        }
        self.remove(&key);
        if self.entries.len() >= self.capacity || self.bytes + entry.weight() > self.most_bytes {
            self.make_room(now);
        }
        self.bytes += entry.weight();
        self.entries.insert(key, entry);
    }

    pub(super) fn remove(&mut self, key: &UpstreamQuery) {
        if let Some(old) = self.entries.remove(key) {
            self.bytes -= old.weight();
        }
    }

    /// Drops what is of no use to anybody any more. Where that is not an eighth, goes on with what nobody
    /// asked for since the last time: first what is past its time, which may still stand in for an upstream;
    /// and then with anything.
    fn make_room(&mut self, now: Instant) {
        let before = self.entries.len();
        self.entries.retain(|_, entry| now < entry.end());
        self.bytes = self.weight();
        let first: [fn(&Entry, Instant) -> bool; 3] =
            [|entry, now| !entry.used && entry.expires <= now, |entry, _| !entry.used, |_, _| true];
        for may_go in first {
            let most = (self.capacity * 7 / 8, self.most_bytes * 7 / 8);
            let (mut count, mut bytes) = (self.entries.len(), self.bytes);
            self.entries.retain(|_, entry| {
                let keep = (count <= most.0 && bytes <= most.1) || !may_go(entry, now);
                if !keep {
                    count -= 1;
                    bytes -= entry.weight();
                }
                keep
            });
            self.bytes = bytes;
        }
        self.entries.values_mut().for_each(|entry| entry.used = false);
        self.evictions += (before - self.entries.len()) as u64;
    }

    fn weight(&self) -> usize {
        self.entries.values().map(Entry::weight).sum()
    }
}

impl Entry {
    pub(super) fn new(message: &[u8], stored: Instant, expires: Instant) -> Entry {
        let message = message.into();
        let (encoded, failed) = (None, None);
        Entry { message, encoded, stored, expires, failed, hits: 0, used: false, refreshing: false }
    }

    /// Whether it is popular with so many hits, and in the last tenth of its life.
    pub(super) fn is_ending(&self, hits: u32, now: Instant) -> bool {
        let life = self.expires - self.stored;
        hits >= POPULAR && life >= WORTHWHILE && self.expires - now <= life / 10
    }

    /// The message, its records' times to live reduced by the time it lay here.
    pub(super) fn aged(&self, now: Instant) -> Option<Message> {
        let mut message = decode(&self.message).ok()?;
        let age = self.age(now);
        records(&mut message).for_each(|record| record.ttl = record.ttl.saturating_sub(age));
        Some(message)
    }

    /// When it is of no use any more.
    fn end(&self) -> Instant {
        match &self.failed {
            Some((until, _)) if self.message.is_empty() => *until,
            _ => self.expires + STALE,
        }
    }

    /// In bytes, both forms of the message together.
    fn weight(&self) -> usize {
        self.message.len() + self.encoded.as_ref().map_or(0, |encoded| encoded.records.len())
    }

    /// In seconds.
    pub(super) fn age(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.stored).as_secs()).unwrap_or(u32::MAX)
    }

    pub(super) fn stale(&self) -> Option<Message> {
        let mut message = decode(&self.message).ok()?;
        records(&mut message).for_each(|record| record.ttl = STALE_TTL);
        Some(message)
    }
}

fn records(message: &mut Message) -> impl Iterator<Item = &mut Record> {
    [&mut message.answers, &mut message.authorities, &mut message.additionals].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType;

    use super::*;

    fn key(number: u8) -> UpstreamQuery {
        UpstreamQuery::own(&[1, number], RecordType::A)
    }

    fn holds(partition: &mut Partition, number: u8) -> bool {
        partition.get_mut(&key(number)).is_some()
    }

    #[test]
    fn large_messages_are_bounded_too() {
        let (now, mut partition) = (Instant::now(), Partition::new(64, 1024));
        for number in 0..=255 {
            partition.insert(key(number), Entry::new(&[0; LARGEST], now, now + STALE), now);
            assert!(partition.weight() == partition.bytes && partition.bytes <= 64 * 1024);
        }
        partition.clear();
        assert_eq!((partition.len(), partition.bytes), (0, 0));
    }

    #[test]
    fn what_nobody_needs_makes_room_first_and_what_is_used_last() {
        let (start, mut partition) = (Instant::now(), Partition::new(16, 1024));
        let now = start + 2 * STALE;
        let holding = |until: Instant, used| Entry { used, ..Entry::new(&[0; 10], start, until) };
        // Of no use any more; past their time; past their time, but asked for; good; good and asked for.
        let kinds = [
            (start, false),
            (now - STALE / 2, false),
            (now, true),
            (now + STALE, false),
            (now + STALE, true),
        ];
        let room_for = |partition: &mut Partition, place: u8, (until, used)| {
            (0..4).for_each(|number| partition.insert(key(10 * place + number), holding(until, used), now));
        };
        for (place, kind) in (0..).zip(&kinds[..4]) {
            room_for(&mut partition, place, *kind);
        }
        let left = |partition: &mut Partition| -> Vec<usize> {
            (0..5).map(|kind| (0..4).filter(|number| holds(partition, 10 * kind + number)).count()).collect()
        };
        assert_eq!(left(&mut partition), [4, 4, 4, 4, 0]);
        room_for(&mut partition, 4, kinds[4]);
        assert_eq!(left(&mut partition), [0, 4, 4, 4, 4], "there is room enough without the first");
        // Making room forgot who was asked for: it is a look at the time since.
        (20..24).chain(40..44).for_each(|number| partition.get_mut(&key(number)).unwrap().used = true);
        partition.insert(key(90), holding(now + STALE, false), now);
        assert_eq!(left(&mut partition), [0, 2, 4, 4, 4]);
        assert!(partition.evictions() == 6 && holds(&mut partition, 90));
    }
}
