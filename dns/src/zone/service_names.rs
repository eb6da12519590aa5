//! All names at and under one Service, the unit in which the zone changes, packed into one piece of memory:
//! there are tens of thousands of them. How they are made is in [`builder`]; which Services there are, and
//! the names above them, are the zone's business.
//!
//! ```text
//! Service: length of the key, key, whether it is headless, node of the Service's own name,
//!          endpoints named by their addresses: count and IPv4 addresses, count and IPv6 addresses,
//!          length of the other names that addresses lead back to, and these: rank, length of the label, label, length of
//!          the address, address,
//!          count of names below, the place of each counted from the end of the places, and these: length of the labels,
//!          labels, node
//! node:    counts of IPv4 and IPv6 addresses, lengths of the SRV records and of the alias; these four
//! SRV:     port, length of the target, target
//! ```
//! Counts and most lengths are of seven bits a byte, the lowest first, and end with a byte below 128; ports
//! and places have two and four bytes, the highest first.

mod builder;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::slice;
use std::sync::Arc;

pub(super) use builder::PackedNode;

use super::dashed::{dashed, pod_address, spells};

/// The records of one name. A name without any exists all the same: it is an empty non-terminal (RFC 8020).
#[derive(Clone, Copy, Debug, Default)]
pub struct Node<'z> {
    /// A records, in order.
    pub v4: &'z [[u8; 4]],
    /// AAAA records, in order.
    pub v6: &'z [[u8; 16]],
    /// SRV records, in order.
    pub srv: ServiceRecords<'z>,
    /// The CNAME's target in wire form, where there is one.
    pub alias: Option<&'z [u8]>,
}

/// SRV records of a Service.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceRecords<'z>(&'z [u8]);

/// What varies among them.
#[derive(Clone, Copy, Debug)]
pub struct ServiceRecord<'z> {
    /// The port that the target serves.
    pub port: u16,
    /// The target's labels left of the Service's name, in wire form; none where it is the Service itself.
    pub target: &'z [u8],
}

/// All that there is at and under `<service>.<namespace>.svc.<zone>`. Clones share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceNames(Arc<[u8]>);

/// The parts of a packed Service.
struct Parts<'b> {
    headless: bool,
    apex: Node<'b>,
    dashed_v4: &'b [[u8; 4]],
    dashed_v6: &'b [[u8; 16]],
    named: Reader<'b>,
    /// The places of the names that are kept, and the bytes that they are in.
    below: (&'b [[u8; 4]], &'b [u8]),
}

/// Packed bytes from where they are still to be read.
#[derive(Clone, Copy)]
struct Reader<'b>(&'b [u8]);

/// How good a name is for an address. Only the best ones are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The Service's own address.
    ClusterIp,
    /// The hostname that the endpoint's pod asked for.
    Hostname,
    /// The name made of the endpoint's address.
    Dashed,
}

/// An address that has a name under a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) address: IpAddr,
    pub(super) rank: Rank,
    /// The labels left of the Service's name, in wire form; none for the Service itself.
    pub(super) label: Box<[u8]>,
}

impl<'z> Node<'z> {
    /// All of its addresses.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> + use<'z> {
        addresses(self.v4, self.v6)
    }
}

impl<'z> ServiceRecords<'z> {
    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// One by one.
    pub fn iter(self) -> impl Iterator<Item = ServiceRecord<'z>> + Clone {
        let mut reader = Reader(self.0);
        std::iter::from_fn(move || {
            let &[high, low] = reader.0.first_chunk()?;
            reader.take(2);
            Some(ServiceRecord { port: u16::from_be_bytes([high, low]), target: reader.text() })
        })
    }
}

impl ServiceNames {
    /// `<service>.<namespace>` in wire form.
    pub fn key(&self) -> &[u8] {
        let (&length, rest) = self.0.split_first().unwrap_or((&0, &[]));
        &rest[..usize::from(length)]
    }

    /// The records of the Service's own name.
    pub fn apex(&self) -> Node<'_> {
        let mut reader = Reader(&self.0[1 + self.key().len() + 1..]);
        reader.node()
    }

    fn parts(&self) -> Parts<'_> {
        let mut reader = Reader(&self.0[1 + self.key().len()..]);
        let headless = reader.take(1) == [1];
        let apex = reader.node();
        let (dashed_v4, dashed_v6) = (reader.counted(), reader.counted());
        let (named, places) = (Reader(reader.text()), reader.counted());
        Parts { headless, apex, dashed_v4, dashed_v6, named, below: (places, reader.0) }
    }

    /// The records of a name under the Service's, by the labels left of it in wire form.
    pub fn below(&self, labels: &[u8]) -> Option<Node<'_>> {
        let parts = self.parts();
        let (places, names) = parts.below;
        let name = |place: &[u8; 4]| {
            let mut reader = Reader(&names[u32::from_be_bytes(*place) as usize..]);
            (reader.text(), reader)
        };
        match places.binary_search_by(|place| name(place).0.cmp(labels)) {
            Ok(found) => Some(name(&places[found]).1.node()),
            Err(_) => parts.dashed(labels),
        }
    }

    /// Whether any ready endpoint stands behind the Service, as far as is known here: not where it is an
    /// alias.
    pub fn leads_anywhere(&self) -> bool {
        let parts = self.parts();
        let has_address = |(_, node): (_, Node<'_>)| node.addresses().next().is_some();
        parts.dashed_addresses().next().is_some() || parts.kept().any(has_address)
    }

    /// Every name under the Service's, by the labels left of it in wire form.
    pub fn names_below(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let parts = self.parts();
        let plain = parts.dashed_addresses().map(|address| Cow::Owned(dashed(address).into_vec()));
        parts.kept().map(|(labels, _)| Cow::Borrowed(labels)).chain(plain)
    }

    /// The addresses that have a name under this Service: the Service's own, or those of its endpoints.
    pub(super) fn named(&self) -> impl Iterator<Item = Named> {
        let parts = self.parts();
        let own = parts.apex.addresses().filter(move |_| !parts.headless);
        let own = own.map(|address| Named { address, rank: Rank::ClusterIp, label: Box::default() });
        let plain = parts.dashed_addresses().filter(move |_| parts.headless);
        let plain = plain.map(|address| Named { address, rank: Rank::Dashed, label: dashed(address) });
        let mut others = parts.named;
        own.chain(plain).chain(std::iter::from_fn(move || (!others.0.is_empty()).then(|| others.named())))
    }
}

impl<'b> Parts<'b> {
    fn kept(&self) -> impl Iterator<Item = (&'b [u8], Node<'b>)> + use<'b> {
        let (places, names) = self.below;
        let mut reader = Reader(names);
        places.iter().map(move |_| (reader.text(), reader.node()))
    }

    fn dashed_addresses(&self) -> impl Iterator<Item = IpAddr> + use<'b> {
        addresses(self.dashed_v4, self.dashed_v6)
    }

    /// An endpoint's, where that is what the labels spell.
    fn dashed(&self, labels: &[u8]) -> Option<Node<'b>> {
        let (&length, label) = labels.split_first()?;
        let address = pod_address(label).filter(|_| label.len() == usize::from(length))?;
        let (v4, v6) = match address {
            IpAddr::V4(address) => (find(self.dashed_v4, address.octets()), &[][..]),
            IpAddr::V6(address) if spells(address, label) => {
                (&[][..], find(self.dashed_v6, address.octets()))
            }
            IpAddr::V6(_) => return None,
        };
        (v4.len() + v6.len() > 0).then(|| Node { v4, v6, ..Node::default() })
    }
}

/// What is read was written in [`builder`], and is whole.
impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> usize {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.take(1)[0];
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return number;
            }
            shift += 7;
        }
    }

    fn text(&mut self) -> &'b [u8] {
        let length = self.number();
        self.take(length)
    }

    fn chunks<const SIZE: usize>(&mut self, count: usize) -> &'b [[u8; SIZE]] {
        self.take(count * SIZE).as_chunks().0
    }

    fn counted<const SIZE: usize>(&mut self) -> &'b [[u8; SIZE]] {
        let count = self.number();
        self.chunks(count)
    }

    fn node(&mut self) -> Node<'b> {
        let [v4, v6, srv, alias] = [(); 4].map(|()| self.number());
        let (v4, v6) = (self.chunks(v4), self.chunks(v6));
        let (srv, alias) = (self.take(srv), self.take(alias));
        Node { v4, v6, srv: ServiceRecords(srv), alias: (!alias.is_empty()).then_some(alias) }
    }

    fn named(&mut self) -> Named {
        let rank = if self.take(1) == [0] { Rank::Hostname } else { Rank::Dashed };
        let (label, octets) = (self.text().into(), self.text());
        let address = match *octets {
            [a, b, c, d] => IpAddr::from([a, b, c, d]),
            _ => octets.first_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED.into(), |&octets| octets.into()),
        };
        Named { address, rank, label }
    }
}

fn addresses<'b>(v4: &'b [[u8; 4]], v6: &'b [[u8; 16]]) -> impl Iterator<Item = IpAddr> + use<'b> {
    v4.iter().map(|&octets| octets.into()).chain(v6.iter().map(|&octets| octets.into()))
}

/// The address in a list in order, as a list.
fn find<T: Ord>(addresses: &[T], address: T) -> &[T] {
    addresses.binary_search(&address).map_or(&[], |place| slice::from_ref(&addresses[place]))
}
