//! Ends tracked connections that a change of policies denies: the rules let through what conntrack knows. A
//! large table takes long to read, and changes of the rules do not wait for that: it is done on a thread of
//! its own, which takes together what changes meanwhile. Which connections are denied is said by `judge`.

pub(super) mod judge;
mod kernel;

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tracing::info;
use weft_netlink::Family;
use weft_netlink::conntrack::{Filter, Flow};
use weft_policy::plan::PolicyPlan;

use self::judge::Concerned;
pub(super) use self::kernel::Kernel;
use super::metrics::CutMetrics;
use crate::{Error, Result};

/// How long to wait before the table is read again after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// The table is left alone for so many times as long as reading it took, but no longer than this: a walk
/// through it keeps a processor busy, and pods that start meanwhile need that more.
const REST: u32 = 8;
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// The kernel's table of connections.
pub(super) trait Connections: Send + 'static {
    /// Waits until what was let through by the rules of before is in the table.
    fn settle(&mut self) {}

    /// How many there are, of both families.
    fn count(&mut self) -> weft_netlink::Result<usize>;

    /// Ends the connections of one family that pass the filter and are denied. That is asked when one is
    /// read, and once more right before it is ended: the answer may have changed. Returns how many there
    /// were.
    fn end(
        &mut self,
        family: Family,
        filter: &Filter,
        is_denied: &dyn Fn(&Flow) -> bool,
    ) -> weft_netlink::Result<usize>;
}

/// The way to the thread, which ends with it.
pub(super) struct Cutter(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    told: Condvar,
    metrics: CutMetrics,
}

#[derive(Default)]
struct State {
    /// What the kernel has now; none where there is no policy. It is the planner's own, who changes it in
    /// place: gone while that is at it.
    plan: Option<Weak<PolicyPlan>>,
    /// Whose connections are still to be judged.
    concerned: Concerned,
    /// Some are being judged.
    is_at_work: bool,
    /// Why that failed.
    problem: Option<String>,
    is_over: bool,
}

impl Cutter {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub(super) fn start(mut connections: impl Connections, metrics: CutMetrics) -> Result<Cutter> {
        let shared = Arc::new(Shared { state: Mutex::default(), told: Condvar::new(), metrics });
        let own = shared.clone();
        let work = move || own.work(&mut connections);
        let failed = |problem| Error::Runtime { operation: "start a thread", problem };
        thread::Builder::new().name("policy-cut".to_owned()).spawn(work).map_err(failed)?;
        Ok(Cutter(shared))
    }

    /// The kernel has this plan now, and these connections are to be judged by it: soon, and without waiting
    /// for that. Those that are being judged are judged by this plan from now on.
    pub(super) fn judge(&self, plan: &Arc<PolicyPlan>, concerned: Concerned) {
        let mut state = self.0.state();
        if concerned.is_empty() && !state.is_busy() {
            return;
        }
        state.plan = Some(Arc::downgrade(plan));
        state.concerned.extend(concerned);
        self.0.metrics.is_running.set(state.is_busy().into());
        self.0.told.notify_all();
    }

    /// There is no policy any more: nothing is denied.
    pub(super) fn forget(&self) {
        let mut state = self.0.state();
        (state.plan, state.concerned) = (None, Concerned::default());
    }

    /// What is in the way of it at the moment.
    pub(super) fn problem(&self) -> Option<String> {
        self.0.state().problem.clone()
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.told.notify_all();
    }
}

impl State {
    fn is_busy(&self) -> bool {
        self.is_at_work || !self.concerned.is_empty()
    }
}

impl Shared {
    /// Nobody panics while holding it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, connections: &mut impl Connections) {
        let mut not_before = Instant::now();
        while let Some(concerned) = self.next(not_before) {
            let begun = Instant::now();
            let ended = self.cut(connections, &concerned);
            let pause = match &ended {
                Ok(_) => (begun.elapsed() * REST).min(LONGEST_PAUSE),
                Err(_) => RETRY,
            };
            not_before = Instant::now() + pause;
            self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
            self.done(concerned, ended);
        }
    }

    /// Waits for something to judge, and until it is time. `None` where nobody will ask any more.
    fn next(&self, not_before: Instant) -> Option<Concerned> {
        let mut state = self.state();
        loop {
            let left = not_before.saturating_duration_since(Instant::now());
            if state.is_over {
                return None;
            } else if state.concerned.is_empty() {
                state = self.told.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if left.is_zero() {
                state.is_at_work = true;
                return Some(std::mem::take(&mut state.concerned));
            } else {
                let waited = self.told.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn cut(&self, connections: &mut impl Connections, concerned: &Concerned) -> weft_netlink::Result<usize> {
        connections.settle();
        let is_unknown = Cell::new(false);
        let is_denied = |flow: &Flow| {
            let Some(plan) = self.state().plan.clone() else { return false };
            // Held for no longer than a verdict takes: its owner would have to copy it to change it.
            let plan = plan.upgrade();
            is_unknown.set(is_unknown.get() || plan.is_none());
            plan.is_some_and(|plan| concerned.is_denied(flow, &plan))
        };
        let mut ended = 0;
        for (family, filter) in concerned.readings(connections.count()?) {
            ended += connections.end(family, &filter, &is_denied)?;
        }
        if is_unknown.get() {
            // Whoever changes the plan tells of it. By then those that were not judged must be known.
            self.state().concerned.extend(concerned.clone());
        }
        Ok(ended)
    }

    fn done(&self, concerned: Concerned, ended: weft_netlink::Result<usize>) {
        let mut state = self.state();
        state.is_at_work = false;
        state.problem = ended.as_ref().err().map(|error| {
            format!("connections that network policies deny now may go on: {error}; trying again")
        });
        match ended {
            Ok(ended) => {
                self.metrics.ended.inc_by(ended as u64);
                if ended > 0 {
                    info!(connections = ended, "ended connections that network policies deny now");
                }
            }
            Err(_) => state.concerned.extend(concerned),
        }
        self.metrics.is_running.set(state.is_busy().into());
    }
}

#[cfg(test)]
mod tests;
