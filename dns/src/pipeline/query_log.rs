//! Queries and their answers in the log, while somebody wants them there. Turned on and off while the server
//! runs; it never waits for the log: what comes too fast is counted instead.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

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
        writer.spawn(move || write(&written)).map_err(Error::Thread)?;
        Ok(QueryLog { on: AtomicBool::new(false), entries, lost })
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

fn write(entries: &Receiver<Entry>) {
    for Entry { client, transport, lane, head, size, took } in entries {
        let (name, record_type) = question(&head).unwrap_or_default();
        let code = mnemonic(ResponseCode::from(0, head.get(3).map_or(0, |flags| flags & 0x0f)));
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        tracing::info!(%client, %transport, name, record_type, code, size, ?lane, micros, "query");
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
        let log = QueryLog { on: AtomicBool::new(false), entries, lost: lost.clone() };
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
    fn the_question_is_read_from_its_answer() {
        let message = b"\0\x07\x84\x03\0\x01\0\0\0\0\0\0\x03a\"b\x05LocAl\0\0\x1c\0\x01";
        assert_eq!(question(message), Some(("a\\\"b.local.".to_owned(), "AAAA".to_owned())));
        assert_eq!(question(&message[..20]), None);
        assert_eq!(question(&[0; 12]), None);
    }
}
