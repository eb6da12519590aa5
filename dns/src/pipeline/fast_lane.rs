//! The fast lane: from datagram to datagram in one step, without the message codec and without allocation, for the
//! queries that make up nearly all of a cluster's traffic: for names of the cluster, and for others whose answers are
//! cached. Whatever is unusual is left to the full lane, which
//! would say the same byte for byte about what is answered here; a property test holds the two together.

use std::net::IpAddr;
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::forward::{EncodedAnswer, Forwarder, UpstreamQueryRef};
use crate::metrics::Source;
use crate::pipeline::classify::{Answer, Authority, Records, answer};
use crate::pipeline::records::SOA_TIMES;
use crate::pipeline::search_list;
use crate::wire::extended_error::OTHER;
use crate::wire::format::{EXTENDED_ERROR, HEADER, LARGEST_UDP, OPTION};
use crate::wire::name::QueryName;
use crate::wire::rotation::first;
use crate::zone::Zone;

/// Flags of a message (RFC 1035 section 4.1.1, RFC 4035 section 3.2), those of its third byte and of its fourth.
const AUTHORITATIVE: u8 = 0x04;
const TRUNCATED: u8 = 0x02;
const AUTHENTIC: u8 = 0x20;
const CHECKING_DISABLED: u8 = 0x10;
/// An OPT record without options (RFC 6891 section 6.1.2): root, type 41, payload, code, version, flags, length.
const OPT: usize = 11;
/// What precedes a record's data where its owner is compressed (RFC 1035 section 4.1).
const BEFORE_DATA: usize = 12;
/// EDNS's cookie option (RFC 7873), which dig sends and nobody here answers.
const COOKIE: u16 = 10;
/// A pointer to the name in the question (RFC 1035 section 4.1.4).
const TO_QUESTION: u16 = 0xc000 | HEADER as u16;

/// What was answered, for those who count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The length of the reply.
    pub length: usize,
    /// The type that was asked for.
    pub record_type: RecordType,
    /// The response code.
    pub code: ResponseCode,
    /// Who knew the answer.
    pub source: Source,
    /// Whether the client wants DNSSEC's records.
    pub dnssec_ok: bool,
}

/// Writes the reply to a UDP client's `datagram` into `reply`, if this lane can: a plain query for the
/// addresses of a name of the cluster, or for anything that it does not have. `recursion_available` is the
/// server's flag of that name. `client` is who asks: where the search of a pod may go on, that is left to the full lane.
pub fn respond(
    zone: &Zone,
    recursion_available: bool,
    client: IpAddr,
    datagram: &[u8],
    reply: &mut [u8; LARGEST_UDP as usize],
) -> Option<Answered> {
    respond_or(zone, recursion_available, client, datagram, reply, |_, _| None)
}

/// The same; what is not the cluster's is answered with what is cached of it at `now`.
pub fn respond_or_remember(
    zone: &Zone,
    (forwarder, now): (&Forwarder, Instant),
    recursion_available: bool,
    client: IpAddr,
    datagram: &[u8],
    reply: &mut [u8; LARGEST_UDP as usize],
) -> Option<Answered> {
    respond_or(zone, recursion_available, client, datagram, reply, |question, reply| {
        let asked = question.asked()?;
        forwarder.answer_encoded(asked, now, |encoded, age| {
            remembered(question, recursion_available, encoded, age, reply)
        })
    })
}

fn respond_or(
    zone: &Zone,
    recursion_available: bool,
    client: IpAddr,
    datagram: &[u8],
    reply: &mut [u8; LARGEST_UDP as usize],
    foreign: impl FnOnce(&Question<'_>, &mut [u8; LARGEST_UDP as usize]) -> Option<Answered>,
) -> Option<Answered> {
    let mut name = QueryName::root();
    let question = Question::read(datagram, &mut name)?;
    let found = answer(zone, question.name, question.record_type);
    let code = match found {
        Answer::NxDomain
            if search_list::own_labels(zone, client, question.name, question.record_type).is_some() =>
        {
            return None;
        }
        Answer::NxDomain => ResponseCode::NXDomain,
        Answer::Found(_) | Answer::NoData(_) => ResponseCode::NoError,
        Answer::NotInZone => return foreign(&question, reply),
        Answer::Alias(_) | Answer::NotReady => return None,
    };
    let mut writer = Writer { bytes: reply, length: 0, limit: question.limit() };
    writer.header(&question, AUTHORITATIVE, recursion_available, code)?;
    match found {
        Answer::Found(records) => writer.records(&question, zone.config().ttl, records)?,
        Answer::NoData(Authority::Zone) | Answer::NxDomain => writer.soa(&question, zone)?,
        _ => return None,
    }
    let reason = || (code == ResponseCode::NXDomain).then(|| (OTHER, zone.absence(question.name).text()));
    writer.opt(&question, reason);
    Some(question.answered(writer.length, code, Source::Zone))
}

/// Writes what an upstream answered so many seconds ago.
fn remembered(
    question: &Question<'_>,
    recursion_available: bool,
    encoded: &EncodedAnswer,
    age: u32,
    reply: &mut [u8; LARGEST_UDP as usize],
) -> Option<Answered> {
    let mut writer = Writer { bytes: reply, length: 0, limit: question.limit() };
    writer.header(question, 0, recursion_available, encoded.code)?;
    let records = writer.length;
    writer.put(&encoded.records)?;
    for run in &encoded.runs {
        run.rotate(&mut writer.bytes[records..], question.id());
    }
    for &place in &encoded.ttls {
        let ttl = writer.bytes[records + usize::from(place)..].first_chunk_mut::<4>()?;
        *ttl = u32::from_be_bytes(*ttl).saturating_sub(age).to_be_bytes();
    }
    writer.bytes[6..HEADER].copy_from_slice(&encoded.counts);
    if encoded.authentic && question.wants_authentic() {
        writer.bytes[3] |= AUTHENTIC;
    }
    writer.opt(question, || encoded.extended.as_ref().map(|extended| (extended.code, &*extended.text)));
    let Writer { length, .. } = writer;
    Some(question.answered(length, encoded.code, Source::Upstream))
}

/// Writes a reply that has nothing but the sign that there is more (TC): whoever the datagram is truly from asks again over
/// TCP. Returns its length, if this lane understands the datagram.
pub fn truncated(
    recursion_available: bool,
    datagram: &[u8],
    reply: &mut [u8; LARGEST_UDP as usize],
) -> Option<usize> {
    let mut name = QueryName::root();
    let question = Question::read(datagram, &mut name)?;
    let mut writer = Writer { bytes: reply, length: 0, limit: question.limit() };
    writer.header(&question, TRUNCATED, recursion_available, ResponseCode::NoError)?;
    writer.opt(&question, || None);
    Some(writer.length)
}

/// The question as it stands in the datagram.
struct Question<'d> {
    header: &'d [u8; HEADER],
    /// Name, type and class.
    section: &'d [u8],
    name: &'d QueryName,
    record_type: RecordType,
    edns: Option<ClientEdns>,
}

#[derive(Clone, Copy)]
struct ClientEdns {
    payload: u16,
    dnssec_ok: bool,
}

impl<'d> Question<'d> {
    /// Reads a standard query of class IN with one uncompressed name and at most an OPT record. `name`, so far the root,
    /// becomes the name.
    fn read(datagram: &'d [u8], name: &'d mut QueryName) -> Option<Question<'d>> {
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
            1 => Some(ClientEdns::read(rest)?),
            _ => return None,
        };
        let section = &body[..body.len() - rest.len()];
        Some(Question { header, section, name, record_type, edns })
    }

    /// What is to be counted of its reply.
    fn answered(&self, length: usize, code: ResponseCode, source: Source) -> Answered {
        let dnssec_ok = self.edns.is_some_and(|edns| edns.dnssec_ok);
        Answered { length, record_type: self.record_type, code, source, dnssec_ok }
    }

    /// How long the reply may get, the OPT record left out.
    fn limit(&self) -> usize {
        let offered = self.edns.map_or(512, |edns| edns.payload.clamp(512, LARGEST_UDP));
        usize::from(offered) - if self.edns.is_some() { OPT } else { 0 }
    }

    /// As it is cached; none where the name is not spelled as it is kept.
    fn asked(&self) -> Option<UpstreamQueryRef<'_>> {
        let name = self.name.wire(0, self.name.len());
        self.section.starts_with(name).then(|| UpstreamQueryRef {
            name,
            record_type: self.record_type,
            dnssec_ok: self.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: self.header[3] & CHECKING_DISABLED != 0,
            recursion: self.header[2] & 1 != 0,
        })
    }

    /// RFC 6840 section 5.8
    fn wants_authentic(&self) -> bool {
        self.header[3] & AUTHENTIC != 0 || self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    fn id(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }
}

impl ClientEdns {
    /// Reads an OPT record of version 0 at the very end of a datagram.
    fn read(record: &[u8]) -> Option<ClientEdns> {
        let (&[0, 0, 41, p1, p0, _, 0, flags, _, l1, l0], options) = record.split_first_chunk::<OPT>()?
        else {
            return None;
        };
        let whole = options.len() == usize::from(u16::from_be_bytes([l1, l0]));
        let known = match options.split_first_chunk::<4>() {
            None => options.is_empty(),
            Some((&[c1, c0, l1, l0], value)) => {
                u16::from_be_bytes([c1, c0]) == COOKIE
                    && value.len() == usize::from(u16::from_be_bytes([l1, l0]))
            }
        };
        (whole && known)
            .then(|| ClientEdns { payload: u16::from_be_bytes([p1, p0]), dnssec_ok: flags & 0x80 != 0 })
    }
}

/// A reply as it grows. What does not fit fails.
struct Writer<'b> {
    bytes: &'b mut [u8; LARGEST_UDP as usize],
    length: usize,
    limit: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length + bytes.len();
        if end > self.limit {
            return None;
        }
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
        Some(())
    }

    /// The header with that flag, and the question.
    fn header(
        &mut self,
        question: &Question<'_>,
        flag: u8,
        recursion: bool,
        code: ResponseCode,
    ) -> Option<()> {
        // QR, RD as asked; RA, CD as asked, the code.
        let flags = [
            0x80 | flag | question.header[2] & 1,
            u8::from(recursion) << 7 | question.header[3] & CHECKING_DISABLED | code.low(),
        ];
        let mut header = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        header[..2].copy_from_slice(&question.header[..2]);
        header[2..4].copy_from_slice(&flags);
        self.put(&header)?;
        self.put(question.section)
    }

    /// Sets the count of a section: 1 answers, 2 authorities, 3 additionals.
    fn count(&mut self, section: usize, records: u16) {
        self.bytes[4 + 2 * section..6 + 2 * section].copy_from_slice(&records.to_be_bytes());
    }

    fn records(&mut self, question: &Question<'_>, ttl: u32, records: Records<'_>) -> Option<()> {
        match records {
            Records::A(addresses) => self.addresses(RecordType::A, ttl, addresses, question.id()),
            Records::Aaaa(addresses) => self.addresses(RecordType::AAAA, ttl, addresses, question.id()),
            Records::Pod(IpAddr::V4(address)) => self.addresses(RecordType::A, ttl, &[address.octets()], 0),
            Records::Pod(IpAddr::V6(address)) => {
                self.addresses(RecordType::AAAA, ttl, &[address.octets()], 0)
            }
            _ => None,
        }
    }

    /// Begins at another one for each id. As many as fit; TC says that there are more (RFC 2181 section 9).
    fn addresses<const SIZE: usize>(
        &mut self,
        record_type: RecordType,
        ttl: u32,
        addresses: &[[u8; SIZE]],
        id: u16,
    ) -> Option<()> {
        let (after, before) = addresses.split_at(first(id, addresses.len()));
        let fitting = (self.limit - self.length) / (BEFORE_DATA + SIZE);
        for octets in before.iter().chain(after).take(fitting) {
            self.record(TO_QUESTION, record_type, ttl, octets)?;
        }
        if fitting < addresses.len() {
            self.bytes[2] |= TRUNCATED;
        }
        self.count(1, fitting.min(addresses.len()) as u16);
        Some(())
    }

    fn record(&mut self, owner: u16, record_type: RecordType, ttl: u32, data: &[u8]) -> Option<()> {
        let mut head = [0; BEFORE_DATA];
        head[5] = 1;
        head[..2].copy_from_slice(&owner.to_be_bytes());
        head[2..4].copy_from_slice(&u16::from(record_type).to_be_bytes());
        head[6..10].copy_from_slice(&ttl.to_be_bytes());
        head[10..].copy_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        self.put(&head)?;
        self.put(data)
    }

    /// The zone's SOA as authority. Its names point into the question; where the question is spelled so that the
    /// codec would compress otherwise, this lane gives up.
    fn soa(&mut self, question: &Question<'_>, zone: &Zone) -> Option<()> {
        let suffix = zone.config().zone.wire();
        let inner = question.name.len() - zone.config().zone.label_count();
        let start = question.name.wire(0, inner).len();
        if &question.section[start..start + suffix.len()] != suffix {
            return None;
        }
        if inner > 0 && [&b"dns"[..], b"hostmaster"].contains(&question.name.label(inner - 1)) {
            return None;
        }
        let pointer = 0xc000 | u16::try_from(HEADER + start).ok()?;
        let [high, low] = pointer.to_be_bytes();
        let mut data = *b"\x02ns\x03dns\0\0\x0ahostmaster\0\0....................";
        [data[7], data[8], data[20], data[21]] = [high, low, high, low];
        let (refresh, retry, expire) = SOA_TIMES;
        let ttl = zone.config().ttl;
        let numbers = [zone.serial(), refresh as u32, retry as u32, expire as u32, ttl];
        for (place, number) in data[22..].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        self.record(pointer, RecordType::SOA, ttl, &data)?;
        self.count(2, 1);
        Some(())
    }

    /// The OPT record that answers the client's, in the room that was kept for it, and the reason where there is still
    /// room.
    fn opt<'r>(&mut self, question: &Question<'_>, reason: impl FnOnce() -> Option<(u16, &'r str)>) {
        let Some(client) = question.edns else { return };
        let [high, low] = LARGEST_UDP.to_be_bytes();
        let flags = u8::from(client.dnssec_ok) << 7;
        self.append(&[0, 0, 41, high, low, 0, 0, flags, 0, 0, 0]);
        let additionals = u16::from_be_bytes([self.bytes[10], self.bytes[11]]);
        self.count(3, additionals + 1);
        let Some((code, text)) = reason() else { return };
        let data = 2 + text.len();
        if self.length + OPTION + data > self.limit + OPT {
            return;
        }
        self.bytes[self.length - 2..self.length].copy_from_slice(&((OPTION + data) as u16).to_be_bytes());
        self.append(&EXTENDED_ERROR.to_be_bytes());
        self.append(&(data as u16).to_be_bytes());
        self.append(&code.to_be_bytes());
        self.append(text.as_bytes());
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}
