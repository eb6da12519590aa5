//! Netlink framing: headers, acknowledgements and extended-acknowledgement texts. Pure: bytes in, values out.
//! What a message says inside is for the protocol's own crate or module.

use netlink_packet_core::{
    NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkSerializable,
};
use nix::errno::Errno;

use crate::{Error, Refusal, Result};

/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `NLMSGERR_ATTR_MSG`: the kernel's words about an error (linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A request to the kernel, before it has its sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The message type (`nlmsg_type`).
    pub kind: u16,
    /// `NLM_F_*` flags besides NLM_F_REQUEST, which is always set.
    pub flags: u16,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Request {
    /// A request from a message of one of the netlink-packet crates.
    pub fn new(message: &impl NetlinkSerializable, flags: u16) -> Request {
        let mut payload = vec![0; message.buffer_len()];
        message.serialize(&mut payload);
        Request { kind: message.message_type(), flags, payload }
    }

    /// Appends the whole message, padded to the alignment of the next one.
    pub fn encode(&self, sequence: u32, buffer: &mut Vec<u8>) {
        let length = (HEADER + self.payload.len()) as u32;
        buffer.extend_from_slice(&length.to_ne_bytes());
        buffer.extend_from_slice(&self.kind.to_ne_bytes());
        buffer.extend_from_slice(&(self.flags | NLM_F_REQUEST).to_ne_bytes());
        buffer.extend_from_slice(&sequence.to_ne_bytes());
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&self.payload);
        buffer.resize(buffer.len().next_multiple_of(4), 0);
    }
}

/// One netlink message as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The message type (`nlmsg_type`).
    pub kind: u16,
    /// `NLM_F_*` flags.
    pub flags: u16,
    /// The sequence number of the request that it answers; 0 for notifications.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// What a frame is to the one who waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A message of the protocol.
    Data,
    /// The end: an acknowledgement, or the last part of a dump.
    Done,
    /// The end: the request was refused.
    Refused(Refusal),
}

impl Frame<'_> {
    /// Tells data from the end of an answer.
    pub(crate) fn answer(&self) -> Result<Answer> {
        // A dump's NLMSG_DONE carries the dump's own error number, if it has a payload at all.
        let errno = match (self.kind, self.payload.first_chunk::<4>()) {
            (NLMSG_ERROR | NLMSG_DONE, Some(bytes)) => -i32::from_ne_bytes(*bytes),
            (NLMSG_DONE, None) => 0,
            (NLMSG_ERROR, None) => return Err(Error::Malformed("an acknowledgement without a code".into())),
            _ => return Ok(Answer::Data),
        };
        if errno <= 0 {
            return Ok(Answer::Done);
        }
        let reason = self.reason();
        Ok(Answer::Refused(Refusal { sequence: self.sequence, errno: Errno::from_raw(errno), reason }))
    }

    /// The text of an extended acknowledgement. It stands behind the refused message's header, or behind the
    /// whole refused message where the kernel repeats that (NLM_F_CAPPED is not set).
    fn reason(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let repeated = match (self.kind, self.flags & NLM_F_CAPPED) {
            (NLMSG_DONE, _) => 0,
            (_, 0) => (self.payload.get(4..8)?.first_chunk::<4>().map(|&l| u32::from_ne_bytes(l))?) as usize,
            _ => HEADER,
        };
        let text = attribute(self.payload.get(4 + repeated.next_multiple_of(4)..)?, NLMSGERR_ATTR_MSG)?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    }
}

/// The payload of the first attribute of that type.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(&[a, b, c, d]) = bytes.first_chunk::<4>() {
        let (length, kind) = (u16::from_ne_bytes([a, b]) as usize, u16::from_ne_bytes([c, d]));
        let payload = bytes.get(4..length)?;
        if kind == wanted {
            return Some(payload);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// The messages of one datagram.
#[derive(Clone, Debug)]
pub struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    /// The messages in `datagram`.
    pub fn new(datagram: &'a [u8]) -> Frames<'a> {
        Frames(datagram)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((frame, rest)) = split(self.0) else {
            let length = std::mem::take(&mut self.0).len();
            return Some(Err(Error::Malformed(format!("a message overruns the {length} bytes left"))));
        };
        self.0 = rest;
        Some(Ok(frame))
    }
}

fn split(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let header = bytes.first_chunk::<HEADER>()?;
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let length = word(0) as usize;
    let payload = bytes.get(HEADER..length)?;
    // The last message of a datagram may lack its padding.
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((Frame { kind: half(4), flags: half(6), sequence: word(8), payload }, rest))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NLM_F_ACK;

    use super::*;

    fn encoded(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Request { kind, flags, payload: payload.to_vec() }.encode(sequence, &mut bytes);
        bytes
    }

    #[test]
    fn a_request_reads_back_as_a_frame_and_is_padded() {
        let mut bytes = encoded(20, NLM_F_ACK, 7, &[1, 2, 3]);
        bytes.extend(encoded(21, 0, 8, &[]));
        let frames: Vec<_> = Frames::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(bytes.len(), 20 + 16);
        assert_eq!(
            frames[0],
            Frame { kind: 20, flags: NLM_F_ACK | NLM_F_REQUEST, sequence: 7, payload: &[1, 2, 3] }
        );
        assert_eq!((frames[1].kind, frames[1].sequence), (21, 8));
    }

    #[test]
    fn a_message_longer_than_its_datagram_is_an_error_and_ends_the_iteration() {
        let mut bytes = encoded(20, 0, 7, &[1, 2, 3, 4]);
        bytes.truncate(18);
        let results: Vec<_> = Frames::new(&bytes).collect();
        assert!(matches!(results.as_slice(), [Err(Error::Malformed(_))]));
        assert!(Frames::new(&[0; 16]).next().is_some_and(|frame| frame.is_err()), "a length of zero");
    }

    #[test]
    fn an_acknowledgement_is_the_end_and_an_errno_a_refusal_with_its_text() {
        let ack = encoded(NLMSG_ERROR, NLM_F_CAPPED, 7, &[0; 20]);
        assert_eq!(Frames::new(&ack).next().unwrap().unwrap().answer().unwrap(), Answer::Done);

        let mut payload = (-22i32).to_ne_bytes().to_vec();
        payload.extend([0; 16]);
        payload.extend([8u16.to_ne_bytes(), 2u16.to_ne_bytes()].concat());
        payload.extend([0; 4]);
        payload.extend([8u16.to_ne_bytes(), NLMSGERR_ATTR_MSG.to_ne_bytes()].concat());
        payload.extend(b"bad\0");
        let refused = encoded(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, 7, &payload);
        let answer = Frames::new(&refused).next().unwrap().unwrap().answer().unwrap();
        let expected = Refusal { sequence: 7, errno: Errno::EINVAL, reason: Some("bad".into()) };
        assert_eq!(answer, Answer::Refused(expected));
    }

    #[test]
    fn the_text_is_found_behind_a_repeated_request() {
        let repeated = encoded(20, 0, 7, &[9; 6]);
        let mut payload = (-17i32).to_ne_bytes().to_vec();
        payload.extend(&repeated);
        payload.extend([7u16.to_ne_bytes(), NLMSGERR_ATTR_MSG.to_ne_bytes()].concat());
        payload.extend(b"no\0");
        let refused = encoded(NLMSG_ERROR, NLM_F_ACK_TLVS, 7, &payload);
        let Answer::Refused(refusal) = Frames::new(&refused).next().unwrap().unwrap().answer().unwrap()
        else {
            panic!("not a refusal")
        };
        assert_eq!(refusal.reason.as_deref(), Some("no"));
    }

    #[test]
    fn the_end_of_a_dump_may_carry_an_error() {
        let failed = encoded(NLMSG_DONE, 0, 7, &(-4i32).to_ne_bytes());
        let Answer::Refused(refusal) = Frames::new(&failed).next().unwrap().unwrap().answer().unwrap() else {
            panic!("not a refusal")
        };
        assert_eq!(refusal.errno, Errno::EINTR);
        let empty = encoded(NLMSG_DONE, 0, 7, &[]);
        assert_eq!(Frames::new(&empty).next().unwrap().unwrap().answer().unwrap(), Answer::Done);
    }
}
