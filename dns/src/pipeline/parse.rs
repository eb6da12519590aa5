//! The first stage: a client's bytes -> the query. The fast lane reads plain queries alone, and borrows them;
//! the full lane reads whatever there is. Pure.

use hickory_proto::op::{Message, Metadata, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::{DNSClass, Name, RecordType};

use crate::wire::decoder::decode;
use crate::wire::encoder::{ClientEdns, Head};
use crate::wire::format::{HEADER, LARGEST_UDP, OPT, SMALLEST_UDP, Transport};
use crate::wire::name::QueryName;
use crate::wire::reply::{Reply, header_only};

/// EDNS's cookie option (RFC 7873), which dig sends and nobody here answers.
const COOKIE: u16 = 10;

/// What a client sent.
pub enum Parsed {
    /// A query to be answered.
    Question(Box<Question>),
    /// Something that is answered at once, with this message.
    Rejected(Vec<u8>),
    /// Nothing that deserves an answer: too short for a header, or itself an answer.
    Ignored,
}

/// One query, with all that its reply must repeat.
pub struct Question {
    /// Name (as the client wrote it), type and class.
    pub query: Query,
    /// The name as it is looked up.
    pub name: QueryName,
    /// The request's header.
    pub metadata: Metadata,
    header: [u8; HEADER],
    section: Box<[u8]>,
    edns: Option<ClientEdns>,
    transport: Transport,
}

/// Reads what a client sent. Never panics, whatever the bytes.
pub fn parse(bytes: &[u8], transport: Transport) -> Parsed {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Parsed::Ignored };
    if header[2] & 0x80 != 0 {
        return Parsed::Ignored;
    }
    if header[2] & 0x78 != 0 {
        return Parsed::Rejected(header_only(header, ResponseCode::NotImp));
    }
    let parsed = decode(bytes).ok().and_then(|message| question(header, message, transport));
    parsed.map_or_else(|| Parsed::Rejected(header_only(header, ResponseCode::FormErr)), checked)
}

fn question(header: &[u8; HEADER], mut message: Message, transport: Transport) -> Option<(Question, u8)> {
    let query = message.queries.pop()?;
    if !message.queries.is_empty() {
        return None;
    }
    let name = QueryName::from_name(&query.name).ok()?;
    let edns = message.edns.as_ref().map(|edns| ClientEdns {
        payload: edns.max_payload(),
        dnssec_ok: edns.flags().dnssec_ok,
        // Where others can read along, they can read the query.
        pads: matches!(transport, Transport::Tls | Transport::Quic)
            && edns.option(EdnsCode::Padding).is_some(),
    });
    let (version, metadata, section) = (message.version(), message.metadata, section(&query));
    Some((Question { query, name, metadata, header: *header, section, edns, transport }, version))
}

/// The question section, its name not compressed.
fn section(query: &Query) -> Box<[u8]> {
    let mut section = Vec::new();
    for label in query.name.iter() {
        section.push(label.len() as u8);
        section.extend_from_slice(label);
    }
    section.push(0);
    section.extend_from_slice(&u16::from(query.query_type).to_be_bytes());
    section.extend_from_slice(&u16::from(query.query_class).to_be_bytes());
    section.into()
}

fn checked((question, edns_version): (Question, u8)) -> Parsed {
    let refused = |code| Parsed::Rejected(Reply::empty(code).encode(&question.head(), false));
    match (question.query.query_class, question.query.query_type) {
        _ if edns_version > 0 => refused(ResponseCode::BADVERS),
        (DNSClass::IN, RecordType::AXFR | RecordType::IXFR) => refused(ResponseCode::Refused),
        (DNSClass::IN, _) => Parsed::Question(Box::new(question)),
        _ => refused(ResponseCode::Refused),
    }
}

impl Question {
    /// Whether the client wants DNSSEC's records.
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// The same question for another name and type, whose reply may be as long as it likes: it is not what the
    /// client gets.
    pub(crate) fn for_another(&self, name: Name, record_type: RecordType) -> Option<Question> {
        let query = Query::query(name, record_type);
        Some(Question {
            name: QueryName::from_name(&query.name).ok()?,
            section: section(&query),
            query,
            metadata: self.metadata,
            header: self.header,
            edns: self.edns,
            transport: Transport::Tcp,
        })
    }

    /// How it came.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The most bytes that the reply may have.
    pub fn limit(&self) -> u16 {
        match self.transport {
            Transport::Tcp | Transport::Tls | Transport::Quic => u16::MAX,
            Transport::Udp => udp_limit(self.edns),
        }
    }

    /// What its reply repeats.
    pub(crate) fn head(&self) -> Head<'_> {
        let limit = usize::from(self.limit());
        Head { header: &self.header, section: &self.section, edns: self.edns, limit }
    }
}

/// The most bytes of a datagram that the client takes.
fn udp_limit(edns: Option<ClientEdns>) -> u16 {
    edns.map_or(SMALLEST_UDP, |edns| edns.payload.clamp(SMALLEST_UDP, LARGEST_UDP))
}

/// A plain query as it stands in a datagram.
pub(crate) struct PlainQuestion<'d> {
    header: &'d [u8; HEADER],
    /// Name, type and class.
    section: &'d [u8],
    /// The name as it is looked up.
    pub(crate) name: &'d QueryName,
    /// The type.
    pub(crate) record_type: RecordType,
    edns: Option<ClientEdns>,
}

impl<'d> PlainQuestion<'d> {
    /// Reads a standard query of class IN with one uncompressed name and at most an OPT record. `name`, so
    /// far the root, becomes the name.
    pub(crate) fn parse(datagram: &'d [u8], name: &'d mut QueryName) -> Option<PlainQuestion<'d>> {
        let (header, body) = datagram.split_first_chunk::<HEADER>()?;
        // QR and opcode are 0; one question, no answers, no authorities.
        let plain = header[2] & 0xf8 == 0 && header[4..10] == [0, 1, 0, 0, 0, 0] && header[10] == 0;
        if !plain {
            return None;
        }
        let rest = name.read(body)?;
        let (&[high, low, 0, 1], rest) = rest.split_first_chunk::<4>()? else { return None };
        let record_type = RecordType::from(u16::from_be_bytes([high, low]));
        if matches!(record_type, RecordType::AXFR | RecordType::IXFR | RecordType::ANY) {
            return None;
        }
        let edns = match header[11] {
            0 if rest.is_empty() => None,
            1 => Some(plain_edns(rest)?),
            _ => return None,
        };
        let section = &body[..body.len() - rest.len()];
        Some(PlainQuestion { header, section, name, record_type, edns })
    }

    /// What its reply repeats.
    pub(crate) fn head(&self) -> Head<'d> {
        let limit = usize::from(udp_limit(self.edns));
        Head { header: self.header, section: self.section, edns: self.edns, limit }
    }

    /// Whether the client wants DNSSEC's records.
    pub(crate) fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Whether the name is spelled as it is cached.
    pub(crate) fn is_lower_case(&self) -> bool {
        self.section.starts_with(self.name.wire(0, self.name.len()))
    }
}

/// Reads an OPT record of version 0 at the very end of a datagram.
fn plain_edns(record: &[u8]) -> Option<ClientEdns> {
    let (&[0, 0, 41, p1, p0, _, 0, flags, _, l1, l0], options) = record.split_first_chunk::<OPT>()? else {
        return None;
    };
    let whole = options.len() == usize::from(u16::from_be_bytes([l1, l0]));
    let known = match options.split_first_chunk::<4>() {
        None => options.is_empty(),
        Some((&[c1, c0, l1, l0], value)) => {
            u16::from_be_bytes([c1, c0]) == COOKIE && value.len() == usize::from(u16::from_be_bytes([l1, l0]))
        }
    };
    let payload = u16::from_be_bytes([p1, p0]);
    (whole && known).then_some(ClientEdns { payload, dnssec_ok: flags & 0x80 != 0, pads: false })
}
