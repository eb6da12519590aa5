//! Queries that become others, and answers that are led back, as CoreDNS' plugin `rewrite` does it: rules in
//! order, each stopping at the first that applies unless it says `continue`, and answers in the reverse order.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{CNAME, MX, NS, NULL, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use weft_corefile::{AnswerRule, Matcher, Rewrite, Rule};

use crate::wire::name::wire_name;
use crate::wire::reply::Reply;

/// The bytes of SRV's data before its name (RFC 2782).
const SRV_NUMBERS: usize = 6;

/// The rules, in order.
#[derive(Debug, Default)]
pub struct Rewrites(Vec<Rewrite>);

/// What a query became.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// The name that is looked for. None where the rule made none that is a name.
    pub(crate) name: Option<Name>,
    /// The type that is looked for.
    pub(crate) record_type: RecordType,
    /// How the answer is led back.
    pub(crate) back: Vec<Back>,
}

/// What is done with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    /// The name, and what is below it, becomes another: owners, and names in data.
    Whole { from: String, to: String },
    /// What ends so ends otherwise: owners, and names in data.
    Suffix { from: String, to: String },
    /// What matches is replaced.
    Pattern(AnswerRule),
    /// Times to live are brought into this range.
    Ttl(u32, u32),
    /// The code becomes another.
    Code(u16, u16),
}

impl Rewrites {
    /// Those of a server block.
    pub fn new(rules: Vec<Rewrite>) -> Rewrites {
        Rewrites(rules)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them applies to a query as it comes.
    pub(super) fn touches(&self, name: &str, record_type: RecordType) -> bool {
        self.0.iter().any(|rewrite| match &rewrite.rule {
            Rule::Name { matcher, .. } | Rule::Ttl { matcher, .. } | Rule::Code { matcher, .. } => {
                matches(matcher, name)
            }
            Rule::Type { from, .. } => is_type(from, record_type),
        })
    }

    /// Applies them to a query.
    pub(super) fn apply(&self, name: &str, record_type: RecordType) -> Option<Rewritten> {
        let (mut now, mut record_type, mut back, mut any) = (name.to_owned(), record_type, Vec::new(), false);
        for Rewrite { goes_on, rule } in &self.0 {
            let applies = match rule {
                Rule::Name { matcher, to, auto, answers } => rewritten(matcher, to, &now).inspect(|new| {
                    back.extend(led_back(matcher, to, *auto, new, &now));
                    back.extend(answers.iter().cloned().map(Back::Pattern));
                }),
                Rule::Type { from, to } => is_type(from, record_type).then(|| {
                    record_type = to.parse().unwrap_or(record_type);
                    now.clone()
                }),
                Rule::Ttl { matcher, shortest, longest } => matches(matcher, &now).then(|| {
                    back.push(Back::Ttl(*shortest, *longest));
                    now.clone()
                }),
                Rule::Code { matcher, from, to } => matches(matcher, &now).then(|| {
                    back.push(Back::Code(*from, *to));
                    now.clone()
                }),
            };
            let Some(new) = applies else { continue };
            (now, any) = (new, true);
            if !goes_on {
                break;
            }
        }
        // `{1}` may have put in anything.
        let made = || Name::from_ascii(&now).ok().filter(|_| now == "." || wire_name(&now).is_ok());
        any.then(|| Rewritten { name: made(), record_type, back })
    }
}

fn is_type(name: &str, record_type: RecordType) -> bool {
    name.parse::<RecordType>().is_ok_and(|known| known == record_type)
}

fn matches(matcher: &Matcher, name: &str) -> bool {
    match matcher {
        Matcher::Exact(from) => name == from,
        Matcher::Prefix(from) => name.starts_with(from.as_str()),
        Matcher::Suffix(from) => name.ends_with(from.as_str()),
        Matcher::Substring(from) => name.contains(from.as_str()),
        Matcher::Regex(pattern) => pattern.matches(name),
    }
}

/// What a name becomes; none where it does not match.
fn rewritten(matcher: &Matcher, to: &str, name: &str) -> Option<String> {
    match matcher {
        Matcher::Exact(from) => (name == from).then(|| to.to_owned()),
        Matcher::Prefix(from) => name.strip_prefix(from.as_str()).map(|rest| to.to_owned() + rest),
        Matcher::Suffix(from) => name.strip_suffix(from.as_str()).map(|rest| rest.to_owned() + to),
        Matcher::Substring(from) => name.contains(from.as_str()).then(|| name.replace(from.as_str(), to)),
        Matcher::Regex(pattern) => pattern.groups(name).map(|groups| filled(to, &groups)),
    }
}

/// Puts groups in the place of their numbers.
fn filled(to: &str, groups: &[&str]) -> String {
    let numbered = groups.iter().enumerate();
    numbered.fold(to.to_owned(), |text, (number, group)| text.replace(&format!("{{{number}}}"), group))
}

/// How the names of an answer are led back to those that were asked for, where that is wanted.
fn led_back(matcher: &Matcher, to: &str, auto: bool, new: &str, asked: &str) -> Option<Back> {
    match matcher {
        _ if !auto => None,
        Matcher::Suffix(from) => Some(Back::Suffix { from: to.to_owned(), to: from.clone() }),
        _ => Some(Back::Whole { from: new.to_owned(), to: asked.to_owned() }),
    }
}

/// Leads an answer back.
pub(crate) fn lead_back(reply: &mut Reply, back: &[Back]) {
    for rule in back.iter().rev() {
        if let Back::Code(from, to) = rule {
            if u16::from(reply.code) == *from {
                reply.code = ResponseCode::from(0, u8::try_from(*to).unwrap_or(2));
            }
            continue;
        }
        let sections = [&mut reply.answers, &mut reply.authorities, &mut reply.additionals];
        sections.into_iter().flatten().for_each(|record| lead_record_back(record, rule));
    }
}

fn lead_record_back(record: &mut Record, rule: &Back) {
    let (owners, values) = match rule {
        Back::Ttl(shortest, longest) => {
            record.ttl = record.ttl.max(*shortest).min(*longest);
            return;
        }
        Back::Pattern(rule) => (!rule.value, rule.value),
        _ => (true, true),
    };
    if let Some(name) = owners.then(|| renamed(&record.name, rule)).flatten() {
        record.name = name;
    }
    if let Some(data) = values.then(|| data_renamed(&record.data, rule)).flatten() {
        record.data = data;
    }
}

/// The name in a record's data, renamed. The data that CoreDNS looks into.
fn data_renamed(data: &RData, rule: &Back) -> Option<RData> {
    match data {
        RData::CNAME(CNAME(name)) => Some(RData::CNAME(CNAME(renamed(name, rule)?))),
        RData::NS(NS(name)) => Some(RData::NS(NS(renamed(name, rule)?))),
        RData::PTR(PTR(name)) => Some(RData::PTR(PTR(renamed(name, rule)?))),
        RData::MX(mx) => Some(RData::MX(MX::new(mx.preference, renamed(&mx.exchange, rule)?))),
        RData::SOA(soa) => {
            let mut soa = soa.clone();
            soa.mname = renamed(&soa.mname, rule)?;
            Some(RData::SOA(soa))
        }
        RData::Unknown { code: RecordType::SRV, rdata } => {
            let (numbers, target) = rdata.anything.split_at_checked(SRV_NUMBERS)?;
            let target = renamed(&name_of(target)?, rule)?;
            let labels = target.iter().flat_map(|label| [&[label.len() as u8][..], label].concat());
            let bytes: Vec<u8> = numbers.iter().copied().chain(labels).chain([0]).collect();
            Some(RData::Unknown { code: RecordType::SRV, rdata: NULL::with(bytes) })
        }
        _ => None,
    }
}

fn name_of(mut bytes: &[u8]) -> Option<Name> {
    let mut labels = Vec::new();
    loop {
        let (&length, rest) = bytes.split_first()?;
        if length == 0 {
            return Name::from_labels(labels).ok();
        }
        let (label, rest) = rest.split_at_checked(usize::from(length))?;
        labels.push(label);
        bytes = rest;
    }
}

/// None where it stays as it is.
fn renamed(name: &Name, rule: &Back) -> Option<Name> {
    let text = name.to_ascii().to_ascii_lowercase();
    let new = match rule {
        Back::Whole { from, to } if text == *from => to.clone(),
        Back::Whole { from, to } => {
            let before = text.strip_suffix(from.as_str()).filter(|before| before.ends_with('.'))?;
            before.to_owned() + to
        }
        Back::Suffix { from, to } => text.strip_suffix(from.as_str())?.to_owned() + to,
        Back::Pattern(rule) => filled(&rule.to, &rule.from.groups(&text)?),
        Back::Ttl(..) | Back::Code(..) => return None,
    };
    (new != text).then(|| Name::from_ascii(&new).ok()).flatten()
}

#[cfg(test)]
mod tests;
