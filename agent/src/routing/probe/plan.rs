//! Whether packets of pods get directly to another node. That both have addresses of one network does not say
//! so: a cloud's network may drop what comes from or goes to addresses that it did not give. So a connection
//! is tried between addresses of the two nodes' pod CIDRs, their gateways', which always go directly; taken
//! or refused, it shows that the path works. Until then, and where it fails, the path leads through the
//! tunnel. Values only; trying is in `probe`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use weft_types::IpNetwork;

/// The TCP port that is tried: the agents' own; refused is as good an answer.
pub(crate) const PORT: u16 = weft_types::well_known::port::AGENT;

/// How often a path must fail in a row before it counts as failing, and how soon it is tried again until
/// then.
const FAILURES: u32 = 3;
const SOON: Duration = Duration::from_secs(1);
/// How often a path is tried of which something is known, and at least one of which nothing is.
const LATER: Duration = Duration::from_secs(60);
const AT_LEAST: Duration = Duration::from_secs(5);
/// How often nothing may be learnt in a row of a node that is there before somebody should know.
const LONG: u32 = 15;

/// What is known of a direct path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathState {
    /// Nothing: nobody answered yet. Packets go through the tunnel.
    #[default]
    Unknown,
    /// The node is new here, and the path is tried for the first time. Nothing leads there for that moment: a
    /// connection that began through the tunnel would end with the change to the direct path, where its
    /// source is masqueraded.
    FirstContact,
    /// Packets of pods get there.
    Works,
    /// Packets of pods get there through the tunnel only.
    Fails,
    /// The node is there, and packets of pods get there neither path.
    Unreachable,
}

/// A direct path: to the pods of that range, by that node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectPath {
    /// The other node's pod CIDR.
    pub cidr: IpNetwork,
    /// The other node's own address.
    pub node: IpAddr,
}

/// How to try a path: by a connection from this node's address to the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// The path.
    pub path: DirectPath,
    /// Of the two pod CIDRs, addresses between which packets go directly in any case.
    pub direct: (IpAddr, IpAddr),
    /// And those between which they go as pods' do: through the tunnel, unless the path is proved.
    pub routed: (IpAddr, IpAddr),
}

/// What came of trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody answered under the pod address.
    Answered,
    /// Nobody did, though through the tunnel somebody does.
    TunnelOnly,
    /// Nobody answered either path, though the node does under its own address: perhaps its agent is not up
    /// yet.
    NodeOnly,
    /// The node does not answer at all.
    Silent,
    /// It could not be tried.
    NotTried,
}

/// What is known of all paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathStates {
    known: BTreeMap<DirectPath, PathState>,
    /// Ranges to which some way leads already.
    held: BTreeSet<IpNetwork>,
    others: PathState,
}

impl PathStates {
    /// The same is known of all.
    pub fn assuming(others: PathState) -> PathStates {
        PathStates { others, ..PathStates::default() }
    }

    /// What is known of a path.
    pub fn get(&self, path: DirectPath) -> PathState {
        let is_new =
            || !self.held.contains(&path.cidr) && !self.known.keys().any(|known| known.cidr == path.cidr);
        match self.known.get(&path) {
            Some(state) => *state,
            // What leads there is not taken away for the sake of a first try.
            None if self.others == PathState::FirstContact && !is_new() => PathState::Unknown,
            None => self.others,
        }
    }

    /// Whether something else is known of some path.
    pub(crate) fn differs(&self, other: &PathStates) -> bool {
        (&self.known, self.others) != (&other.known, other.others)
    }
}

/// A path that is tried again and again.
#[derive(Clone, Copy, Debug)]
struct Trial {
    probe: Probe,
    state: PathState,
    failures: u32,
    next: Instant,
}

/// All paths that are tried, and when each is next.
#[derive(Debug, Default)]
pub struct ProbeSchedule {
    trials: BTreeMap<DirectPath, Trial>,
    /// Paths that are in use already: from before the agent started.
    assumed: BTreeSet<DirectPath>,
    /// Ranges to which some way leads already that is not tried: at first those from before the agent started,
    /// then those of nodes on other links, which may come to this one.
    held: BTreeSet<IpNetwork>,
}

/// A path that is to be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// How.
    pub probe: Probe,
    /// Routes wait for what comes of it: it must not take long.
    pub is_first_contact: bool,
}

impl ProbeSchedule {
    /// `assumed` paths count as working until they fail. To the `held` ranges some way leads already.
    pub fn new(
        assumed: impl IntoIterator<Item = DirectPath>,
        held: impl IntoIterator<Item = IpNetwork>,
    ) -> ProbeSchedule {
        let (assumed, held) = (assumed.into_iter().collect(), held.into_iter().collect());
        ProbeSchedule { trials: BTreeMap::new(), assumed, held }
    }

    /// These paths are to be tried from now on, and no others. To the `held` ranges some way leads without.
    pub fn watch(&mut self, probes: &[Probe], held: BTreeSet<IpNetwork>, now: Instant) {
        let before = self.path_states();
        let mut old = std::mem::take(&mut self.trials);
        for &probe in probes {
            self.assumed.remove(&probe.path);
            let new = Trial { probe, state: before.get(probe.path), failures: 0, next: now };
            let trial = old.remove(&probe.path).map_or(new, |trial| Trial { probe, ..trial });
            self.trials.insert(probe.path, trial);
        }
        self.held = held;
    }

    /// The paths that are to be tried now. Each is not due again until its outcome is noted.
    pub fn due(&mut self, now: Instant) -> Vec<Due> {
        let due = self.trials.values_mut().filter(|trial| trial.next <= now);
        due.map(|trial| {
            trial.next = now + LATER;
            Due { probe: trial.probe, is_first_contact: trial.state == PathState::FirstContact }
        })
        .collect()
    }

    /// When the next is due.
    pub fn next(&self) -> Option<Instant> {
        self.trials.values().map(|trial| trial.next).min()
    }

    /// Takes what came of trying a path.
    pub fn note(&mut self, path: DirectPath, outcome: Outcome, now: Instant) {
        let Some(trial) = self.trials.get_mut(&path) else { return };
        if trial.state == PathState::FirstContact && outcome != Outcome::Answered {
            // Nobody answered at once. It is looked into why, while packets go through the tunnel.
            (trial.state, trial.next) = (PathState::Unknown, now);
            return;
        }
        trial.failures = match outcome {
            Outcome::Answered => 0,
            Outcome::NotTried => trial.failures,
            _ => trial.failures.saturating_add(1),
        };
        let state = match (outcome, trial.state) {
            (Outcome::Answered, _) => PathState::Works,
            // A node that is down does not say anything about the path to it.
            (Outcome::Silent | Outcome::NotTried, state) => state,
            (_, state) if trial.failures < FAILURES => state,
            // The tunnel leads there from now on, and tells the one from the other.
            (_, PathState::Works) => PathState::Unknown,
            (Outcome::TunnelOnly, _) => PathState::Fails,
            (Outcome::NodeOnly, _) if trial.failures < LONG => PathState::Unknown,
            (Outcome::NodeOnly, _) => PathState::Unreachable,
        };
        if trial.state == PathState::Works && state == PathState::Unknown {
            trial.failures = 0;
        }
        trial.state = state;
        trial.next = now + pause(trial, outcome);
    }

    /// What is known by now.
    pub fn path_states(&self) -> PathStates {
        let assumed = self.assumed.iter().map(|path| (*path, PathState::Works));
        let tried = self.trials.iter().map(|(path, trial)| (*path, trial.state));
        let known = assumed.chain(tried).collect();
        PathStates { known, held: self.held.clone(), others: PathState::FirstContact }
    }
}

/// A node that comes up is noticed soon.
fn pause(trial: &Trial, outcome: Outcome) -> Duration {
    match (outcome, trial.state) {
        (Outcome::Answered, _) => LATER,
        (Outcome::NotTried, _) => SOON,
        _ if trial.failures < FAILURES => SOON,
        (_, PathState::Works) => LATER,
        // Neighbours of a node that moved may look for it at its former place at first.
        (_, PathState::Fails) => LATER.min(AT_LEAST * 2u32.saturating_pow(trial.failures - FAILURES)),
        (_, PathState::Unknown | PathState::FirstContact | PathState::Unreachable) => AT_LEAST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let path = DirectPath { cidr: "10.244.2.0/24".parse().unwrap(), node: ip("172.30.0.12") };
        let direct = (ip("10.244.1.1"), ip("10.244.2.1"));
        Probe { path, direct, routed: (ip("10.244.1.0"), ip("10.244.2.0")) }
    }

    /// What is known after these outcomes, each taken as soon as it is due.
    fn after(mut schedule: ProbeSchedule, outcomes: &[Outcome]) -> Vec<PathState> {
        let mut now = Instant::now();
        let mut known = vec![schedule.path_states().get(probe().path)];
        for &outcome in outcomes {
            schedule.watch(&[probe()], BTreeSet::new(), now);
            now = now.max(schedule.next().unwrap());
            let is_first_contact = known.last() == Some(&PathState::FirstContact);
            assert_eq!(schedule.due(now), [Due { probe: probe(), is_first_contact }]);
            assert_eq!(schedule.due(now), [], "once is enough");
            schedule.note(probe().path, outcome, now);
            known.push(schedule.path_states().get(probe().path));
        }
        known
    }

    /// Where nothing leads to the node yet.
    fn new() -> ProbeSchedule {
        ProbeSchedule::new([], [])
    }

    /// Where the tunnel leads there since before the agent started.
    fn tunnelled() -> ProbeSchedule {
        ProbeSchedule::new([], [probe().path.cidr])
    }

    /// Where the direct path is in use since then.
    fn direct() -> ProbeSchedule {
        ProbeSchedule::new([probe().path], [probe().path.cidr])
    }

    #[test]
    fn a_new_node_that_answers_at_once_is_reached_directly_from_the_start() {
        use Outcome::{Answered, NodeOnly, NotTried, Silent};
        use PathState::{FirstContact, Unknown, Works};
        assert_eq!(after(new(), &[Answered]), [FirstContact, Works]);
        for other in [NotTried, Silent, NodeOnly] {
            assert_eq!(after(new(), &[other]), [FirstContact, Unknown], "the tunnel, after one bounded try");
        }
        assert_eq!(after(new(), &[NodeOnly, Answered]), [FirstContact, Unknown, Works]);
    }

    #[test]
    fn what_leads_to_a_node_already_is_left_alone_until_something_is_known() {
        let (now, other) =
            (Instant::now(), DirectPath { node: "172.30.0.13".parse().unwrap(), ..probe().path });
        assert_eq!(
            tunnelled().path_states().get(other),
            PathState::Unknown,
            "it moved while the agent was down"
        );
        let mut schedule = direct();
        schedule.watch(&[probe()], BTreeSet::new(), now);
        assert_eq!(schedule.path_states().get(other), PathState::Unknown, "it moves now");
        schedule.watch(&[Probe { path: other, ..probe() }], BTreeSet::new(), now);
        assert_eq!(schedule.path_states().get(other), PathState::Unknown);
        schedule.watch(&[], BTreeSet::new(), now);
        assert_eq!(schedule.path_states().get(other), PathState::FirstContact, "it went, and comes back");
        schedule.watch(&[], [probe().path.cidr].into(), now);
        assert_eq!(schedule.path_states().get(other), PathState::Unknown, "it comes from another link");
    }

    #[test]
    fn a_path_is_open_until_it_is_proved_and_fails_only_where_the_tunnel_works() {
        use Outcome::{Answered, NodeOnly, NotTried, Silent, TunnelOnly};
        use PathState::{Fails, Unknown, Unreachable, Works};
        assert_eq!(after(tunnelled(), &[NotTried, Silent, Answered]), [Unknown, Unknown, Unknown, Works]);
        assert_eq!(
            after(tunnelled(), &[TunnelOnly, TunnelOnly, TunnelOnly, Answered]),
            [Unknown, Unknown, Unknown, Fails, Works]
        );
        assert_eq!(after(tunnelled(), &[Silent; 30]), [Unknown; 31]);
        assert_eq!(after(tunnelled(), &[NodeOnly; 14]), [Unknown; 15], "its agent may not be up yet");
        assert_eq!(after(tunnelled(), &[NodeOnly; 15]).last(), Some(&Unreachable));
    }

    #[test]
    fn a_path_that_worked_is_left_for_the_tunnel_before_it_is_called_bad() {
        use Outcome::{Answered, NodeOnly, Silent, TunnelOnly};
        use PathState::{Fails, Unknown, Works};
        let fails = [Works, Works, Works, Unknown, Unknown, Unknown, Fails];
        assert_eq!(
            after(direct(), &[NodeOnly, NodeOnly, NodeOnly, TunnelOnly, TunnelOnly, TunnelOnly]),
            fails
        );
        assert_eq!(after(direct(), &[Silent; 5]), [Works; 6], "a node that is down may come back");
        assert_eq!(after(direct(), &[TunnelOnly, TunnelOnly, Answered, TunnelOnly, TunnelOnly]), [Works; 6]);
    }

    #[test]
    fn a_path_that_fails_is_tried_again_soon_at_first_and_then_once_a_minute() {
        let (mut schedule, mut now) = (tunnelled(), Instant::now());
        schedule.watch(&[probe()], BTreeSet::new(), now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            schedule.note(probe().path, Outcome::TunnelOnly, now);
            let next = schedule.next().unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 1, 5, 10, 20, 40, 60, 60, 60, 60]);
    }

    #[test]
    fn a_path_that_nobody_asks_for_any_more_is_forgotten() {
        let now = Instant::now();
        let mut schedule = new();
        schedule.watch(&[probe()], BTreeSet::new(), now);
        schedule.note(probe().path, Outcome::Answered, now);
        schedule.watch(&[], BTreeSet::new(), now);
        assert_eq!((schedule.path_states(), schedule.next()), (new().path_states(), None));
        schedule.note(probe().path, Outcome::Answered, now);
        assert_eq!(schedule.path_states(), new().path_states(), "an answer that comes late");
    }
}
