//! Answers as the records of a reply. Pure: nothing is looked up here but what the answer itself refers to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::ProtoError;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record};

use crate::pipeline::classify::{Answer, Authority, Records};
use crate::pipeline::cname_chain::CnameChain;
use crate::wire::extended_error::ExtendedError;
use crate::wire::message::{Question, Reply};
use crate::wire::name::{QueryName, to_name};
use crate::wire::rotation::first;
use crate::zone::{Node, SPEC_VERSION, ServiceNames, ServiceRecord, ServiceRecords, Zone};

/// The SOA's refresh, retry and expire, in seconds. Nobody transfers the zone; they are CoreDNS's.
pub(crate) const SOA_TIMES: (i32, i32, i32) = (7200, 1800, 86400);
/// The length of a compressed name, and of what follows the owner of a record ahead of its data (RFC 1035 section 4.1).
const POINTER: usize = 2;
const FIXED: usize = 10;
/// The weights of a Service's SRV records add up to about this.
const SRV_WEIGHTS: usize = 100;

/// The reply to a query that the zone answers. Where the chain ends outside of the zone, the reply holds the
/// aliases that lead there, and no more. Aliases that lead nowhere are a failure, as for any resolver.
pub fn reply(zone: &Zone, question: &Question, chain: &CnameChain<'_>) -> Result<Reply, ProtoError> {
    if let Answer::Alias(target) = chain.end {
        return Ok(endless(chain.aliases.contains(&target)));
    }
    let mut reply = Reply { authoritative: true, ..Reply::empty(ResponseCode::NoError) };
    let ttl = zone.config().ttl;
    let mut owner = question.query.name.clone();
    for target in &chain.aliases {
        let target = to_name(&[target])?;
        reply.answers.push(Record::from_rdata(owner, ttl, RData::CNAME(CNAME(target.clone()))));
        owner = target;
    }
    match chain.end {
        Answer::Found(records) => {
            let data = rdata(zone, records, question)?;
            reply.answers.extend(data.into_iter().map(|data| Record::from_rdata(owner.clone(), ttl, data)));
            reply.additionals = additionals(zone, records, question)?;
        }
        Answer::NoData(authority) => reply.authorities.push(soa(zone, authority)?),
        Answer::NxDomain => {
            reply.code = ResponseCode::NXDomain;
            let target = chain.aliases.last().and_then(|target| QueryName::from_wire(target).ok());
            reply.extended = Some(zone.absence(target.as_ref().unwrap_or(&question.name)).into());
            reply.authorities.push(soa(zone, Authority::Zone)?);
        }
        Answer::NotReady => {
            reply.code = ResponseCode::ServFail;
            reply.extended = Some(ExtendedError::not_ready());
        }
        Answer::Alias(_) | Answer::NotInZone => {}
    }
    Ok(reply)
}

/// The reply of a chain that nobody follows to its end.
fn endless(circle: bool) -> Reply {
    let reason = match circle {
        true => "CNAME loop: the external names lead to each other",
        false => "CNAME chain too long: more than ten external names",
    };
    Reply { extended: Some(ExtendedError::other(reason)), ..Reply::empty(ResponseCode::ServFail) }
}

/// No more records than fit are made: a Service may have thousands of endpoints, and each query for them would cost as
/// much as thousands of others. One more than fits shows that it does not.
fn most(question: &Question, shortest: usize) -> usize {
    usize::from(question.room()) / (POINTER + FIXED + shortest) + 1
}

/// Shares the load among the records: each reply begins at another one.
fn rotated<T>(records: impl Iterator<Item = T> + Clone, id: u16) -> impl Iterator<Item = T> {
    let start = first(id, records.clone().count());
    records.clone().skip(start).chain(records.take(start))
}

fn rdata(zone: &Zone, records: Records<'_>, question: &Question) -> Result<Vec<RData>, ProtoError> {
    let id = question.metadata.id;
    Ok(match records {
        Records::A(addresses) => {
            let addresses = rotated(addresses.iter(), id).take(most(question, size_of::<Ipv4Addr>()));
            addresses.map(|&octets| RData::A(A(octets.into()))).collect()
        }
        Records::Aaaa(addresses) => {
            let addresses = rotated(addresses.iter(), id).take(most(question, size_of::<Ipv6Addr>()));
            addresses.map(|&octets| RData::AAAA(AAAA(octets.into()))).collect()
        }
        Records::Pod(address) => vec![address_data(address)],
        Records::Cname(target) => vec![RData::CNAME(CNAME(to_name(&[target])?))],
        Records::Srv(branch, records) => service_records(zone, branch, records, question)?,
        Records::Ptr(pointers) => {
            let name = |[label, service]: [&[u8]; 2]| in_zone(zone, &[label, service, b"\x03svc"]);
            let pointers = rotated(pointers.iter(), id).take(most(question, POINTER));
            let data = pointers.map(|pointer| Ok(RData::PTR(PTR(name(pointer.name())?))));
            data.collect::<Result<_, ProtoError>>()?
        }
        Records::Version => vec![RData::TXT(TXT::new(vec![SPEC_VERSION.to_owned()]))],
        Records::Soa => vec![soa(zone, Authority::Zone)?.data],
        Records::Ns => vec![RData::NS(NS(name_server(zone)?))],
        Records::Any => vec![RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()))],
    })
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// S2.3.2 and S2.4.2. Equal priority, equal weight.
fn service_records(
    zone: &Zone,
    branch: &ServiceNames,
    records: ServiceRecords<'_>,
    question: &Question,
) -> Result<Vec<RData>, ProtoError> {
    let weight = (SRV_WEIGHTS / records.iter().count().max(1)).max(1) as u16;
    let data = |record: ServiceRecord<'_>| {
        let target = in_zone(zone, &[record.target, branch.key(), b"\x03svc"])?;
        Ok(RData::SRV(SRV::new(0, weight, record.port, target)))
    };
    let records = rotated(records.iter(), question.metadata.id);
    records.take(most_service_records(zone, branch, question)).map(data).collect()
}

/// Their targets are not compressed, and at least as long as the Service's name.
fn most_service_records(zone: &Zone, branch: &ServiceNames, question: &Question) -> usize {
    most(question, branch.key().len() + zone.config().zone.wire().len())
}

/// The addresses of the names that the answers point to, so that nobody must ask again; none where the answers alone do not
/// fit.
fn additionals(zone: &Zone, records: Records<'_>, question: &Question) -> Result<Vec<Record>, ProtoError> {
    let mut additionals = Vec::new();
    let most = most(question, size_of::<Ipv4Addr>());
    let all_fit = |branch, records: ServiceRecords<'_>| {
        let most = most_service_records(zone, branch, question);
        records.iter().take(most).count() < most
    };
    match records {
        Records::Srv(branch, records) if all_fit(branch, records) => {
            let mut targets: Vec<&[u8]> = records.iter().map(|record| record.target).collect();
            targets.sort_unstable();
            targets.dedup();
            for target in targets {
                let node = if target.is_empty() { Some(branch.apex()) } else { branch.below(target) };
                let name = in_zone(zone, &[target, branch.key(), b"\x03svc"])?;
                let addresses = node.into_iter().flat_map(|node| address_records(zone, &name, node));
                additionals.extend(addresses.take(most));
                if additionals.len() >= most {
                    break;
                }
            }
        }
        Records::Ns => additionals.extend(address_records(zone, &name_server(zone)?, zone.name_server())),
        _ => {}
    }
    Ok(additionals)
}

fn address_records<'z>(zone: &Zone, name: &Name, node: Node<'z>) -> impl Iterator<Item = Record> + use<'z> {
    let (ttl, name) = (zone.config().ttl, name.clone());
    node.addresses().map(move |address| Record::from_rdata(name.clone(), ttl, address_data(address)))
}

fn soa(zone: &Zone, authority: Authority) -> Result<Record, ProtoError> {
    let config = zone.config();
    let owner = match authority {
        Authority::Zone => in_zone(zone, &[])?,
        Authority::InAddrArpa => to_name(&[b"\x07in-addr\x04arpa"])?,
        Authority::Ip6Arpa => to_name(&[b"\x03ip6\x04arpa"])?,
    };
    let (refresh, retry, expire) = SOA_TIMES;
    let hostmaster = in_zone(zone, &[b"\x0ahostmaster"])?;
    // RFC 2308 section 4: the last field is how long a negative answer is believed.
    let data = SOA::new(name_server(zone)?, hostmaster, zone.serial(), refresh, retry, expire, config.ttl);
    Ok(Record::from_rdata(owner, config.ttl, RData::SOA(data)))
}

fn name_server(zone: &Zone) -> Result<Name, ProtoError> {
    in_zone(zone, &[b"\x02ns\x03dns"])
}

fn in_zone(zone: &Zone, labels: &[&[u8]]) -> Result<Name, ProtoError> {
    to_name(&[&labels.concat(), zone.config().zone.wire()])
}
