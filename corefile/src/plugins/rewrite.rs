//! `rewrite`.

use super::Reading;
use crate::blocks::Directive;
use crate::lines::Word;
use crate::model::{AnswerRule, Matcher, Rewrite, Rule, Server};
use crate::pattern::Pattern;

/// The longest time to live, in seconds (RFC 2181 section 8).
const LONGEST_TTL: u32 = 2_147_483_647;
/// Codes by name (miekg/dns), those that a header holds.
pub(super) const CODES: [(&str, u16); 11] = [
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
    ("YXDOMAIN", 6),
    ("YXRRSET", 7),
    ("NXRRSET", 8),
    ("NOTAUTH", 9),
    ("NOTZONE", 10),
];
/// Types that can be looked for.
pub(super) const TYPES: [&str; 14] =
    ["A", "AAAA", "CAA", "CNAME", "HINFO", "HTTPS", "MX", "NAPTR", "NS", "PTR", "SOA", "SRV", "SVCB", "TXT"];

pub(super) fn read(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    // As CoreDNS: a rule within braces is all words there, whatever the lines.
    let mut words: Vec<Word> = plugin.words.clone();
    match words.len() < 2 {
        true => {
            for option in &plugin.body {
                words.push(option.name.clone());
                words.extend(option.words.iter().cloned());
            }
        }
        false => reading.no_body(plugin),
    }
    let mut words = &words[..];
    let mode = words.first().map(|word| word.text.to_ascii_lowercase());
    let goes_on = mode.as_deref() == Some("continue");
    if goes_on || mode.as_deref() == Some("stop") {
        words = &words[1..];
    }
    let Some((field, rest)) = words.split_first() else {
        return reading.refuse(
            &plugin.name,
            "rewrite takes a field and a rule: `rewrite name old.example new.example`",
        );
    };
    let rule = match field.text.to_ascii_lowercase().as_str() {
        "name" => name(field, rest),
        "type" => record_type(field, rest),
        "ttl" => ttl(field, rest),
        "rcode" => code(field, rest),
        "class" | "edns0" | "cname" => Err((field, format!("rewrite {} is not supported", field.text))),
        other => Err((
            field,
            format!("rewrite: {other:?} is no field; those supported are name, type, ttl and rcode"),
        )),
    };
    match rule {
        Ok(rule) => server.rewrites.push(Rewrite { goes_on, rule }),
        Err((at, problem)) => reading.refuse(at, problem),
    }
}

type Read<'w, T> = Result<T, (&'w Word, String)>;

/// A name in lower case with its last dot, as CoreDNS has every name of a rule.
fn dotted(word: &Word) -> String {
    let name = word.text.to_ascii_lowercase();
    if name.ends_with('.') { name } else { name + "." }
}

/// `[exact|prefix|suffix|substring|regex] STRING`, of which the type may be missing where `exact` is meant.
fn matcher<'w>(kind: &'w Word, from: &'w Word) -> Read<'w, Matcher> {
    match kind.text.to_ascii_lowercase().as_str() {
        "exact" => Ok(Matcher::Exact(dotted(from))),
        // A prefix has no last dot, unless it is written.
        "prefix" => Ok(Matcher::Prefix(dotted(from))),
        "suffix" => Ok(Matcher::Suffix(dotted(from))),
        "substring" => Ok(Matcher::Substring(dotted(from))),
        "regex" => Pattern::new(&from.text).map(Matcher::Regex).map_err(|problem| (from, problem)),
        other => Err((kind, format!("{other:?} is none of exact, prefix, suffix, substring and regex"))),
    }
}

fn name<'w>(field: &'w Word, words: &'w [Word]) -> Read<'w, Rule> {
    let (matcher, to, options) = match words {
        [from, to] => (Matcher::Exact(dotted(from)), to, &[][..]),
        [kind, from, to, options @ ..] => (matcher(kind, from)?, to, options),
        _ => {
            return Err((
                field,
                "rewrite name takes the name asked for and the one that is looked for".to_owned(),
            ));
        }
    };
    if let Matcher::Regex(pattern) = &matcher {
        check_groups(to, pattern)?;
    }
    let (mut auto, answers) = answers(options)?;
    auto |= matches!(matcher, Matcher::Exact(_));
    Ok(Rule::Name { matcher, to: dotted(to), auto, answers })
}

/// `answer auto`, `answer name FROM TO` and `answer value FROM TO`, one after the other; `answer` stands before
/// the first at least.
fn answers(mut words: &[Word]) -> Read<'_, (bool, Vec<AnswerRule>)> {
    let (mut auto, mut rules) = (false, Vec::new());
    let first = words.first();
    if let Some(first) = first.filter(|first| first.text != "answer") {
        return Err((
            first,
            format!("rewrite name: {:?} is not expected here; only `answer` is", first.text),
        ));
    }
    while let Some((word, rest)) = words.split_first() {
        let (kind, rest) = match word.text.as_str() {
            "answer" => rest.split_first().ok_or((word, "answer takes auto, name or value".to_owned()))?,
            _ => (word, rest),
        };
        let value = kind.text == "value";
        words = match (kind.text.as_str(), rest) {
            ("auto", rest) => {
                auto = true;
                rest
            }
            // In CoreDNS' own example; `auto` is what is meant.
            ("name", [word, rest @ ..]) if word.text == "auto" => {
                auto = true;
                rest
            }
            ("name" | "value", [from, to, rest @ ..]) => {
                let pattern = Pattern::new(&from.text).map_err(|problem| (from, problem))?;
                check_groups(to, &pattern)?;
                rules.push(AnswerRule { value, from: pattern, to: dotted(to) });
                rest
            }
            ("name" | "value", _) => return Err((kind, format!("answer {} takes FROM and TO", kind.text))),
            (other, _) => return Err((kind, format!("answer: {other:?} is none of auto, name and value"))),
        };
    }
    let named = rules.iter().any(|rule| !rule.value);
    match first.filter(|_| auto && named) {
        Some(first) => Err((first, "answer auto cannot be combined with answer name".to_owned())),
        None => Ok((auto, rules)),
    }
}

/// `{7}` needs seven groups.
fn check_groups<'w>(to: &'w Word, pattern: &Pattern) -> Read<'w, ()> {
    let missing = (pattern.group_count() + 1..=100).find(|number| to.text.contains(&format!("{{{number}}}")));
    match missing {
        Some(number) => {
            Err((to, format!("{:?} names the group {number}, which {pattern} does not have", to.text)))
        }
        None => Ok(()),
    }
}

fn record_type<'w>(field: &'w Word, words: &'w [Word]) -> Read<'w, Rule> {
    let known = |word: &'w Word| {
        let name = word.text.to_ascii_uppercase();
        match TYPES.contains(&name.as_str()) || name == "ANY" {
            true => Ok(name),
            false => Err((word, format!("{:?} is no type of records that is supported", word.text))),
        }
    };
    match words {
        [from, to] => Ok(Rule::Type { from: known(from)?, to: known(to)? }),
        _ => Err((field, "rewrite type takes the type asked for and the one that is looked for".to_owned())),
    }
}

fn ttl<'w>(field: &'w Word, words: &'w [Word]) -> Read<'w, Rule> {
    let (matcher, range) = match words {
        [from, range] => (Matcher::Exact(dotted(from)), range),
        [kind, from, range] => (matcher(kind, from)?, range),
        _ => return Err((field, "rewrite ttl takes names, and SECONDS or MIN-MAX".to_owned())),
    };
    let number = |text: &str, missing: u32| if text.is_empty() { Some(missing) } else { text.parse().ok() };
    let bounds = match range.text.split_once('-') {
        None => number(&range.text, u32::MAX).map(|ttl| (ttl, ttl)),
        Some(("", "")) => None,
        Some((shortest, longest)) => number(shortest, 0).zip(number(longest, LONGEST_TTL)),
    };
    match bounds.filter(|(shortest, longest)| shortest <= longest && *longest <= LONGEST_TTL) {
        Some((shortest, longest)) => Ok(Rule::Ttl { matcher, shortest, longest }),
        None => Err((range, format!("{:?} is neither SECONDS nor MIN-MAX", range.text))),
    }
}

fn code<'w>(field: &'w Word, words: &'w [Word]) -> Read<'w, Rule> {
    let (matcher, from, to) = match words {
        [name, from, to] => (Matcher::Exact(dotted(name)), from, to),
        [kind, name, from, to] => (matcher(kind, name)?, from, to),
        _ => return Err((field, "rewrite rcode takes names, the code and the one in its place".to_owned())),
    };
    let known = |word: &'w Word| code_of(&word.text).map_err(|problem| (word, problem));
    Ok(Rule::Code { matcher, from: known(from)?, to: known(to)? })
}

/// A response code by its name or number.
pub(super) fn code_of(text: &str) -> Result<u16, String> {
    let name = text.to_ascii_uppercase();
    let found = CODES.iter().find(|(known, number)| *known == name || number.to_string() == text);
    found.map(|(_, number)| *number).ok_or_else(|| format!("{text:?} is no response code that is supported"))
}
