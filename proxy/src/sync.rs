//! Keeps the data plane in step with the cluster: has changes planned and committed, and has everything read
//! and corrected where it is no longer known what is in effect.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Notify;
use tracing::warn;
use weft_types::{ChangeSet, NamespacedName, Snapshot};

use crate::config::Config;
use crate::counters::ReadCounters;
use crate::dataplane::{self, Dataplane, ForeignChange, Programs};
use crate::error::Error;
use crate::services::host_ports::HostPort;
use crate::services::ownership::Ownership;
use crate::services::planner::{Planner, Totals};
use crate::services::problem::Problem;

pub use crate::dataplane::Outcome;

/// The planner and the data plane that follows it.
#[derive(Debug)]
pub struct Sync {
    planner: Planner,
    dataplane: Box<dyn Dataplane>,
    /// Those of other modes, until what they left is cleaned up.
    others: Vec<Box<dyn Dataplane>>,
    phase: Phase,
}

/// What is known of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was planned yet: whatever is there was left by another run, and is adopted.
    New,
    /// It may hold anything.
    OutOfStep,
    /// It holds what was planned last.
    InStep,
}

impl Sync {
    /// Opens the data plane of the calling thread's network namespace.
    ///
    /// # Errors
    /// Where the kernel cannot be used.
    pub fn open(config: Config) -> Result<Sync, Error> {
        let dataplane = dataplane::open(&config)?;
        let others = dataplane::of_other_modes(config.mode)?;
        Ok(Sync { others, ..Sync::new(Planner::new(config.node), dataplane) })
    }

    /// Keeps that data plane in step.
    pub fn new(planner: Planner, dataplane: Box<dyn Dataplane>) -> Sync {
        Sync { planner, dataplane, others: Vec::new(), phase: Phase::New }
    }

    /// Brings the kernel into step after `changes`. After an error it is out of step, and the next call,
    /// which may be for no change at all, reads what it holds and corrects that. The first call plans
    /// everything in the snapshot, whatever `changes` say.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn apply(&mut self, snapshot: &Snapshot, changes: &ChangeSet) -> Result<Outcome, Error> {
        if self.phase == Phase::New {
            self.dataplane.adopt()?;
            self.planner.start(snapshot, &mut *self.dataplane);
        } else {
            self.planner.update(snapshot, changes, &mut *self.dataplane);
        }
        if self.phase == Phase::InStep {
            match self.dataplane.commit() {
                Ok(outcome) => return Ok(outcome),
                Err(error) => warn!("{error}; reading what the kernel holds to correct it"),
            }
        }
        self.phase = Phase::OutOfStep;
        self.dataplane.resync()?;
        self.phase = Phase::InStep;
        self.clean_up_other_modes();
        Ok(Outcome::Full)
    }

    /// Deletes what an earlier run in another mode left, once clients are led by this one.
    fn clean_up_other_modes(&mut self) {
        for mut other in std::mem::take(&mut self.others) {
            if let Err(error) = other.clean_up() {
                warn!(
                    "{error}; rules of another mode of weft-proxy stay: run weft-proxy --cleanup, then start it again"
                );
            }
        }
    }

    /// What keeps parts of Services from being served, by the last plan.
    pub fn problems(&self) -> &BTreeMap<Arc<NamespacedName>, Vec<Problem>> {
        self.planner.problems()
    }

    /// The Services that have the numbers of these ports of containers on this node, with what is to be said
    /// of each.
    pub fn host_port_conflicts(&self, host_ports: &[HostPort]) -> Vec<(NamespacedName, Problem)> {
        let is_served = |service: &NamespacedName, frontend: &_| {
            self.dataplane.plan(service).is_some_and(|plan| plan.frontend(frontend).is_some())
        };
        self.planner.host_port_conflicts(host_ports, is_served).collect()
    }

    /// Whether a Service has the port for its health checks.
    pub fn answers_health_checks(&self, service: &NamespacedName) -> bool {
        self.planner.answers_health_checks(service)
    }

    /// What becomes of programs that lead sockets, where there are to be some.
    pub fn programs(&self) -> Option<Programs> {
        self.dataplane.programs()
    }

    /// What reads the counters of all Services.
    pub fn counters(&self) -> ReadCounters {
        self.dataplane.counters()
    }

    /// Which Service has which frontend, by the last plan.
    pub fn ownership(&self) -> &Ownership {
        self.planner.ownership()
    }

    /// The node's first address of each family, by the last plan.
    pub fn addresses(&self) -> &[IpAddr] {
        self.planner.addresses()
    }

    /// What the last plan amounts to.
    pub fn totals(&self) -> Totals {
        self.planner.totals()
    }

    /// Somebody else may have changed what is ours: the next [`Sync::apply`] reads it.
    pub fn mark_dirty(&mut self) {
        if self.phase == Phase::InStep {
            self.phase = Phase::OutOfStep;
        }
    }

    /// Begins to notice what others change, if it has not begun. `other_programs` is woken when they change
    /// what is theirs. Returns whether the kernel is known to be in step still.
    ///
    /// # Errors
    /// Why changes will not be noticed.
    pub fn watch(&mut self, other_programs: &Arc<Notify>) -> Result<bool, Error> {
        let undisturbed = self.dataplane.watch(other_programs)?;
        if !undisturbed {
            self.mark_dirty();
        }
        Ok(undisturbed)
    }

    /// Waits until somebody else has changed what is ours; the next [`Sync::apply`] puts it right. Waits for
    /// ever where that is not noticed. Nothing is lost if the future is dropped.
    pub async fn foreign_change(&mut self) -> ForeignChange {
        let change = poll_fn(|context| self.dataplane.poll_foreign_change(context)).await;
        self.mark_dirty();
        change
    }
}
