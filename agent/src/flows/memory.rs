//! What is remembered of flows, and how it is read again. It is bounded: the oldest is forgotten first, and
//! each kind for its own kind alone, so that a flood of connections leaves what was denied. Pure.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use weft_types::flow::{FlowEnd, FlowEvent, Happening, Traffic};

/// How many beginnings and ends of connections are remembered: 2.6 MB.
const CONNECTIONS: usize = 16384;
/// How many denied packets.
const DENIALS: usize = 1024;
/// How many DNS questions.
const QUESTIONS: usize = 4096;
/// How many policies of a denied packet are named, and how long the reason may be, in bytes.
const POLICIES: usize = 8;
const REASON: usize = 512;

/// A connection that began or ended, in few bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// When that was told, in milliseconds since 1970.
    pub(crate) time: u64,
    pub(crate) protocol: u8,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// Who answers.
    pub(crate) endpoint: SocketAddr,
    /// How it ended, if it has.
    pub(crate) end: Option<End>,
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) answered: bool,
    /// What was sent, and what came back.
    pub(crate) traffic: Option<[Traffic; 2]>,
}

/// Something that was seen.
#[derive(Debug)]
pub(crate) enum Seen {
    Connection(Connection),
    Question(FlowEvent),
}

/// Which events somebody wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All.
    #[default]
    All,
    /// What was let through.
    Allowed,
    /// What was denied.
    Denied,
}

/// A place in the memory: how many of each kind were before it, since that memory began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    since: u64,
    places: [u64; 3],
}

/// What there was to read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) next: Cursor,
    /// How many wanted ones were forgotten between the place and the first that is left.
    pub(crate) lost: u64,
    pub(crate) events: Vec<FlowEvent>,
}

/// The memory.
#[derive(Debug)]
pub(crate) struct Memory {
    /// When it began, in milliseconds since 1970.
    since: u64,
    connections: Lane<Connection>,
    denials: Lane<FlowEvent>,
    questions: Lane<FlowEvent>,
}

/// The last events of a kind.
#[derive(Debug)]
struct Lane<T> {
    entries: VecDeque<T>,
    most: usize,
    forgotten: u64,
}

impl<T> Lane<T> {
    fn new(most: usize) -> Lane<T> {
        // Memory that nothing has filled yet is never touched.
        Lane { entries: VecDeque::with_capacity(most), most, forgotten: 0 }
    }

    fn push(&mut self, entry: T) {
        if self.entries.len() == self.most {
            self.entries.pop_front();
            self.forgotten += 1;
        }
        self.entries.push_back(entry);
    }

    fn end(&self) -> u64 {
        self.forgotten + self.entries.len() as u64
    }

    /// The entries from a place on, and how many of those that were to come are forgotten.
    fn from(&self, place: u64) -> (u64, impl Iterator<Item = &T>) {
        let first = usize::try_from(place.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        let lost = self.forgotten.saturating_sub(place);
        (lost, self.entries.range(first.min(self.entries.len())..))
    }
}

impl Memory {
    /// Nothing is remembered yet.
    pub(crate) fn new(since: u64) -> Memory {
        Memory {
            since,
            connections: Lane::new(CONNECTIONS),
            denials: Lane::new(DENIALS),
            questions: Lane::new(QUESTIONS),
        }
    }

    /// When it began.
    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    pub(crate) fn connection(&mut self, connection: Connection) {
        self.connections.push(connection);
    }

    /// What is long of it is cut.
    pub(crate) fn denial(&mut self, mut denial: FlowEvent) {
        if let Happening::Denied { policies, reason, .. } = &mut denial.event {
            policies.truncate(POLICIES);
            if reason.len() > REASON {
                let end = (0..=REASON).rev().find(|end| reason.is_char_boundary(*end));
                reason.truncate(end.unwrap_or_default());
                reason.push('…');
            }
        }
        self.denials.push(denial);
    }

    pub(crate) fn question(&mut self, question: FlowEvent) {
        self.questions.push(question);
    }

    /// Reads at most so many events that are wanted, in the order of their times. Without a place, or with one
    /// of an earlier memory, from the oldest that is remembered.
    pub(crate) fn read(&self, from: Option<Cursor>, wanted: Wanted, most: usize) -> Reading {
        let oldest = [self.connections.forgotten, self.denials.forgotten, self.questions.forgotten];
        let ends = [self.connections.end(), self.denials.end(), self.questions.end()];
        let mut places = from.filter(|from| from.since == self.since).map_or(oldest, |from| from.places);
        let is_wanted = [wanted != Wanted::Denied, wanted != Wanted::Allowed, wanted != Wanted::Denied];
        for kind in 0..3 {
            // Nobody misses what he does not want.
            places[kind] = if is_wanted[kind] { places[kind].min(ends[kind]) } else { ends[kind] };
        }
        let (lost_connections, connections) = self.connections.from(places[0]);
        let (lost_denials, denials) = self.denials.from(places[1]);
        let (lost_questions, questions) = self.questions.from(places[2]);
        let (mut connections, mut denials, mut questions) =
            (connections.peekable(), denials.peekable(), questions.peekable());
        (0..3).for_each(|kind| places[kind] = places[kind].max(oldest[kind]));
        let mut events = Vec::new();
        while events.len() < most {
            let times = [
                connections.peek().map(|it| it.time),
                denials.peek().map(|it| it.time),
                questions.peek().map(|it| it.time),
            ];
            let first = (0..3).filter(|kind| times[*kind].is_some()).min_by_key(|kind| times[*kind]);
            let event = match first {
                Some(0) => connections.next().map(Connection::event),
                Some(1) => denials.next().cloned(),
                Some(_) => questions.next().cloned(),
                None => break,
            };
            events.extend(event);
            first.into_iter().for_each(|kind| places[kind] += 1);
        }
        let next = Cursor { since: self.since, places };
        Reading { next, lost: lost_connections + lost_denials + lost_questions, events }
    }
}

impl Connection {
    fn event(&self) -> FlowEvent {
        let event = match self.end {
            None => Happening::Begins,
            Some(End { answered, traffic }) => {
                let [sent, received] = traffic.map_or([None; 2], |both| both.map(Some));
                Happening::Ends { answered, sent, received }
            }
        };
        FlowEvent {
            time: self.time,
            protocol: self.protocol,
            source: self.source.into(),
            destination: self.destination.into(),
            endpoint: (self.endpoint != self.destination).then(|| FlowEnd::from(self.endpoint)),
            event,
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [connections, denials, questions] = self.places;
        write!(f, "{}-{connections}-{denials}-{questions}", self.since)
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Cursor, String> {
        let numbers: Result<Vec<u64>, _> = text.split('-').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[since, connections, denials, questions]) => {
                Ok(Cursor { since, places: [connections, denials, questions] })
            }
            _ => Err(format!("from={text}: expected the cursor of an earlier answer\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SINCE: u64 = 1_700_000_000_000;

    fn connection(time: u64) -> Connection {
        let end = |text: &str| text.parse().unwrap();
        Connection {
            time,
            protocol: 6,
            source: end("10.244.1.2:4000"),
            destination: end("10.96.0.7:80"),
            endpoint: end("10.244.2.3:8080"),
            end: None,
        }
    }

    fn denial(time: u64) -> FlowEvent {
        let (direction, reason) = ("ingress".to_owned(), "denied".to_owned());
        FlowEvent {
            event: Happening::Denied { direction, policies: Vec::new(), reason },
            ..connection(time).event()
        }
    }

    fn times(reading: &Reading) -> Vec<u64> {
        reading.events.iter().map(|event| event.time).collect()
    }

    #[test]
    fn a_flood_of_connections_leaves_what_was_denied_and_is_said() {
        let mut memory = Memory::new(SINCE);
        memory.denial(denial(1));
        let start = memory.read(None, Wanted::All, 10);
        assert_eq!((times(&start), start.lost), (vec![1], 0));
        (0..CONNECTIONS as u64 + 7).for_each(|time| memory.connection(connection(2 + time)));
        let all = memory.read(Some(start.next), Wanted::All, usize::MAX);
        assert_eq!((all.events.len(), all.lost), (CONNECTIONS, 7));
        assert_eq!(times(&memory.read(None, Wanted::Denied, 10)), [1]);
        let denied = memory.read(Some(start.next), Wanted::Denied, 10);
        assert_eq!((denied.events.len(), denied.lost), (0, 0), "who does not want them misses none");
        assert_eq!(memory.read(None, Wanted::All, 1).lost, 0, "who comes now has missed nothing");
    }

    #[test]
    fn a_place_of_an_earlier_memory_is_its_beginning() {
        let mut memory = Memory::new(SINCE);
        memory.connection(connection(1));
        for text in ["1-9-9-9", &format!("{SINCE}-0-0-0")] {
            assert_eq!(times(&memory.read(Some(text.parse().unwrap()), Wanted::All, 10)), [1], "{text}");
        }
        let beyond = format!("{SINCE}-{0}-{0}-{0}", u64::MAX).parse().unwrap();
        assert_eq!(memory.read(Some(beyond), Wanted::All, 10).events, []);
        for text in ["", "1-2-3", "1-2-3-4-5", "a-1-1-1", "-1-1-1-1"] {
            assert!(text.parse::<Cursor>().unwrap_err().contains("an earlier answer"), "{text}");
        }
    }

    #[test]
    fn what_is_long_is_cut() {
        let mut memory = Memory::new(SINCE);
        let policies = vec!["NetworkPolicy a/b".to_owned(); 100];
        let (direction, reason) = ("ingress".to_owned(), "ü".repeat(1000));
        memory.denial(FlowEvent { event: Happening::Denied { direction, policies, reason }, ..denial(1) });
        let Happening::Denied { policies, reason, .. } = &memory.read(None, Wanted::All, 1).events[0].event
        else {
            panic!("it was denied")
        };
        assert!(policies.len() == POLICIES && reason.len() <= REASON + 3 && reason.ends_with("ü…"));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Connection,
        Denial,
        Question,
        Read(Wanted, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Connection),
            1 => Just(Step::Denial),
            1 => Just(Step::Question),
            1 => (prop_oneof![Just(Wanted::All), Just(Wanted::Allowed)], 0usize..8).prop_map(|(wanted, most)| Step::Read(wanted, most)),
        ]
    }

    proptest! {
        /// Whatever comes between, a reader sees each wanted event once and in order, or hears how many it
        /// missed.
        #[test]
        fn nothing_is_told_twice_or_lost_in_silence(steps in proptest::collection::vec(step(), 0..200), most in 1usize..20) {
            let mut memory = Memory {
                since: SINCE,
                connections: Lane::new(most),
                denials: Lane::new(most),
                questions: Lane::new(most),
            };
            let mut cursor = memory.read(None, Wanted::All, 0).next;
            let (mut time, mut allowed, mut seen, mut lost) = (0, 0, Vec::new(), 0);
            for step in steps.into_iter().chain([Step::Read(Wanted::Allowed, usize::MAX)]) {
                time += 1;
                match step {
                    Step::Connection => memory.connection(connection(time)),
                    Step::Denial => memory.denial(denial(time)),
                    Step::Question => memory.question(connection(time).event()),
                    Step::Read(wanted, most) => {
                        let reading = memory.read(Some(cursor), wanted, most);
                        prop_assert!(reading.events.len() <= most);
                        prop_assert_eq!(reading.next.to_string().parse(), Ok(reading.next));
                        cursor = reading.next;
                        // Of denials, some are read and some are not wanted.
                        seen.extend(reading.events.iter().filter(|event| event.event.is_allowed()).map(|event| event.time));
                        lost += reading.lost;
                    }
                }
                allowed += u64::from(matches!(step, Step::Connection | Step::Question));
            }
            prop_assert!(seen.is_sorted_by(|a, b| a < b));
            prop_assert!(seen.len() as u64 <= allowed && seen.len() as u64 + lost >= allowed);
        }
    }
}
