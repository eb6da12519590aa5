//! What counts as good: from answers to checks, and from checks to a table. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};

use crate::client::http::Answer;
use crate::client::lookup::Found;

/// One thing that was checked, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub what: String,
    /// What should have been seen.
    pub expected: String,
    /// What was seen.
    pub seen: String,
    /// Whether that is good.
    pub passed: bool,
}

impl Check {
    /// A check whose outcome is known.
    pub fn new(
        what: impl Into<String>,
        expected: impl Into<String>,
        seen: impl Into<String>,
        passed: bool,
    ) -> Check {
        Check { what: what.into(), expected: expected.into(), seen: seen.into(), passed }
    }

    /// A check that could not even be made.
    pub fn impossible(what: impl Into<String>, error: &crate::error::Error) -> Check {
        Check::new(what, "an answer", error.to_string(), false)
    }
}

/// All checks, for a person to read.
pub fn table(checks: &[Check]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["", "check", "expected", "seen"]);
    for check in checks {
        let sign = if check.passed { "pass" } else { "FAIL" };
        table.add_row([sign, &check.what, &check.expected, &check.seen]);
    }
    table
}

/// A lookup must bring exactly those addresses.
pub fn resolves_to(what: &str, found: &Found, expected: &BTreeSet<IpAddr>) -> Check {
    let seen: BTreeSet<IpAddr> = addresses(found);
    let shown = match &found.error {
        Some(error) => error.clone(),
        None => list(&seen),
    };
    Check::new(what, list(expected), shown, seen == *expected && !expected.is_empty())
}

/// A lookup must bring that alias.
pub fn is_alias_of(what: &str, found: &Found, target: &str) -> Check {
    let expected = format!("CNAME {target}");
    let passed = found.records.iter().any(|record| record.ends_with(&expected));
    let seen = found.error.clone().unwrap_or_else(|| found.records.join(", "));
    Check::new(what, expected, seen, passed)
}

/// The addresses of a lookup's A and AAAA records.
pub fn addresses(found: &Found) -> BTreeSet<IpAddr> {
    found.records.iter().filter_map(|record| record.rsplit_once(' ')?.1.parse().ok()).collect()
}

/// All answers must be good ones from those pods.
pub fn answered_by(what: &str, answers: &[Answer], pods: &BTreeSet<&str>) -> Check {
    let (counts, failures) = count(answers);
    let strangers = counts.keys().any(|name| !pods.contains(name));
    let passed = failures.is_empty() && !strangers && !counts.is_empty();
    Check::new(what, format!("one of {} pods", pods.len()), summary(&counts, &failures), passed)
}

/// Requests must be spread: no failure, every pod at least six tenths of its share. Of 300 requests over
/// three pods, chance alone would leave a pod below that less than once in a million runs.
pub fn spread(what: &str, answers: &[Answer], pods: &BTreeSet<&str>) -> Check {
    let (counts, failures) = count(answers);
    let least = answers.len() * 6 / 10 / pods.len().max(1);
    let enough = pods.iter().all(|&pod| counts.get(pod).is_some_and(|&count| count >= least));
    let expected = format!("each of {} pods at least {least} times", pods.len());
    Check::new(what, expected, summary(&counts, &failures), enough && failures.is_empty())
}

/// A pod must meet itself through its own Service, and never a failure.
pub fn meets_itself(what: &str, answers: &[Answer], own_name: &str) -> Check {
    let (counts, failures) = count(answers);
    let itself = counts.get(own_name).copied().unwrap_or_default();
    let seen = match failures.first() {
        Some(failure) => format!("{} failures: {failure}", failures.len()),
        None => format!("itself {itself} times of {}", answers.len()),
    };
    Check::new(what, "itself at times, no failure", seen, itself > 0 && failures.is_empty())
}

/// The server must have seen that client address.
pub fn seen_from(what: &str, answers: &[Answer], expected: IpAddr) -> Check {
    let bodies: Vec<&str> = answers
        .iter()
        .map(|answer| answer.body.as_ref().map_or_else(String::as_str, String::as_str))
        .collect();
    let is_expected =
        |body: &&str| body.parse::<std::net::SocketAddr>().is_ok_and(|client| client.ip() == expected);
    let passed = !bodies.is_empty() && bodies.iter().all(is_expected);
    let distinct: BTreeSet<&str> =
        bodies.iter().map(|body| body.rsplit_once(':').map_or(*body, |(ip, _)| ip)).collect();
    Check::new(what, expected.to_string(), distinct.into_iter().collect::<Vec<_>>().join(", "), passed)
}

/// All answers must be good ones from pods of that workload, whichever it has by now, and `weft policy explain`
/// must find so, too.
pub fn let_in(what: &str, answers: &[Answer], workload: &str, finding: &str, reason: &str) -> Check {
    let (counts, failures) = count(answers);
    let is_of_it = |name: &&str| name.strip_prefix(workload).is_some_and(|rest| rest.starts_with('-'));
    let answered = failures.is_empty() && !counts.is_empty() && counts.keys().all(is_of_it);
    let seen = if answered { reason.to_owned() } else { summary(&counts, &failures) };
    let passed = answered && finding == "allowed";
    Check::new(what, "an answer, and the reason", seen, passed)
}

/// Nothing may be answered, and `weft policy explain` must say why.
pub fn kept_out(what: &str, answers: &[Answer], reason: &str) -> Check {
    let answer = answers.iter().find_map(|answer| answer.body.as_ref().ok());
    let seen = answer.map_or_else(|| reason.to_owned(), |name| format!("answered by {name}"));
    let passed = answer.is_none() && !answers.is_empty() && reason.starts_with("denied");
    Check::new(what, "no answer, and the reason", seen, passed)
}

/// After a pod was deleted, traffic must leave it soon, and no request may fail.
pub fn traffic_follows(
    what: &str,
    answers: &[Answer],
    deleted: &str,
    deleted_at_us: u64,
    within_ms: u64,
) -> Check {
    let (_, failures) = count(answers);
    let after = |answer: &&Answer| answer.at_us >= deleted_at_us;
    let from_deleted = |answer: &&Answer| answer.body.as_deref() == Ok(deleted);
    let last = answers.iter().filter(after).filter(from_deleted).map(|answer| answer.at_us).max();
    let later: Vec<u64> =
        answers.iter().map(|answer| answer.at_us).filter(|&at| at > last.unwrap_or(deleted_at_us)).collect();
    // The first answer from which on only others answered: a bound from above.
    let took_us = later.iter().min().map_or(0, |first| first - deleted_at_us);
    let (took, later) = (format!("after {}.{} ms", took_us / 1000, took_us % 1000 / 100), later.len());
    let seen = match failures.first() {
        Some(failure) => format!("{took}; {} failures: {failure}", failures.len()),
        None => format!("{took}, no failure, {later} requests since"),
    };
    let passed = failures.is_empty() && later > 0 && took_us < within_ms * 1000;
    Check::new(what, format!("within {within_ms} ms, no failure"), seen, passed)
}

fn count(answers: &[Answer]) -> (BTreeMap<&str, usize>, Vec<&str>) {
    let mut counts = BTreeMap::new();
    let mut failures = Vec::new();
    for answer in answers {
        match &answer.body {
            Ok(body) => *counts.entry(body.as_str()).or_default() += 1,
            Err(error) => failures.push(error.as_str()),
        }
    }
    (counts, failures)
}

fn summary(counts: &BTreeMap<&str, usize>, failures: &[&str]) -> String {
    let total: usize = counts.values().sum();
    let mut parts: Vec<String> = match (total, counts.first_key_value()) {
        (1, Some((name, _))) => vec![(*name).to_owned()],
        _ => counts.values().map(usize::to_string).collect(),
    };
    if let Some(failure) = failures.first() {
        parts.push(format!("{} failures: {failure}", failures.len()));
    }
    parts.join(" / ")
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(at_us: u64, body: Result<&str, &str>) -> Answer {
        Answer { at_us, took_us: 1, body: body.map(str::to_owned).map_err(str::to_owned) }
    }

    fn answers(row: &[(&str, usize)]) -> Vec<Answer> {
        row.iter().flat_map(|&(pod, count)| vec![answer(0, Ok(pod)); count]).collect()
    }

    #[test]
    fn a_spread_needs_every_pod_and_no_failure() {
        let pods = BTreeSet::from(["a", "b", "c"]);
        assert!(spread("", &answers(&[("a", 90), ("b", 100), ("c", 110)]), &pods).passed);
        assert!(!spread("", &answers(&[("a", 140), ("b", 160)]), &pods).passed);
        assert!(!spread("", &answers(&[("a", 130), ("b", 130), ("c", 40)]), &pods).passed);
        let mut with_failure = answers(&[("a", 100), ("b", 100), ("c", 99)]);
        with_failure.push(answer(0, Err("refused")));
        let check = spread("", &with_failure, &pods);
        assert!(!check.passed && check.seen.contains("refused"), "{}", check.seen);
    }

    #[test]
    fn an_answer_of_a_stranger_is_no_answer() {
        let pods = BTreeSet::from(["a"]);
        assert!(answered_by("", &answers(&[("a", 1)]), &pods).passed);
        assert!(!answered_by("", &answers(&[("x", 1)]), &pods).passed);
        assert!(!answered_by("", &[], &pods).passed);
    }

    #[test]
    fn a_policy_needs_what_was_seen_and_the_reason_to_agree() {
        let by = "allowed by NetworkPolicy shop/backend, spec.ingress[0]";
        let check = let_in("", &answers(&[("a-1", 1), ("a-new", 1)]), "a", "allowed", by);
        assert!(check.passed && check.seen == by, "{}", check.seen);
        assert!(!let_in("", &answers(&[("b-1", 1)]), "a", "allowed", by).passed);
        assert!(!let_in("", &answers(&[("a-1", 1)]), "a", "denied", "denied: isolated").passed);
        assert!(!let_in("", &[answer(0, Err("timed out"))], "a", "allowed", by).passed);

        let check = kept_out("", &[answer(0, Err("timed out"))], "denied: isolated");
        assert!(check.passed && check.seen == "denied: isolated", "{}", check.seen);
        assert!(!kept_out("", &answers(&[("a", 1)]), "denied: isolated").passed);
        assert!(!kept_out("", &[answer(0, Err("timed out"))], by).passed);
        assert!(!kept_out("", &[], "denied: isolated").passed);
    }

    #[test]
    fn a_pod_must_meet_itself() {
        assert!(meets_itself("", &answers(&[("me", 1), ("you", 9)]), "me").passed);
        assert!(!meets_itself("", &answers(&[("you", 9)]), "me").passed);
    }

    #[test]
    fn a_lookup_must_bring_exactly_the_addresses() {
        let found = |records: &[&str]| Found {
            records: records.iter().map(|&record| record.to_owned()).collect(),
            error: None,
        };
        let expected: BTreeSet<IpAddr> = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap()).into();
        assert!(resolves_to("", &found(&["n. A 10.0.0.2", "n. A 10.0.0.1"]), &expected).passed);
        assert!(!resolves_to("", &found(&["n. A 10.0.0.1"]), &expected).passed);
        assert!(!resolves_to("", &found(&[]), &BTreeSet::new()).passed);
        assert!(is_alias_of("", &found(&["n. CNAME x.test."]), "x.test.").passed);
        assert!(!is_alias_of("", &found(&["n. A 10.0.0.1"]), "x.test.").passed);
    }

    #[test]
    fn the_client_s_address_is_compared_without_its_port() {
        let expected: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(seen_from("", &[answer(0, Ok("10.0.0.1:999"))], expected).passed);
        assert!(!seen_from("", &[answer(0, Ok("10.0.0.2:999"))], expected).passed);
        assert!(!seen_from("", &[answer(0, Err("refused"))], expected).passed);
        assert!(!seen_from("", &[], expected).passed);
    }

    #[test]
    fn traffic_must_leave_a_deleted_pod_in_time_and_go_on() {
        let row = [(100, "old"), (1_100, "old"), (2_000, "new")].map(|(at, pod)| answer(at, Ok(pod)));
        let check = traffic_follows("", &row, "old", 1_000, 2);
        assert!(check.passed && check.seen.starts_with("after 1.0 ms"), "{}", check.seen);
        let late = [(3_000, "old"), (4_000, "new")].map(|(at, pod)| answer(at, Ok(pod)));
        assert!(!traffic_follows("", &late, "old", 1_000, 2).passed);
        assert!(!traffic_follows("", &row[..2], "old", 1_000, 2).passed, "nothing came after it");
        let failing = [row[0].clone(), answer(1_500, Err("refused")), row[2].clone()];
        assert!(!traffic_follows("", &failing, "old", 1_000, 2).passed);
    }
}
