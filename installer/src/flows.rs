//! `weft flows`: who talks with whom, as it happens: connections, what network policies deny, DNS questions,
//! with the names of pods and Services. The agents tell what they see, and are asked through the API server;
//! the names are those that whoever asks may read there.
//!
//! ```text
//! /flows of every agent -> View (names, filter, order) -> lines or JSON
//! ```

mod agents;
mod flow;
mod names;
mod view;

use std::collections::BTreeSet;
use std::future::pending;
use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, sleep_until, timeout_at};
use weft_types::NamespacedName;
use weft_types::flow::FlowPage;

use self::agents::{Access, Told, follow};
pub use self::flow::Verdict;
use self::flow::{Filter, Flow};
use self::names::Names;
use self::view::View;
use crate::cluster::{Cluster, Connection, NODE, POD, SERVICE};
use crate::preflight::Output;
use crate::{Error, Result};

/// How many answers may wait. Beyond them, agents are not asked.
const BACKLOG: usize = 16;
/// The shortest time between two looks at the objects, and how much longer than a look that is: large clusters
/// are not read all the time.
const LOOK: Duration = Duration::from_secs(1);
const RESTS: u32 = 10;
/// After how long the objects are read again, as addresses go to others.
const STALE: Duration = Duration::from_secs(15);
/// How long what agents remember is waited for, before what comes is shown.
const START: Duration = Duration::from_secs(5);

/// Which flows are shown, and how.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Only flows from or to pods and Services of this namespace; may be given several times.
    #[arg(long, short, value_name = "NAMESPACE")]
    pub namespace: Vec<String>,
    /// Only flows from or to this pod; may be given several times. Without a namespace, it is of the one that
    /// --namespace names, or of default.
    #[arg(long, value_name = "[NAMESPACE/]POD")]
    pub pod: Vec<String>,
    /// Only what was let through, or what network policies denied.
    #[arg(long, value_enum)]
    pub verdict: Option<Verdict>,
    /// Only what this node tells of.
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Go on until it is interrupted.
    #[arg(long, short)]
    pub follow: bool,
    /// Of what agents remember, and without --follow also of what comes, the latest so many.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub last: usize,
    /// Without --follow: for how many seconds to listen. Agents that nobody asked before begin only now.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 5, conflicts_with = "follow", value_parser = clap::value_parser!(u64).range(..=86400))]
    pub seconds: u64,
    /// How to print it: a line, or an object of JSON on a line of its own, for each flow.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// Shows flows on standard output, and what is to be known besides on standard error. Must be called within a
/// runtime.
///
/// # Errors
/// Where the API server cannot be asked, there is no such node, or no agent answers. One agent that does not
/// answer is said.
pub async fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::connect(&options.connection).await?;
    let mut reader = Reader::new(&cluster);
    let mut names = Names::default();
    reader.read(&mut names).await?;
    let nodes: BTreeSet<String> = names.nodes().cloned().collect();
    if let Some(node) = &options.node
        && !nodes.contains(node)
    {
        return Err(Error::NoNode(node.clone()));
    }
    let nodes: Vec<String> =
        nodes.into_iter().filter(|node| options.node.as_ref().is_none_or(|only| only == node)).collect();
    let count = nodes.len();
    let until = (!options.follow).then(|| Instant::now() + Duration::from_secs(options.seconds));
    let (access, (to, told)) = (Access::new(options.connection.clone()), channel(BACKLOG));
    let asking =
        join_all(nodes.into_iter().map(|node| follow(&access, node, options.verdict, until, to.clone())));
    // With the last that asks, nothing more can come.
    drop(to);
    let view = View::new(names, options.filter(), options.last);
    let shown = Shown { view, reader, output: options.output, problem: None };
    tokio::select! {
        outcome = shown.show(told, count, options.follow) => outcome,
        never = async { asking.await; pending().await } => never,
    }
}

impl Options {
    fn filter(&self) -> Filter {
        let namespace = self.namespace.first().map_or("default", String::as_str);
        let pods = self.pod.iter().map(|pod| {
            let (namespace, name) = pod.split_once('/').unwrap_or((namespace, pod));
            NamespacedName::new(namespace, name)
        });
        Filter { pods: pods.collect(), namespaces: self.namespace.clone(), verdict: self.verdict }
    }
}

/// What is shown.
struct Shown<'a> {
    view: View,
    reader: Reader<'a>,
    output: Output,
    /// Why names may be outdated.
    problem: Option<String>,
}

impl Shown<'_> {
    /// Shows what the agents of so many nodes tell, until all have ended.
    async fn show(mut self, mut told: Receiver<(String, Told)>, nodes: usize, follows: bool) -> Result<()> {
        let (start, mut up_to_date, mut gathers) = (Instant::now() + START, 0, true);
        loop {
            let next = match gathers && follows {
                true => timeout_at(start, told.recv()).await,
                false => Ok(told.recv().await),
            };
            let is_end = matches!(next, Ok(None));
            let lines = match next {
                Ok(Some((node, Told::Page(answer)))) => {
                    if let Ok(page) = &answer {
                        self.learn(page).await;
                    }
                    let (flows, notes) = self.view.take(&node, answer, Instant::now().into_std());
                    notes.iter().for_each(|note| eprintln!("weft: {note}"));
                    flows
                }
                Ok(Some((_, Told::UpToDate))) => {
                    up_to_date += 1;
                    Vec::new()
                }
                Ok(None) | Err(_) => Vec::new(),
            };
            if !self.print(&lines)? {
                return Ok(());
            }
            if gathers && (is_end || (follows && (up_to_date == nodes || Instant::now() >= start))) {
                gathers = false;
                let (lines, note) = self.view.gathered();
                note.iter().for_each(|note| eprintln!("weft: {note}"));
                if !self.print(&lines)? {
                    return Ok(());
                }
            }
            if is_end {
                let problem = "no agent answers".to_owned();
                let refuse =
                    || Error::Api { operation: "ask", object: "the agents for flows".to_owned(), problem };
                return if self.view.fail_all() { Err(refuse()) } else { Ok(()) };
            }
        }
    }

    /// Reads the objects again where a name is missing, or all may be outdated.
    async fn learn(&mut self, page: &FlowPage) {
        let misses = page.flows.iter().any(|event| self.view.names.misses(event));
        if misses {
            sleep_until(self.reader.not_before).await;
        }
        if !misses && !self.reader.is_stale() {
            return;
        }
        let problem = self.reader.read(&mut self.view.names).await.err().map(|error| error.to_string());
        if problem.is_some() && problem != self.problem {
            problem.iter().for_each(|problem| eprintln!("weft: names may be missing: {problem}"));
        }
        self.problem = problem;
        for event in &page.flows {
            if self.view.names.misses(event) {
                self.view.names.give_up(event);
            }
        }
    }

    /// Whether somebody still reads.
    fn print(&self, flows: &[Flow]) -> Result<bool> {
        let mut text = String::new();
        for flow in flows {
            text += &match self.output {
                Output::Table => flow.to_string(),
                Output::Json => flow.json().to_string(),
            };
            text.push('\n');
        }
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Error::Process { operation: "write to standard output", problem: error }),
        }
    }
}

/// Reads the objects that names are of, not too often.
struct Reader<'a> {
    cluster: &'a Cluster,
    not_before: Instant,
    read_at: Instant,
}

impl Reader<'_> {
    fn new(cluster: &Cluster) -> Reader<'_> {
        Reader { cluster, not_before: Instant::now(), read_at: Instant::now() }
    }

    fn is_stale(&self) -> bool {
        Instant::now() >= (self.read_at + STALE).max(self.not_before)
    }

    async fn read(&mut self, names: &mut Names) -> Result<()> {
        let start = Instant::now();
        // After a failure too.
        self.not_before = start + LOOK;
        let list = |kind| self.cluster.list(kind, None, "");
        let (nodes, pods, services) = (list(NODE).await?, list(POD).await?, list(SERVICE).await?);
        names.learn(&nodes, &pods, &services);
        self.read_at = Instant::now();
        self.not_before = self.read_at + LOOK.max((self.read_at - start) * RESTS);
        Ok(())
    }
}
