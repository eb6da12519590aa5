//! Names and addresses of a hosts file, as CoreDNS' plugin `hosts` answers them. Reading the file is the
//! caller's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use weft_corefile::Domain;

use super::asked::{Asked, failure};
use crate::wire::name::{QueryName, to_name, wire_name};
use crate::wire::reply::Reply;
use crate::zone::reverse_address;

/// How it answers.
#[derive(Clone, Debug, Default)]
pub struct HostsSettings {
    /// Whose names it has, in wire form.
    pub zones: Vec<Box<[u8]>>,
    /// Names below these domains are passed on where there is none here; wire form.
    pub fall: Vec<Box<[u8]>>,
    /// Other types of names that are here are passed on too.
    pub fall_unsupported: bool,
    /// The time to live of its records, in seconds.
    pub ttl: u32,
    /// Whether addresses lead back to names.
    pub reverse: bool,
}

/// The addresses of a name.
#[derive(Debug, Default)]
struct Addresses {
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
}

/// All names and addresses.
#[derive(Debug, Default)]
pub struct Hosts {
    settings: HostsSettings,
    /// By name in wire form.
    names: HashMap<Box<[u8]>, Addresses>,
    /// The same of `*.NAME`, by NAME.
    wildcards: HashMap<Box<[u8]>, Addresses>,
    pointers: HashMap<IpAddr, Vec<Name>>,
}

impl Hosts {
    /// Those of the lines of `texts`, one text after the other. What is no line of a hosts file is passed over.
    pub fn new<'t>(settings: HostsSettings, texts: impl IntoIterator<Item = &'t str>) -> Hosts {
        let mut hosts = Hosts { settings, ..Hosts::default() };
        texts.into_iter().flat_map(str::lines).for_each(|line| hosts.add(line));
        hosts
    }

    /// `ADDRESS NAME...`
    fn add(&mut self, line: &str) {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        // The zone of a link's address means nothing to others.
        let address = words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok());
        let Some(address) = address.map(|address| address.to_canonical()) else { return };
        for word in words {
            let (name, wildcard) = match word.strip_prefix("*.") {
                Some(name) => (name, true),
                None => (word, false),
            };
            let Ok(wire) =
                Domain::new(name).map_err(drop).and_then(|name| wire_name(name.as_str()).map_err(drop))
            else {
                continue;
            };
            let is_own = |zone: &[u8]| QueryName::from_wire(&wire).is_ok_and(|name| is_below(&name, zone));
            if !self.settings.zones.iter().any(|zone| is_own(zone)) {
                continue;
            }
            if let (false, true, Ok(name)) = (wildcard, self.settings.reverse, to_name(&[&wire])) {
                self.pointers.entry(address).or_default().push(name);
            }
            let names = if wildcard { &mut self.wildcards } else { &mut self.names };
            let addresses = names.entry(wire).or_default();
            match address {
                IpAddr::V4(address) => addresses.v4.push(address),
                IpAddr::V6(address) => addresses.v6.push(address),
            }
        }
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.names.len() + self.wildcards.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this may be about a name: it is here, or nobody else may answer it.
    pub(super) fn touches(&self, name: &QueryName) -> bool {
        self.find(name).is_some()
            || (self.has(name) && !self.falls_through(name))
            || (!self.pointers.is_empty()
                && reverse_address(name).is_some_and(|address| self.pointers.contains_key(&address)))
    }

    fn has(&self, name: &QueryName) -> bool {
        self.settings.zones.iter().any(|zone| is_below(name, zone))
    }

    fn falls_through(&self, name: &QueryName) -> bool {
        self.settings.fall.iter().any(|domain| is_below(name, domain))
    }

    fn find(&self, name: &QueryName) -> Option<&Addresses> {
        let wildcard = || self.wildcards.get(name.wire(1, name.len()));
        self.names.get(name.wire(0, name.len())).or_else(|| if name.is_empty() { None } else { wildcard() })
    }

    /// What is answered; none where others are to be asked.
    pub(super) fn answer(&self, asked: Asked<'_>) -> Option<Reply> {
        let ttl = self.settings.ttl;
        let record = |data| Record::from_rdata(asked.spelled.clone(), ttl, data);
        let answers: Vec<Record> = if asked.record_type == RecordType::PTR {
            // Whose zones these are does not matter.
            let names = reverse_address(asked.name).and_then(|address| self.pointers.get(&address))?;
            names.iter().map(|name| record(RData::PTR(PTR(name.clone())))).collect()
        } else {
            if !self.has(asked.name) {
                return None;
            }
            let found = self.find(asked.name);
            match (asked.record_type, found) {
                (_, None) if self.falls_through(asked.name) => return None,
                (_, None) => {
                    return Some(failure("not a name of the hosts file, which has all names of its zone"));
                }
                (RecordType::A, Some(found)) => {
                    found.v4.iter().map(|address| record(RData::A(A(*address)))).collect()
                }
                (RecordType::AAAA, Some(found)) => {
                    found.v6.iter().map(|address| record(RData::AAAA(AAAA(*address)))).collect()
                }
                (_, Some(_)) if self.settings.fall_unsupported && self.falls_through(asked.name) => {
                    return None;
                }
                (_, Some(_)) => Vec::new(),
            }
        };
        Some(Reply { authoritative: true, answers, ..Reply::empty(ResponseCode::NoError) })
    }
}

/// Whether a name is that domain or below it.
pub(super) fn is_below(name: &QueryName, domain: &[u8]) -> bool {
    (0..=name.len()).any(|start| name.wire(start, name.len()) == domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# nodes\n10.0.0.1 node1 node1.corp.example # the first\nfd00::1 node1\n10.0.0.1 other.example\n\
        10.0.0.9 *.apps.corp.example\nno-address x\n10.0.0.300 y\n10.0.0.2\n10.0.0.3 a..b fine.corp.example\nfe80::1%eth0 link\n";

    fn hosts(zones: &[&str], fall: &[&str]) -> Hosts {
        let root = |names: &[&str]| -> Vec<Box<[u8]>> {
            names
                .iter()
                .map(|name| if *name == "." { Box::default() } else { wire_name(name).unwrap() })
                .collect()
        };
        let settings = HostsSettings {
            zones: root(zones),
            fall: root(fall),
            ttl: 60,
            reverse: true,
            ..HostsSettings::default()
        };
        Hosts::new(settings, [TEXT, "10.0.0.7 node1\n"])
    }

    fn ask(hosts: &Hosts, name: &str, record_type: RecordType) -> Result<Vec<String>, &'static str> {
        let spelled = Name::from_ascii(name).unwrap();
        let query = QueryName::from_name(&spelled).unwrap();
        let asked = Asked { name: &query, spelled: &spelled, record_type, client: [127, 0, 0, 1].into() };
        let touched = hosts.touches(&query);
        match hosts.answer(asked) {
            None => Err("passed on"),
            Some(reply) => {
                assert!(touched, "{name}: the fast lane leaves it alone");
                match reply.code {
                    ResponseCode::NoError => {
                        Ok(reply.answers.iter().map(|record| record.data.to_string()).collect())
                    }
                    _ => Err("failed"),
                }
            }
        }
    }

    #[test]
    fn names_have_the_addresses_of_all_lines_and_lead_back() {
        let hosts = hosts(&["."], &["."]);
        assert_eq!(ask(&hosts, "NODE1.", RecordType::A).unwrap(), ["10.0.0.1", "10.0.0.7"]);
        assert_eq!(ask(&hosts, "node1.", RecordType::AAAA).unwrap(), ["fd00::1"]);
        assert_eq!(
            ask(&hosts, "node1.corp.example.", RecordType::AAAA).unwrap(),
            [""; 0],
            "it has no such address"
        );
        assert_eq!(ask(&hosts, "node1.", RecordType::MX).unwrap(), [""; 0]);
        assert_eq!(ask(&hosts, "link.", RecordType::AAAA).unwrap(), ["fe80::1"]);
        assert_eq!(ask(&hosts, "fine.corp.example.", RecordType::A).unwrap(), ["10.0.0.3"]);
        assert_eq!(
            ask(&hosts, "1.0.0.10.in-addr.arpa.", RecordType::PTR).unwrap(),
            ["node1.", "node1.corp.example.", "other.example."]
        );
        for name in ["nobody.", "x.", "y.", "2.0.0.10.in-addr.arpa."] {
            assert_eq!(ask(&hosts, name, RecordType::A), Err("passed on"), "{name}");
        }
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let hosts = hosts(&["."], &["."]);
        assert_eq!(ask(&hosts, "shop.apps.corp.example.", RecordType::A).unwrap(), ["10.0.0.9"]);
        for name in ["apps.corp.example.", "a.b.apps.corp.example.", "."] {
            assert_eq!(ask(&hosts, name, RecordType::A), Err("passed on"), "{name}");
        }
        assert_eq!(ask(&hosts, "9.0.0.10.in-addr.arpa.", RecordType::PTR), Err("passed on"));
    }

    #[test]
    fn of_its_zones_nothing_is_passed_on_unless_it_falls_through() {
        let strict = hosts(&["corp.example"], &[]);
        assert_eq!(ask(&strict, "nobody.corp.example.", RecordType::A), Err("failed"));
        assert_eq!(ask(&strict, "node1.", RecordType::A), Err("passed on"), "not of its zones");
        let falls = hosts(&["."], &["corp.example"]);
        assert_eq!(ask(&falls, "nobody.corp.example.", RecordType::A), Err("passed on"));
        assert_eq!(ask(&falls, "nobody.example.", RecordType::A), Err("failed"));
    }
}
