//! All traffic between a pod and a peer, divided among the rules that decide about it.

use weft_types::{PortMatch, PortMatches, Protocol};

use super::{Decision, Origin, Verdict};

/// The protocols that have ports, in the order of lists of all of them.
pub(crate) const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// Ports, as intervals with both ends included. They are in order and neither overlap nor touch.
pub(crate) type Intervals = Vec<(u16, u16)>;

/// A part of all traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Protocols without ports.
    pub(crate) other: bool,
    pub(crate) ports: [Intervals; 3],
}

impl Part {
    pub(crate) fn all() -> Part {
        Part { other: true, ports: [(); 3].map(|()| vec![(0, u16::MAX)]) }
    }

    /// What the numbers among the ports of a rule stand for, and what `named` finds for the names.
    pub(crate) fn new(
        matches: &PortMatches,
        named: impl Fn(&str, Option<Protocol>) -> Vec<(Protocol, u16)>,
    ) -> Part {
        let PortMatches::Any(matches) = matches else {
            return Part::all();
        };
        let mut part = Part::default();
        for it in matches {
            match it {
                PortMatch::Numbers { protocol, first, last } => part.add(*protocol, *first, *last),
                PortMatch::Named { protocol, name } => {
                    named(name, *protocol)
                        .into_iter()
                        .for_each(|(protocol, port)| part.add(protocol, port, port));
                }
            }
        }
        part.tidy();
        part
    }

    pub(crate) fn add(&mut self, protocol: Protocol, first: u16, last: u16) {
        self.ports[place(protocol)].push((first, last));
    }

    /// Puts added ports in order.
    pub(crate) fn tidy(&mut self) {
        for list in &mut self.ports {
            list.sort_unstable();
            let mut merged: Intervals = Vec::with_capacity(list.len());
            for &(first, last) in list.iter() {
                match merged.last_mut() {
                    Some(before) if u32::from(first) <= u32::from(before.1) + 1 => {
                        before.1 = before.1.max(last)
                    }
                    _ => merged.push((first, last)),
                }
            }
            *list = merged;
        }
    }

    fn is_empty(&self) -> bool {
        !self.other && self.ports.iter().all(Vec::is_empty)
    }

    /// How many ports it has, as intervals.
    pub(crate) fn size(&self) -> usize {
        self.ports.iter().map(Vec::len).sum()
    }

    /// Takes out what it has in common with another part, and returns that.
    fn take(&mut self, wanted: &Part) -> Part {
        let mut taken = Part { other: self.other && wanted.other, ports: Default::default() };
        self.other &= !wanted.other;
        for ((mine, wanted), taken) in self.ports.iter_mut().zip(&wanted.ports).zip(&mut taken.ports) {
            if !mine.is_empty() && !wanted.is_empty() {
                (*taken, *mine) = split(mine, wanted);
            }
        }
        taken
    }

    fn join(&mut self, more: Part) {
        self.other |= more.other;
        self.ports.iter_mut().zip(more.ports).for_each(|(mine, more)| mine.extend(more));
        self.tidy();
    }
}

/// What of the first is in the second, and what is not.
fn split(mine: &[(u16, u16)], other: &[(u16, u16)]) -> (Intervals, Intervals) {
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let mut cuts = other.iter().peekable();
    for &(first, last) in mine {
        let mut at = u32::from(first);
        while let Some(&&(begin, end)) = cuts.peek() {
            let (begin, end) = (u32::from(begin), u32::from(end));
            if end < at {
                cuts.next();
                continue;
            }
            if begin > u32::from(last) {
                break;
            }
            if begin > at {
                outside.push((at as u16, (begin - 1) as u16));
            }
            let until = end.min(last.into());
            inside.push((begin.max(at) as u16, until as u16));
            at = until + 1;
            if at > u32::from(last) {
                break;
            }
        }
        if at <= u32::from(last) {
            outside.push((at as u16, last));
        }
    }
    (inside, outside)
}

/// The ports from the first to the last, and what happens to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) decision: Decision,
}

/// What happens to all traffic.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// To protocols without ports.
    pub(crate) other: Decision,
    /// To all ports of each protocol, in order.
    pub(crate) ports: [Vec<Segment>; 3],
}

impl Traffic {
    pub(crate) fn decision(&self, port: Option<(Protocol, u16)>) -> Decision {
        let Some((protocol, port)) = port else {
            return self.other;
        };
        let segments = &self.ports[place(protocol)];
        let found = segments.iter().find(|segment| (segment.first..=segment.last).contains(&port));
        found.map_or(self.other, |segment| segment.decision)
    }

    /// Joins segments of one verdict that touch. The first keeps its origin.
    pub(crate) fn joined(mut self) -> Traffic {
        for segments in &mut self.ports {
            segments.dedup_by(|next, before| {
                let same = next.decision.verdict == before.decision.verdict;
                if same {
                    before.last = next.last;
                }
                same
            });
        }
        self
    }

    /// Whether the same happens; both must be joined.
    pub(crate) fn does_the_same(&self, other: &Traffic) -> bool {
        let same = |one: &Segment, other: &Segment| {
            (one.first, one.last, one.decision.verdict) == (other.first, other.last, other.decision.verdict)
        };
        let same_ports = |(one, other): (&Vec<Segment>, &Vec<Segment>)| {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        };
        self.other.verdict == other.other.verdict && self.ports.iter().zip(&other.ports).all(same_ports)
    }

    /// Whether the same happens to all traffic; it must be joined.
    pub(crate) fn is_uniform(&self) -> bool {
        let same = |ports: &Vec<Segment>| ports.len() == 1 && ports[0].decision.verdict == self.other.verdict;
        self.ports.iter().all(same)
    }
}

/// Traffic of which some is decided about.
pub(crate) struct Deciding {
    open: Part,
    passed: Part,
    other: Option<Decision>,
    ports: [Vec<Segment>; 3],
}

impl Deciding {
    pub(crate) fn new() -> Deciding {
        Deciding { open: Part::all(), passed: Part::default(), other: None, ports: Default::default() }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// Decides about a part, as far as nobody did before.
    pub(crate) fn decide(&mut self, part: &Part, verdict: Verdict, origin: Origin) {
        let taken = self.open.take(part);
        let decision = Decision { verdict, origin };
        if taken.other {
            self.other = Some(decision);
        }
        for (segments, taken) in self.ports.iter_mut().zip(taken.ports) {
            segments.extend(taken.into_iter().map(|(first, last)| Segment { first, last, decision }));
        }
    }

    /// Leaves a part to the next tier, as far as nobody decided about it before.
    pub(crate) fn pass(&mut self, part: &Part) {
        let taken = self.open.take(part);
        if !taken.is_empty() {
            self.passed.join(taken);
        }
    }

    /// Goes to the next tier, where everything is open again that was passed.
    pub(crate) fn next_tier(&mut self) {
        let passed = std::mem::take(&mut self.passed);
        if !passed.is_empty() {
            self.open.join(passed);
        }
    }

    /// Decides about all that is left.
    pub(crate) fn finish(mut self, verdict: Verdict, origin: Origin) -> Traffic {
        self.next_tier();
        self.decide(&Part::all(), verdict, origin);
        self.ports.iter_mut().for_each(|segments| segments.sort_unstable_by_key(|segment| segment.first));
        Traffic { other: self.other.unwrap_or(Decision { verdict, origin }), ports: self.ports }
    }
}

pub(crate) fn place(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
        Protocol::Sctp => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_split_at_the_ends_of_both_lists() {
        let (inside, outside) = split(&[(0, 10), (20, 65535)], &[(5, 25), (30, 30), (65535, 65535)]);
        assert_eq!(inside, [(5, 10), (20, 25), (30, 30), (65535, 65535)]);
        assert_eq!(outside, [(0, 4), (26, 29), (31, 65534)]);
        assert_eq!(split(&[(5, 6)], &[(0, 65535)]), (vec![(5, 6)], vec![]));
    }

    #[test]
    fn what_a_tier_passes_is_open_in_the_next_one() {
        let mut deciding = Deciding::new();
        let port = |first, last| {
            let mut part = Part::default();
            part.add(Protocol::Tcp, first, last);
            part
        };
        let rule = |rule| Origin::Rule { policy: super::super::PolicyId(1), rule };
        deciding.pass(&port(80, 89));
        deciding.decide(&port(85, 99), Verdict::Accept, rule(1));
        deciding.next_tier();
        deciding.decide(&port(0, 82), Verdict::Deny, rule(2));
        let traffic = deciding.finish(Verdict::Accept, Origin::Unselected);
        let at = |number| traffic.decision(Some((Protocol::Tcp, number)));
        let origins = [at(82), at(89), at(90), at(99), at(100)].map(|decision| decision.origin);
        assert_eq!(origins, [rule(2), Origin::Unselected, rule(1), rule(1), Origin::Unselected]);
        assert_eq!(traffic.decision(None).verdict, Verdict::Accept);
    }
}
