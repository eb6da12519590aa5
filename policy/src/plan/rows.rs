//! Rows: as few as say what happens to all traffic.

use std::collections::BTreeMap;

use super::features::{FeatureId, Features};
use super::profile::Profile;
use super::traffic::{PROTOCOLS, Segment, Traffic};
use super::{ClassId, Decision, Origin, PolicyId, Row, RowPorts, Side, Verdict};

/// The most rows of one address in one direction. A pod whose policies come to more is closed in that
/// direction.
pub const MOST_ROWS: usize = 16_384;

/// Up to so many ports are single rows: a range is dearer in the kernel than so many.
const SINGLE: u32 = 8;
/// How many rows a range counts as where there are two ways to say the same.
const RANGE_COST: usize = 8;

/// All rows of an address in a direction, for all classes there are. Fails with the policy that asks for the
/// most ports, where they are too many.
pub(crate) fn side<'a>(
    profile: &Profile,
    classes: impl Iterator<Item = (ClassId, &'a [FeatureId])>,
    features: &Features,
) -> Result<Side, Option<PolicyId>> {
    let base = profile.strangers.other;
    let mut side = Side { base, rows: BTreeMap::new(), count: 0 };
    let strangers = rows(&profile.strangers, base.verdict, false);
    let others = classes.filter_map(|(id, vector)| Some((id, class_rows(profile, vector, features)?)));
    for (id, rows) in std::iter::once((ClassId::NONE, strangers)).chain(others) {
        side.count += rows.len();
        if side.count > MOST_ROWS {
            return Err(profile.largest());
        }
        if !rows.is_empty() {
            side.rows.insert(id, rows);
        }
    }
    Ok(side)
}

/// The rows of one class; nothing where its peers are strangers to all rules.
pub(crate) fn class_rows(profile: &Profile, vector: &[FeatureId], features: &Features) -> Option<Box<[Row]>> {
    if !profile.concerns(vector, features) {
        return None;
    }
    let traffic = profile.traffic(vector, features).joined();
    if traffic.does_the_same(&profile.strangers) {
        return None;
    }
    // Where strangers have rows, these would be found for what has none of its own.
    let complete = !profile.strangers.is_uniform();
    Some(rows(&traffic, profile.strangers.other.verdict, complete))
}

/// A side that lets nothing through, as the pod's policies are too large.
pub(crate) fn closed(largest: Option<PolicyId>) -> Side {
    let origin = largest.map_or(Origin::Unselected, Origin::TooLarge);
    Side { base: Decision { verdict: Verdict::Deny, origin }, rows: BTreeMap::new(), count: 0 }
}

/// The rows for traffic where `base` is what happens without any, in the order of the traffic. `complete`
/// rows leave nothing to the base.
fn rows(traffic: &Traffic, base: Verdict, complete: bool) -> Box<[Row]> {
    let mut rows = Vec::new();
    let any = traffic.other;
    if complete || any.verdict != base {
        rows.push(Row { ports: RowPorts::Any, decision: any });
    }
    for (protocol, segments) in PROTOCOLS.into_iter().zip(&traffic.ports) {
        let cost = |verdict| {
            let others = segments.iter().filter(|segment| segment.decision.verdict != verdict);
            others.map(cost).sum::<usize>() + usize::from(verdict != any.verdict)
        };
        let opposite = match any.verdict {
            Verdict::Accept => Verdict::Deny,
            Verdict::Deny => Verdict::Accept,
        };
        let usual = if cost(opposite) < cost(any.verdict) { opposite } else { any.verdict };
        if usual != any.verdict
            && let Some(first) = segments.iter().find(|segment| segment.decision.verdict == usual)
        {
            rows.push(Row { ports: RowPorts::Protocol(protocol), decision: first.decision });
        }
        for segment in segments.iter().filter(|segment| segment.decision.verdict != usual) {
            let row = |ports| Row { ports, decision: segment.decision };
            match length(segment) <= SINGLE {
                true => rows
                    .extend((segment.first..=segment.last).map(|port| row(RowPorts::Exact(protocol, port)))),
                false => rows.push(row(RowPorts::Range(protocol, segment.first, segment.last))),
            }
        }
    }
    rows.sort_unstable_by_key(|row| row.ports);
    rows.into()
}

fn length(segment: &Segment) -> u32 {
    u32::from(segment.last) - u32::from(segment.first) + 1
}

fn cost(segment: &Segment) -> usize {
    if length(segment) <= SINGLE { length(segment) as usize } else { RANGE_COST }
}
