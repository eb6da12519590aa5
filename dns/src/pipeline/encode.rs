//! The last stage: what the zone answers -> the bytes of the reply, for both lanes. Nothing is looked up here
//! but what the answer itself refers to. Pure.
//!
//! Both lanes write through one [`Encoder`]: the fast one into the room of its datagram, the full one into a
//! vector.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::pipeline::classify::{Answer, Authority, Records};
use crate::pipeline::cname_chain::CnameChain;
use crate::pipeline::parse::Question;
use crate::wire::encoder::{Buffer, Encoder, Flags, Head, Owner, Section, TO_QUESTION};
use crate::wire::extended_error::{self, ExtendedError};
use crate::wire::name::QueryName;
use crate::wire::reply::USUAL;
use crate::wire::rotation::first;
use crate::zone::{Node, SPEC_VERSION, ServiceNames, ServiceRecords, Zone};

/// The SOA's refresh, retry and expire, in seconds. Nobody transfers the zone; they are CoreDNS's.
const SOA_TIMES: [u32; 3] = [7200, 1800, 86400];
/// The weights of a Service's SRV records add up to about this.
const SRV_WEIGHTS: usize = 100;

/// What the zone answers to a query.
#[derive(Clone, Copy)]
pub(crate) struct ZoneReply<'z> {
    /// The zone.
    pub(crate) zone: &'z Zone,
    /// The name that was asked for.
    pub(crate) name: &'z QueryName,
    /// The aliases that lead from there, in wire form.
    pub(crate) aliases: &'z [&'z [u8]],
    /// What there is at the last one.
    pub(crate) end: Answer<'z>,
}

/// The full lane's reply to a query that ends in the zone.
pub fn encode_zone(
    zone: &Zone,
    question: &Question,
    chain: &CnameChain<'_>,
    recursion_available: bool,
) -> Vec<u8> {
    let reply = ZoneReply { zone, name: &question.name, aliases: &chain.aliases, end: chain.end };
    reply.encode(Vec::with_capacity(USUAL), &question.head(), recursion_available)
}

impl ZoneReply<'_> {
    /// The code, whether the zone vouches for it, and the extended error where it takes no look at the zone.
    /// Aliases that lead nowhere are a failure, as for any resolver.
    fn outcome(&self) -> (ResponseCode, bool, Option<ExtendedError>) {
        match self.end {
            Answer::Alias(target) => {
                let reason = match self.aliases.contains(&target) {
                    true => "CNAME loop: the external names lead to each other",
                    false => "CNAME chain too long: more than ten external names",
                };
                (ResponseCode::ServFail, false, Some(ExtendedError::other(reason)))
            }
            Answer::NotReady => (ResponseCode::ServFail, true, Some(ExtendedError::not_ready())),
            Answer::NxDomain => (ResponseCode::NXDomain, true, None),
            _ => (ResponseCode::NoError, true, None),
        }
    }

    /// The response code.
    pub(crate) fn code(&self) -> ResponseCode {
        self.outcome().0
    }

    /// Writes the reply into `out`, which is empty.
    pub(crate) fn encode<B: Buffer>(&self, out: B, head: &Head<'_>, recursion_available: bool) -> B {
        let (code, authoritative, extended) = self.outcome();
        let flags = Flags { authoritative, authentic: false, recursion_available, code };
        let mut encoder = Encoder::new(out, head, flags);
        if authoritative {
            self.write(&mut encoder, head);
        }
        encoder.finish(head, code, || match (&extended, self.end) {
            (Some(extended), _) => Some((extended.code, &*extended.text)),
            (None, Answer::NxDomain) => Some((extended_error::OTHER, self.absence())),
            _ => None,
        })
    }

    /// Why the last name does not exist.
    fn absence(&self) -> &'static str {
        let target = self.aliases.last().and_then(|target| QueryName::from_wire(target).ok());
        self.zone.absence(target.as_ref().unwrap_or(self.name)).text()
    }

    fn write<B: Buffer>(&self, encoder: &mut Encoder<B>, head: &Head<'_>) {
        let ttl = self.zone.config().ttl;
        let mut owner = Owner::At(TO_QUESTION);
        for target in self.aliases.chunks(1) {
            encoder.record(owner, RecordType::CNAME, ttl, |to| to.name(target, true));
            owner = Owner::Name(target);
        }
        match self.end {
            Answer::Found(records) => self.found(encoder, owner, records, head.id()),
            Answer::NoData(authority) => self.soa(encoder, authority, head),
            Answer::NxDomain => self.soa(encoder, self.denier(), head),
            Answer::Alias(_) | Answer::NotReady | Answer::NotInZone => {}
        }
    }

    /// Whose zone it is that does not have the name.
    fn denier(&self) -> Authority {
        let of_addresses = self.zone.config().exposure.reverse.is_some();
        let Some(start) = self.name.len().checked_sub(2).filter(|_| of_addresses) else {
            return Authority::Zone;
        };
        match self.name.wire(start, self.name.len()) {
            b"\x07in-addr\x04arpa" => Authority::InAddrArpa,
            b"\x03ip6\x04arpa" => Authority::Ip6Arpa,
            _ => Authority::Zone,
        }
    }

    fn found<B: Buffer>(&self, encoder: &mut Encoder<B>, owner: Owner<'_>, records: Records<'_>, id: u16) {
        let ttl = self.zone.config().ttl;
        match records {
            Records::A(addresses) => encoder.addresses(owner, RecordType::A, ttl, rotated(addresses, id)),
            Records::Aaaa(addresses) => {
                encoder.addresses(owner, RecordType::AAAA, ttl, rotated(addresses, id));
            }
            Records::Pod(IpAddr::V4(address)) => {
                encoder.addresses(owner, RecordType::A, ttl, [&address.octets()].into_iter());
            }
            Records::Pod(IpAddr::V6(address)) => {
                encoder.addresses(owner, RecordType::AAAA, ttl, [&address.octets()].into_iter());
            }
            Records::Cname(target) => {
                encoder.record(owner, RecordType::CNAME, ttl, |to| to.name(&[target], true));
            }
            Records::Srv(service, records) => self.service_records(encoder, owner, (service, records), id),
            Records::Ptr(pointers) => {
                for [label, service] in rotated(pointers, id).map(|pointer| pointer.name()) {
                    let name = [label, service, b"\x03svc", self.suffix()];
                    encoder.record(owner, RecordType::PTR, ttl, |to| to.name(&name, true));
                    if encoder.is_full() {
                        break;
                    }
                }
            }
            Records::Version => encoder.record(owner, RecordType::TXT, ttl, |to| {
                to.put(&[SPEC_VERSION.len() as u8]);
                to.put(SPEC_VERSION.as_bytes());
            }),
            Records::Soa => encoder.record(owner, RecordType::SOA, ttl, |to| self.soa_data(to)),
            Records::Ns => {
                let name = self.name_server();
                encoder.record(owner, RecordType::NS, ttl, |to| to.name(&name, true));
                encoder.section(Section::Additional);
                self.additional_addresses(encoder, &name, self.zone.name_server());
            }
            // RFC 8482 section 4.2: a HINFO record of two texts stands in for all.
            Records::Any => encoder.record(owner, RecordType::HINFO, ttl, |to| to.put(b"\x07RFC8482\0")),
        }
    }

    /// S2.3.2 and S2.4.2. Equal priority, equal weight. With the addresses of their targets, so that nobody
    /// must ask again; without, where the answers alone do not fit.
    fn service_records<B: Buffer>(
        &self,
        encoder: &mut Encoder<B>,
        owner: Owner<'_>,
        (service, records): (&ServiceNames, ServiceRecords<'_>),
        id: u16,
    ) {
        let count = records.iter().count();
        let weight = (SRV_WEIGHTS / count.max(1)).max(1) as u16;
        let start = first(id, count);
        let name = |target| [target, service.key(), b"\x03svc", self.suffix()];
        for record in records.iter().skip(start).chain(records.iter().take(start)) {
            encoder.record(owner, RecordType::SRV, self.zone.config().ttl, |to| {
                [0, weight, record.port].into_iter().for_each(|number| to.number(number));
                // RFC 2782: not compressed. Others may point to it.
                to.name(&name(record.target), false);
            });
            if encoder.is_full() {
                return;
            }
        }
        let mut targets: Vec<&[u8]> = records.iter().map(|record| record.target).collect();
        targets.sort_unstable();
        targets.dedup();
        encoder.section(Section::Additional);
        for target in targets {
            let node = if target.is_empty() { Some(service.apex()) } else { service.below(target) };
            self.additional_addresses(encoder, &name(target), node.unwrap_or_default());
            if encoder.is_full() {
                return;
            }
        }
    }

    /// All addresses of a name, or none.
    fn additional_addresses<B: Buffer>(&self, encoder: &mut Encoder<B>, name: &[&[u8]], node: Node<'_>) {
        let (owner, ttl) = (Owner::Name(name), self.zone.config().ttl);
        encoder.group(|encoder| {
            encoder.addresses(owner, RecordType::A, ttl, node.v4.iter());
            encoder.addresses(owner, RecordType::AAAA, ttl, node.v6.iter());
        });
    }

    fn soa<B: Buffer>(&self, encoder: &mut Encoder<B>, authority: Authority, head: &Head<'_>) {
        encoder.section(Section::Authority);
        let ttl = self.zone.config().ttl;
        let owner = match authority {
            Authority::Zone => self.suffix(),
            Authority::InAddrArpa => b"\x07in-addr\x04arpa",
            Authority::Ip6Arpa => b"\x03ip6\x04arpa",
        };
        match self.zone_in_question(head).filter(|_| authority == Authority::Zone) {
            Some(zone) => encoder.record(Owner::At(zone), RecordType::SOA, ttl, |to| {
                let mut names = *b"\x02ns\x03dns\0\0\x0ahostmaster\0\0";
                [names[7], names[20]] = [(zone >> 8) as u8; 2];
                [names[8], names[21]] = [zone as u8; 2];
                to.put(&names);
                to.put(self.soa_numbers().as_flattened());
            }),
            None => encoder.record(Owner::Name(&[owner]), RecordType::SOA, ttl, |to| self.soa_data(to)),
        }
    }

    /// A pointer to the zone's name where the question ends with it, spelled so, and the SOA's names can
    /// point to no more of it: for most names that do not exist there is no need to search the message.
    fn zone_in_question(&self, head: &Head<'_>) -> Option<u16> {
        let inner = self.name.len().checked_sub(self.zone.config().zone.label_count())?;
        if inner > 0 && [&b"dns"[..], b"hostmaster"].contains(&self.name.label(inner - 1)) {
            return None;
        }
        let start = self.name.wire(0, inner).len();
        let is_there = head.section.get(start..)?.starts_with(self.suffix());
        is_there.then_some(TO_QUESTION + start as u16)
    }

    fn soa_data<B: Buffer>(&self, encoder: &mut Encoder<B>) {
        encoder.name(&self.name_server(), true);
        encoder.name(&[b"\x0ahostmaster", self.suffix()], true);
        encoder.put(self.soa_numbers().as_flattened());
    }

    fn soa_numbers(&self) -> [[u8; 4]; 5] {
        let [refresh, retry, expire] = SOA_TIMES;
        // RFC 2308 section 4: the last field is how long a negative answer is believed.
        [self.zone.serial(), refresh, retry, expire, self.zone.config().ttl].map(u32::to_be_bytes)
    }

    fn name_server(&self) -> [&[u8]; 2] {
        [b"\x02ns\x03dns", self.suffix()]
    }

    fn suffix(&self) -> &[u8] {
        self.zone.config().zone.wire()
    }
}

/// Shares the load among the records: each reply begins at another one.
fn rotated<T>(records: &[T], id: u16) -> impl Iterator<Item = &T> {
    let (after, before) = records.split_at(first(id, records.len()));
    before.iter().chain(after)
}
