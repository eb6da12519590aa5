//! Records -> bytes: the one encoder of all replies. It writes into a buffer that grows (the full lane) or
//! one of fixed size (the fast lane, which allocates nothing): for a message with few names it allocates
//! nothing by itself. Not by hickory's encoder: that compresses no more than 120 names, and searches all that
//! it knows for each. What fits is not decided twice: the first record that does not fit ends the message.

mod buffer;
mod compression;
mod head;

use hickory_proto::ProtoError;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};

use crate::wire::format::{
    AUTHENTIC, AUTHORITATIVE, CHECKING_DISABLED, EXTENDED_ERROR, HEADER, LARGEST_UDP, OPTION, TRUNCATED,
};
use compression::{Names, POINTER};

pub(crate) use buffer::{Buffer, Datagram};
pub(crate) use head::{ClientEdns, Flags, Head};

/// The longest name (RFC 1035 section 3.1).
const LONGEST_NAME: usize = 255;
/// What precedes a record's data where its owner is compressed (RFC 1035 section 4.1).
const BEFORE_DATA: usize = 12;
/// The option that only takes room (RFC 7830 section 3).
const PADDING: u16 = 12;
/// Padded replies are as long as a multiple of this (RFC 8467 section 4.1).
const PADDING_BLOCK: usize = 468;
/// What follows the name in a question (RFC 1035 section 4.1.2).
const TYPE_AND_CLASS: usize = 4;
/// A pointer to the name of the question (RFC 1035 section 4.1.4).
pub(crate) const TO_QUESTION: u16 = POINTER | HEADER as u16;

/// The sections of a message that hold records, in their order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// Answers.
    Answer,
    /// The authority section.
    Authority,
    /// What may be left out without a sign.
    Additional,
}

/// Whose a record is.
#[derive(Clone, Copy)]
pub(crate) enum Owner<'n> {
    /// A name that is written already: a pointer to it.
    At(u16),
    /// Labels in wire form, in parts.
    Name(&'n [&'n [u8]]),
}

/// A reply as it grows.
pub(crate) struct Encoder<B> {
    out: B,
    /// Of all but the OPT record.
    limit: usize,
    section: Section,
    counts: [u16; 3],
    full: bool,
    truncated: bool,
    names: Names,
}

impl<B: Buffer> Encoder<B> {
    /// A reply with the header and the question. `out` is empty.
    pub(crate) fn new(mut out: B, head: &Head<'_>, flags: Flags) -> Encoder<B> {
        let Flags { authoritative, authentic, recursion_available, code } = flags;
        let mut header = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        header[..2].copy_from_slice(&head.header[..2]);
        // QR, RD as asked; RA, CD as asked, the code.
        header[2] = 0x80 | if authoritative { AUTHORITATIVE } else { 0 } | head.header[2] & 1;
        header[3] = u8::from(recursion_available) << 7
            | if authentic { AUTHENTIC } else { 0 }
            | head.header[3] & CHECKING_DISABLED
            | code.low();
        out.push(&header);
        out.push(head.section);
        // The root byte of the name stands before type and class.
        let root = (HEADER + head.section.len()).saturating_sub(TYPE_AND_CLASS + 1);
        let (limit, names) = (head.room(), Names::new(root));
        Encoder { out, limit, section: Section::Answer, counts: [0; 3], full: false, truncated: false, names }
    }

    /// What follows is of that section.
    pub(crate) fn section(&mut self, section: Section) {
        self.section = section;
    }

    /// Says that there is more than the reply holds (TC).
    pub(crate) fn truncate(&mut self) {
        self.truncated = true;
    }

    /// Whether there was a record that did not fit. Nothing is appended any more.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Appends a record of class IN if it fits; else the message is full, and TC says so (RFC 2181 section
    /// 9).
    pub(crate) fn record(
        &mut self,
        owner: Owner<'_>,
        record_type: RecordType,
        ttl: u32,
        data: impl FnOnce(&mut Self),
    ) {
        self.any_record(owner, (record_type, DNSClass::IN, ttl), |this| {
            data(this);
            Ok(())
        })
        .unwrap_or_default();
    }

    fn any_record(
        &mut self,
        owner: Owner<'_>,
        (record_type, class, ttl): (RecordType, DNSClass, u32),
        data: impl FnOnce(&mut Self) -> Result<(), ProtoError>,
    ) -> Result<(), ProtoError> {
        if self.full {
            return Ok(());
        }
        let start = self.length();
        match owner {
            Owner::At(pointer) => self.number(pointer),
            Owner::Name(parts) => self.name(parts, true),
        }
        self.number(record_type.into());
        self.number(class.into());
        self.put(&ttl.to_be_bytes());
        self.number(0);
        let before = self.length();
        data(self)?;
        match (self.full, u16::try_from(self.length() - before)) {
            (false, Ok(length)) => {
                self.out.bytes_mut()[before - 2..before].copy_from_slice(&length.to_be_bytes());
                self.counts[self.section as usize] += 1;
            }
            _ => {
                self.full = true;
                self.out.truncate(start);
                self.truncated |= self.section != Section::Additional;
            }
        }
        Ok(())
    }

    /// Appends address records of one owner, as many as fit.
    pub(crate) fn addresses<'a, const SIZE: usize>(
        &mut self,
        owner: Owner<'_>,
        record_type: RecordType,
        ttl: u32,
        addresses: impl Iterator<Item = &'a [u8; SIZE]>,
    ) {
        let mut owner = owner;
        for octets in addresses {
            let Owner::At(pointer) = owner else {
                let place = self.length();
                self.record(owner, record_type, ttl, |to| to.put(octets));
                // Where that is a pointer, it is so for all that follow.
                if let Some(&[high @ 0xc0..=0xff, low]) = self.out.bytes().get(place..place + 2) {
                    owner = Owner::At(u16::from_be_bytes([high, low]));
                }
                continue;
            };
            if self.full || self.length() + BEFORE_DATA + SIZE > self.limit {
                self.full = true;
                self.truncated |= self.section != Section::Additional;
                return;
            }
            let mut head = [0; BEFORE_DATA];
            head[..2].copy_from_slice(&pointer.to_be_bytes());
            head[2..4].copy_from_slice(&u16::from(record_type).to_be_bytes());
            head[5] = 1;
            head[6..10].copy_from_slice(&ttl.to_be_bytes());
            head[11] = SIZE as u8;
            self.out.push(&head);
            self.out.push(octets);
            self.counts[self.section as usize] += 1;
        }
    }

    /// Appends records while they fit.
    ///
    /// # Errors
    /// The data of one cannot be written.
    pub(crate) fn records(&mut self, records: &[Record]) -> Result<(), ProtoError> {
        for record in records {
            let mut wire = [0; LONGEST_NAME];
            let owner = labels(&record.name, &mut wire);
            let kind = (record.record_type(), record.dns_class, record.ttl);
            self.any_record(Owner::Name(&[owner]), kind, |this| this.data(&record.data))?;
        }
        Ok(())
    }

    /// Appends what may be missing without a sign: all that `write` writes of a name, or nothing.
    pub(crate) fn group<T>(&mut self, write: impl FnOnce(&mut Self) -> T) -> T {
        let (start, count) = (self.length(), self.counts[self.section as usize]);
        let was_full = self.full;
        let written = write(self);
        if self.full && !was_full {
            self.out.truncate(start);
            self.counts[self.section as usize] = count;
        }
        written
    }

    /// Appends records that were encoded before for the same question, with the counts of the header. None
    /// where they do not fit.
    pub(crate) fn encoded(&mut self, records: &[u8], counts: [u16; 3]) -> Option<&mut [u8]> {
        let start = self.length();
        self.put(records);
        self.counts = counts;
        (!self.full).then(|| &mut self.out.bytes_mut()[start..])
    }

    /// The whole message, with the OPT record that answers the client's, in the room that was kept for it
    /// (RFC 6891 section 6.1.1), and the extended error where there is still room.
    pub(crate) fn finish<'e>(
        mut self,
        head: &Head<'_>,
        code: ResponseCode,
        extended: impl FnOnce() -> Option<(u16, &'e str)>,
    ) -> B {
        if let Some(edns) = head.edns {
            self.counts[Section::Additional as usize] += 1;
            self.opt(head, edns, code, extended());
        }
        let bytes = self.out.bytes_mut();
        if self.truncated {
            bytes[2] |= TRUNCATED;
        }
        for (place, count) in bytes[6..HEADER].chunks_exact_mut(2).zip(self.counts) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        self.out
    }

    fn opt(&mut self, head: &Head<'_>, edns: ClientEdns, code: ResponseCode, extended: Option<(u16, &str)>) {
        let [high, low] = LARGEST_UDP.to_be_bytes();
        let flags = u8::from(edns.dnssec_ok) << 7;
        self.out.push(&[0, 0, 41, high, low, code.high(), 0, flags, 0, 0, 0]);
        let start = self.length();
        if let Some((code, text)) = extended {
            let length = 2 + text.len();
            if start + OPTION + length <= head.limit {
                self.option(EXTENDED_ERROR, length);
                self.out.push(&code.to_be_bytes());
                self.out.push(text.as_bytes());
            }
        }
        if edns.pads {
            let length = padding(self.length());
            self.option(PADDING, length);
            (0..length).for_each(|_| self.out.push(&[0]));
        }
        let length = (self.length() - start) as u16;
        self.out.bytes_mut()[start - 2..start].copy_from_slice(&length.to_be_bytes());
    }

    fn option(&mut self, code: u16, length: usize) {
        self.out.push(&code.to_be_bytes());
        self.out.push(&(length as u16).to_be_bytes());
    }

    fn length(&self) -> usize {
        self.out.bytes().len()
    }

    /// Appends bytes, or nothing where they do not fit.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        if self.length() + bytes.len() > self.limit {
            self.full = true;
        } else {
            self.out.push(bytes);
        }
    }

    /// Appends a number.
    pub(crate) fn number(&mut self, number: u16) {
        self.put(&number.to_be_bytes());
    }

    /// Appends a name of labels in wire form, in parts; where it is to be `compressed`, only as much of it as
    /// is not there yet, letter by letter.
    pub(crate) fn name(&mut self, parts: &[&[u8]], compressed: bool) {
        match parts {
            [whole] => self.whole_name(whole, compressed),
            _ => {
                let (mut wire, mut length) = ([0; LONGEST_NAME], 0);
                for part in parts {
                    wire[length..length + part.len()].copy_from_slice(part);
                    length += part.len();
                }
                self.whole_name(&wire[..length], compressed);
            }
        }
    }

    fn whole_name(&mut self, mut rest: &[u8], compressed: bool) {
        while let Some(&label) = rest.first() {
            match self.names.find(self.out.bytes(), rest) {
                Some(pointer) if compressed => return self.number(pointer),
                Some(_) => {}
                None => self.names.note(self.length(), rest),
            }
            let (label, after) = rest.split_at(1 + usize::from(label));
            self.put(label);
            rest = after;
        }
        self.put(&[0]);
    }

    /// Names are compressed in the data of the oldest types alone (RFC 3597 section 4).
    fn data(&mut self, data: &RData) -> Result<(), ProtoError> {
        let mut wire = [0; LONGEST_NAME];
        match data {
            RData::A(address) => self.put(&address.0.octets()),
            RData::AAAA(address) => self.put(&address.0.octets()),
            RData::CNAME(name) => self.name(&[labels(&name.0, &mut wire)], true),
            RData::NS(name) => self.name(&[labels(&name.0, &mut wire)], true),
            RData::PTR(name) => self.name(&[labels(&name.0, &mut wire)], true),
            RData::MX(mx) => {
                self.number(mx.preference);
                self.name(&[labels(&mx.exchange, &mut wire)], true);
            }
            RData::SOA(soa) => self.soa_data(soa),
            // RFC 2782: not compressed. Others may point to it.
            RData::SRV(srv) => {
                [srv.priority, srv.weight, srv.port].into_iter().for_each(|number| self.number(number));
                self.name(&[labels(&srv.target, &mut wire)], false);
            }
            other => {
                let mut bytes = Vec::new();
                let mut encoder = BinEncoder::new(&mut bytes);
                encoder.set_name_encoding(NameEncoding::Uncompressed);
                other.emit(&mut encoder)?;
                self.put(&bytes);
            }
        }
        Ok(())
    }

    fn soa_data(&mut self, soa: &SOA) {
        let mut wire = [0; LONGEST_NAME];
        self.name(&[labels(&soa.mname, &mut wire)], true);
        self.name(&[labels(&soa.rname, &mut wire)], true);
        let [refresh, retry, expire] = [soa.refresh, soa.retry, soa.expire].map(|time| time as u32);
        for number in [soa.serial, refresh, retry, expire, soa.minimum] {
            self.put(&number.to_be_bytes());
        }
    }
}

/// The labels of a name in wire form.
fn labels<'w>(name: &Name, wire: &'w mut [u8; LONGEST_NAME]) -> &'w [u8] {
    let mut length = 0;
    for label in name.iter() {
        wire[length] = label.len() as u8;
        wire[length + 1..length + 1 + label.len()].copy_from_slice(label);
        length += 1 + label.len();
    }
    &wire[..length]
}

/// How many bytes fill a message of so many up (RFC 8467 section 4.1), or nearly so where it is as long as
/// messages get.
fn padding(length: usize) -> usize {
    let length = length + OPTION;
    let whole = length.next_multiple_of(PADDING_BLOCK).min(usize::from(u16::MAX));
    whole.saturating_sub(length)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use hickory_proto::rr::rdata::{A, CNAME, MX, NULL, SRV};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(owner: &str, data: RData) -> Record {
        Record::from_rdata(name(owner), 60, data)
    }

    fn encoder(limit: usize) -> Encoder<Vec<u8>> {
        let section = b"\x03www\x07Example\x03com\0\0\x01\0\x01";
        let head = Head { header: &[0; HEADER], section, edns: None, limit };
        let (authoritative, authentic, recursion_available) = (false, false, false);
        let code = ResponseCode::NoError;
        let flags = Flags { authoritative, authentic, recursion_available, code };
        Encoder::new(Vec::new(), &head, flags)
    }

    fn written(encoder: &Encoder<Vec<u8>>) -> u16 {
        encoder.counts.iter().sum()
    }

    fn message(encoder: Encoder<Vec<u8>>) -> Message {
        let head = Head { header: &[0; HEADER], section: &[], edns: None, limit: 0 };
        Message::from_vec(&encoder.finish(&head, ResponseCode::NoError, || None)).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let records = [
            record("www.Example.com.", RData::CNAME(CNAME(name("a.b.example.com.")))),
            record("a.b.example.com.", RData::MX(MX::new(1, name("b.example.com.")))),
            record(
                "b.Example.com.",
                RData::SOA(SOA::new(name("."), name("www.Example.com."), 1, 2, 3, 4, 5)),
            ),
            record("_x._tcp.a.", RData::SRV(SRV::new(1, 2, 3, name("b.example.com.")))),
            record(".", RData::A(A::new(192, 0, 2, 1))),
            record(
                "odd.",
                RData::Unknown { code: RecordType::Unknown(65534), rdata: NULL::with(vec![1, 2]) },
            ),
        ];
        let mut encoder = encoder(65_535);
        encoder.records(&records).unwrap();
        assert_eq!(written(&encoder), 6);
        let read = message(encoder);
        let spelled = |record: &Record| format!("{} {}", record.name.to_ascii(), record.data);
        assert_eq!(
            read.answers.iter().map(spelled).collect::<Vec<_>>(),
            records.iter().map(spelled).collect::<Vec<_>>()
        );
    }

    #[test]
    fn names_are_compressed_however_many_there_are() {
        let owner = |number: u32| format!("n{number}.example.com.");
        let records: Vec<Record> = (0..300)
            .flat_map(|number| vec![record(&owner(number), RData::A(A::new(192, 0, 2, 1))); 2])
            .collect();
        let mut encoder = encoder(65_535);
        encoder.records(&records).unwrap();
        assert_eq!(written(&encoder), 600);
        // The label and a pointer for the first record of a name, a pointer for the second.
        let names: usize = (0..300).map(|number| owner(number).len() - "example.com.".len() + 2 + 2).sum();
        // The question is spelled otherwise: `example` is there once more.
        let around = HEADER + 17 + 4 + "example.".len();
        assert_eq!(encoder.out.len(), around + names + 600 * 14);
    }

    #[test]
    fn nothing_follows_what_does_not_fit() {
        let address = |owner: &str| record(owner, RData::A(A::new(192, 0, 2, 1)));
        let long = "a-long-label.".repeat(4);
        let mut encoder = encoder(HEADER + 21 + 16 + 20);
        encoder.records(&[address("www.Example.com."), address(&long), address(".")]).unwrap();
        assert!(encoder.is_full() && written(&encoder) == 1);
        encoder.records(&[address(".")]).unwrap();
        assert_eq!(written(&encoder), 1, "though it would fit");
        let message = message(encoder);
        assert_eq!((message.answers.len(), message.metadata.truncation), (1, true));
    }

    #[test]
    fn of_what_may_be_missing_a_name_has_all_or_nothing() {
        let address = |owner: &str| record(owner, RData::A(A::new(192, 0, 2, 1)));
        let pairs = [address("a."), address("a."), address("b."), address("b.")];
        let mut encoder = encoder(HEADER + 21 + 17 + 16 + 17 + 15);
        encoder.section(Section::Additional);
        for pair in pairs.chunks(2) {
            encoder.group(|encoder| encoder.records(pair)).unwrap();
        }
        let message = message(encoder);
        assert_eq!((message.additionals.len(), message.metadata.truncation), (2, false));
    }
}
