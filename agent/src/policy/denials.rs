//! Traffic that network policies deny. The kernel counts all of it; where it is to be told of, by the names
//! of pods and policies, rules send the headers of as many packets as a limit lets through, and the plan says
//! why they were denied.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::info;
use weft_netlink::nflog::{Monitor, Packet};
use weft_netlink::notifications::{Notifications, Notified};
use weft_policy::plan::{self, Direction, Planner, PolicyName, Step, Verdict};
use weft_policy::ruleset::log_prefix;
use weft_types::Protocol;
use weft_types::flow::{FlowEnd, FlowEvent, Happening};

use super::tables::PolicyTables;
use crate::Result;
use crate::flows::{self, SharedFlows};

/// How many lines the log has in a second at the most.
const LINES: u32 = 10;
/// The shortest time between two looks at the kernel's counters.
const PAUSE: Duration = Duration::from_secs(1);
/// After how long a group that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How many policies and directions have a figure of their own.
const MOST: usize = 1000;
/// What counts for those beyond.
const OTHERS: &str = "others";
/// What counts for packets that the plan lets through by the time it is asked.
const UNKNOWN: &str = "unknown";

/// The label of all that is denied on a way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Way {
    direction: String,
}

/// The labels of what a policy denies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    policy: String,
    direction: String,
}

/// What is known of denied traffic.
pub(crate) struct Denials {
    whole: Family<Way, Counter>,
    by_policy: Family<Cause, Counter>,
    /// The policies that have a figure of their own.
    counted: BTreeMap<(PolicyName, Direction), Cause>,
    /// What the kernel's counters said last, by direction and family.
    seen: [[u64; 2]; 2],
    looked: Option<Instant>,
    /// Without it, no packet has a line.
    lines: Option<Lines>,
    /// Why packets are not told of.
    problem: Arc<Mutex<Option<String>>>,
    /// The group that is read, and what reads it.
    reader: Option<(u16, JoinHandle<()>)>,
}

impl Denials {
    /// Nothing is denied yet.
    pub(crate) fn new(writes_lines: bool, registry: &mut Registry) -> Denials {
        let (whole, by_policy) = (Family::<Way, Counter>::default(), Family::<Cause, Counter>::default());
        let help = "Packets that network policies denied";
        registry.register("policy_denied_packets", help, whole.clone());
        let help = "Denied packets by the policies that isolate the pod or have the rule; as far as packets are logged";
        registry.register("policy_denied_by", help, by_policy.clone());
        Denials {
            whole,
            by_policy,
            counted: BTreeMap::new(),
            seen: [[0; 2]; 2],
            looked: None,
            lines: writes_lines.then(Lines::default),
            problem: Arc::default(),
            reader: None,
        }
    }

    /// Reads that group of nflog from now on, or none, within the runtime.
    pub(crate) fn listen(&mut self, group: Option<u16>, to: &mpsc::Sender<Vec<Packet>>) {
        if self.reader.as_ref().map(|(read, _)| *read) == group {
            return;
        }
        if let Some((_, reader)) = self.reader.take() {
            reader.abort();
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.reader = group.map(|group| (group, self.read(group, to.clone())));
    }

    fn read(&self, group: u16, to: mpsc::Sender<Vec<Packet>>) -> JoinHandle<()> {
        let problem = self.problem.clone();
        let tell = move |text| *problem.lock().unwrap_or_else(PoisonError::into_inner) = text;
        tokio::spawn(async move {
            loop {
                let opened = Monitor::open(group).and_then(Notifications::new);
                let error = match opened {
                    Ok(mut notifications) => {
                        tell(None);
                        forward(&mut notifications, &to).await
                    }
                    Err(error) => error,
                };
                let why = match error.errno() {
                    Some(Errno::EPERM) => format!(
                        "group {group} of nflog has another reader; end it, or choose another group by --policy-log-group"
                    ),
                    _ => format!("group {group} of nflog cannot be read: {error}"),
                };
                tell(Some(format!("packets that network policies deny are not told of: {why}")));
                sleep(RETRY).await;
            }
        })
    }

    /// Why packets are not told of.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in what the kernel counted, if that was long enough ago.
    pub(crate) fn count(&mut self, tables: &mut PolicyTables) -> Result<()> {
        if self.looked.is_some_and(|last| last.elapsed() < PAUSE) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        for (direction, seen) in Direction::BOTH.into_iter().zip(&mut self.seen) {
            let Some(counters) = tables.denied(direction)? else { continue };
            let more = counters.into_iter().zip(*seen).map(|(now, before)| since(now, before));
            self.whole.get_or_create(&way(direction)).inc_by(more.sum());
            *seen = counters;
        }
        let whole = Direction::BOTH.map(|direction| self.whole.get_or_create(&way(direction)).get());
        let more = self.lines.as_mut().map_or(0, |lines| lines.untold(whole.into_iter().sum()));
        if more > 0 {
            info!(packets = more, "network policies denied more packets than are told of");
        }
        Ok(())
    }

    /// The tables are gone, and their counters with them.
    pub(crate) fn forget_tables(&mut self) {
        self.seen = [[0; 2]; 2];
    }

    /// Policies that are gone have no figure.
    pub(crate) fn forget_policies(&mut self, planner: &Planner) {
        let by_policy = &self.by_policy;
        self.counted.retain(|(policy, _), cause| {
            let is_there = planner.has_policy(policy);
            if !is_there {
                by_policy.remove(cause);
            }
            is_there
        });
    }

    /// Counts packets by policies, writes lines about them, and tells whoever asks for flows.
    pub(crate) fn tell(&mut self, planner: &Planner, packets: &[Packet], flows: &SharedFlows) {
        let is_asked = flows.is_on();
        for packet in packets {
            let is_its = |direction: &Direction| packet.prefix == log_prefix(*direction);
            let Some(direction) = Direction::BOTH.into_iter().find(is_its) else { continue };
            let step = why(planner, packet, direction);
            self.count_by_policy(step.as_ref(), direction);
            if is_asked {
                flows.denied(flow(packet, direction, step.as_ref()));
            }
            if self.lines.as_mut().is_some_and(|lines| lines.take(Instant::now())) {
                write(planner, packet, direction, step.as_ref());
            }
        }
    }

    fn count_by_policy(&mut self, step: Option<&Step>, direction: Direction) {
        let named = |policy: &str| Cause { policy: policy.to_owned(), direction: direction.to_string() };
        let policies = step.map(|step| step.reason.policies()).unwrap_or_default();
        for policy in policies {
            let key = (policy.clone(), direction);
            let cause = match self.counted.get(&key) {
                Some(cause) => cause.clone(),
                None if self.counted.len() >= MOST => named(OTHERS),
                None => self.counted.entry(key).or_insert(named(&policy.to_string())).clone(),
            };
            self.by_policy.get_or_create(&cause).inc();
        }
        if policies.is_empty() {
            self.by_policy.get_or_create(&named(UNKNOWN)).inc();
        }
    }
}

/// How often a packet may have a line, and how many had none.
#[derive(Default)]
struct Lines {
    /// When the present second began, and how many lines it has.
    second: Option<(Instant, u32)>,
    /// How many packets have been told of, by lines of their own or as so many more.
    told: u64,
    /// What had been counted at the look before: of these, all that will be told of has been.
    counted: Option<u64>,
}

impl Lines {
    /// Whether a packet may have a line now.
    fn take(&mut self, now: Instant) -> bool {
        let current = self.second.filter(|(began, _)| now.duration_since(*began) < Duration::from_secs(1));
        let (began, lines) = current.unwrap_or((now, 0));
        let may = lines < LINES;
        self.second = Some((began, lines + u32::from(may)));
        self.told += u64::from(may);
        may
    }

    /// How many packets had no line until the look before, of those that were counted.
    fn untold(&mut self, counted: u64) -> u64 {
        // What was counted before the first look was for others to tell.
        let Some(before) = self.counted.replace(counted) else {
            self.told += counted;
            return 0;
        };
        let more = before.saturating_sub(self.told);
        self.told += more;
        more
    }
}

/// Sends on what comes until it cannot be read.
async fn forward(
    notifications: &mut Notifications<Monitor>,
    to: &mpsc::Sender<Vec<Packet>>,
) -> weft_netlink::Error {
    loop {
        match notifications.next().await {
            // Where too many wait, these have no line.
            Ok(Notified::Events(packets)) => drop(to.try_send(packets)),
            Ok(Notified::Overrun) => {}
            Err(error) => return error,
        }
    }
}

/// What was counted since then. A counter that went back began anew.
fn since(now: u64, before: u64) -> u64 {
    if now < before { now } else { now - before }
}

fn way(direction: Direction) -> Way {
    Way { direction: direction.to_string() }
}

/// Why the plan denies a packet; nothing where it does not, as it changed meanwhile.
fn why(planner: &Planner, packet: &Packet, direction: Direction) -> Option<Step> {
    let port = Protocol::from_number(packet.protocol).zip(packet.ports).map(|(it, (_, port))| (it, port));
    let asked = plan::Packet { source: packet.source, destination: packet.destination, port };
    let mut steps = planner.explain(&asked).steps.into_iter();
    steps.find(|step| step.direction == direction && step.verdict == Verdict::Deny)
}

/// The names of the policies that deny, and why they do.
fn cause(step: Option<&Step>) -> (Vec<String>, String) {
    let names = step.map(|step| step.reason.policies()).unwrap_or_default();
    let decision =
        step.map_or_else(|| "denied: by policies that have changed since".to_owned(), Step::decision);
    (names.iter().map(PolicyName::to_string).collect(), decision)
}

/// A denied packet, for those who ask who talks with whom.
fn flow(packet: &Packet, direction: Direction, step: Option<&Step>) -> FlowEvent {
    let (policies, reason) = cause(step);
    let [from, to] = packet.ports.map_or([None; 2], |(from, to)| [Some(from), Some(to)]);
    FlowEvent {
        time: flows::now(),
        protocol: packet.protocol,
        source: FlowEnd { address: packet.source, port: from },
        destination: FlowEnd { address: packet.destination, port: to },
        endpoint: None,
        event: Happening::Denied { direction: direction.to_string(), policies, reason },
    }
}

fn write(planner: &Planner, packet: &Packet, direction: Direction, step: Option<&Step>) {
    let pod = |address: IpAddr| planner.pod_at(address).map(ToString::to_string);
    let (source_pod, destination_pod) = (pod(packet.source), pod(packet.destination));
    let protocol = match Protocol::from_number(packet.protocol) {
        Some(protocol) => protocol.to_string(),
        None => packet.protocol.to_string(),
    };
    let (policies, decision) = cause(step);
    info!(
        %direction,
        source = %packet.source,
        source_pod,
        destination = %packet.destination,
        destination_pod,
        protocol,
        port = packet.ports.map(|(_, port)| port),
        policies = (!policies.is_empty()).then(|| policies.join(", ")),
        rule = step.and_then(Step::rule),
        "{decision}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_ten_lines_and_the_rest_is_told_as_a_number() {
        let (mut lines, start) = (Lines::default(), Instant::now());
        assert_eq!(lines.untold(1000), 0, "these were denied before");
        let told = |lines: &mut Lines, at| (0..15).filter(|_| lines.take(start + at)).count();
        assert_eq!(told(&mut lines, Duration::ZERO), 10);
        assert_eq!(lines.untold(1015), 0, "some may still be on their way");
        assert_eq!(told(&mut lines, Duration::from_millis(1500)), 10);
        assert_eq!(lines.untold(1030), 0, "of the first 15, as many have lines");
        assert_eq!(lines.untold(1030), 10);
        assert_eq!(lines.untold(1030), 0);
    }

    #[test]
    fn a_counter_that_begins_anew_counts_from_nothing() {
        assert_eq!((since(7, 5), since(5, 5), since(3, 5)), (2, 0, 3));
    }
}
