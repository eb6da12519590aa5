//! Datagram -> question, reply -> datagram: what DNS itself demands of any server. Which records a reply holds
//! is decided elsewhere.

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Header, HeaderCounts, Message, Metadata, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::BinEncodable;

use crate::wire::decoder::decode;
use crate::wire::encoder::Encoder;
use crate::wire::extended_error::ExtendedError;
use crate::wire::format::{HEADER, LARGEST_UDP, OPT, OPTION, SMALLEST_UDP, Transport};
use crate::wire::name::{NameError, QueryName};

/// The option that only takes room (RFC 7830 section 3).
const PADDING: u16 = 12;
/// Padded replies are as long as a multiple of this (RFC 8467 section 4.1).
const PADDING_BLOCK: usize = 468;

/// What a client sent.
pub enum Received {
    /// A question to be answered.
    Question(Box<Question>),
    /// Something that is answered at once, with this message.
    Rejected(Vec<u8>),
    /// Nothing that deserves an answer: too short for a header, or itself an answer.
    Ignored,
}

/// One question, with all that its reply must repeat.
pub struct Question {
    /// Name (as the client wrote it), type and class.
    pub query: Query,
    /// The name as it is looked up.
    pub name: QueryName,
    /// The request's header.
    pub metadata: Metadata,
    edns: Option<ClientEdns>,
    transport: Transport,
}

#[derive(Clone, Copy)]
struct ClientEdns {
    payload: u16,
    dnssec_ok: bool,
    pads: bool,
}

/// What is said to a question, before it is cut to the client's size.
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

    /// Adds what a message says of `target`. A remembered message has the spelling of whoever asked first.
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
}

/// What is said of an upstream's code. Those above 15 are of what lies between two servers (RFC 6891 section 9), and cannot be
/// told without EDNS.
fn end_to_end(code: ResponseCode) -> ResponseCode {
    if code.high() == 0 { code } else { ResponseCode::ServFail }
}

/// Reads what a client sent. Never panics, whatever the bytes.
pub fn read(bytes: &[u8], transport: Transport) -> Received {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Received::Ignored };
    if header[2] & 0x80 != 0 {
        return Received::Ignored;
    }
    if header[2] & 0x78 != 0 {
        return Received::Rejected(header_only(header, ResponseCode::NotImp));
    }
    match decode(bytes) {
        Ok(message) => question(message, transport)
            .map_or_else(|| Received::Rejected(header_only(header, ResponseCode::FormErr)), checked),
        Err(_) => Received::Rejected(header_only(header, ResponseCode::FormErr)),
    }
}

fn question(mut message: Message, transport: Transport) -> Option<(Question, u8)> {
    let query = message.queries.pop()?;
    if !message.queries.is_empty() {
        return None;
    }
    let name = QueryName::from_name(&query.name).ok()?;
    let edns = message.edns.as_ref().map(|edns| ClientEdns {
        payload: edns.max_payload(),
        dnssec_ok: edns.flags().dnssec_ok,
        pads: edns.option(EdnsCode::Padding).is_some(),
    });
    Some((Question { query, name, metadata: message.metadata, edns, transport }, message.version()))
}

fn checked((question, edns_version): (Question, u8)) -> Received {
    let refused = |code| Received::Rejected(question.encode(&Reply::empty(code), false));
    match (question.query.query_class, question.query.query_type) {
        _ if edns_version > 0 => refused(ResponseCode::BADVERS),
        (DNSClass::IN, RecordType::AXFR | RecordType::IXFR) => refused(ResponseCode::Refused),
        (DNSClass::IN, _) => Received::Question(Box::new(question)),
        _ => refused(ResponseCode::Refused),
    }
}

/// The reply to a request that cannot be read further than its header.
fn header_only(header: &[u8; HEADER], code: ResponseCode) -> Vec<u8> {
    let mut reply = vec![0; HEADER];
    reply[..2].copy_from_slice(&header[..2]);
    reply[2] = 0x80 | header[2] & 0x79;
    reply[3] = code.low();
    reply
}

impl Question {
    /// A question that nobody sent: to write its reply whole, without EDNS.
    pub fn own(query: Query) -> Result<Question, NameError> {
        let (name, metadata) = (QueryName::from_name(&query.name)?, Message::query().metadata);
        Ok(Question { query, name, metadata, edns: None, transport: Transport::Tcp })
    }

    /// Whether the client wants DNSSEC's records.
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// How it came.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The most bytes that the reply may have.
    pub fn limit(&self) -> u16 {
        match (self.transport, self.edns) {
            (Transport::Tcp | Transport::Tls, _) => u16::MAX,
            (Transport::Udp, None) => SMALLEST_UDP,
            (Transport::Udp, Some(edns)) => edns.payload.clamp(SMALLEST_UDP, LARGEST_UDP),
        }
    }

    /// The reply as a message of at most [`Question::limit`] bytes. What may be left out is left out first; then
    /// TC says that records are missing (RFC 2181 section 9).
    pub fn encode(&self, reply: &Reply, recursion_available: bool) -> Vec<u8> {
        let mut bytes = self.write(reply, recursion_available).unwrap_or_else(|_| self.failure());
        self.put_opt(&mut bytes, reply);
        bytes
    }

    /// Everything but the OPT record, for which room is kept.
    fn write(&self, reply: &Reply, recursion: bool) -> Result<Vec<u8>, ProtoError> {
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.response_code = ResponseCode::from(0, reply.code.low());
        metadata.authoritative = reply.authoritative;
        metadata.authentic_data = reply.authentic;
        metadata.recursion_available = recursion;
        let mut encoder = Encoder::new(&self.query, usize::from(self.room()));
        let [answers, authorities] = [encoder.records(&reply.answers)?, encoder.records(&reply.authorities)?];
        metadata.truncation = encoder.is_full();
        let additionals = encoder.spare(&reply.additionals)?;
        let counts = HeaderCounts { queries: 1, answers, authorities, additionals };
        let mut bytes = encoder.finish();
        bytes[..HEADER].copy_from_slice(&Header { metadata, counts }.to_bytes()?);
        Ok(bytes)
    }

    /// The most bytes that the reply may have without its OPT record.
    pub(crate) fn room(&self) -> u16 {
        self.limit() - if self.edns.is_some() { OPT } else { 0 }
    }

    fn failure(&self) -> Vec<u8> {
        let mut header = [0; HEADER];
        header[..2].copy_from_slice(&self.metadata.id.to_be_bytes());
        header_only(&header, ResponseCode::ServFail)
    }

    /// RFC 6891 section 6.1.1: OPT is answered with OPT. The reason goes in where there is still room.
    fn put_opt(&self, bytes: &mut Vec<u8>, reply: &Reply) {
        let Some(client) = self.edns else { return };
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_UDP).set_dnssec_ok(client.dnssec_ok).set_rcode_high(reply.code.high());
        if let Some(extended) = &reply.extended {
            let option = extended.option();
            let length = OPTION + usize::from(option.len());
            if bytes.len() + usize::from(OPT) + length <= usize::from(self.limit()) {
                edns.options_mut().insert(option);
            }
        }
        if client.pads && self.transport == Transport::Tls {
            let length = bytes.len() + Record::from(&edns).to_bytes().map_or(0, |opt| opt.len());
            edns.options_mut().insert(EdnsOption::Unknown(PADDING, padding(length)));
        }
        let (Ok(opt), Some(&[high, low])) = (Record::from(&edns).to_bytes(), bytes.get(10..HEADER)) else {
            return;
        };
        let additionals = u16::from_be_bytes([high, low]) + 1;
        bytes[10..HEADER].copy_from_slice(&additionals.to_be_bytes());
        bytes.extend_from_slice(&opt);
    }
}

/// What fills a message of so many bytes up (RFC 8467 section 4.1), or nearly so where it is as long as messages get.
fn padding(length: usize) -> Vec<u8> {
    let length = length + OPTION;
    let whole = length.next_multiple_of(PADDING_BLOCK).min(usize::from(u16::MAX));
    vec![0; whole.saturating_sub(length)]
}
