//! What was found, as lines for people and as JSON. Pure.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use serde_json::json;
use weft_trace::{Doubt, End, NodeTrace, Socket, Step};

use super::cause::Finding;
use super::way::{Goal, Way};
use super::world::World;

/// Whether a connection comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The packet arrives, and so does its answer.
    Arrives,
    /// It cannot be told.
    Unknown,
    /// It does not.
    DoesNotArrive,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Arrives => "arrives",
            Outcome::Unknown => "cannot be told",
            Outcome::DoesNotArrive => "does not arrive",
        })
    }
}

/// The way there and back by one pair of addresses, to one endpoint.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Path {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) traffic: String,
    /// The endpoint that was followed, and among how many.
    pub(super) endpoint: Option<(SocketAddr, usize)>,
    /// How the name was resolved.
    pub(super) resolved: Option<String>,
    pub(super) there: Way,
    pub(super) back: Option<Way>,
    pub(super) outcome: Outcome,
    pub(super) finding: Option<Finding>,
    pub(super) notes: Vec<String>,
    /// How things are called that have addresses.
    pub(super) names: Vec<(IpAddr, String)>,
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub struct Report {
    pub(super) paths: Vec<Path>,
}

impl Report {
    /// Where one family, or one endpoint, does not arrive, the connection may not come about.
    pub fn outcome(&self) -> Outcome {
        self.paths.iter().map(|path| path.outcome).max().unwrap_or(Outcome::Unknown)
    }

    /// One object.
    pub fn json(&self) -> String {
        json!({"outcome": self.outcome(), "paths": self.paths}).to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, path) in self.paths.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{path}")?;
        }
        Ok(())
    }
}

impl Path {
    pub(super) fn new(outcome: Outcome, from: String, to: String, traffic: String) -> Path {
        Path {
            from,
            to,
            traffic,
            endpoint: None,
            resolved: None,
            there: Way::default(),
            back: None,
            outcome,
            finding: None,
            notes: Vec::new(),
            names: Vec::new(),
        }
    }

    /// What every node is asked to be certain of: rules that may apply, and other notes.
    pub(super) fn doubts(&self) -> impl Iterator<Item = (&str, &Doubt)> {
        let nodes = self.there.nodes.iter().chain(self.back.iter().flat_map(|back| &back.nodes));
        nodes.flat_map(|trace| trace.doubts.iter().map(|doubt| (trace.node.as_str(), doubt)))
    }

    /// Names the addresses of pods on the way.
    pub(super) fn name_pods(&mut self, world: &World) {
        let nodes = self.there.nodes.iter().chain(self.back.iter().flat_map(|back| &back.nodes));
        let mut all: Vec<IpAddr> = nodes.map(|trace| trace.left.destination).collect();
        all.sort_unstable();
        all.dedup();
        self.names = all.into_iter().filter_map(|address| Some((address, world.pod_at(address)?))).collect();
    }

    fn named(&self, address: IpAddr) -> String {
        match self.names.iter().find(|(one, _)| *one == address) {
            Some((_, name)) => format!("{name} {address}"),
            None => address.to_string(),
        }
    }

    /// A node's part of the way; of one that is as it should be and not the question itself, what changes the
    /// packet and where it goes.
    fn lines(&self, f: &mut fmt::Formatter<'_>, trace: &NodeTrace, is_whole: bool) -> fmt::Result {
        let mut label = trace.node.as_str();
        let mut line = |f: &mut fmt::Formatter<'_>, text: &str| {
            writeln!(f, "  {label:<8} {text}")?;
            label = "";
            Ok(())
        };
        let mut passed: Vec<&str> = Vec::new();
        let tells = |step: &&Step| is_whole || matches!(step, Step::Source { .. } | Step::Restored { .. });
        for step in trace.steps.iter().filter(tells) {
            if let Step::Passed(chain) = step {
                if !passed.contains(&chain.table.as_str()) {
                    passed.push(&chain.table);
                }
                continue;
            }
            line(f, &words(step, &trace.endpoints))?;
        }
        if !passed.is_empty() {
            line(f, &format!("let through by the tables {}", passed.join(", ")))?;
        }
        trace.notes.iter().filter(|_| is_whole).try_for_each(|note| line(f, &format!("note: {note}")))?;
        match &trace.end {
            End::Pod { device, .. } => {
                line(f, &format!("arrives at {} by {device}", self.named(trace.left.destination)))
            }
            End::Host { .. } => line(f, &format!("arrives at the node itself, {}", trace.left.destination)),
            End::Leaves { device, next_hop, remote: Some(remote), .. } => {
                line(f, &format!("leaves by the tunnel {device} to {remote} (next hop {next_hop})"))
            }
            End::Leaves { device, next_hop, .. } => line(f, &format!("leaves by {device} to {next_hop}")),
            End::Stops { .. } => line(f, "ends here"),
            End::Unknown { reason } => line(f, &format!("cannot be followed: {reason}")),
        }
    }
}

/// A step for people.
fn words(step: &Step, endpoints: &[SocketAddr]) -> String {
    let via = |gateway: &Option<IpAddr>| gateway.map(|one| format!(" via {one}")).unwrap_or_default();
    match step {
        Step::Pod { device, gateway, mtu } => {
            format!("in the pod: route by {device}{}, MTU {mtu}", via(gateway))
        }
        Step::Enters { device, port: Some(port), .. } => format!("comes in by {port}, a port of {device}"),
        Step::Enters { device, port: None, .. } => format!("comes in by {device}"),
        Step::Passed(chain) => format!("let through: {chain}"),
        Step::Destination { chain, to, .. } => {
            let all: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
            let among = if all.len() > 1 { format!(", one of {}", all.join(", ")) } else { String::new() };
            format!("led to {to} by table {}, chain {}{among}", chain.table, chain.chain)
        }
        Step::Source { chain, to, .. } => {
            let to = to.map_or_else(|| "an address of the node".to_owned(), |to| to.to_string());
            format!("its source becomes {to} by table {}, chain {}", chain.table, chain.chain)
        }
        Step::Restored { to, .. } => format!("connection tracking restores {to}"),
        Step::Routed { to, device, gateway, table, mtu } => {
            let table =
                if *table == 254 || *table == 255 { String::new() } else { format!(", table {table}") };
            format!("route to {to}: {device}{}, MTU {mtu}{table}", via(gateway))
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Path { from, to, traffic, outcome, .. } = self;
        writeln!(f, "{outcome}: {from} -> {to}, {traffic}")?;
        if let Some(resolved) = &self.resolved {
            writeln!(f, "  {:<8} {resolved}", "name")?;
        }
        self.there.nodes.iter().try_for_each(|trace| self.lines(f, trace, true))?;
        let arrived = match &self.there.goal {
            Some(Goal::Arrives { socket: Socket::Listens, .. }) => "",
            Some(Goal::Arrives { socket: Socket::Nothing, .. }) => "nothing listens there",
            Some(Goal::Arrives { socket: Socket::Unseen, .. }) => {
                "whether something listens there cannot be seen by the agent"
            }
            Some(Goal::Outside { .. }) => "leaves the cluster: what is beyond is not known",
            Some(Goal::Stops { .. } | Goal::Unknown { .. }) | None => "",
        };
        if !arrived.is_empty() {
            writeln!(f, "  {:<8} {arrived}", "")?;
        }
        if let Some(back) = &self.back {
            writeln!(f, "  the answer's way back:")?;
            let goes_well = |trace: &NodeTrace| !matches!(trace.end, End::Stops { .. } | End::Unknown { .. });
            back.nodes.iter().try_for_each(|trace| self.lines(f, trace, !goes_well(trace)))?;
        }
        for (node, Doubt { chain, stops }) in self.doubts() {
            let effect = if *stops { "would stop it or lead it elsewhere" } else { "would let it through" };
            writeln!(f, "  not known whether it applies on {node}; if so, it {effect}: {chain}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))?;
        if let Some(Finding { cause, fix }) = &self.finding {
            writeln!(f, "  cause    {cause}\n  fix      {fix}")?;
        }
        Ok(())
    }
}
