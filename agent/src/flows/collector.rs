//! The thread that listens to the kernel, from the first question until nobody asks any more. Events are read
//! by the batch: to wake for each would cost more than all else.

use std::os::fd::{AsFd, BorrowedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weft_netlink::conntrack::{self, CtStatus, Event, Flow, Group};
use weft_netlink::nflog::{self, Packet};
use weft_netlink::{Error, Result};
use weft_nftables::{Client, Transaction};
use weft_types::flow::{FlowEnd, FlowEvent, Traffic};
use weft_types::well_known::nflog::DNS_ANSWERS;

use super::memory::{Connection, End, Seen};
use super::shared::{CONNECTIONS, QUESTIONS, SharedFlows, now};
use super::{dns, table};

/// How long events are gathered before they are read.
const GATHER: Duration = Duration::from_millis(50);
/// Room for what comes meanwhile: the kernel holds twice as much, and an event takes about 1 kB of it.
const ROOM: usize = 2 << 20;
/// The same for DNS.
const ROOM_FOR_DNS: usize = 512 << 10;
/// After how long what could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is looked whether somebody still asks.
const LOOK: u16 = 1000;
/// After this many events at once what came is shared, so that a flood takes no more memory.
const BATCH: usize = 4096;

/// UDP.
const UDP: u8 = 17;
/// TCP.
const TCP: u8 = 6;

/// What answers of DNS servers are told by, with the rules that are there for that alone.
struct Answers {
    monitor: nflog::Monitor,
    _rules: Client,
}

/// Something that is listened to, and when it is tried again where it could not be had.
struct Source<T> {
    what: &'static str,
    open: fn() -> Result<T>,
    opened: Option<T>,
    due: Instant,
}

/// Listens until nobody asks any more.
pub(super) fn run(flows: &SharedFlows) {
    let mut connections = Source::new(CONNECTIONS, open_connections);
    let mut answers = Source::new(QUESTIONS, Answers::open);
    let mut seen = Vec::new();
    while !flows.is_over() {
        connections.have(flows);
        answers.have(flows);
        let monitors = connections.opened.iter().map(AsFd::as_fd);
        let descriptors: Vec<BorrowedFd<'_>> =
            monitors.chain(answers.opened.iter().map(|answers| answers.monitor.as_fd())).collect();
        if !wait(&descriptors) {
            continue;
        }
        let mut overruns = 0;
        // A name is asked for before a connection begins.
        answers.drain(flows, &mut overruns, |answers| read_answers(answers, &mut seen));
        connections.drain(flows, &mut overruns, |monitor| read_connections(flows, monitor, &mut seen));
        flows.remember(&mut seen, overruns);
        sleep(GATHER);
    }
}

impl<T> Source<T> {
    fn new(what: &'static str, open: fn() -> Result<T>) -> Source<T> {
        Source { what, open, opened: None, due: Instant::now() }
    }

    /// Opens it, or says why it is not there.
    fn have(&mut self, flows: &SharedFlows) {
        if self.opened.is_some() || Instant::now() < self.due {
            return;
        }
        self.due = Instant::now() + RETRY;
        match (self.open)() {
            Ok(opened) => {
                self.opened = Some(opened);
                flows.solved(self.what);
            }
            Err(error) => flows.problem(self.what, why(self.what, &error)),
        }
    }

    /// Reads all that has come. What the kernel could not tell of is counted, and the rest is read.
    fn drain(&mut self, flows: &SharedFlows, overruns: &mut u64, mut read: impl FnMut(&mut T) -> Result<()>) {
        while let Some(opened) = &mut self.opened {
            match read(opened) {
                Ok(()) => return,
                Err(Error::Overrun) => *overruns += 1,
                Err(error) => {
                    flows.problem(self.what, why(self.what, &error));
                    self.opened = None;
                }
            }
        }
    }
}

fn why(what: &str, error: &Error) -> String {
    match error.errno() {
        Some(Errno::EPERM) if what == QUESTIONS => format!(
            "{what} are not seen: group {DNS_ANSWERS} of nflog has another reader, or this agent may not read it"
        ),
        _ => format!("{what} are not seen: {error}"),
    }
}

fn open_connections() -> Result<conntrack::Monitor> {
    let mut monitor = conntrack::Monitor::open(&[Group::New, Group::Destroy])?;
    monitor.set_receive_buffer(ROOM)?;
    Ok(monitor)
}

impl Answers {
    fn open() -> Result<Answers> {
        let mut monitor = nflog::Monitor::with_payload(DNS_ANSWERS, dns::READ)?;
        monitor.set_receive_buffer(ROOM_FOR_DNS)?;
        let (mut client, mut transaction) = (Client::open()?, Transaction::default());
        table::tables().iter().for_each(|table| transaction.hold_table(table));
        client.commit(&transaction)?;
        Ok(Answers { monitor, _rules: client })
    }
}

/// Waits until something came; not for long.
fn wait(descriptors: &[BorrowedFd<'_>]) -> bool {
    let mut waiting: Vec<PollFd<'_>> =
        descriptors.iter().map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN)).collect();
    // An interruption is as good as nothing.
    poll(&mut waiting, PollTimeout::from(LOOK)).is_ok_and(|ready| ready > 0)
}

fn read_connections(
    flows: &SharedFlows,
    monitor: &mut conntrack::Monitor,
    seen: &mut Vec<Seen>,
) -> Result<()> {
    let (time, own_port) = (now(), flows.settings().own_port);
    monitor.for_each(|event| {
        let connection = match event {
            Event::New(flow) => connection(time, &flow, None),
            Event::Destroyed { flow, traffic } => {
                let traffic = traffic
                    .map(|both| both.map(|conntrack::Traffic { packets, bytes }| Traffic { packets, bytes }));
                let answered = flow.status.contains(CtStatus::SEEN_REPLY);
                connection(time, &flow, Some(End { answered, traffic }))
            }
        };
        if !is_own(&connection, own_port) {
            seen.push(Seen::Connection(connection));
        }
        if seen.len() >= BATCH {
            flows.remember(seen, 0);
        }
    })
}

fn read_answers(answers: &mut Answers, seen: &mut Vec<Seen>) -> Result<()> {
    let time = now();
    answers.monitor.for_each(|packet| seen.extend(question(time, &packet).map(Seen::Question)))
}

fn connection(time: u64, flow: &Flow, end: Option<End>) -> Connection {
    Connection {
        time,
        protocol: flow.protocol,
        source: flow.original.source,
        destination: flow.original.destination,
        endpoint: flow.reply.source,
        end,
    }
}

/// Programs of the node that talk with each other on it, and whoever asks an agent: that would be news of
/// itself.
fn is_own(connection: &Connection, own_port: Option<u16>) -> bool {
    let is_loopback = connection.source.ip().is_loopback();
    is_loopback || (connection.protocol == TCP && Some(connection.destination.port()) == own_port)
}

/// An answer is for who asked.
fn question(time: u64, packet: &Packet) -> Option<FlowEvent> {
    let (from, to) = packet.ports?;
    let event = dns::answered(&packet.payload).filter(|_| !packet.destination.is_loopback())?;
    let source = FlowEnd { address: packet.destination, port: Some(to) };
    let destination = FlowEnd { address: packet.source, port: Some(from) };
    Some(FlowEvent { time, protocol: UDP, source, destination, endpoint: None, event })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_the_agent_and_what_stays_on_the_node_s_loopback_is_no_news() {
        let end = |text: &str| text.parse().unwrap();
        let of = |protocol, source: &str, destination: &str| Connection {
            time: 1,
            protocol,
            source: end(source),
            destination: end(destination),
            endpoint: end(destination),
            end: None,
        };
        let own = Some(10246);
        assert!(is_own(&of(TCP, "172.30.0.10:4000", "172.30.0.11:10246"), own));
        assert!(is_own(&of(TCP, "[::1]:4000", "[::1]:80"), own));
        assert!(!is_own(&of(UDP, "172.30.0.10:4000", "172.30.0.11:10246"), own));
        assert!(!is_own(&of(TCP, "172.30.0.10:4000", "172.30.0.11:10246"), None));
        assert!(!is_own(&of(TCP, "10.244.1.2:10246", "10.96.0.7:80"), own));
    }

    #[test]
    fn who_is_answered_has_asked() {
        let packet = |payload: &[u8]| Packet {
            prefix: table::NAME.to_owned(),
            source: [10, 96, 0, 10].into(),
            destination: [10, 244, 1, 2].into(),
            protocol: UDP,
            ports: Some((53, 4000)),
            payload: payload.to_vec(),
        };
        let answer = b"\0\x07\x81\x83\0\x01\0\0\0\0\0\0\x02db\0\0\x01\0\x01";
        let event = question(9, &packet(answer)).unwrap();
        assert_eq!(
            (event.source.to_string(), event.destination.to_string()),
            ("10.244.1.2:4000".into(), "10.96.0.10:53".into())
        );
        assert_eq!(question(9, &packet(b"?")), None);
        let local = Packet { destination: [127, 0, 0, 1].into(), ..packet(answer) };
        assert_eq!(question(9, &local), None);
    }
}
