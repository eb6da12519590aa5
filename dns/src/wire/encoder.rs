//! Records -> bytes. Not by hickory's encoder: it compresses no more than 120 names, and searches all that it knows for
//! each. What fits is not decided twice: the first record that does not fit ends the message.

use hashbrown::{DefaultHashBuilder, HashTable};
use hickory_proto::ProtoError;
use hickory_proto::op::Query;
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use std::hash::BuildHasher;

use crate::wire::format::HEADER;

/// The bits that make an offset a pointer, which leads no further (RFC 1035 section 4.1.4).
const POINTER: u16 = 0xc000;
/// The longest name (RFC 1035 section 3.1).
const LONGEST_NAME: usize = 255;
/// The room that most messages take.
const USUAL: usize = 512;

/// A message as it grows. Begins with room for its header.
pub(crate) struct Encoder {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
    /// Where there are names that others can point to.
    names: HashTable<Place>,
    hasher: DefaultHashBuilder,
    /// Data that is written elsewhere first.
    scratch: Vec<u8>,
}

/// Where a name is, and the hash of how it reads.
struct Place {
    hash: u64,
    offset: u16,
}

impl Encoder {
    /// A message of at most `limit` bytes, with the question.
    pub(crate) fn new(query: &Query, limit: usize) -> Encoder {
        let mut bytes = Vec::with_capacity(USUAL);
        bytes.resize(HEADER, 0);
        let (names, hasher) = (HashTable::new(), DefaultHashBuilder::default());
        let mut encoder = Encoder { bytes, limit, full: false, names, hasher, scratch: Vec::new() };
        encoder.name(&query.name, true);
        encoder.number(query.query_type.into());
        encoder.number(query.query_class.into());
        encoder
    }

    /// Appends records while they fit, and says how many did.
    pub(crate) fn records(&mut self, records: &[Record]) -> Result<u16, ProtoError> {
        let mut count = 0;
        for record in records {
            let start = self.bytes.len();
            if !self.full {
                self.record(record)?;
                self.full = self.bytes.len() > self.limit;
            }
            if self.full {
                self.bytes.truncate(start);
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// Appends what may be missing without a sign: all records of a name that stand together, or none.
    pub(crate) fn spare(&mut self, records: &[Record]) -> Result<u16, ProtoError> {
        let mut count = 0;
        for of_name in records.chunk_by(|one, next| one.name == next.name) {
            let start = self.bytes.len();
            let written = self.records(of_name)?;
            if self.full {
                self.bytes.truncate(start);
                break;
            }
            count += written;
        }
        Ok(count)
    }

    /// Whether there was a record that did not fit. Nothing is appended any more.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// The message, its header still to be written.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn record(&mut self, record: &Record) -> Result<(), ProtoError> {
        self.name(&record.name, true);
        self.number(record.record_type().into());
        self.number(record.dns_class.into());
        self.bytes.extend_from_slice(&record.ttl.to_be_bytes());
        self.number(0);
        let start = self.bytes.len();
        self.data(&record.data)?;
        let length = u16::try_from(self.bytes.len() - start)
            .map_err(|_| ProtoError::Message("the data of a record is longer than 65,535 bytes"))?;
        self.bytes[start - 2..start].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Names are compressed in the data of the oldest types alone (RFC 3597 section 4).
    fn data(&mut self, data: &RData) -> Result<(), ProtoError> {
        match data {
            RData::A(address) => self.bytes.extend_from_slice(&address.0.octets()),
            RData::AAAA(address) => self.bytes.extend_from_slice(&address.0.octets()),
            RData::CNAME(name) => self.name(&name.0, true),
            RData::NS(name) => self.name(&name.0, true),
            RData::PTR(name) => self.name(&name.0, true),
            RData::MX(mx) => {
                self.number(mx.preference);
                self.name(&mx.exchange, true);
            }
            RData::SOA(soa) => self.soa(soa),
            // RFC 2782: not compressed. Others may point to it.
            RData::SRV(srv) => {
                [srv.priority, srv.weight, srv.port].into_iter().for_each(|number| self.number(number));
                self.name(&srv.target, false);
            }
            other => {
                self.scratch.clear();
                let mut encoder = BinEncoder::new(&mut self.scratch);
                encoder.set_name_encoding(NameEncoding::Uncompressed);
                other.emit(&mut encoder)?;
                self.bytes.extend_from_slice(&self.scratch);
            }
        }
        Ok(())
    }

    fn soa(&mut self, soa: &SOA) {
        self.name(&soa.mname, true);
        self.name(&soa.rname, true);
        let [refresh, retry, expire] = [soa.refresh, soa.retry, soa.expire].map(|time| time as u32);
        for number in [soa.serial, refresh, retry, expire, soa.minimum] {
            self.bytes.extend_from_slice(&number.to_be_bytes());
        }
    }

    fn number(&mut self, number: u16) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    /// Appends a name; where it is to be `compressed`, only as much of it as is not there yet, letter by letter.
    fn name(&mut self, name: &Name, compressed: bool) {
        let (mut wire, mut length) = ([0; LONGEST_NAME], 0);
        for label in name.iter() {
            wire[length] = label.len() as u8;
            wire[length + 1..length + 1 + label.len()].copy_from_slice(label);
            length += 1 + label.len();
        }
        let mut rest = &wire[..length];
        while let Some(&label) = rest.first() {
            let hash = self.hasher.hash_one(rest);
            let reads_so = |place: &Place| place.hash == hash && is_at(&self.bytes, place.offset, rest);
            let known = self.names.find(hash, reads_so);
            match known.map(|place| place.offset) {
                Some(offset) if compressed => return self.number(POINTER | offset),
                Some(_) => {}
                None => self.note(hash),
            }
            let (label, after) = rest.split_at(1 + usize::from(label));
            self.bytes.extend_from_slice(label);
            rest = after;
        }
        self.bytes.push(0);
    }

    /// Here begins a name that reads like that.
    fn note(&mut self, hash: u64) {
        if let Some(offset) = u16::try_from(self.bytes.len()).ok().filter(|&offset| offset <= !POINTER) {
            self.names.insert_unique(hash, Place { hash, offset }, |place| place.hash);
        }
    }
}

/// Whether the name at that place of a message reads so: labels without the root. One that is not whole yet does not.
fn is_at(message: &[u8], place: u16, labels: &[u8]) -> bool {
    let mut name = message.get(usize::from(place)..).unwrap_or_default();
    let mut labels = labels;
    loop {
        match *name {
            [0, ..] => return labels.is_empty(),
            [high @ 0xc0..=0xff, low, ..] => {
                let place = u16::from_be_bytes([high, low]) & !POINTER;
                name = message.get(usize::from(place)..).unwrap_or_default();
            }
            [length, ..] => {
                let Some((label, rest)) = name.split_at_checked(1 + usize::from(length)) else {
                    return false;
                };
                let Some(others) = labels.strip_prefix(label) else { return false };
                (name, labels) = (rest, others);
            }
            [] => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use hickory_proto::rr::RecordType;
    use hickory_proto::rr::rdata::{A, CNAME, MX, NULL, SRV};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(owner: &str, data: RData) -> Record {
        Record::from_rdata(name(owner), 60, data)
    }

    fn encoder(limit: usize) -> Encoder {
        Encoder::new(&Query::query(name("www.Example.com."), RecordType::A), limit)
    }

    /// The message, with its counts in the header.
    fn message(encoder: Encoder, counts: [u16; 3]) -> Message {
        let mut bytes = encoder.finish();
        bytes[2] = 0x80;
        for (place, count) in bytes[4..HEADER].chunks_exact_mut(2).zip([[1].as_slice(), &counts].concat()) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        Message::from_vec(&bytes).unwrap()
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
        assert_eq!(encoder.records(&records).unwrap(), 6);
        let read = message(encoder, [6, 0, 0]);
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
        assert_eq!(encoder.records(&records).unwrap(), 600);
        // The label and a pointer for the first record of a name, a pointer for the second.
        let names: usize = (0..300).map(|number| owner(number).len() - "example.com.".len() + 2 + 2).sum();
        // The question is spelled otherwise: `example` is there once more.
        let around = HEADER + 17 + 4 + "example.".len();
        assert_eq!(encoder.bytes.len(), around + names + 600 * 14);
    }

    #[test]
    fn nothing_follows_what_does_not_fit() {
        let address = |owner: &str| record(owner, RData::A(A::new(192, 0, 2, 1)));
        let long = "a-long-label.".repeat(4);
        let mut encoder = encoder(HEADER + 21 + 16 + 20);
        assert_eq!(encoder.records(&[address("www.Example.com."), address(&long), address(".")]).unwrap(), 1);
        assert!(encoder.is_full());
        assert_eq!(encoder.records(&[address(".")]).unwrap(), 0, "though it would fit");
        assert_eq!(message(encoder, [1, 0, 0]).answers.len(), 1);
    }

    #[test]
    fn of_what_may_be_missing_a_name_has_all_or_nothing() {
        let address = |owner: &str| record(owner, RData::A(A::new(192, 0, 2, 1)));
        let pairs = [address("a."), address("a."), address("b."), address("b.")];
        let mut encoder = encoder(HEADER + 21 + 17 + 16 + 17 + 15);
        assert_eq!(encoder.spare(&pairs).unwrap(), 2);
        assert_eq!(message(encoder, [0, 0, 2]).additionals.len(), 2);
    }
}
