//! The flows that several parts of the agent see, and those who ask for them: whether somebody does, and what is
//! remembered meanwhile. Who listens to the kernel is not here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tracing::{info, warn};
use weft_types::flow::{FlowEvent, FlowPage};

use super::interest::Interest;
use super::memory::{Cursor, Memory, Seen, Wanted};
use super::metrics::Metrics;
use super::options::Mode;
use crate::subsystem::Wake;

/// What problems are about.
pub(super) const CONNECTIONS: &str = "connections";
pub(super) const QUESTIONS: &str = "DNS questions";

/// What flags say.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// When flows are looked at.
    pub(crate) mode: Mode,
    /// For how long after the last question.
    pub(crate) keep: Duration,
    /// The agents' own port: who asks them is no news.
    pub(crate) own_port: Option<u16>,
}

/// What listens to the kernel, in a thread of its own, until nobody asks any more.
pub(super) type Collector = fn(&SharedFlows);

/// The flows of this node, shared by all who see or tell some.
#[derive(Clone)]
pub(crate) struct SharedFlows(Arc<Inner>);

struct Inner {
    settings: Settings,
    state: Mutex<State>,
    /// Something came.
    news: watch::Sender<()>,
    /// For those whose rules depend on whether somebody listens.
    wake: Wake,
    metrics: Metrics,
    collector: Collector,
}

struct State {
    interest: Interest,
    /// What is remembered, while somebody listens.
    memory: Option<Memory>,
    /// How often the kernel could not tell of everything, since somebody listens.
    overruns: u64,
    /// What cannot be seen, and why.
    problems: BTreeMap<&'static str, String>,
}

impl SharedFlows {
    /// Nobody listens yet.
    pub(super) fn new(
        settings: Settings,
        wake: Wake,
        registry: &mut Registry,
        collector: Collector,
    ) -> SharedFlows {
        let interest = Interest::new(settings.mode == Mode::Always, settings.keep);
        let state = State { interest, memory: None, overruns: 0, problems: BTreeMap::new() };
        let news = watch::Sender::new(());
        SharedFlows(Arc::new(Inner {
            settings,
            state: Mutex::new(state),
            news,
            wake,
            metrics: Metrics::new(registry),
            collector,
        }))
    }

    /// Begins to listen where flows are always looked at.
    pub(crate) fn start(&self) {
        if self.0.settings.mode == Mode::Always {
            self.want(Duration::ZERO);
        }
    }

    /// Whether somebody listens.
    pub(crate) fn is_on(&self) -> bool {
        self.state().memory.is_some()
    }

    /// What was denied, in words of the plan.
    pub(crate) fn denied(&self, denial: FlowEvent) {
        if let Some(memory) = &mut self.state().memory {
            self.0.metrics.denied.inc();
            memory.denial(denial);
        }
        self.0.news.send_replace(());
    }

    /// Somebody asks, and may wait that long for the answer.
    pub(super) fn want(&self, wait: Duration) {
        let mut state = self.state();
        state.interest.asked(Instant::now() + wait);
        if state.memory.is_none() {
            state.memory = Some(Memory::new(now()));
            state.overruns = 0;
            state.problems.clear();
            let flows = self.clone();
            let started =
                thread::Builder::new().name("flows".to_owned()).spawn(move || (flows.0.collector)(&flows));
            if let Err(error) = started {
                state.problems.insert("thread", format!("nothing is seen: {error}"));
            }
            info!("beginning to look at flows");
            self.0.wake.wake();
        }
    }

    /// What there is from a place on, without waiting.
    pub(super) fn read(&self, from: Option<Cursor>, wanted: Wanted, most: usize) -> FlowPage {
        let state = self.state();
        let Some(memory) = &state.memory else { return FlowPage::default() };
        let reading = memory.read(from, wanted, most);
        FlowPage {
            cursor: reading.next.to_string(),
            since: memory.since(),
            lost: reading.lost,
            overruns: state.overruns,
            counts_traffic: false,
            sees_questions: !state.problems.contains_key(QUESTIONS),
            problems: state.problems.values().cloned().collect(),
            flows: reading.events,
        }
    }

    /// Takes in what the collector saw, and that the kernel could not tell of everything so often.
    pub(super) fn remember(&self, seen: &mut Vec<Seen>, overruns: u64) {
        let mut state = self.state();
        state.overruns += overruns;
        self.0.metrics.overruns.inc_by(overruns);
        let Some(memory) = &mut state.memory else { return };
        self.0.metrics.count(seen);
        for one in seen.drain(..) {
            match one {
                Seen::Connection(connection) => memory.connection(connection),
                Seen::Question(question) => memory.question(question),
            }
        }
        drop(state);
        self.0.news.send_replace(());
    }

    /// Something cannot be seen.
    pub(super) fn problem(&self, what: &'static str, why: String) {
        let mut state = self.state();
        if state.problems.get(what) != Some(&why) {
            warn!("{why}");
            state.problems.insert(what, why);
        }
    }

    /// It can be seen.
    pub(super) fn solved(&self, what: &'static str) {
        self.state().problems.remove(what);
    }

    /// Whether nobody has asked for long. Then everything is forgotten.
    pub(super) fn is_over(&self) -> bool {
        let mut state = self.state();
        if !state.interest.is_over(Instant::now()) {
            return false;
        }
        state.memory = None;
        info!("nobody asks for flows any more");
        self.0.wake.wake();
        true
    }

    /// What flags say.
    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Hears of news from now on.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.0.news.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever a thread that panicked did, events are whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
