//! What is counted, under the names that CoreDNS has for the same things, so that its dashboards work. How the
//! numbers reach a scraper is in [`crate::http`].

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::forward::{Origin, is_negative};
use crate::message::Transport;

/// Sizes of messages in bytes, as CoreDNS cuts them.
const SIZES: [f64; 14] =
    [0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16e3, 32e3, 48e3, 64e3];

/// Who gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The cluster's zone.
    Zone,
    /// An upstream, or what is remembered of one; also the refusal to ask one.
    Upstream,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    proto: &'static str,
    family: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    zone: Arc<str>,
    rcode: &'static str,
    plugin: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ZoneLabels {
    zone: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SizeLabels {
    proto: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HitLabels {
    r#type: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All numbers of the server.
pub struct Metrics {
    registry: Registry,
    zone: Arc<str>,
    root: Arc<str>,
    requests: Family<RequestLabels, Counter>,
    request_sizes: Histograms<SizeLabels>,
    responses: Family<ResponseLabels, Counter>,
    response_sizes: Histograms<SizeLabels>,
    durations: Histograms<ZoneLabels>,
    cache_requests: Counter,
    cache_hits: Family<HitLabels, Counter>,
    cache_stale: Counter,
    cache_entries: Gauge,
    shed: Counter,
    compilations: Histogram,
    services: Gauge,
}

impl Metrics {
    /// Fresh numbers. `port` is where clients ask, `zone` the cluster's domain with its last dot.
    pub fn new(port: u16, zone: &str) -> Metrics {
        let server = [("server", format!("dns://:{port}")), ("view", String::new())];
        let server = server.map(|(name, value)| (Cow::Borrowed(name), Cow::Owned(value)));
        let mut metrics = Metrics {
            registry: Registry::with_labels(server.into_iter()),
            zone: zone.into(),
            root: ".".into(),
            requests: Family::default(),
            request_sizes: Family::new_with_constructor(|| Histogram::new(SIZES)),
            responses: Family::default(),
            response_sizes: Family::new_with_constructor(|| Histogram::new(SIZES)),
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.00025, 2.0, 16))),
            cache_requests: Counter::default(),
            cache_hits: Family::default(),
            cache_stale: Counter::default(),
            cache_entries: Gauge::default(),
            shed: Counter::default(),
            compilations: Histogram::new(exponential_buckets(0.0001, 2.0, 14)),
            services: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        // The encoder appends `_total` to the names of counters, and the last dot to the help.
        let registry = &mut self.registry;
        registry.register("coredns_dns_requests", "Questions", self.requests.clone());
        registry.register("coredns_dns_request_size_bytes", "Sizes of questions", self.request_sizes.clone());
        registry.register("coredns_dns_responses", "Answers", self.responses.clone());
        registry.register("coredns_dns_response_size_bytes", "Sizes of answers", self.response_sizes.clone());
        registry.register(
            "coredns_dns_request_duration_seconds",
            "From question to answer",
            self.durations.clone(),
        );
        registry.register("coredns_cache_requests", "Questions to the cache", self.cache_requests.clone());
        registry.register("coredns_cache_hits", "Answers from the cache", self.cache_hits.clone());
        let stale = "Answers from the cache past their time";
        registry.register("coredns_cache_served_stale", stale, self.cache_stale.clone());
        registry.register("coredns_cache_entries", "Messages in the cache", self.cache_entries.clone());
        let shed = "Questions refused because too many wait for upstreams";
        registry.register("coredns_forward_max_concurrent_rejects", shed, self.shed.clone());
        let compiled = "From a change of the cluster to the zone that holds it";
        registry.register("weft_dns_zone_compile_duration_seconds", compiled, self.compilations.clone());
        registry.register("weft_dns_zone_services", "Services with names", self.services.clone());
    }

    /// A question for `record_type` came, `size` bytes long.
    pub fn request(&self, transport: Transport, client: IpAddr, record_type: RecordType, size: usize) {
        let proto = proto(transport);
        let family = if client.is_ipv4() { "1" } else { "2" };
        let labels = RequestLabels { proto, family, r#type: type_label(record_type) };
        self.requests.get_or_create(&labels).inc();
        self.request_sizes.get_or_create(&SizeLabels { proto }).observe(size as f64);
    }

    /// It was answered, with `size` bytes, after `duration`.
    pub fn response(
        &self,
        transport: Transport,
        from: Source,
        code: ResponseCode,
        size: usize,
        duration: Duration,
    ) {
        let (zone, plugin) = match from {
            Source::Zone => (&self.zone, "kubernetes"),
            Source::Upstream => (&self.root, "forward"),
        };
        let labels = ResponseLabels { zone: zone.clone(), rcode: code_label(code), plugin };
        self.responses.get_or_create(&labels).inc();
        self.response_sizes.get_or_create(&SizeLabels { proto: proto(transport) }).observe(size as f64);
        self.durations.get_or_create(&ZoneLabels { zone: zone.clone() }).observe(duration.as_secs_f64());
    }

    /// An upstream's answer was had; the cache now holds `entries`.
    pub fn forwarded(&self, message: &Message, origin: Origin, entries: usize) {
        self.cache_requests.inc();
        self.cache_entries.set(entries as i64);
        let r#type = if is_negative(message) { "denial" } else { "success" };
        match origin {
            Origin::Upstream => {}
            Origin::Cache => {
                self.cache_hits.get_or_create(&HitLabels { r#type }).inc();
            }
            Origin::Stale => {
                self.cache_stale.inc();
            }
        }
    }

    /// A question was refused, because too many wait.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// A zone with so many Services is in place, so long after the change was known.
    pub fn compiled(&self, services: usize, duration: Duration) {
        self.services.set(services as i64);
        self.compilations.observe(duration.as_secs_f64());
    }

    /// All numbers in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn proto(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
    }
}

/// The types that CoreDNS tells apart; a stranger must not be able to invent labels.
fn type_label(record_type: RecordType) -> &'static str {
    use RecordType::{
        A, AAAA, ANY, CNAME, DNSKEY, DS, HTTPS, MX, NAPTR, NS, NSEC, NSEC3, PTR, RRSIG, SOA, SRV, SVCB, TXT,
    };
    match record_type {
        A | AAAA | ANY | CNAME | DNSKEY | DS | HTTPS | MX | NAPTR | NS | NSEC | NSEC3 | PTR | RRSIG | SOA
        | SRV | SVCB | TXT => record_type.into(),
        _ => "other",
    }
}

fn code_label(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        _ => "other",
    }
}
