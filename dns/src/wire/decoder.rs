//! Bytes -> message. Strict about framing, which decides where the next record begins, and about nothing
//! else: what a record or an option holds is its reader's business, so that one which this server has never
//! heard of, or finds odd, is passed on as it came (RFC 3597 section 3). Names within data are written out,
//! for what they point to does not come along (section 4).

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError, Restrict};

/// What data is made of, where names stand in it that may be compressed.
enum Part {
    /// So many bytes.
    Bytes(usize),
    /// Bytes, as many as the first one says.
    Text,
    /// A name.
    Name,
}

/// The types whose names senders may compress (RFC 1035 section 3.3), or did at some time (RFC 3597 section
/// 4). What follows the parts is bytes.
fn layout(record_type: u16) -> &'static [Part] {
    use Part::{Bytes, Name, Text};
    match record_type {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, NXT, DNAME
        2..=5 | 7..=9 | 12 | 30 | 39 => &[Name],
        // SOA, MINFO, RP
        6 | 14 | 17 => &[Name, Name],
        // MX, AFSDB, RT, KX
        15 | 18 | 21 | 36 => &[Bytes(2), Name],
        // SIG
        24 => &[Bytes(18), Name],
        // PX
        26 => &[Bytes(2), Name, Name],
        // SRV
        33 => &[Bytes(6), Name],
        // NAPTR
        35 => &[Bytes(4), Text, Text, Text, Name],
        _ => &[],
    }
}

/// The least that begins a pointer to a name elsewhere (RFC 1035 section 4.1.4).
const POINTER: u8 = 0xc0;

/// What is read of a section.
type Section = (Vec<Record>, Option<Edns>);

/// Reads a message.
///
/// # Errors
/// Its framing is broken: a name or a length leads out of it, or OPT is not where or as often as it may be.
pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    let mut decoder = BinDecoder::new(bytes);
    let Header { metadata, counts } = Header::read(&mut decoder)?;
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.metadata = metadata;
    for _ in 0..counts.queries {
        message.queries.push(Query::read(&mut decoder)?);
    }
    let misplaced = || DecodeError::RecordNotInAdditionalSection(RecordType::OPT);
    for (records, count) in
        [(&mut message.answers, counts.answers), (&mut message.authorities, counts.authorities)]
    {
        let (read, edns) = section(&mut decoder, bytes, count)?;
        // RFC 6891 section 6.1.1
        edns.map_or(Ok(()), |_| Err(misplaced()))?;
        *records = read;
    }
    (message.additionals, message.edns) = section(&mut decoder, bytes, counts.additionals)?;
    if let Some(edns) = &message.edns {
        message.metadata.merge_response_code(edns.rcode_high());
    }
    Ok(message)
}

fn section(decoder: &mut BinDecoder<'_>, message: &[u8], count: u16) -> Result<Section, DecodeError> {
    // Not as many as it says: the count may be a lie.
    let (mut records, mut edns) = (Vec::new(), None);
    for _ in 0..count {
        let name = Name::read(decoder)?;
        let [record_type, class] = [number(decoder)?, number(decoder)?];
        let ttl = decoder.read_u32()?.unverified();
        let length = usize::from(number(decoder)?);
        let start = decoder.index();
        let data = decoder.read_slice(length)?.unverified();
        match RecordType::from(record_type) {
            RecordType::OPT if !name.is_root() => return Err(DecodeError::EdnsNameNotRoot(Box::new(name))),
            RecordType::OPT if edns.is_some() => return Err(DecodeError::DuplicateEdns),
            RecordType::OPT => edns = Some(opt(class, ttl, data)?),
            kind => {
                let data = rdata(kind, &message[..start + length], start)?;
                let mut record = Record::from_rdata(name, ttl, data);
                record.dns_class = DNSClass::from(class);
                records.push(record);
            }
        }
    }
    Ok((records, edns))
}

fn number(decoder: &mut BinDecoder<'_>) -> Result<u16, DecodeError> {
    decoder.read_u16().map(Restrict::unverified)
}

/// An OPT record (RFC 6891 section 6.1.2). Its options are framed, and read no further.
fn opt(payload: u16, flags: u32, data: &[u8]) -> Result<Edns, DecodeError> {
    let [high, version, dnssec_ok, _] = flags.to_be_bytes();
    let mut edns = Edns::new();
    edns.set_rcode_high(high).set_version(version).set_max_payload(payload);
    edns.set_dnssec_ok(dnssec_ok & 0x80 != 0);
    let mut options = BinDecoder::new(data);
    while !options.is_empty() {
        let [code, length] = [number(&mut options)?, number(&mut options)?];
        let data = options.read_slice(usize::from(length))?.unverified();
        edns.options_mut().insert(EdnsOption::Unknown(code, data.to_vec()));
    }
    Ok(edns)
}

/// The data that ends the message so far, and begins at `start`.
fn rdata(kind: RecordType, message: &[u8], start: usize) -> Result<RData, DecodeError> {
    let bytes = match layout(kind.into()) {
        // Who leaves all of it out points nowhere.
        _ if start == message.len() => Vec::new(),
        [] => message[start..].to_vec(),
        parts => match spelled_out(parts, message, start) {
            // Too short for its type, but nothing in it points anywhere.
            Err(_) if !message[start..].iter().any(|&byte| byte >= POINTER) => message[start..].to_vec(),
            bytes => bytes?,
        },
    };
    let known = is_looked_into(kind).then(|| typed(kind, &bytes)).flatten();
    Ok(known.unwrap_or_else(|| RData::Unknown { code: kind, rdata: opaque(bytes) }))
}

/// The codec's own way takes no empty data.
fn opaque(bytes: Vec<u8>) -> NULL {
    if bytes.is_empty() { NULL::new() } else { NULL::with(bytes) }
}

fn spelled_out(parts: &[Part], message: &[u8], start: usize) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = BinDecoder::new(message);
    decoder.read_slice(start)?;
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Part::Bytes(count) => bytes.extend_from_slice(decoder.read_slice(*count)?.unverified()),
            Part::Text => {
                let length = decoder.read_u8()?.unverified();
                bytes.push(length);
                bytes.extend_from_slice(decoder.read_slice(usize::from(length))?.unverified());
            }
            Part::Name => {
                for label in Name::read(&mut decoder)?.iter() {
                    bytes.push(label.len() as u8);
                    bytes.extend_from_slice(label);
                }
                bytes.push(0);
            }
        }
    }
    bytes.extend_from_slice(decoder.read_slice(message.len() - decoder.index())?.unverified());
    Ok(bytes)
}

/// The types that this server looks into, or compresses names of.
fn is_looked_into(kind: RecordType) -> bool {
    use RecordType::{A, AAAA, CNAME, MX, NS, PTR, SOA};
    matches!(kind, A | AAAA | CNAME | MX | NS | PTR | SOA)
}

/// None where it is not what the type says.
fn typed(kind: RecordType, bytes: &[u8]) -> Option<RData> {
    let mut decoder = BinDecoder::new(bytes);
    let length = Restrict::new(u16::try_from(bytes.len()).ok()?);
    RData::read(&mut decoder, kind, length).ok().filter(|_| decoder.is_empty())
}
