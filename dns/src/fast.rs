//! The fast lane: from datagram to datagram in one step, without the message codec and without allocation, for the
//! questions that make up nearly all of a cluster's traffic. Whatever is unusual is left to the full lane, which
//! would say the same byte for byte about what is answered here; a property test holds the two together.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::answer::{Answer, Authority, Records, answer};
use crate::message::{EXTENDED_ERROR, LARGEST_UDP, OPTION};
use crate::name::QueryName;
use crate::reason::{Reason, why};
use crate::records::SOA_TIMES;
use crate::search;
use crate::zone::Zone;

/// The length of a message's header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// An OPT record without options (RFC 6891 section 6.1.2): root, type 41, payload, code, version, flags, length.
const OPT: usize = 11;
/// The codec writes a name whole before it compresses it: with so many bytes to spare it never runs out of room,
/// so that both lanes agree on what fits.
const SLACK: usize = 255;
/// EDNS's cookie option (RFC 7873), which dig sends and nobody here answers.
const COOKIE: u16 = 10;
/// A pointer to the name of the question (RFC 1035 section 4.1.4).
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
}

/// Writes the reply to a UDP client's `datagram` into `reply`, if this lane can: a plain question for the
/// addresses of a name of the cluster, or for anything that it does not have. `recursion_available` is the
/// server's flag of that name. `client` is who asks: where the search of a pod may go on, that is left to the full lane.
pub fn respond(
    zone: &Zone,
    recursion_available: bool,
    client: IpAddr,
    datagram: &[u8],
    reply: &mut [u8; LARGEST_UDP as usize],
) -> Option<Answered> {
    let question = Question::read(datagram)?;
    let found = answer(zone, &question.name, question.record_type);
    let code = match found {
        Answer::NxDomain
            if search::own_labels(zone, client, &question.name, question.record_type).is_some() =>
        {
            return None;
        }
        Answer::NxDomain => ResponseCode::NXDomain,
        Answer::Found(_) | Answer::NoData(_) => ResponseCode::NoError,
        Answer::Alias(_) | Answer::Unready | Answer::NotOurs => return None,
    };
    let mut writer = Writer { bytes: reply, length: 0, limit: question.limit() };
    writer.header(&question, recursion_available, code)?;
    match found {
        Answer::Found(records) => writer.records(&question, zone.config().ttl, records)?,
        Answer::NoData(Authority::Zone) | Answer::NxDomain => writer.soa(&question, zone)?,
        _ => return None,
    }
    let reason = || (code == ResponseCode::NXDomain).then(|| why(zone, &question.name));
    writer.opt(&question, reason);
    Some(Answered { length: writer.length, record_type: question.record_type, code })
}

/// Writes a reply that has nothing but the sign that there is more (TC): whoever the datagram is truly from asks again over
/// TCP. Returns its length, if this lane understands the datagram.
pub fn truncated(
    recursion_available: bool,
    datagram: &[u8],
    reply: &mut [u8; LARGEST_UDP as usize],
) -> Option<usize> {
    let question = Question::read(datagram)?;
    let mut writer = Writer { bytes: reply, length: 0, limit: question.limit() };
    writer.header(&question, recursion_available, ResponseCode::NoError)?;
    writer.opt(&question, || None);
    let length = writer.length;
    // QR stays and TC comes; AA goes, for nothing is said.
    reply[2] = reply[2] & !0x04 | 0x02;
    Some(length)
}

/// A question as it stands in the datagram.
struct Question<'d> {
    header: &'d [u8; HEADER],
    /// Name, type and class.
    section: &'d [u8],
    name: QueryName,
    record_type: RecordType,
    edns: Option<ClientEdns>,
}

#[derive(Clone, Copy)]
struct ClientEdns {
    payload: u16,
    dnssec_ok: bool,
}

impl Question<'_> {
    /// Reads a standard query of class IN with one uncompressed name and at most an OPT record.
    fn read(datagram: &[u8]) -> Option<Question<'_>> {
        let (header, body) = datagram.split_first_chunk::<HEADER>()?;
        // QR and opcode are 0; one question, no answers, no authorities.
        let plain = header[2] & 0xf8 == 0 && header[4..10] == [0, 1, 0, 0, 0, 0] && header[10] == 0;
        if !plain {
            return None;
        }
        let (name, rest) = QueryName::read(body)?;
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

    /// How long the reply may get, the OPT record left out.
    fn limit(&self) -> usize {
        let offered = self.edns.map_or(512, |edns| edns.payload.clamp(512, LARGEST_UDP));
        usize::from(offered) - if self.edns.is_some() { OPT } else { 0 }
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

/// A reply as it grows. Everything fails once [`SLACK`] is touched.
struct Writer<'b> {
    bytes: &'b mut [u8; LARGEST_UDP as usize],
    length: usize,
    limit: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length + bytes.len();
        if end + SLACK > self.limit {
            return None;
        }
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
        Some(())
    }

    fn header(&mut self, question: &Question<'_>, recursion: bool, code: ResponseCode) -> Option<()> {
        // QR and AA, RD as asked; RA, CD as asked, the code.
        let flags = [
            0x84 | question.header[2] & 1,
            u8::from(recursion) << 7 | question.header[3] & 0x10 | code.low(),
        ];
        self.put(&question.header[..2])?;
        self.put(&flags)?;
        self.put(&[0, 1, 0, 0, 0, 0, 0, 0])?;
        self.put(question.section)
    }

    /// Sets the count of a section: 1 answers, 2 authorities, 3 additionals.
    fn count(&mut self, section: usize, records: u16) {
        self.bytes[4 + 2 * section..6 + 2 * section].copy_from_slice(&records.to_be_bytes());
    }

    fn records(&mut self, question: &Question<'_>, ttl: u32, records: Records<'_>) -> Option<()> {
        let start = |count: usize| usize::from(question.id()) % count.max(1);
        match records {
            Records::A(addresses) => {
                let (after, before) = addresses.split_at(start(addresses.len()));
                self.addresses(ttl, before.iter().chain(after).map(|&address| IpAddr::V4(address)))
            }
            Records::Aaaa(addresses) => {
                let (after, before) = addresses.split_at(start(addresses.len()));
                self.addresses(ttl, before.iter().chain(after).map(|&address| IpAddr::V6(address)))
            }
            Records::Pod(address) => self.addresses(ttl, std::iter::once(address)),
            _ => None,
        }
    }

    fn addresses(&mut self, ttl: u32, addresses: impl Iterator<Item = IpAddr>) -> Option<()> {
        let mut count = 0;
        for address in addresses {
            match address {
                IpAddr::V4(address) => self.record(TO_QUESTION, RecordType::A, ttl, &address.octets())?,
                IpAddr::V6(address) => self.record(TO_QUESTION, RecordType::AAAA, ttl, &address.octets())?,
            }
            count += 1;
        }
        self.count(1, count);
        Some(())
    }

    fn record(&mut self, owner: u16, record_type: RecordType, ttl: u32, data: &[u8]) -> Option<()> {
        let length = u16::try_from(data.len()).ok()?;
        self.put(&owner.to_be_bytes())?;
        self.put(&u16::from(record_type).to_be_bytes())?;
        self.put(&[0, 1])?;
        self.put(&ttl.to_be_bytes())?;
        self.put(&length.to_be_bytes())?;
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
    fn opt(&mut self, question: &Question<'_>, reason: impl FnOnce() -> Option<Reason>) {
        let Some(client) = question.edns else { return };
        let [high, low] = LARGEST_UDP.to_be_bytes();
        let flags = u8::from(client.dnssec_ok) << 7;
        self.append(&[0, 0, 41, high, low, 0, 0, flags, 0, 0, 0]);
        self.count(3, 1);
        let Some(text) = reason().map(Reason::text) else { return };
        let data = 2 + text.len();
        if self.length + OPTION + data > self.limit + OPT {
            return;
        }
        self.bytes[self.length - 2..self.length].copy_from_slice(&((OPTION + data) as u16).to_be_bytes());
        self.append(&EXTENDED_ERROR.to_be_bytes());
        self.append(&(data as u16).to_be_bytes());
        self.append(&[0, 0]);
        self.append(text.as_bytes());
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}
