//! Whether a connection may be made, as one node has it: what the kernel's tables do with its first packet,
//! and why the plan has it so. An agent answers by a [`Report`], and `weft policy explain` shows those of the
//! nodes at both ends.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use weft_nftables::evaluator::{Facts, Fate, Lost, Ruleset};
use weft_nftables::{Family, Hook, KnownTable, Rule, Statement, TableFamily, Verdict};

use crate::pending::{PENDING, minimal_table};
use crate::plan::{self, Direction, Explanation, Packet, PolicyName, Reason, Step};
use crate::ruleset::refused::{self, REFUSED};
use crate::ruleset::{ENTERING, LEAVING};

/// `NF_CT_STATE_BIT(IP_CT_NEW)`
const NEW: u32 = 8;
/// The flag of a TCP segment that begins a connection.
const SYN: u8 = 2;
/// How many ports are told of at the most.
const MOST_PORTS: usize = 5;
/// `IPPROTO_GRE`: stands for all traffic without ports. Of ICMPv6, some always passes.
const WITHOUT_PORTS: u8 = 47;

/// What a node says of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The node.
    pub node: String,
    /// What it decides: what leaves a pod of it first, then what comes to one.
    pub ends: Vec<End>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// What is decided at one end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// `egress` or `ingress`.
    pub direction: String,
    /// The pod, as `namespace/name`; nothing where it does not come to policies.
    pub pod: Option<String>,
    /// What happens, by the kernel's tables.
    pub finding: Finding,
    /// What the plan says, and why, in words.
    pub reason: String,
    /// The policies that decide, as `NetworkPolicy namespace/name`.
    pub policies: Vec<String>,
    /// The place of the rule that decides, as `spec.ingress[0]`.
    pub rule: Option<String>,
    /// Where in the kernel; nothing where no rule is asked.
    pub place: Option<String>,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// It may be made.
    Allowed,
    /// It cannot be told.
    Unknown,
    /// It may not.
    Denied,
}

/// As in JSON: `allowed`, `unknown`, `denied`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Finding::Allowed => "allowed",
            Finding::Unknown => "unknown",
            Finding::Denied => "denied",
        })
    }
}

impl From<plan::Verdict> for Finding {
    fn from(verdict: plan::Verdict) -> Finding {
        match verdict {
            plan::Verdict::Accept => Finding::Allowed,
            plan::Verdict::Deny => Finding::Denied,
        }
    }
}

impl Report {
    /// What a node says of a packet: by the plan's explanation and by the tables, planned or read from the
    /// kernel.
    pub fn new(node: &str, explanation: &Explanation, tables: &[KnownTable], packet: &Packet) -> Report {
        let mut report = Report { node: node.to_owned(), ..Report::default() };
        let steps = explanation.steps.iter();
        for step in steps.filter(|step| !is_waiting(tables, packet, step.direction)) {
            report.take(step, tables, packet);
        }
        for direction in Direction::BOTH.into_iter().rev().filter(|it| is_waiting(tables, packet, *it)) {
            report.ends.push(waiting(direction, address(packet, direction)));
        }
        report.notes.extend(refused(tables, packet));
        if report.ends.is_empty() {
            report.notes.push("neither address is one of a pod of this node".to_owned());
        }
        report
    }

    fn take(&mut self, step: &Step, tables: &[KnownTable], packet: &Packet) {
        let planned = Finding::from(step.verdict);
        let asked = match step.reason {
            // It does not come to the forward hook.
            Reason::OwnNode => &[][..],
            Reason::Itself => &Direction::BOTH,
            _ => &[step.direction],
        };
        let fate = |direction: &Direction| WAYS.map(|way| fate(tables, way, *direction, packet));
        let found: Vec<_> = asked.iter().flat_map(fate).collect();
        let mut end = end(step);
        if let ([found, ..], [direction]) = (&found[..], asked) {
            let family = Family::of(packet.source);
            end.place = Some(place(family, *direction, found.as_ref().ok().copied()));
        }
        for found in found {
            match found {
                Err(lost) => {
                    end.finding = end.finding.max(Finding::Unknown);
                    self.note(lost.to_string());
                }
                Ok(fate) if finding(fate) != planned => {
                    end.finding = finding(fate);
                    self.note(format!(
                        "the kernel's tables and the plan differ: {} by the tables, {planned} by the plan. The agent brings the \
                         tables to the plan; if it stays so, look at its log",
                        end.finding
                    ));
                }
                Ok(_) => {}
            }
        }
        self.ends.push(end);
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// What the node decides.
    pub fn finding(&self) -> Finding {
        self.ends.iter().map(|end| end.finding).max().unwrap_or(Finding::Allowed)
    }
}

fn end(step: &Step) -> End {
    End {
        direction: step.direction.to_string(),
        pod: step.pod.as_ref().map(ToString::to_string),
        finding: step.verdict.into(),
        reason: step.decision(),
        policies: step.reason.policies().iter().map(PolicyName::to_string).collect(),
        rule: step.rule(),
        place: None,
    }
}

/// A pod that has not got its policies yet.
fn waiting(direction: Direction, address: IpAddr) -> End {
    End {
        direction: direction.to_string(),
        pod: None,
        finding: Finding::Denied,
        reason: format!(
            "denied: the pod with the address {address} waits for its policies, and is closed until then"
        ),
        policies: Vec::new(),
        rule: None,
        place: Some(format!("hook forward, set {PENDING} of {}", table(Family::of(address)))),
    }
}

/// Connections that a change of policies ended: they are refused by the ports at both ends, whatever policies
/// say of a new one.
fn refused(tables: &[KnownTable], packet: &Packet) -> Option<String> {
    let (protocol, port) = packet.port?;
    let family = TableFamily::from(Family::of(packet.source));
    let to = SocketAddr::new(packet.destination, port);
    let of_table = |table| refused::ports(table, packet.source, to, protocol);
    let ports: BTreeSet<u16> =
        tables.iter().filter(|table| table.family == family).flat_map(of_table).collect();
    let some: Vec<String> = ports.iter().take(MOST_PORTS).map(u16::to_string).collect();
    let more = if ports.len() > MOST_PORTS { ", ..." } else { "" };
    (!some.is_empty()).then(|| {
        format!(
            "set {REFUSED} of {}: a change of policies ended such connections, and what comes from these ports of {} is \
             dropped for a minute: {}{more}",
            table(Family::of(packet.source)),
            packet.source,
            some.join(", ")
        )
    })
}

/// The pod's address, where the packet goes in that direction.
fn address(packet: &Packet, direction: Direction) -> IpAddr {
    match direction {
        Direction::Ingress => packet.destination,
        Direction::Egress => packet.source,
    }
}

fn table(family: Family) -> String {
    format!("table {} {}", TableFamily::from(family), crate::pending::TABLE)
}

fn place(family: Family, direction: Direction, fate: Option<Fate>) -> String {
    let what = match fate {
        Some(Fate::Accepted) => "accepted in ",
        Some(Fate::Dropped) => "dropped in ",
        Some(Fate::Rejected) => "rejected in ",
        None => "",
    };
    format!("hook forward, {what}chain {} of {}", chain(direction), table(family))
}

/// The hooks that packets from one machine to another pass: all but those that IPVS forwards, and these.
const WAYS: [Hook; 2] = [Hook::Forward, Hook::Output];

fn chain(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => LEAVING,
        Direction::Ingress => ENTERING,
    }
}

fn finding(fate: Fate) -> Finding {
    match fate {
        Fate::Accepted => Finding::Allowed,
        Fate::Dropped | Fate::Rejected => Finding::Denied,
    }
}

fn is_waiting(tables: &[KnownTable], packet: &Packet, direction: Direction) -> bool {
    let address = address(packet, direction);
    let key = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let family = TableFamily::from(Family::of(address));
    let own = tables.iter().filter(|table| table.family == family);
    own.filter_map(|table| table.sets.get(PENDING)).any(|set| matches!(set.find(&key), Some(Some(_))))
}

/// What the tables do with the first packet of a connection, at one end of it.
fn fate(tables: &[KnownTable], way: Hook, direction: Direction, packet: &Packet) -> Result<Fate, Lost> {
    let family = Family::of(packet.source);
    let own = tables.iter().filter(|table| table.family == TableFamily::from(family));
    let facts = Facts {
        source: Some(packet.source),
        destination: Some(packet.destination),
        protocol: Some(packet.port.map_or(WITHOUT_PORTS, |(protocol, _)| protocol.number())),
        // Nobody sends from port 0, and no row is for it.
        source_port: Some(0),
        destination_port: Some(packet.port.map_or(0, |(_, port)| port)),
        tcp_flags: Some(SYN),
        priority: Some(0),
        state: Some(NEW),
        source_is_local: Some(false),
        ..Facts::default()
    };
    Ruleset::new(own.map(|table| of_end(table, family, direction))).follow(family, facts).hook(way)
}

/// A table without what judges the other end, and without those who wait: who does is told apart.
fn of_end(table: &KnownTable, family: Family, direction: Direction) -> KnownTable {
    let mut table = table.clone();
    table.sets.extend(KnownTable::from(&minimal_table(family)).sets);
    let (other, instead) = match direction {
        Direction::Egress => (ENTERING, None),
        Direction::Ingress => {
            (LEAVING, Some(Rule::new([Statement::Verdict(Verdict::Goto(ENTERING.into()))])))
        }
    };
    if let Some(chain) = table.chains.get_mut(other) {
        chain.rules = instead.into_iter().collect();
    }
    table
}
