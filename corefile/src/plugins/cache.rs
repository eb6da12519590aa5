//! `cache`.

use std::time::Duration;

use super::Reading;
use crate::blocks::Directive;
use crate::lines::Word;
use crate::model::{Cache, Kept, Server};

/// The longest that answers and denials are kept, in seconds.
const LONGEST: [u32; 2] = [3600, 1800];
/// The shortest.
const SHORTEST: u32 = 5;
/// How many there are of each, where nobody says.
const CAPACITY: usize = 9984;
/// The fewest that there may be, as CoreDNS has it.
const LEAST: usize = 1024;
/// The most that are kept here.
const MOST: usize = 10_000_000;

pub(super) fn read(plugin: &Directive, server: &mut Server, reading: &mut Reading) {
    if server.cache.is_some() {
        return reading.refuse(&plugin.name, "cache stands in this server block already");
    }
    let mut zones = &plugin.words[..];
    let mut longest = LONGEST;
    if let Some((first, rest)) = zones.split_first().filter(|(first, _)| first.text.parse::<i64>().is_ok()) {
        longest = reading.number(first, 1..=u32::MAX >> 1).map_or(LONGEST, |ttl| [ttl; 2]);
        zones = rest;
    }
    let kept = |longest| Kept { capacity: CAPACITY, longest, shortest: SHORTEST, except: Vec::new() };
    let [success, denial] = longest.map(kept);
    let zones = reading.zones(zones);
    let mut cache = Cache { zones, success, denial, servfail: Duration::from_secs(5) };
    for option in &plugin.body {
        let (name, words) = (&option.name, &option.words[..]);
        match name.text.as_str() {
            "success" => kept_by(&mut cache.success, name, words, reading),
            "denial" => kept_by(&mut cache.denial, name, words, reading),
            "servfail" => {
                let time = reading.one(name, words, "a duration").and_then(|word| reading.duration(word));
                match time {
                    Some(time) if time > Duration::from_secs(300) => reading.refuse(name, "servfail may not be over 5m (RFC 2308)"),
                    Some(time) => cache.servfail = time,
                    None => {}
                }
            }
            "disable" => disable(&mut cache, name, words, reading),
            "prefetch" => reading.note(name, "prefetch has no effect: what is asked for often is always asked for ahead of its end"),
            "serve_stale" => reading.note(
                name,
                "serve_stale has no effect: while upstreams fail, answers are always given for 1h past their time, with a TTL of 30 s",
            ),
            "serve_stale_policy" | "keepttl" => {
                reading.refuse(name, format!("cache: the option {} is not supported", name.text));
            }
            _ => reading.unknown(plugin, option),
        }
    }
    server.cache = Some(cache);
}

/// `CAPACITY [TTL [MINTTL]]`
fn kept_by(kept: &mut Kept, name: &Word, words: &[Word], reading: &mut Reading) {
    if words.is_empty() || words.len() > 3 {
        return reading.refuse(name, format!("{} takes CAPACITY [TTL [MINTTL]]", name.text));
    }
    if let Some(capacity) = reading.number(&words[0], 0..=MOST) {
        kept.capacity = capacity.max(LEAST);
    }
    if let Some(longest) = words.get(1).and_then(|word| reading.number(word, 1..=u32::MAX >> 1)) {
        kept.longest = longest;
    }
    if let Some(shortest) = words.get(2).and_then(|word| reading.number(word, 0..=u32::MAX >> 1)) {
        kept.shortest = shortest;
    }
}

/// `success|denial [ZONES...]`
fn disable(cache: &mut Cache, name: &Word, words: &[Word], reading: &mut Reading) {
    let Some((which, zones)) = words.split_first() else {
        return reading.refuse(name, "disable takes success or denial");
    };
    let kept = match which.text.as_str() {
        "success" => &mut cache.success,
        "denial" => &mut cache.denial,
        other => return reading.refuse(which, format!("disable: {other:?} is neither success nor denial")),
    };
    kept.except = reading.fall(zones).0;
}
