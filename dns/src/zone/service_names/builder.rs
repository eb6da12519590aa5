//! From a Service and its EndpointSlices to its names, and to their packed form, which [`super`] describes
//! and reads.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_types::{Endpoint, EndpointSlice, Protocol, Service, ServiceKind};

use super::{Named, Node, Rank, Reader, ServiceNames};
use crate::wire::name::{wire_label, wire_name};
use crate::zone::absence::Absence;
use crate::zone::dashed::{dashed, pod_address};

/// The names of a Service while they are collected.
#[derive(Default)]
struct Builder {
    apex: NodeBuilder,
    below: BTreeMap<Box<[u8]>, NodeBuilder>,
    dashed: Vec<IpAddr>,
    named: Vec<Named>,
}

/// The records of one name as they gather.
#[derive(Default)]
pub(super) struct NodeBuilder {
    addresses: Vec<IpAddr>,
    /// Ports, and targets' labels left of the Service's name.
    srv: Vec<(u16, Box<[u8]>)>,
    alias: Box<[u8]>,
}

/// Records of a name that is no Service's.
#[derive(Debug)]
pub(in crate::zone) struct PackedNode(Box<[u8]>);

impl PackedNode {
    /// Of addresses only.
    pub(in crate::zone) fn of_addresses(addresses: &[IpAddr]) -> PackedNode {
        let mut bytes = Vec::new();
        NodeBuilder::of_addresses(addresses).write(&mut bytes);
        PackedNode(bytes.into())
    }

    /// As they are answered.
    pub(in crate::zone) fn node(&self) -> Node<'_> {
        Reader(&self.0).node()
    }
}

impl ServiceNames {
    /// Compiles one Service, whose labels in wire form are `key`; `slices` gives its EndpointSlices. With
    /// `only_ready` one without a ready endpoint has no name, whatever its kind.
    ///
    /// # Errors
    /// Why its name does not exist: it is a headless Service without a ready endpoint (S2.4.1), or has an
    /// external name that is no domain name.
    pub(in crate::zone) fn compile<'s, S>(
        key: &[u8],
        service: &Service,
        only_ready: bool,
        slices: impl Fn() -> S,
    ) -> Result<ServiceNames, Absence>
    where
        S: Iterator<Item = &'s EndpointSlice>,
    {
        let mut names = Builder::default();
        match &service.kind {
            ServiceKind::ExternalName(target) => {
                names.apex.alias = external_name(target).ok_or(Absence::BadTarget)?;
            }
            ServiceKind::ClusterIp(_)
                if only_ready
                    && !slices().flat_map(|slice| &slice.endpoints).any(|endpoint| endpoint.ready) =>
            {
                return Err(Absence::Empty);
            }
            ServiceKind::ClusterIp(addresses) => {
                names.cluster_ips(service, addresses);
                slices().for_each(|slice| names.endpoints(slice, false));
            }
            ServiceKind::Headless => {
                slices().for_each(|slice| names.endpoints(slice, true));
                if names.apex.addresses.is_empty() {
                    let any = slices().any(|slice| !slice.endpoints.is_empty());
                    return Err(if any { Absence::NotReady } else { Absence::NoEndpoints });
                }
            }
        }
        Ok(names.finish(key, service.kind == ServiceKind::Headless))
    }
}

impl Builder {
    /// S2.3.1 and S2.3.2: the virtual addresses, and one SRV record for each port.
    fn cluster_ips(&mut self, service: &Service, addresses: &[IpAddr]) {
        self.apex.addresses.extend_from_slice(addresses);
        for port in &service.ports {
            self.service_record(&port.name, port.protocol, port.port.get(), &[]);
        }
    }

    /// S2.4.1 to S2.4.3: the ready endpoints of one slice. Under a ClusterIP Service they have names too, but
    /// are no records of the Service itself.
    fn endpoints(&mut self, slice: &EndpointSlice, headless: bool) {
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
            let (label, hostname) = endpoint_label(endpoint);
            match hostname {
                true => self.keep(endpoint.address, Rank::Hostname, label.clone()),
                false => self.dashed.push(endpoint.address),
            }
            if headless {
                self.apex.addresses.push(endpoint.address);
                for port in &slice.ports {
                    self.service_record(&port.name, port.protocol, port.port.get(), &label);
                }
            }
        }
    }

    /// An endpoint's name that must be kept, for it does not follow from its address.
    fn keep(&mut self, address: IpAddr, rank: Rank, label: Box<[u8]>) {
        self.below.entry(label.clone()).or_default().addresses.push(address);
        self.named.push(Named { address, rank, label });
    }

    /// Puts one SRV record under `_port._protocol`, if the port has a name (S2.3.2), and under the Service's
    /// own name, where peer finders ask for all ports.
    fn service_record(&mut self, port: &str, protocol: Protocol, number: u16, target: &[u8]) {
        self.apex.srv.push((number, target.into()));
        let protocol = wire_label(&format!("_{protocol}"));
        let port = (!port.is_empty()).then(|| wire_label(&format!("_{port}")));
        if let (Some(Ok(port)), Ok(protocol)) = (port, protocol) {
            let name = [&*port, &*protocol].concat().into();
            self.below.entry(name).or_default().srv.push((number, target.into()));
            self.below.entry(protocol).or_default();
        }
    }

    fn finish(mut self, key: &[u8], headless: bool) -> ServiceNames {
        // What else has such a name, or is not read back from it, is kept by its name.
        let all = std::mem::take(&mut self.dashed);
        let (kept, plain): (Vec<IpAddr>, Vec<IpAddr>) = all.into_iter().partition(|&address| {
            let label = dashed(address);
            self.below.contains_key(&label) || pod_address(&label[1..]) != Some(address)
        });
        for address in kept {
            self.keep(address, Rank::Dashed, dashed(address));
        }
        // Behind a ClusterIP only a hostname leads back (S2.3.3, S2.4.3).
        self.named.retain(|named| headless || named.rank == Rank::Hostname);

        let mut bytes = vec![key.len() as u8];
        bytes.extend_from_slice(key);
        bytes.push(u8::from(headless));
        self.apex.write(&mut bytes);
        for addresses in by_family(plain) {
            put_number(&mut bytes, addresses.count);
            bytes.extend_from_slice(&addresses.octets);
        }
        let mut named = Vec::new();
        self.named.iter().for_each(|one| put_named(&mut named, one));
        put_text(&mut bytes, &named);
        put_below(&mut bytes, self.below);
        ServiceNames(bytes.into())
    }
}

impl NodeBuilder {
    /// Of addresses only.
    pub(super) fn of_addresses(addresses: &[IpAddr]) -> NodeBuilder {
        NodeBuilder { addresses: addresses.to_vec(), ..NodeBuilder::default() }
    }

    /// Appends the packed node.
    pub(super) fn write(mut self, bytes: &mut Vec<u8>) {
        // An endpoint of two families stands in two slices, but is one target.
        self.srv.sort_unstable();
        self.srv.dedup();
        let mut srv = Vec::new();
        for (port, target) in &self.srv {
            srv.extend_from_slice(&port.to_be_bytes());
            put_text(&mut srv, target);
        }
        let families = by_family(self.addresses);
        families.iter().for_each(|addresses| put_number(bytes, addresses.count));
        put_number(bytes, srv.len());
        put_number(bytes, self.alias.len());
        families.iter().for_each(|addresses| bytes.extend_from_slice(&addresses.octets));
        bytes.extend_from_slice(&srv);
        bytes.extend_from_slice(&self.alias);
    }
}

fn put_below(bytes: &mut Vec<u8>, below: BTreeMap<Box<[u8]>, NodeBuilder>) {
    put_number(bytes, below.len());
    let mut names = Vec::new();
    for (labels, node) in below {
        bytes.extend_from_slice(&(names.len() as u32).to_be_bytes());
        put_text(&mut names, &labels);
        node.write(&mut names);
    }
    bytes.extend_from_slice(&names);
}

fn put_named(bytes: &mut Vec<u8>, named: &Named) {
    bytes.push(u8::from(named.rank == Rank::Dashed));
    put_text(bytes, &named.label);
    match named.address {
        IpAddr::V4(address) => put_text(bytes, &address.octets()),
        IpAddr::V6(address) => put_text(bytes, &address.octets()),
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    put_number(bytes, text.len());
    bytes.extend_from_slice(text);
}

fn put_number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// The addresses of one family.
#[derive(Default)]
struct Packed {
    count: usize,
    octets: Vec<u8>,
}

impl Packed {
    fn push(&mut self, octets: &[u8]) {
        self.count += 1;
        self.octets.extend_from_slice(octets);
    }
}

/// The two families, each in order and once.
fn by_family(mut addresses: Vec<IpAddr>) -> [Packed; 2] {
    addresses.sort_unstable();
    addresses.dedup();
    let mut families = <[Packed; 2]>::default();
    for address in addresses {
        match address {
            IpAddr::V4(address) => families[0].push(&address.octets()),
            IpAddr::V6(address) => families[1].push(&address.octets()),
        }
    }
    families
}

/// The label of an endpoint in wire form, and whether it is the endpoint's own hostname rather than its
/// address.
fn endpoint_label(endpoint: &Endpoint) -> (Box<[u8]>, bool) {
    let hostname = endpoint.hostname.as_deref().filter(|name| !name.contains('.'));
    match hostname.map(wire_label) {
        Some(Ok(label)) => (label, true),
        _ => (dashed(endpoint.address), false),
    }
}

/// The target of an ExternalName in wire form (S2.5); none where it is an address or no domain name.
fn external_name(target: &str) -> Option<Box<[u8]>> {
    let target = target.trim_end_matches('.');
    if target.parse::<IpAddr>().is_ok() {
        return None;
    }
    wire_name(target).ok()
}
