//! Queries and their answers in the log, while somebody wants them there. Turned on and off while the server
//! runs; it never waits for the log: what comes too fast is counted instead.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use prometheus_client::metrics::counter::Counter;

use crate::error::Error;
use crate::wire::format::{Transport, mnemonic};
use crate::wire::name::{QueryName, labels};

/// How many answers may wait to be written.
const BACKLOG: usize = 1024;
/// The length of a message's header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// There is an answer.
    Success,
    /// There is no such name, or no such record.
    Denial,
    /// It failed.
    Error,
}

/// Which answers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRule {
    /// Those of names below this domain, in wire form.
    pub domain: Box<[u8]>,
    /// Those of these classes.
    pub classes: Vec<Class>,
}

/// As much of an answer as its query can take: header, name, type and class.
const HEAD: usize = HEADER + 255 + 4;

/// Which lane answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// A thread of its own, from the zone.
    Fast,
    /// The codec, and upstreams.
    Full,
}

/// The query log.
#[derive(Debug)]
pub struct QueryLog {
    on: AtomicBool,
    /// Which answers are told; all where there is none.
    rules: Arc<ArcSwap<Vec<LogRule>>>,
    entries: SyncSender<Entry>,
    lost: Counter,
}

/// An answer, as it is noted.
#[derive(Debug)]
struct Entry {
    client: IpAddr,
    transport: Transport,
    lane: Lane,
    head: Box<[u8]>,
    size: usize,
    took: Duration,
}

impl QueryLog {
    /// A log that is off. A thread writes it; `lost` counts what it does not get to.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start(lost: Counter) -> Result<QueryLog, Error> {
        let (entries, written) = sync_channel(BACKLOG);
        let writer = thread::Builder::new().name("query-log".to_owned());
        let rules = Arc::<ArcSwap<Vec<LogRule>>>::default();
        let told = rules.clone();
        writer.spawn(move || write(&written, &told)).map_err(Error::Thread)?;
        Ok(QueryLog { on: AtomicBool::new(false), rules, entries, lost })
    }

    /// Tells of these answers from now on, and of none where there is no rule.
    pub fn set_rules(&self, rules: Vec<LogRule>) {
        self.on.store(!rules.is_empty(), Ordering::Relaxed);
        self.rules.store(Arc::new(rules));
    }

    /// Whether answers are to be noted.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Turns it on if it is off, and off if it is on.
    pub fn switch(&self) {
        let on = !self.on.fetch_xor(true, Ordering::Relaxed);
        tracing::info!(on, "query log; SIGUSR1 switches it on and off");
    }

    /// Notes an answer, if it is on.
    pub fn note(&self, lane: Lane, client: IpAddr, transport: Transport, answer: &[u8], took: Duration) {
        if !self.is_on() {
            return;
        }
        let (head, size) = (answer[..answer.len().min(HEAD)].into(), answer.len());
        if self.entries.try_send(Entry { client, transport, lane, head, size, took }).is_err() {
            self.lost.inc();
        }
    }
}

fn write(entries: &Receiver<Entry>, rules: &ArcSwap<Vec<LogRule>>) {
    for Entry { client, transport, lane, head, size, took } in entries {
        if !is_wanted(&rules.load(), &head) {
            continue;
        }
        let (name, record_type) = question(&head).unwrap_or_default();
        let code = mnemonic(ResponseCode::from(0, head.get(3).map_or(0, |flags| flags & 0x0f)));
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        tracing::info!(%client, %transport, name, record_type, code, size, ?lane, micros, "query");
    }
}

fn is_wanted(rules: &[LogRule], head: &[u8]) -> bool {
    if rules.is_empty() {
        return true;
    }
    let mut name = QueryName::root();
    let body = head.split_at_checked(HEADER).filter(|(header, _)| header[4..6] == [0, 1]);
    // What has no question that can be read failed, whatever is asked for.
    let read = body.is_some_and(|(_, body)| name.read(body).is_some());
    let class = class(head);
    rules.iter().any(|rule| {
        let below = !read || (0..=name.len()).any(|start| *name.wire(start, name.len()) == *rule.domain);
        below && rule.classes.contains(&class)
    })
}

/// As CoreDNS tells them apart: by the code, and whether there is any answer.
fn class(head: &[u8]) -> Class {
    match (head.get(3).map_or(2, |flags| flags & 0x0f), head.get(6..8)) {
        (3, _) | (0, Some([0, 0])) => Class::Denial,
        (0, _) => Class::Success,
        _ => Class::Error,
    }
}

/// Name and type of the question, as a message with exactly one repeats it.
fn question(message: &[u8]) -> Option<(String, String)> {
    let (header, body) = message.split_at_checked(HEADER)?;
    if header[4..6] != [0, 1] {
        return None;
    }
    let mut name = QueryName::root();
    let rest = name.read(body)?;
    let &[high, low] = rest.first_chunk::<2>()?;
    let mut text: String =
        labels(name.wire(0, name.len())).map(|label| label.escape_ascii().to_string() + ".").collect();
    if text.is_empty() {
        text.push('.');
    }
    Some((text, RecordType::from(u16::from_be_bytes([high, low])).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_too_fast_is_counted_and_never_waited_for() {
        let lost = Counter::default();
        // Nobody writes.
        let (entries, _unwritten) = sync_channel(BACKLOG);
        let log = QueryLog { on: AtomicBool::new(false), rules: Arc::default(), entries, lost: lost.clone() };
        let client = IpAddr::from([10, 0, 0, 1]);
        let note = || log.note(Lane::Fast, client, Transport::Udp, &[0; 600], Duration::ZERO);
        note();
        log.switch();
        (0..BACKLOG + 7).for_each(|_| note());
        assert_eq!(lost.get(), 7);
        log.switch();
        note();
        assert_eq!(lost.get(), 7, "off, nothing is noted");
    }

    #[test]
    fn a_rule_is_of_names_and_of_classes() {
        let head = |flags: u8, answers: u8| {
            let header = [0, 7, 0x84, flags, 0, 1, 0, answers, 0, 0, 0, 0];
            [&header[..], b"\x01a\x04corp\0\0\x01\0\x01"].concat()
        };
        let rule = |domain: &[u8], class| [LogRule { domain: domain.into(), classes: vec![class] }];
        assert!(is_wanted(&[], &head(0, 1)));
        assert!(is_wanted(&rule(b"\x04corp", Class::Success), &head(0, 1)));
        assert!(!is_wanted(&rule(b"\x05other", Class::Success), &head(0, 1)));
        for (flags, answers, class) in
            [(0, 0, Class::Denial), (3, 0, Class::Denial), (2, 0, Class::Error), (5, 0, Class::Error)]
        {
            assert!(is_wanted(&rule(b"", class), &head(flags, answers)), "{class:?}");
            assert!(!is_wanted(&rule(b"", Class::Success), &head(flags, answers)), "{class:?}");
        }
    }

    #[test]
    fn the_question_is_read_from_its_answer() {
        let message = b"\0\x07\x84\x03\0\x01\0\0\0\0\0\0\x03a\"b\x05LocAl\0\0\x1c\0\x01";
        assert_eq!(question(message), Some(("a\\\"b.local.".to_owned(), "AAAA".to_owned())));
        assert_eq!(question(&message[..20]), None);
        assert_eq!(question(&[0; 12]), None);
    }
}
