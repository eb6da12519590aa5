//! Queries and answers as they are counted. Each thread counts into cells of its own, which costs it a few
//! plain stores; a scrape adds them up.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::wire::format::Transport;

/// Sizes of messages in bytes, as CoreDNS cuts them.
const SIZES: [u64; 14] = [0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000];
/// Durations in nanoseconds, as CoreDNS cuts them: from 0.25 ms on, each twice the one before.
const DURATIONS: [u64; 16] = {
    let (mut bounds, mut place) = ([250_000; 16], 1);
    while place < bounds.len() {
        bounds[place] = 2 * bounds[place - 1];
        place += 1;
    }
    bounds
};
const NANOSECONDS: f64 = 1e9;

const PROTOCOLS: [&str; 3] = ["udp", "tcp", "quic"];
/// As CoreDNS numbers them, IPv4 and IPv6.
const FAMILIES: [&str; 2] = ["1", "2"];
const PLUGINS: [&str; 2] = ["kubernetes", "forward"];
/// The types that CoreDNS tells apart, and one for all others: a stranger must not be able to invent labels.
const TYPES: [(Option<RecordType>, &str); 19] = {
    use RecordType::{
        A, AAAA, ANY, CNAME, DNSKEY, DS, HTTPS, MX, NAPTR, NS, NSEC, NSEC3, PTR, RRSIG, SOA, SRV, SVCB, TXT,
    };
    [
        (Some(A), "A"),
        (Some(AAAA), "AAAA"),
        (Some(SRV), "SRV"),
        (Some(PTR), "PTR"),
        (Some(ANY), "ANY"),
        (Some(CNAME), "CNAME"),
        (Some(DNSKEY), "DNSKEY"),
        (Some(DS), "DS"),
        (Some(HTTPS), "HTTPS"),
        (Some(MX), "MX"),
        (Some(NAPTR), "NAPTR"),
        (Some(NS), "NS"),
        (Some(NSEC), "NSEC"),
        (Some(NSEC3), "NSEC3"),
        (Some(RRSIG), "RRSIG"),
        (Some(SOA), "SOA"),
        (Some(SVCB), "SVCB"),
        (Some(TXT), "TXT"),
        (None, "other"),
    ]
};
/// The codes that are told apart.
const CODES: [(Option<ResponseCode>, &str); 7] = [
    (Some(ResponseCode::NoError), "NOERROR"),
    (Some(ResponseCode::NXDomain), "NXDOMAIN"),
    (Some(ResponseCode::FormErr), "FORMERR"),
    (Some(ResponseCode::ServFail), "SERVFAIL"),
    (Some(ResponseCode::NotImp), "NOTIMP"),
    (Some(ResponseCode::Refused), "REFUSED"),
    (None, "other"),
];

/// Who gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The cluster's zone.
    Zone,
    /// An upstream, or what is cached of one; also the refusal to ask one.
    Upstream,
}

/// The numbers of one who counts, and nobody else does.
pub struct Tally(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    requests: [[[AtomicU64; TYPES.len()]; FAMILIES.len()]; PROTOCOLS.len()],
    /// Those whose clients want DNSSEC's records.
    dnssec_ok: [AtomicU64; PLUGINS.len()],
    request_sizes: [Buckets<{ SIZES.len() }>; PROTOCOLS.len()],
    responses: [[AtomicU64; CODES.len()]; PLUGINS.len()],
    response_sizes: [Buckets<{ SIZES.len() }>; PROTOCOLS.len()],
    durations: [Buckets<{ DURATIONS.len() }>; PLUGINS.len()],
}

/// How many values were at most each bound and above the one before; how many above all; and their sum.
#[derive(Debug)]
struct Buckets<const BOUNDS: usize> {
    counts: [AtomicU64; BOUNDS],
    above: AtomicU64,
    sum: AtomicU64,
}

impl<const BOUNDS: usize> Default for Buckets<BOUNDS> {
    fn default() -> Self {
        Buckets {
            counts: [const { AtomicU64::new(0) }; BOUNDS],
            above: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

/// Adds to a cell that only one thread writes: no locked instruction is needed.
fn add(cell: &AtomicU64, number: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
}

impl<const BOUNDS: usize> Buckets<BOUNDS> {
    fn observe(&self, bounds: &[u64; BOUNDS], value: u64, times: u64) {
        let place = bounds.iter().position(|&bound| value <= bound);
        add(place.map_or(&self.above, |place| &self.counts[place]), times);
        add(&self.sum, value.wrapping_mul(times));
    }
}

impl Tally {
    /// A query for `record_type` came, `size` bytes long.
    pub fn request(&mut self, transport: Transport, client: IpAddr, record_type: RecordType, size: usize) {
        let protocol = protocol(transport);
        let kind = TYPES.iter().position(|(known, _)| *known == Some(record_type)).unwrap_or(TYPES.len() - 1);
        add(&self.0.requests[protocol][usize::from(client.is_ipv6())][kind], 1);
        self.0.request_sizes[protocol].observe(&SIZES, size as u64, 1);
    }

    /// It was answered, with `size` bytes.
    pub fn response(&mut self, transport: Transport, from: Source, code: ResponseCode, size: usize) {
        let code = CODES.iter().position(|(known, _)| *known == Some(code)).unwrap_or(CODES.len() - 1);
        add(&self.0.responses[plugin(from)][code], 1);
        self.0.response_sizes[protocol(transport)].observe(&SIZES, size as u64, 1);
    }

    /// The client of a query that was answered wants DNSSEC's records.
    pub fn wants_dnssec(&mut self, from: Source) {
        add(&self.0.dnssec_ok[plugin(from)], 1);
    }

    /// So many answers took that long, each.
    pub fn took(&mut self, from: Source, answers: u64, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.durations[plugin(from)].observe(&DURATIONS, nanoseconds, answers);
    }
}

fn protocol(transport: Transport) -> usize {
    match transport {
        Transport::Udp => 0,
        Transport::Tcp | Transport::Tls => 1,
        Transport::Quic => 2,
    }
}

fn plugin(source: Source) -> usize {
    match source {
        Source::Zone => 0,
        Source::Upstream => 1,
    }
}

/// The numbers of all who count.
#[derive(Debug)]
pub(super) struct Traffic {
    /// The domain that each of [`PLUGINS`] answers for.
    zones: [String; PLUGINS.len()],
    tallies: Mutex<Vec<Arc<Cells>>>,
}

impl Traffic {
    pub(super) fn new(zone: &str) -> Traffic {
        Traffic { zones: [zone.to_owned(), ".".to_owned()], tallies: Mutex::default() }
    }

    pub(super) fn tally(&self) -> Tally {
        let cells = Arc::<Cells>::default();
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).push(cells.clone());
        Tally(cells)
    }

    pub(super) fn asked(&self) -> u64 {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let all = tallies.iter().flat_map(|cells| cells.requests.iter().flatten().flatten());
        all.map(|cell| cell.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    fn sum(&self, cell: impl Fn(&Cells) -> &AtomicU64) -> u64 {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.iter().map(|cells| cell(cells).load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    /// Writes a counter, where it counted anything.
    fn counter(
        &self,
        encoder: &mut MetricEncoder<'_>,
        labels: &[(&str, &str)],
        cell: impl Fn(&Cells) -> &AtomicU64,
    ) -> fmt::Result {
        match self.sum(cell) {
            0 => Ok(()),
            number => encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&number, None),
        }
    }

    /// Writes a histogram, where it counted anything. So many of its values make one of the unit that is
    /// shown.
    fn histogram<const BOUNDS: usize>(
        &self,
        encoder: &mut MetricEncoder<'_>,
        labels: &[(&str, &str)],
        (bounds, unit): (&[u64; BOUNDS], f64),
        of: impl Fn(&Cells) -> &Buckets<BOUNDS>,
    ) -> fmt::Result {
        let bound = |place: usize| bounds[place] as f64 / unit;
        let mut buckets: Vec<(f64, u64)> =
            (0..BOUNDS).map(|place| (bound(place), self.sum(|cells| &of(cells).counts[place]))).collect();
        buckets.push((f64::MAX, self.sum(|cells| &of(cells).above)));
        let count = buckets.iter().map(|(_, number)| number).sum();
        let sum = self.sum(|cells| &of(cells).sum) as f64 / unit;
        match count {
            0 => Ok(()),
            _ => encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None),
        }
    }

    fn requests(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        for (protocol, proto) in PROTOCOLS.iter().enumerate() {
            for (family, number) in FAMILIES.iter().enumerate() {
                for (kind, (_, name)) in TYPES.iter().enumerate() {
                    let labels = [("proto", *proto), ("family", *number), ("type", *name)];
                    self.counter(encoder, &labels, |cells| &cells.requests[protocol][family][kind])?;
                }
            }
        }
        Ok(())
    }

    fn dnssec_ok(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        for (plugin, zone) in self.zones.iter().enumerate() {
            self.counter(encoder, &[("zone", zone.as_str())], |cells| &cells.dnssec_ok[plugin])?;
        }
        Ok(())
    }

    fn responses(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        for (plugin, name) in PLUGINS.iter().enumerate() {
            for (code, (_, rcode)) in CODES.iter().enumerate() {
                let labels = [("zone", self.zones[plugin].as_str()), ("rcode", *rcode), ("plugin", *name)];
                self.counter(encoder, &labels, |cells| &cells.responses[plugin][code])?;
            }
        }
        Ok(())
    }

    fn sizes(
        &self,
        encoder: &mut MetricEncoder<'_>,
        of: impl Fn(&Cells) -> &[Buckets<{ SIZES.len() }>; PROTOCOLS.len()],
    ) -> fmt::Result {
        for (protocol, proto) in PROTOCOLS.iter().enumerate() {
            self.histogram(encoder, &[("proto", proto)], (&SIZES, 1.0), |cells| &of(cells)[protocol])?;
        }
        Ok(())
    }

    fn durations(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        for (plugin, zone) in self.zones.iter().enumerate() {
            let labels = [("zone", zone.as_str())];
            self.histogram(encoder, &labels, (&DURATIONS, NANOSECONDS), |cells| &cells.durations[plugin])?;
        }
        Ok(())
    }
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // The encoder appends `_total` to the names of counters.
        let encoder = &mut encoder;
        self.requests(&mut counter(encoder, "coredns_dns_requests", "DNS queries.")?)?;
        let name = "coredns_dns_do_requests";
        self.dnssec_ok(&mut counter(encoder, name, "Queries with the DO bit set.")?)?;
        self.responses(&mut counter(encoder, "coredns_dns_responses", "DNS responses.")?)?;
        let sizes = &mut histogram(encoder, "coredns_dns_request_size_bytes", "Sizes of queries.")?;
        self.sizes(sizes, |cells| &cells.request_sizes)?;
        let sizes = &mut histogram(encoder, "coredns_dns_response_size_bytes", "Sizes of responses.")?;
        self.sizes(sizes, |cells| &cells.response_sizes)?;
        let name = "coredns_dns_request_duration_seconds";
        self.durations(&mut histogram(encoder, name, "From query to response.")?)
    }
}

fn counter<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

fn histogram<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Histogram)
}
