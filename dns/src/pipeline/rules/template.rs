//! Answers made of the query, as CoreDNS' plugin `template` makes them of texts with holes.

use std::fmt::Write;
use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, MX, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use weft_corefile::{Domain, Pattern, Piece, RecordText, Template};

use super::asked::{Asked, failure};
use super::hosts::is_below;
use crate::wire::extended_error::ExtendedError;
use crate::wire::name::{QueryName, wire_name};
use crate::wire::reply::Reply;

/// The time to live of a record that says none, in seconds, as miekg/dns has it.
const TTL: u32 = 3600;

/// The templates of a block, in order.
#[derive(Debug, Default)]
pub struct Templates(Vec<Prepared>);

/// A template, and its zones in wire form.
#[derive(Debug)]
struct Prepared {
    template: Template,
    record_type: Option<RecordType>,
    zones: Vec<(Box<[u8]>, Domain)>,
    fall: Vec<Box<[u8]>>,
}

/// What the holes are filled with.
struct Filling<'f> {
    name: &'f str,
    zone: &'f str,
    record_type: RecordType,
    client: IpAddr,
    /// The pattern that matched, and its groups; none where there is no pattern.
    matched: Option<(&'f Pattern, Vec<&'f str>)>,
}

impl Templates {
    /// Those of a server block.
    pub fn new(templates: Vec<Template>) -> Templates {
        let wire = |domains: &[Domain]| -> Vec<(Box<[u8]>, Domain)> {
            domains.iter().map(|domain| (wire_domain(domain), domain.clone())).collect()
        };
        let prepared = |template: Template| Prepared {
            record_type: template.record_type.as_deref().and_then(|name| name.parse().ok()),
            zones: wire(&template.zones),
            fall: wire(&template.fall.0).into_iter().map(|(wire, _)| wire).collect(),
            template,
        };
        Templates(templates.into_iter().map(prepared).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one may be about a query.
    pub(super) fn touches(&self, name: &str, record_type: RecordType) -> bool {
        self.0.iter().any(|prepared| {
            let in_zone = prepared.zones.iter().any(|(_, zone)| is_text_below(name, zone));
            in_zone && prepared.is_about(record_type)
        })
    }

    /// What is answered; none where others are to be asked.
    pub(super) fn answer(&self, name: &str, asked: Asked<'_>) -> Option<Reply> {
        for prepared in &self.0 {
            let zone = prepared.zone_of(asked.name);
            let Some(zone) = zone.filter(|_| prepared.is_about(asked.record_type)) else { continue };
            let patterns = &prepared.template.patterns;
            let matched = patterns.iter().find_map(|pattern| Some((pattern, pattern.groups(name)?)));
            if matched.is_none() && !patterns.is_empty() {
                if prepared.fall.iter().any(|domain| is_below(asked.name, domain)) {
                    continue;
                }
                return Some(failure("no template matches a name of its zone"));
            }
            let filling = Filling {
                name,
                zone: zone.as_str(),
                record_type: asked.record_type,
                client: asked.client,
                matched,
            };
            return Some(reply(&prepared.template, &filling));
        }
        None
    }
}

impl Prepared {
    fn is_about(&self, record_type: RecordType) -> bool {
        record_type == RecordType::ANY || self.record_type.is_none_or(|own| own == record_type)
    }

    /// The longest of the zones that a name is in.
    fn zone_of(&self, name: &QueryName) -> Option<&Domain> {
        let covering = self.zones.iter().filter(|(wire, _)| is_below(name, wire));
        covering.max_by_key(|(wire, _)| wire.len()).map(|(_, zone)| zone)
    }
}

/// A domain in wire form; the root is empty.
pub fn wire_domain(domain: &Domain) -> Box<[u8]> {
    // What a Corefile takes as a domain has a wire form.
    if domain.as_str() == "." { Box::default() } else { wire_name(domain.as_str()).unwrap_or_default() }
}

fn is_text_below(name: &str, zone: &Domain) -> bool {
    let before = name.strip_suffix(zone.as_str());
    zone.as_str() == "." || before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn reply(template: &Template, filling: &Filling<'_>) -> Reply {
    let code = ResponseCode::from(0, u8::try_from(template.code).unwrap_or(2));
    let mut reply = Reply { authoritative: true, ..Reply::empty(code) };
    if code == ResponseCode::ServFail {
        return failure("a template says so");
    }
    let [answers, authorities, additionals] = &template.records;
    let sections = [
        (answers, &mut reply.answers),
        (authorities, &mut reply.authorities),
        (additionals, &mut reply.additionals),
    ];
    for (texts, section) in sections {
        for text in texts {
            match record(&filling.fill(text)) {
                Some(record) => section.push(record),
                None => {
                    tracing::debug!(place = %text.place, name = filling.name, "a template makes no record of this name");
                    return failure("a template makes no record of this name");
                }
            }
        }
    }
    reply.extended = template
        .extended
        .as_ref()
        .map(|(code, text)| ExtendedError { code: *code, text: text.clone().into() });
    reply
}

impl Filling<'_> {
    fn fill(&self, text: &RecordText) -> String {
        let mut filled = String::new();
        let group = |number: usize| {
            self.matched.as_ref().and_then(|(_, groups)| groups.get(number).copied()).unwrap_or_default()
        };
        for piece in &text.pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Name => filled.push_str(self.name),
                Piece::Zone => filled.push_str(self.zone),
                Piece::Class => filled.push_str("IN"),
                // Writing to a String cannot fail.
                Piece::Type => drop(write!(filled, "{}", self.record_type)),
                Piece::Remote => drop(write!(filled, "{}", self.client)),
                // Without a pattern, `.*` is what matched.
                Piece::Match(0) if self.matched.is_none() => filled.push_str(self.name),
                Piece::Match(number) => filled.push_str(group(*number)),
                Piece::Group(name) => {
                    let number = self.matched.as_ref().and_then(|(pattern, _)| pattern.group_named(name));
                    filled.push_str(number.map(group).unwrap_or_default());
                }
            }
        }
        filled
    }
}

/// Reads `NAME [TTL] [CLASS] TYPE DATA` (RFC 1035 section 5.1).
fn record(text: &str) -> Option<Record> {
    let words = words(text);
    let mut words = words.iter().map(String::as_str);
    let owner = name(words.next()?)?;
    let (mut ttl, mut word) = (TTL, words.next()?);
    loop {
        match word.parse() {
            Ok(seconds) => ttl = seconds,
            Err(_) if word.eq_ignore_ascii_case("IN") => {}
            Err(_) => break,
        }
        word = words.next()?;
    }
    let mut next = || words.next();
    let data = match word.to_ascii_uppercase().as_str() {
        "A" => RData::A(A(next()?.parse().ok()?)),
        "AAAA" => RData::AAAA(AAAA(next()?.parse().ok()?)),
        "NS" => RData::NS(NS(name(next()?)?)),
        "PTR" => RData::PTR(PTR(name(next()?)?)),
        "MX" => RData::MX(MX::new(next()?.parse().ok()?, name(next()?)?)),
        "SRV" => {
            let [priority, weight, port] =
                [next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?];
            RData::SRV(SRV::new(priority, weight, port, name(next()?)?))
        }
        "SOA" => {
            let (server, mailbox, serial) = (name(next()?)?, name(next()?)?, next()?.parse().ok()?);
            let [refresh, retry, expire] =
                [next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?];
            RData::SOA(SOA::new(server, mailbox, serial, refresh, retry, expire, next()?.parse().ok()?))
        }
        "TXT" => {
            let texts: Vec<String> = std::iter::from_fn(&mut next).map(str::to_owned).collect();
            let fits = !texts.is_empty() && texts.iter().all(|text| text.len() <= 255);
            RData::TXT(TXT::new(fits.then_some(texts)?))
        }
        _ => return None,
    };
    next().is_none().then(|| Record::from_rdata(owner, ttl, data))
}

/// Names of a record are absolute, with or without their last dot.
fn name(text: &str) -> Option<Name> {
    let text = if text.ends_with('.') { text.to_owned() } else { format!("{text}.") };
    Name::from_ascii(text).ok()
}

/// Words, of which quotes may hold white space; parentheses only join lines.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for character in text.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '(' | ')' if !quoted => words.extend(word.take()),
            _ if character.is_whitespace() && !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use weft_corefile::{Corefile, Surroundings};

    use super::*;

    struct Alone;

    impl Surroundings for Alone {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }

        fn import(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
            Ok(Vec::new())
        }
    }

    /// The code and the records that templates give to a query.
    fn ask(lines: &str, name: &str, record_type: RecordType) -> Option<(ResponseCode, Vec<String>)> {
        let text = format!(". {{\n{lines}\n}}\n");
        let Corefile { mut servers, .. } = weft_corefile::read("Corefile", &text, &Alone).unwrap();
        let templates = Templates::new(servers.remove(0).templates);
        let spelled = Name::from_ascii(name).unwrap();
        let query = QueryName::from_name(&spelled).unwrap();
        let asked = Asked { name: &query, spelled: &spelled, record_type, client: [10, 0, 0, 9].into() };
        let reply = templates.answer(name, asked)?;
        assert!(templates.touches(name, record_type), "{name}: the fast lane leaves it alone");
        let records = reply.answers.iter().chain(&reply.authorities).chain(&reply.additionals);
        let told = |record: &Record| {
            format!("{} {} {} {}", record.name, record.ttl, record.record_type(), record.data)
        };
        Some((reply.code, records.map(told).collect()))
    }

    #[test]
    fn addresses_are_read_from_names() {
        let lines = r#"template IN A example {
            match (^|[.])ip-(?P<a>[0-9]*)-(?P<b>[0-9]*)-(?P<c>[0-9]*)-(?P<d>[0-9]*)[.]example[.]$
            answer "{{ .Name }} 60 IN A {{ .Group.a }}.{{ .Group.b }}.{{ .Group.c }}.{{ index .Match 5 }}"
            fallthrough
        }"#;
        let answer = ask(lines, "x.ip-10-1-2-3.example.", RecordType::A).unwrap();
        assert_eq!(answer, (ResponseCode::NoError, vec!["x.ip-10-1-2-3.example. 60 A 10.1.2.3".to_owned()]));
        assert_eq!(ask(lines, "ip-10-1-2-300.example.", RecordType::A).unwrap().0, ResponseCode::ServFail);
        for (name, record_type) in [
            ("other.example.", RecordType::A),
            ("ip-10-1-2-3.example.", RecordType::AAAA),
            ("a.", RecordType::A),
        ] {
            assert_eq!(ask(lines, name, record_type), None, "{name}");
        }
        let strict = lines.replace("fallthrough", "");
        assert_eq!(ask(&strict, "other.example.", RecordType::A).unwrap().0, ResponseCode::ServFail);
    }

    #[test]
    fn zones_are_denied() {
        let lines = r#"template ANY ANY invalid {
            rcode NXDOMAIN
            authority "invalid. 60 {{ .Class }} SOA ns.{{ .Zone }} hostmaster.invalid. (1 60 60 60 60)"
            ederror 21 "Blocked"
        }"#;
        let (code, records) = ask(lines, "www.invalid.", RecordType::MX).unwrap();
        assert_eq!(code, ResponseCode::NXDomain);
        assert_eq!(records, ["invalid. 60 SOA ns.invalid. hostmaster.invalid. 1 60 60 60 60"]);
    }

    #[test]
    fn records_of_all_types() {
        let lines = r#"template IN ANY t {
            answer "{{ .Name }} IN TXT \"from {{ .Remote }}\" {{ .Type }}"
            answer "{{ .Name }} 5 SRV 1 2 80 a.t"
            additional "a.t IN 7 AAAA fd00::1"
            additional "m.t MX 10 a.t."
        }"#;
        let (_, records) = ask(lines, "x.t.", RecordType::TXT).unwrap();
        assert_eq!(records[0], "x.t. 3600 TXT from 10.0.0.9TXT");
        assert_eq!(records[1..], ["x.t. 5 SRV 1 2 80 a.t.", "a.t. 7 AAAA fd00::1", "m.t. 3600 MX 10 a.t."]);
    }
}
