//! Control packets of BFD (RFC 5880, section 4.1), and which of them nobody has to look at (section 6.8.6).

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// The length of a packet without authentication.
pub const LENGTH: usize = 24;
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// The state of a session, as its own end has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Somebody holds it down on purpose.
    AdminDown,
    /// Nothing is heard, or the other end hears nothing.
    #[default]
    Down,
    /// The other end is heard, and does not know it yet.
    Init,
    /// Both ends hear each other.
    Up,
}

/// Why a session last left the state Up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Diagnostic {
    /// It never did.
    #[default]
    None,
    /// Nothing was heard for the detection time.
    TimeExpired,
    /// The other end said that it is down.
    NeighborDown,
    /// Somebody holds it down on purpose.
    AdminDown,
    /// Another reason, which only others have.
    Other(u8),
}

/// A control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPacket {
    /// Why the sender's session last left the state Up.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// The sender wants a packet with `is_final` at once.
    pub is_poll: bool,
    /// The answer to a poll.
    pub is_final: bool,
    /// The sender's BFD goes on without its control plane.
    pub is_control_plane_independent: bool,
    /// The sender wants no packets while both ends are up.
    pub is_demand: bool,
    /// How many packets may be lost.
    pub multiplier: u8,
    /// The sender's number for the session; never 0.
    pub my_discriminator: u32,
    /// The receiver's number for it; 0 where the sender does not know it.
    pub your_discriminator: u32,
    /// The shortest time between two packets that the sender would like to send, in microseconds.
    pub desired_min_tx: u32,
    /// The shortest time between two packets that the sender can take, in microseconds; 0: it wants none.
    pub required_min_rx: u32,
    /// The same for echoed packets.
    pub required_min_echo_rx: u32,
}

/// Why a packet is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Invalid {
    /// Another version of the protocol.
    #[error("its version is not 1")]
    Version,
    /// Shorter than a control packet, or than it says.
    #[error("its length is wrong")]
    Length,
    /// A detection time of nothing.
    #[error("its detection multiplier is 0")]
    Multiplier,
    /// A bit that no packet may have.
    #[error("it is for several points")]
    Multipoint,
    /// The sender has no number.
    #[error("its own discriminator is 0")]
    NoDiscriminator,
    /// The sender claims to hear somebody whom it cannot name.
    #[error("it claims to hear this end and does not know its discriminator")]
    Nameless,
    /// It is signed, and no session here is.
    #[error("it is authenticated, which no session here is")]
    Authentication,
}

impl ControlPacket {
    /// The packet's bytes.
    pub fn encode(&self) -> [u8; LENGTH] {
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let mut bytes = [0; LENGTH];
        bytes[0] = VERSION << 5 | self.diagnostic.number();
        bytes[1] = self.state.number() << 6
            | flag(self.is_poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.is_control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(self.is_demand, DEMAND);
        bytes[2] = self.multiplier;
        bytes[3] = LENGTH as u8;
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        ];
        for (place, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// Reads a datagram, in the order of RFC 5880 section 6.8.6.
    ///
    /// # Errors
    /// Why it must be discarded whatever sessions there are.
    pub fn decode(bytes: &[u8]) -> Result<ControlPacket, Invalid> {
        let header: &[u8; LENGTH] = bytes.first_chunk().ok_or(Invalid::Length)?;
        let [first, second, multiplier, length, ..] = *header;
        if first >> 5 != VERSION {
            return Err(Invalid::Version);
        }
        if usize::from(length) < LENGTH || usize::from(length) > bytes.len() {
            return Err(Invalid::Length);
        }
        if multiplier == 0 {
            return Err(Invalid::Multiplier);
        }
        if second & MULTIPOINT != 0 {
            return Err(Invalid::Multipoint);
        }
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let packet = ControlPacket {
            diagnostic: Diagnostic::from_number(first & 0x1f),
            state: State::from_number(second >> 6),
            is_poll: second & POLL != 0,
            is_final: second & FINAL != 0,
            is_control_plane_independent: second & CONTROL_PLANE_INDEPENDENT != 0,
            is_demand: second & DEMAND != 0,
            multiplier,
            my_discriminator: word(4),
            your_discriminator: word(8),
            desired_min_tx: word(12),
            required_min_rx: word(16),
            required_min_echo_rx: word(20),
        };
        if packet.my_discriminator == 0 {
            return Err(Invalid::NoDiscriminator);
        }
        if packet.your_discriminator == 0 && !matches!(packet.state, State::Down | State::AdminDown) {
            return Err(Invalid::Nameless);
        }
        if second & AUTHENTICATION != 0 {
            return Err(Invalid::Authentication);
        }
        Ok(packet)
    }
}

impl State {
    fn number(self) -> u8 {
        match self {
            State::AdminDown => 0,
            State::Down => 1,
            State::Init => 2,
            State::Up => 3,
        }
    }

    fn from_number(number: u8) -> State {
        match number {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::AdminDown => "admin down",
            State::Down => "down",
            State::Init => "init",
            State::Up => "up",
        })
    }
}

impl Diagnostic {
    fn number(self) -> u8 {
        match self {
            Diagnostic::None => 0,
            Diagnostic::TimeExpired => 1,
            Diagnostic::NeighborDown => 3,
            Diagnostic::AdminDown => 7,
            Diagnostic::Other(number) => number & 0x1f,
        }
    }

    fn from_number(number: u8) -> Diagnostic {
        match number {
            0 => Diagnostic::None,
            1 => Diagnostic::TimeExpired,
            3 => Diagnostic::NeighborDown,
            7 => Diagnostic::AdminDown,
            other => Diagnostic::Other(other),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Diagnostic::None => f.write_str("no reason"),
            Diagnostic::TimeExpired => f.write_str("nothing was heard of it"),
            Diagnostic::NeighborDown => f.write_str("it says that it is down"),
            Diagnostic::AdminDown => f.write_str("it is held down"),
            Diagnostic::Other(number) => write!(f, "diagnostic {number}"),
        }
    }
}

/// Microseconds as packets have them; what is too long for them is the longest.
pub(super) fn microseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A packet as another implementation sends it: state Up, poll, multiplier 3, 300 ms.
    const HEARD: [u8; 24] =
        [0x20, 0xe0, 3, 24, 0, 0, 0, 7, 0, 0, 0, 9, 0, 4, 0x93, 0xe0, 0, 4, 0x93, 0xe0, 0, 0, 0, 0];

    fn altered(at: usize, value: u8) -> Result<ControlPacket, Invalid> {
        let mut bytes = HEARD;
        bytes[at] = value;
        ControlPacket::decode(&bytes)
    }

    #[test]
    fn a_packet_reads_as_the_specification_has_it() {
        let packet = ControlPacket::decode(&HEARD).unwrap();
        assert_eq!((packet.state, packet.is_poll, packet.is_final), (State::Up, true, false));
        assert_eq!((packet.my_discriminator, packet.your_discriminator), (7, 9));
        assert_eq!((packet.desired_min_tx, packet.required_min_rx), (300_000, 300_000));
        assert_eq!(packet.encode(), HEARD);
    }

    #[test]
    fn what_no_session_may_look_at_is_named() {
        assert_eq!(altered(0, 0x40), Err(Invalid::Version));
        assert_eq!(altered(3, 23), Err(Invalid::Length));
        assert_eq!(altered(3, 25), Err(Invalid::Length), "longer than the datagram");
        assert_eq!(altered(2, 0), Err(Invalid::Multiplier));
        assert_eq!(altered(1, 0xc1), Err(Invalid::Multipoint));
        assert_eq!(altered(7, 0), Err(Invalid::NoDiscriminator));
        assert_eq!(altered(11, 0), Err(Invalid::Nameless));
        assert_eq!(altered(1, 0xc4), Err(Invalid::Authentication));
        assert_eq!(ControlPacket::decode(&HEARD[..23]), Err(Invalid::Length));
    }

    #[test]
    fn a_datagram_may_be_longer_than_the_packet_in_it() {
        let longer = [&HEARD[..], &[1, 2, 3]].concat();
        assert_eq!(ControlPacket::decode(&longer), ControlPacket::decode(&HEARD));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_what_is_read_is_written_alike(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(packet) = ControlPacket::decode(&bytes) {
                let mut expected = bytes[..LENGTH].to_vec();
                expected[3] = LENGTH as u8;
                prop_assert_eq!(&packet.encode()[..], &expected[..]);
            }
        }

        #[test]
        fn bytes_that_look_like_a_packet_are_read_or_refused(
            second in any::<u8>(), length in 20_u8..30, words in any::<[u8; 20]>(), more in 0_usize..8,
        ) {
            let bytes = [&[0x20, second, 3, length][..], &words, &vec![0; more]].concat();
            if let Ok(packet) = ControlPacket::decode(&bytes) {
                prop_assert!(usize::from(length) <= bytes.len() && packet.my_discriminator != 0);
                prop_assert_eq!(ControlPacket::decode(&packet.encode()), Ok(packet));
            }
        }
    }
}
