//! The session with one peer (RFC 5880, section 6.8): a state machine over packets and the time. It sends
//! nothing itself; it says what is to be sent, and when it wants to be asked again.

use std::time::{Duration, Instant};

use super::packet::{ControlPacket, Diagnostic, State, microseconds};

/// The shortest time between two packets while a session is not up (RFC 5880, section 6.8.3).
const SLOW: Duration = Duration::from_secs(1);

/// How a session is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The time between two packets to send while it is up.
    pub transmit: Duration,
    /// The shortest time between two packets that the peer may send.
    pub receive: Duration,
    /// How many packets in a row may be lost, so that the peer is down when that many are missing; at least
    /// 1.
    pub multiplier: u8,
    /// It waits for the peer to begin (passive role, section 6.1).
    pub is_passive: bool,
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Packets to send, in order.
    pub packets: Vec<ControlPacket>,
    /// The session is in another state than before.
    pub is_changed: bool,
}

/// One end of a session. The names of its parts are those of section 6.8.1.
#[derive(Clone, Debug)]
pub struct Session {
    timing: Timing,
    state: State,
    diagnostic: Diagnostic,
    discriminator: u32,
    remote_discriminator: u32,
    remote_state: State,
    remote_min_rx: Duration,
    /// None before anything was heard.
    remote_min_tx: Option<Duration>,
    remote_multiplier: u8,
    is_remote_demand: bool,
    /// A change of the times is being told, until the peer has answered.
    is_polling: bool,
    next_packet: Option<Instant>,
    expires: Option<Instant>,
    /// When the last packet went out by the clock: the next follows it.
    last_packet: Instant,
    random: u64,
    was_up: bool,
}

impl Session {
    /// A session that is down. The discriminator is not 0, and no other session here has it.
    pub fn new(timing: Timing, discriminator: u32, now: Instant) -> Session {
        let timing = Timing { multiplier: timing.multiplier.max(1), ..timing };
        Session {
            timing,
            state: State::Down,
            diagnostic: Diagnostic::None,
            discriminator,
            remote_discriminator: 0,
            remote_state: State::Down,
            // Section 6.8.1: "This variable MUST be initialized to 1."
            remote_min_rx: Duration::from_micros(1),
            remote_min_tx: None,
            remote_multiplier: 0,
            is_remote_demand: false,
            is_polling: false,
            next_packet: (!timing.is_passive).then_some(now),
            expires: None,
            last_packet: now,
            random: u64::from(discriminator),
            was_up: false,
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it last left the state Up.
    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// Its number.
    pub fn discriminator(&self) -> u32 {
        self.discriminator
    }

    /// Whether it has ever been up.
    pub fn was_up(&self) -> bool {
        self.was_up
    }

    /// After what time without a packet the peer is down; none before it was heard (section 6.8.4).
    pub fn detection_time(&self) -> Option<Duration> {
        self.remote_min_tx.map(|remote| remote.max(self.timing.receive) * self.remote_multiplier.into())
    }

    /// When it wants [`Session::advance`] to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_packet.into_iter().chain(self.expires).min()
    }

    /// Other times from now on.
    pub fn set_timing(&mut self, timing: Timing, now: Instant) {
        let timing = Timing { multiplier: timing.multiplier.max(1), ..timing };
        if timing != self.timing {
            self.timing = timing;
            self.is_polling = self.state == State::Up;
            self.schedule(now);
        }
    }

    /// What the other end last said of its own state.
    pub fn remote_state(&self) -> State {
        self.remote_state
    }

    /// Does what the time asks for. Packets that have come must have been told before: so a process that was
    /// kept waiting takes nobody for dead whom it could have heard.
    pub fn advance(&mut self, now: Instant) -> Output {
        let mut output = Output::default();
        if self.expires.is_some_and(|expires| expires <= now) {
            self.expires = None;
            // Section 6.8.1, bfd.RemoteDiscr.
            self.remote_discriminator = 0;
            if matches!(self.state, State::Init | State::Up) {
                self.change(State::Down, Diagnostic::TimeExpired, &mut output);
            }
            self.schedule(now);
        }
        if self.next_packet.is_some_and(|next| next <= now) {
            self.last_packet = now;
            output.packets.push(self.packet(false));
            self.schedule(now);
        } else if output.is_changed {
            output.packets.push(self.packet(false));
        }
        output
    }

    /// Takes in a packet that belongs to this session (section 6.8.6).
    pub fn receive(&mut self, packet: &ControlPacket, now: Instant) -> Output {
        let mut output = Output::default();
        let was_demanding = self.is_remote_demand;
        let times = (self.remote_min_rx, self.remote_state);
        self.remote_discriminator = packet.my_discriminator;
        self.remote_state = packet.state;
        self.is_remote_demand = packet.is_demand;
        self.remote_min_rx = Duration::from_micros(packet.required_min_rx.into());
        self.remote_min_tx = Some(Duration::from_micros(packet.desired_min_tx.into()));
        self.remote_multiplier = packet.multiplier;
        if packet.is_final {
            self.is_polling = false;
        }
        if self.state == State::AdminDown {
            return output;
        }
        match (self.state, packet.state) {
            (State::Down, State::AdminDown) => {}
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.change(State::Down, Diagnostic::NeighborDown, &mut output);
            }
            (State::Down, State::Down) => self.change(State::Init, self.diagnostic, &mut output),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.change(State::Up, Diagnostic::None, &mut output);
            }
            _ => {}
        }
        self.expires = self.detection_time().map(|time| now + time);
        if packet.is_poll {
            output.packets.push(self.packet(true));
        } else if output.is_changed {
            // Section 6.8.7: what changed is told at once.
            output.packets.push(self.packet(false));
        }
        let is_other = times != (self.remote_min_rx, self.remote_state);
        if output.is_changed
            || is_other
            || was_demanding != self.is_remote_demand
            || self.next_packet.is_none()
        {
            self.schedule(now);
        }
        output
    }

    /// Ends it on purpose. The peer is to hear of it.
    pub fn shut_down(&mut self) -> ControlPacket {
        self.change(State::AdminDown, Diagnostic::AdminDown, &mut Output::default());
        (self.next_packet, self.expires) = (None, None);
        self.packet(false)
    }

    fn change(&mut self, state: State, diagnostic: Diagnostic, output: &mut Output) {
        output.is_changed = self.state != state;
        self.state = state;
        self.diagnostic = diagnostic;
        self.was_up |= state == State::Up;
        // Up, the times are other ones than before, which a poll tells (section 6.8.3).
        self.is_polling = state == State::Up;
    }

    /// The shortest time between two packets that it would like to send (bfd.DesiredMinTxInterval).
    fn desired_min_tx(&self) -> Duration {
        match self.state {
            State::Up => self.timing.transmit,
            _ => self.timing.transmit.max(SLOW),
        }
    }

    fn packet(&self, is_final: bool) -> ControlPacket {
        ControlPacket {
            diagnostic: self.diagnostic,
            state: self.state,
            // No packet has both (section 6.5).
            is_poll: self.is_polling && !is_final,
            is_final,
            is_control_plane_independent: false,
            is_demand: false,
            multiplier: self.timing.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote_discriminator,
            desired_min_tx: microseconds(self.desired_min_tx()),
            required_min_rx: microseconds(self.timing.receive),
            required_min_echo_rx: 0,
        }
    }

    /// When the next packet is due (section 6.8.7).
    fn schedule(&mut self, now: Instant) {
        let is_silent = self.state == State::AdminDown
            || self.timing.is_passive && self.remote_discriminator == 0
            || self.remote_min_rx.is_zero()
            || self.is_remote_demand
                && self.state == State::Up
                && self.remote_state == State::Up
                && !self.is_polling;
        self.next_packet = (!is_silent).then(|| {
            let interval = self.desired_min_tx().max(self.remote_min_rx);
            (self.last_packet + self.jittered(interval)).max(now)
        });
    }

    /// Up to a quarter less, so that packets of many sessions spread; where a single one counts, at least a
    /// tenth less (section 6.8.7).
    fn jittered(&mut self, interval: Duration) -> Duration {
        // SplitMix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = (mixed >> 40) as f64 / (1_u64 << 24) as f64;
        let (least, spread) = if self.timing.multiplier == 1 { (0.75, 0.15) } else { (0.75, 0.25) };
        interval.mul_f64(least + share * spread)
    }
}

#[cfg(test)]
mod tests;
