//! Names that mean nothing outside of this network, and so are answered here instead of being told to
//! upstreams: the special-use names, and where wanted the reverse zones of private addresses. Pure.

use std::collections::HashSet;
use std::sync::LazyLock;

use clap::ValueEnum;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::wire::name::{QueryName, to_name, wire_name};

/// Domains that no server of any network knows: RFC 6761 (invalid, localhost), RFC 7686 (onion), RFC 9462
/// (resolver.arpa), RFC 9476 (alt), and of RFC 6303 sections 4.2 to 4.4 the reverse zones of addresses that
/// mean the same machine or none everywhere.
const NEVER_SERVED: [&str; 10] = [
    "alt",
    "invalid",
    "localhost",
    "onion",
    "resolver.arpa",
    "0.in-addr.arpa",
    "127.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
];
/// Domains that hardly any network has, but may have: RFC 6761 (test, for which section 6.2 wants a switch),
/// and of RFC 6303 the reverse zones of addresses of one link and of those for documentation.
const RARELY_SERVED: [&str; 10] = [
    "test",
    "254.169.in-addr.arpa",
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa",
    "8.e.f.ip6.arpa",
    "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa",
    "b.e.f.ip6.arpa",
];
/// How long a denial is believed, in seconds (RFC 6303 section 3).
const TTL: u32 = 10_800;

/// Which special-use names are answered here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SpecialUsePolicy {
    /// None: upstreams are told all.
    None,
    /// Those that nobody can know: .localhost, .onion and so on; and, where the upstreams are merely those of
    /// the node, those that hardly anybody knows: .test and the reverse zones of documentation and link-local
    /// addresses.
    #[default]
    Names,
    /// All of those, and those that only resolvers of this site can know: .local, home.arpa and the reverse
    /// zones of private addresses (RFC 6303). For upstreams of the Internet.
    All,
}

/// Domains in wire form.
type Domains = LazyLock<HashSet<Box<[u8]>>>;

static NEVER_SERVED_ZONES: Domains = LazyLock::new(|| domains(&NEVER_SERVED));
static RARELY_SERVED_ZONES: Domains = LazyLock::new(|| domains(&RARELY_SERVED));
/// What homes and companies name themselves: RFC 6762 (local), RFC 8375 (home.arpa), and the reverse zones of
/// addresses that networks give to their machines: RFC 6303 sections 4.1 and 4.4, and RFC 7793 for those that
/// carriers share.
static SITE_LOCAL_ZONES: Domains = LazyLock::new(|| {
    let alone = ["local", "home.arpa", "10.in-addr.arpa", "168.192.in-addr.arpa", "d.f.ip6.arpa"];
    let alone = alone.map(str::to_owned);
    let private = (16..=31).map(|octet| format!("{octet}.172.in-addr.arpa"));
    let shared = (64..=127).map(|octet| format!("{octet}.100.in-addr.arpa"));
    alone.into_iter().chain(private).chain(shared).filter_map(|zone| wire_name(&zone).ok()).collect()
});

fn domains(zones: &[&str]) -> HashSet<Box<[u8]>> {
    zones.iter().filter_map(|zone| wire_name(zone).ok()).collect()
}

/// The answer to a query for a name that must not leave. None for all other names. `chosen` tells whether a
/// person named the upstreams, and so may have done it for what hardly anybody else knows.
pub(super) fn answer(
    name: &QueryName,
    query: &Query,
    keep: SpecialUsePolicy,
    chosen: bool,
) -> Option<Message> {
    let is_kept = |domain: &[u8]| match keep {
        SpecialUsePolicy::None => false,
        SpecialUsePolicy::Names => {
            NEVER_SERVED_ZONES.contains(domain) || (!chosen && RARELY_SERVED_ZONES.contains(domain))
        }
        SpecialUsePolicy::All => [&NEVER_SERVED_ZONES, &RARELY_SERVED_ZONES, &SITE_LOCAL_ZONES]
            .iter()
            .any(|kept| kept.contains(domain)),
    };
    let start = (0..name.len()).find(|&start| is_kept(name.wire(start, name.len())))?;
    let zone = to_name(&[name.wire(start, name.len())]).ok()?;
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.metadata.recursion_available = true;
    message.add_query(query.clone());
    message.answers = data(name, start == 0, &zone, query.query_type)
        .map(|data| Record::from_rdata(query.name.clone(), TTL, data))
        .into_iter()
        .collect();
    if message.answers.is_empty() {
        if start > 0 && !is_localhost(name) {
            message.metadata.response_code = ResponseCode::NXDomain;
        }
        message.authorities = vec![Record::from_rdata(zone.clone(), TTL, RData::SOA(soa(&zone)))];
    }
    Some(message)
}

fn data(name: &QueryName, apex: bool, zone: &Name, record_type: RecordType) -> Option<RData> {
    match record_type {
        RecordType::SOA if apex => Some(RData::SOA(soa(zone))),
        RecordType::NS if apex => Some(RData::NS(NS(zone.clone()))),
        RecordType::A if is_localhost(name) => Some(RData::A(A::new(127, 0, 0, 1))),
        RecordType::AAAA if is_localhost(name) => Some(RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1))),
        RecordType::PTR if is_loopback(name) => {
            Some(RData::PTR(PTR(Name::from_ascii("localhost.").unwrap_or_else(|_| Name::root()))))
        }
        _ => None,
    }
}

/// RFC 6761 section 6.3: it is always this machine, whatever stands left of it.
fn is_localhost(name: &QueryName) -> bool {
    name.label(name.len() - 1) == b"localhost"
}

fn is_loopback(name: &QueryName) -> bool {
    crate::zone::reverse_address(name).is_some_and(|address| address.is_loopback())
}

/// RFC 6303 section 3.
fn soa(zone: &Name) -> SOA {
    let nobody = to_name(&[b"\x06nobody\x07invalid"]).unwrap_or_else(|_| Name::root());
    SOA::new(zone.clone(), nobody, 1, 3600, 1200, 604_800, TTL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, record_type: RecordType) -> Option<Message> {
        let query = Query::query(Name::from_ascii(name).unwrap(), record_type);
        answer(&QueryName::from_name(&query.name).unwrap(), &query, SpecialUsePolicy::All, true)
    }

    #[test]
    fn private_names_are_denied_with_their_zone_s_soa() {
        for (name, zone) in [
            ("7.1.244.10.in-addr.arpa.", "10.in-addr.arpa."),
            ("1.0.31.172.in-addr.arpa.", "31.172.in-addr.arpa."),
            ("1.0.64.100.in-addr.arpa.", "64.100.in-addr.arpa."),
            ("lb._dns-sd._udp.0.1.168.192.in-addr.arpa.", "168.192.in-addr.arpa."),
            ("1.0.0.d.f.ip6.arpa.", "d.f.ip6.arpa."),
            ("printer.local.", "local."),
            ("Www.Nothing.TEST.", "test."),
            ("router.home.arpa.", "home.arpa."),
        ] {
            let message = ask(name, RecordType::PTR).expect(name);
            assert_eq!(message.metadata.response_code, ResponseCode::NXDomain, "{name}");
            assert_eq!(message.authorities[0].name.to_ascii(), zone);
        }
    }

    #[test]
    fn the_world_s_names_are_not_ours_to_answer() {
        for name in [
            "8.8.8.8.in-addr.arpa.",
            "1.0.32.172.in-addr.arpa.",
            "1.0.63.100.in-addr.arpa.",
            "172.in-addr.arpa.",
            "1.0.0.2.ip6.arpa.",
            "example.",
            "metadata.google.internal.",
            "latest.",
            ".",
        ] {
            assert!(ask(name, RecordType::A).is_none(), "{name}");
        }
    }

    #[test]
    fn localhost_is_this_machine() {
        for name in ["localhost.", "app.localhost."] {
            assert_eq!(ask(name, RecordType::A).unwrap().answers[0].data, RData::A(A::new(127, 0, 0, 1)));
            assert_eq!(ask(name, RecordType::AAAA).unwrap().answers.len(), 1);
            let none = ask(name, RecordType::MX).unwrap();
            assert_eq!((none.metadata.response_code, none.answers.len()), (ResponseCode::NoError, 0));
        }
        let back = ask("1.0.0.127.in-addr.arpa.", RecordType::PTR).unwrap();
        assert_eq!(back.answers[0].data.to_string(), "localhost.");
    }

    #[test]
    fn an_apex_exists() {
        assert_eq!(ask("10.in-addr.arpa.", RecordType::SOA).unwrap().answers.len(), 1);
        assert_eq!(ask("10.in-addr.arpa.", RecordType::NS).unwrap().answers.len(), 1);
        let none = ask("10.in-addr.arpa.", RecordType::A).unwrap();
        assert_eq!((none.metadata.response_code, none.authorities.len()), (ResponseCode::NoError, 1));
    }
}
