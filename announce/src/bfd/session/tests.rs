//! Sessions over a network and a clock that the tests make up.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn timing() -> Timing {
    Timing { transmit: 300 * MS, receive: 300 * MS, multiplier: 3, is_passive: false }
}

/// Two ends of a session and a network between them, which takes a millisecond.
struct World {
    now: Instant,
    start: Instant,
    ends: [Session; 2],
    /// Packets on their way: when they arrive, at which end.
    flying: Vec<(Instant, usize, ControlPacket)>,
    /// Whether what an end sends arrives.
    sends: [bool; 2],
    /// What each end sent, and when.
    sent: Vec<(Duration, usize, ControlPacket)>,
}

impl World {
    fn new(timings: [Timing; 2]) -> World {
        let now = Instant::now();
        let ends =
            [(timings[0], 11), (timings[1], 22)].map(|(timing, number)| Session::new(timing, number, now));
        World { now, start: now, ends, flying: Vec::new(), sends: [true; 2], sent: Vec::new() }
    }

    /// Lets time pass, millisecond by millisecond.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += MS;
            let now = self.now;
            let (due, later) = self.flying.drain(..).partition(|(at, ..)| *at <= now);
            self.flying = later;
            let due: Vec<(Instant, usize, ControlPacket)> = due;
            for (_, end, packet) in due {
                let output = self.ends[end].receive(&packet, now);
                self.send(end, output);
            }
            for end in 0..2 {
                if self.ends[end].deadline().is_some_and(|deadline| deadline <= now) {
                    let output = self.ends[end].advance(now);
                    self.send(end, output);
                }
            }
        }
    }

    fn send(&mut self, end: usize, output: Output) {
        for packet in output.packets {
            self.sent.push((self.now - self.start, end, packet));
            if self.sends[end] {
                self.flying.push((self.now + MS, 1 - end, packet));
            }
        }
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }

    /// The times between what an end sent since then, without answers to polls.
    fn intervals(&self, end: usize, since: Duration) -> Vec<Duration> {
        let sent = self.sent.iter().filter(|(at, of, packet)| *of == end && *at >= since && !packet.is_final);
        let times: Vec<Duration> = sent.map(|(at, ..)| *at).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

fn up() -> World {
    let mut world = World::new([timing(); 2]);
    world.run(20 * MS);
    assert_eq!(world.states(), [State::Up; 2], "three packets each way, and no waiting");
    world.run(5000 * MS);
    world
}

#[test]
fn two_ends_are_up_as_soon_as_they_hear_each_other() {
    let world = up();
    assert!(world.ends.iter().all(|end| end.detection_time() == Some(900 * MS) && end.was_up()));
}

#[test]
fn packets_keep_the_time_less_a_quarter_at_most() {
    let world = up();
    let intervals = world.intervals(0, 2000 * MS);
    assert!(intervals.len() >= 9);
    assert!(intervals.iter().all(|time| (225 * MS..=302 * MS).contains(time)), "{intervals:?}");
    assert!(intervals.iter().any(|time| *time != intervals[0]), "jitter");
}

#[test]
fn where_a_single_packet_counts_it_comes_a_tenth_early() {
    let single = Timing { multiplier: 1, ..timing() };
    let mut world = World::new([single; 2]);
    world.run(8000 * MS);
    assert_eq!(world.states(), [State::Up; 2]);
    let intervals = world.intervals(0, 2000 * MS);
    assert!(intervals.iter().all(|time| (225 * MS..=272 * MS).contains(time)), "{intervals:?}");
}

#[test]
fn a_peer_that_falls_silent_is_down_after_three_packets_time() {
    let mut world = up();
    world.sends[1] = false;
    let since = world.now;
    while world.ends[0].state() == State::Up {
        world.run(MS);
    }
    let took = world.now - since;
    assert!((600 * MS..=902 * MS).contains(&took), "{took:?}");
    assert_eq!(world.ends[0].diagnostic(), Diagnostic::TimeExpired);
    world.run(10 * MS);
    assert_eq!(world.states(), [State::Down; 2], "and is told so at once");
    assert_eq!(world.ends[1].diagnostic(), Diagnostic::NeighborDown);
}

#[test]
fn while_nobody_answers_a_packet_goes_out_each_second_at_most() {
    let mut world = World::new([timing(); 2]);
    world.sends = [false; 2];
    world.run(20_000 * MS);
    let intervals = world.intervals(0, Duration::ZERO);
    assert!((19..=27).contains(&intervals.len()), "{}", intervals.len());
    assert!(intervals.iter().all(|time| *time >= 750 * MS), "{intervals:?}");
    world.sends = [true; 2];
    world.run(1100 * MS);
    assert_eq!(world.states(), [State::Up; 2]);
}

#[test]
fn one_way_is_not_enough() {
    let mut world = World::new([timing(); 2]);
    world.sends[0] = false;
    world.run(20_000 * MS);
    assert!(world.states().iter().all(|state| *state != State::Up), "{:?}", world.states());
}

#[test]
fn a_peer_that_started_anew_is_down_at_once_and_up_again() {
    let mut world = up();
    world.ends[1] = Session::new(timing(), 33, world.now);
    world.run(2000 * MS);
    let told = world
        .sent
        .iter()
        .find(|(_, end, packet)| (*end, packet.state) == (0, State::Down) && packet.your_discriminator == 33);
    assert_eq!(told.map(|(.., packet)| packet.diagnostic), Some(Diagnostic::NeighborDown));
    assert_eq!(world.states(), [State::Up; 2]);
}

#[test]
fn a_peer_that_is_shut_down_is_down_at_once_and_stays_so() {
    let mut world = up();
    let last = world.ends[1].shut_down();
    world.send(1, Output { packets: vec![last], is_changed: true });
    world.run(3 * MS);
    assert_eq!(world.states(), [State::Down, State::AdminDown]);
    let sent = world.sent.len();
    world.run(10_000 * MS);
    assert_eq!(world.states(), [State::Down, State::AdminDown]);
    assert!(world.sent[sent..].iter().all(|(_, end, _)| *end == 0), "who is shut down is silent");
}

#[test]
fn the_slower_end_gives_the_pace() {
    let slow = Timing { transmit: 1000 * MS, receive: 700 * MS, ..timing() };
    let mut world = World::new([timing(), slow]);
    world.run(10_000 * MS);
    assert_eq!(world.states(), [State::Up; 2]);
    assert_eq!(world.ends[0].detection_time(), Some(3000 * MS));
    assert_eq!(world.ends[1].detection_time(), Some(2100 * MS));
    let intervals = world.intervals(0, 4000 * MS);
    assert!(intervals.iter().all(|time| (525 * MS..=702 * MS).contains(time)), "{intervals:?}");
}

#[test]
fn other_times_are_told_by_a_poll_and_kept() {
    let mut world = up();
    let at = world.now - world.start;
    let now = world.now;
    world.ends[0].set_timing(Timing { transmit: 600 * MS, ..timing() }, now);
    world.run(5000 * MS);
    assert_eq!(world.states(), [State::Up; 2]);
    assert_eq!(world.ends[1].detection_time(), Some(1800 * MS));
    let of = |end: usize| world.sent.iter().filter(move |(when, of, _)| *of == end && *when >= at);
    assert_eq!(of(0).filter(|(.., packet)| packet.is_poll).count(), 1);
    assert_eq!(of(1).filter(|(.., packet)| packet.is_final).count(), 1);
}

#[test]
fn a_passive_end_waits_to_be_spoken_to() {
    let passive = Timing { is_passive: true, ..timing() };
    let mut world = World::new([passive; 2]);
    world.run(5000 * MS);
    assert_eq!(world.sent.len(), 0);
    let mut world = World::new([timing(), passive]);
    world.run(20 * MS);
    assert_eq!(world.states(), [State::Up; 2]);
}

#[test]
fn a_peer_that_wants_no_packets_gets_none_but_answers() {
    let mut world = up();
    let quiet = ControlPacket { is_demand: true, ..world.ends[1].packet(false) };
    let now = world.now;
    world.ends[0].receive(&quiet, now);
    assert_eq!(world.ends[0].next_packet, None, "demand mode");
    let deaf = ControlPacket { required_min_rx: 0, ..world.ends[1].packet(false) };
    world.ends[0].receive(&deaf, now);
    assert_eq!(world.ends[0].next_packet, None, "it can take none");
    let output = world.ends[0].receive(&ControlPacket { is_poll: true, ..deaf }, now);
    assert!(output.packets.len() == 1 && output.packets[0].is_final && !output.packets[0].is_poll);
    world.ends[0].receive(&world.ends[1].packet(false), now);
    assert!(world.ends[0].next_packet.is_some());
}

/// A process that was stopped for a second hears first, and judges then.
#[test]
fn an_end_that_was_kept_waiting_takes_nobody_for_dead_whom_it_could_have_heard() {
    let mut world = up();
    let later = world.now + 2000 * MS;
    let heard = world.ends[1].packet(false);
    world.ends[0].receive(&heard, later);
    assert!(!world.ends[0].advance(later).is_changed);
    assert_eq!(world.ends[0].state(), State::Up);
}
