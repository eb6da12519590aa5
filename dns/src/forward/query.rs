//! A query as it goes to upstreams and as its answer is cached: name, type and the flags that change the
//! answer. Pure: bytes in, bytes out.

use hashbrown::Equivalent;
use hickory_proto::op::{Metadata, Query};
use hickory_proto::rr::RecordType;

use crate::wire::format::LARGEST_UDP;
use crate::wire::name::{NameError, QueryName};

/// The length of a message's header (RFC 1035 section 4.1.1).
pub(super) const HEADER: usize = 12;
/// Type and class, which follow the name.
const TYPE_AND_CLASS: usize = 4;

/// What is asked: two queries that are equal have the same answer. Its fields are in the order of those of
/// [`UpstreamQueryRef`], which must hash alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct UpstreamQuery {
    /// The name in lower-case wire form, without the root byte.
    pub(super) name: Box<[u8]>,
    /// The type.
    pub(super) record_type: RecordType,
    /// Whether DNSSEC's records are wanted.
    pub(super) dnssec_ok: bool,
    /// Whether the upstream is told not to validate.
    pub(super) checking_disabled: bool,
    /// Whether the upstream may ask others in turn.
    pub(super) recursion: bool,
}

/// The same, for looking up what is cached of it.
#[derive(Clone, Copy, Debug, Hash)]
pub struct UpstreamQueryRef<'n> {
    /// The name in lower-case wire form, without the root byte.
    pub name: &'n [u8],
    /// The type.
    pub record_type: RecordType,
    /// Whether DNSSEC's records are wanted.
    pub dnssec_ok: bool,
    /// Whether the upstream is told not to validate.
    pub checking_disabled: bool,
    /// Whether the upstream may ask others in turn.
    pub recursion: bool,
}

impl Equivalent<UpstreamQuery> for UpstreamQueryRef<'_> {
    fn equivalent(&self, query: &UpstreamQuery) -> bool {
        *self.name == *query.name
            && (self.record_type, self.dnssec_ok, self.checking_disabled, self.recursion)
                == (query.record_type, query.dnssec_ok, query.checking_disabled, query.recursion)
    }
}

/// What a datagram is to a request that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// The answer.
    Answer,
    /// The answer, but the name is not spelled as it was asked.
    OtherCase,
    /// Something else, which may be forged.
    Unrelated,
}

impl UpstreamQuery {
    /// What a client's query means for upstreams. `asked` is the header of the client's request.
    pub(super) fn new(query: &Query, asked: &Metadata, dnssec_ok: bool) -> Result<UpstreamQuery, NameError> {
        let name = QueryName::from_name(&query.name)?;
        Ok(UpstreamQuery {
            name: name.wire(0, name.len()).into(),
            record_type: query.query_type,
            dnssec_ok,
            checking_disabled: asked.checking_disabled,
            recursion: asked.recursion_desired,
        })
    }

    /// A query on our own behalf, of no client.
    pub(super) fn own(name: &[u8], record_type: RecordType) -> UpstreamQuery {
        UpstreamQuery {
            name: name.into(),
            record_type,
            dnssec_ok: false,
            checking_disabled: false,
            recursion: true,
        }
    }

    /// The query as a message. The letters whose bit is set in `spelling` are written in upper case, bit 0
    /// for the first letter, the pattern repeating after 64. AD asks to be told what was validated (RFC 6840
    /// section 5.7).
    pub(super) fn request(&self, id: u16, spelling: u64, edns: bool) -> Vec<u8> {
        let mut request = Vec::with_capacity(HEADER + self.name.len() + 16);
        request.extend_from_slice(&id.to_be_bytes());
        let checking = u8::from(self.checking_disabled) << 4;
        request.extend_from_slice(&[u8::from(self.recursion), 0x20 | checking]);
        request.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
        spell(&self.name, spelling, &mut request);
        request.push(0);
        request.extend_from_slice(&u16::from(self.record_type).to_be_bytes());
        request.extend_from_slice(&[0, 1]);
        if edns {
            let [high, low] = LARGEST_UDP.to_be_bytes();
            request.extend_from_slice(&[0, 0, 41, high, low, 0, 0, u8::from(self.dnssec_ok) << 7, 0, 0, 0]);
        }
        request
    }

    /// Whether that spelling is another one than lower case, for this name.
    pub(super) fn has_capitals(&self, spelling: u64) -> bool {
        let mut name = Vec::with_capacity(self.name.len());
        spell(&self.name, spelling, &mut name);
        *name != *self.name
    }

    /// How long the question section is.
    pub(super) fn section(&self) -> usize {
        self.name.len() + 1 + TYPE_AND_CLASS
    }

    /// Spells the name in a message's question in lower case, along with all names that point to it.
    pub(super) fn respell(&self, message: &mut [u8]) {
        if message.get(4..6) == Some(&[0, 1]) && message.len() >= HEADER + self.section() {
            message[HEADER..HEADER + self.name.len()].copy_from_slice(&self.name);
        }
    }

    /// What `bytes` is to the `request` that was made of this query (RFC 5452 section 9.1).
    pub(super) fn matches(&self, bytes: &[u8], request: &[u8]) -> Match {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else { return Match::Unrelated };
        // QR is set, the operation is a query.
        if header[..2] != request[..2] || header[2] & 0xf8 != 0x80 {
            return Match::Unrelated;
        }
        // Some servers leave the question out of a failure.
        if header[4..8] == [0, 0, 0, 0] && header[3] & 0x0f != 0 {
            return Match::Answer;
        }
        let asked = &request[HEADER..HEADER + self.section()];
        match body.get(..self.section()) {
            Some(section) if header[4..6] == [0, 1] && section == asked => Match::Answer,
            Some(section) if header[4..6] == [0, 1] && self.is_other_case(section, asked) => Match::OtherCase,
            _ => Match::Unrelated,
        }
    }

    fn is_other_case(&self, section: &[u8], asked: &[u8]) -> bool {
        let name = self.name.len();
        section[..name].eq_ignore_ascii_case(&self.name) && section[name..] == asked[name..]
    }
}

/// Appends a name with some of its letters in upper case. The lengths of labels are no letters.
fn spell(name: &[u8], spelling: u64, to: &mut Vec<u8>) {
    let mut letters = 0;
    to.extend(name.iter().map(|&byte| {
        if !byte.is_ascii_lowercase() {
            return byte;
        }
        letters += 1;
        if spelling.rotate_right(letters - 1) & 1 == 1 { byte.to_ascii_uppercase() } else { byte }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> UpstreamQuery {
        UpstreamQuery::own(b"\x03www\x07example\x03com", RecordType::A)
    }

    fn reply(request: &[u8]) -> Vec<u8> {
        let mut reply = request.to_vec();
        reply[2] |= 0x80;
        reply
    }

    #[test]
    fn letters_are_spelled_by_the_bits() {
        let request = query().request(7, 0b1001, true);
        assert_eq!(&request[HEADER..HEADER + 17], *b"\x03Www\x07Example\x03com\0");
        assert_eq!(&query().request(7, 0, true)[HEADER..HEADER + 16], &*query().name);
        assert!(query().has_capitals(0b1001) && !query().has_capitals(1 << 40));
        assert!(!UpstreamQuery::own(b"\x011", RecordType::A).has_capitals(u64::MAX), "digits have no case");
    }

    #[test]
    fn only_the_answer_to_this_very_question_is_one() {
        let (query, request) = (query(), query().request(7, 0b101, true));
        assert_eq!(query.matches(&reply(&request), &request), Match::Answer);
        assert_eq!(query.matches(&reply(&query.request(7, 0, true)), &request), Match::OtherCase);
        let other =
            UpstreamQuery::own(b"\x03www\x07example\x03com", RecordType::AAAA).request(7, 0b101, true);
        for unrelated in [
            &request[..],                           // a query
            &reply(&query.request(8, 0b101, true)), // another id
            &reply(&other),                         // another type
            &reply(&request)[..HEADER],             // cut
            &[],                                    // empty
        ] {
            assert_eq!(query.matches(unrelated, &request), Match::Unrelated, "{unrelated:?}");
        }
    }

    #[test]
    fn a_failure_without_its_question_is_an_answer() {
        let (query, request) = (query(), query().request(7, 1, true));
        let failure = [0, 7, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(query.matches(&failure, &request), Match::Answer);
        let success = [0, 7, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(query.matches(&success, &request), Match::Unrelated);
    }

    #[test]
    fn a_reply_is_spelled_in_lower_case_again() {
        let mut message = reply(&query().request(7, u64::MAX, true));
        query().respell(&mut message);
        assert_eq!(message[HEADER..HEADER + query().name.len()], *query().name);
    }
}
