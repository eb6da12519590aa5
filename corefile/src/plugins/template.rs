//! `template`, where it is made of what a query says: names, types and the groups of what matched.

use super::Reading;
use super::rewrite::{TYPES, code_of};
use crate::blocks::Directive;
use crate::lines::Word;
use crate::model::{Fall, Piece, RecordText, Server, Template};
use crate::pattern::Pattern;

/// Types of records that can be made of a text.
const MADE: [&str; 8] = ["A", "AAAA", "MX", "NS", "PTR", "SOA", "SRV", "TXT"];

pub(super) fn read(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    let [class, record_type, zones @ ..] = &plugin.words[..] else {
        return reading
            .refuse(&plugin.name, "template takes a class and a type: `template IN A example.org`");
    };
    if !["IN", "ANY"].contains(&class.text.as_str()) {
        reading.refuse(class, format!("template: class {} is not supported; only IN is", class.text));
    }
    let wanted = record_type.text.to_ascii_uppercase();
    if wanted != "ANY" && !TYPES.contains(&wanted.as_str()) {
        reading.refuse(record_type, format!("template: type {} is not supported", record_type.text));
    }
    let mut template = Template {
        record_type: Some(wanted).filter(|wanted| wanted != "ANY"),
        zones: reading.zones(zones),
        patterns: Vec::new(),
        records: Default::default(),
        code: 0,
        extended: None,
        fall: Fall::default(),
    };
    for option in &plugin.body {
        let (name, words) = (&option.name, &option.words[..]);
        match name.text.as_str() {
            "match" if !words.is_empty() => {
                for word in words {
                    let pattern = Pattern::new(&word.text);
                    template.patterns.extend(reading.take(word, pattern));
                }
            }
            "answer" => records(&mut template.records[0], name, words, reading),
            "authority" => records(&mut template.records[1], name, words, reading),
            "additional" => records(&mut template.records[2], name, words, reading),
            "rcode" => {
                let word = reading.one(name, words, "a response code");
                template.code = word.and_then(|word| reading.take(word, code_of(&word.text))).unwrap_or(0);
            }
            "ederror" => match words {
                [code] | [code, _] => {
                    let number = reading.number(code, 0..=u16::MAX);
                    let words = words.get(1).map(|word| word.text.clone()).unwrap_or_default();
                    template.extended = number.map(|number| (number, words));
                }
                _ => reading.refuse(name, "ederror takes a code, and words"),
            },
            "fallthrough" => template.fall = reading.fall(words),
            "var" | "expr" => reading.refuse(name, format!("template: {} is not supported", name.text)),
            _ => reading.unknown(plugin, option),
        }
    }
    check_groups(plugin, &template, reading);
    server.templates.push(template);
}

fn records(section: &mut Vec<RecordText>, name: &Word, words: &[Word], reading: &mut Reading) {
    if words.is_empty() {
        return reading.refuse(name, format!("{} takes a record", name.text));
    }
    for word in words {
        let pieces = reading.take(word, pieces(&word.text));
        if let Some(problem) = pieces.as_deref().and_then(|pieces| wrong_shape(pieces).err()) {
            reading.refuse(word, problem);
        }
        section.extend(pieces.map(|pieces| RecordText { place: word.place.clone(), pieces }));
    }
}

/// A text with `{{ … }}` in it.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let (hole, after) =
            after.split_once("}}").ok_or_else(|| format!("{text:?}: a {{{{ is not closed"))?;
        pieces.push(Piece::Text(before.to_owned()));
        let hole = hole.trim_start_matches("- ").trim_end_matches(" -");
        pieces.push(piece(hole.trim()).ok_or_else(|| {
            format!("{{{{{hole}}}}} is not supported; what is: .Name, .Zone, .Class, .Type, .Remote, .Group.NAME and index .Match N")
        })?);
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    Ok(pieces)
}

fn piece(hole: &str) -> Option<Piece> {
    let words: Vec<&str> = hole.split_whitespace().collect();
    match words[..] {
        [".Name"] => Some(Piece::Name),
        [".Zone"] => Some(Piece::Zone),
        [".Class"] => Some(Piece::Class),
        [".Type"] => Some(Piece::Type),
        [".Remote"] => Some(Piece::Remote),
        ["index", ".Match", number] => number.parse().ok().map(Piece::Match),
        ["index", ".Group", name] => group(name.strip_prefix('"')?.strip_suffix('"')?),
        [name] => group(name.strip_prefix(".Group.")?),
        _ => None,
    }
}

fn group(name: &str) -> Option<Piece> {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match name.parse() {
        Ok(number) => Some(Piece::Match(number)),
        Err(_) => is_name.then(|| Piece::Group(name.to_owned())),
    }
}

/// What can be told of a record before its holes are filled: `NAME [TTL] [CLASS] TYPE DATA`.
fn wrong_shape(pieces: &[Piece]) -> Result<(), String> {
    let text: String = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            // Whatever is put in has no white space.
            Piece::Type => "A",
            Piece::Class => "IN",
            _ => "7",
        })
        .collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_class = |word: &&&str| word.eq_ignore_ascii_case("IN");
    let after = words.iter().skip(1).skip_while(|word| word.parse::<u32>().is_ok() || is_class(word));
    let rest: Vec<&&str> = after.collect();
    match rest[..] {
        [kind, _, ..] if MADE.contains(&kind.to_ascii_uppercase().as_str()) => Ok(()),
        [kind, ..] if !MADE.contains(&kind.to_ascii_uppercase().as_str()) => Err(format!(
            "template: records of type {kind} are not supported; those that are: {}",
            MADE.join(", ")
        )),
        _ => Err(format!("template: {text:?} is no record: NAME [TTL] [CLASS] TYPE DATA")),
    }
}

/// Groups that no pattern has would be empty for ever.
fn check_groups(plugin: &Directive, template: &Template, reading: &mut Reading) {
    let missing = template.records.iter().flatten().find_map(|record| {
        let is_missing = |piece: &&Piece| match piece {
            Piece::Match(number) => {
                *number > template.patterns.iter().map(Pattern::group_count).max().unwrap_or(0)
            }
            Piece::Group(name) => {
                !template.patterns.iter().any(|pattern| pattern.group_named(name).is_some())
            }
            _ => false,
        };
        record.pieces.iter().find(is_missing).map(|piece| (record.place.clone(), piece.clone()))
    });
    if let Some((place, piece)) = missing {
        let what = match piece {
            Piece::Match(number) => number.to_string(),
            Piece::Group(name) => name,
            _ => return,
        };
        let at = Word { text: String::new(), place };
        reading
            .refuse(&at, format!("{}: no regular expression of it has the group {what}", plugin.name.text));
    }
}
