//! A reply made of the records of messages, such as an upstream's, and its bytes. The zone's own records are
//! written without it: see [`crate::pipeline::encode`]. Pure.

use hickory_proto::ProtoError;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, Record};

use crate::wire::encoder::{Encoder, Flags, Head, Section};
use crate::wire::extended_error::ExtendedError;
use crate::wire::format::HEADER;

/// What is answered to a query, before it is cut to the client's size.
#[derive(Debug)]
pub struct Reply {
    /// The response code.
    pub code: ResponseCode,
    /// Why there is no better answer.
    pub extended: Option<ExtendedError>,
    /// Whether the zone itself says so.
    pub authoritative: bool,
    /// Whether the upstream vouches for it (RFC 6840 section 5.8).
    pub authentic: bool,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The authority section.
    pub authorities: Vec<Record>,
    /// The additional section without OPT: what may be left out.
    pub additionals: Vec<Record>,
}

impl Reply {
    /// A reply without records.
    pub fn empty(code: ResponseCode) -> Reply {
        Reply {
            code,
            extended: None,
            authoritative: false,
            authentic: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }

    /// Adds what a message says of `target`. A cached message has the spelling of whoever asked first.
    pub fn add(&mut self, target: &Name, message: Message) {
        let spelled = |mut record: Record| {
            if record.name == *target {
                record.name = target.clone();
            }
            record
        };
        self.code = end_to_end(message.metadata.response_code);
        self.answers.extend(message.answers.into_iter().map(spelled));
        self.authorities = message.authorities;
        self.additionals = message.additionals;
    }

    /// The reply as a message. What may be left out is left out first; then TC says that records are missing
    /// (RFC 2181 section 9). One whose data cannot be written is a failure.
    pub(crate) fn encode(&self, head: &Head<'_>, recursion_available: bool) -> Vec<u8> {
        self.write(head, recursion_available).unwrap_or_else(|_| {
            let failure = Reply::empty(ResponseCode::ServFail);
            failure.write(head, recursion_available).unwrap_or_else(|_| head.header[..HEADER].to_vec())
        })
    }

    fn write(&self, head: &Head<'_>, recursion_available: bool) -> Result<Vec<u8>, ProtoError> {
        let Reply { authoritative, authentic, code, .. } = *self;
        let flags = Flags { authoritative, authentic, recursion_available, code };
        let mut encoder = Encoder::new(Vec::with_capacity(USUAL), head, flags);
        encoder.records(&self.answers)?;
        encoder.section(Section::Authority);
        encoder.records(&self.authorities)?;
        encoder.section(Section::Additional);
        // All records of a name that stand together, or none.
        for of_name in self.additionals.chunk_by(|one, next| one.name == next.name) {
            encoder.group(|encoder| encoder.records(of_name))?;
        }
        let extended = || self.extended.as_ref().map(|extended| (extended.code, &*extended.text));
        Ok(encoder.finish(head, code, extended))
    }
}

/// The room that most messages take.
pub(crate) const USUAL: usize = 512;

/// What is said of an upstream's code. Those above 15 are of what lies between two servers (RFC 6891 section
/// 9), and cannot be told without EDNS.
fn end_to_end(code: ResponseCode) -> ResponseCode {
    if code.high() == 0 { code } else { ResponseCode::ServFail }
}

/// The reply to a request that cannot be read further than its header.
pub(crate) fn header_only(header: &[u8; HEADER], code: ResponseCode) -> Vec<u8> {
    let mut reply = vec![0; HEADER];
    reply[..2].copy_from_slice(&header[..2]);
    reply[2] = 0x80 | header[2] & 0x79;
    reply[3] = code.low();
    reply
}
