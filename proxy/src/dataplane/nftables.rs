//! The data plane on nf_tables: fixed chains, and maps whose elements are all that there is of a Service.
//!
//! ```text
//! stage -> DesiredTables -> Transaction -> commit                                       (a change)
//!          DesiredTables::tables() --.
//!          observe() ----------------+-> diff() -> Transaction -> commit                 (at the start, after a failure)
//! ```
//!
//! Here stands what is done with the kernel; `counters` reads from it too, and all else is pure.

mod affinity_numbers;
mod counters;
mod elements;
mod refcounts;
pub mod ruleset;
mod slots;
mod tables;

use std::sync::Arc;
use std::task::{Context, Poll};

use nix::errno::Errno;
use tokio::sync::Notify;
use tracing::{debug, info, warn};
use weft_netlink::barrier;
use weft_nftables::{Observed, Transaction, diff};
use weft_types::NamespacedName;

use super::kernel::Kernel;
use super::{Dataplane, ForeignChange, Outcome, Through};
use crate::config::Config;
use crate::counters::ReadCounters;
use crate::error::Error;
use crate::services::node::NodeConfig;
use crate::services::plan::ServicePlan;
use crate::services::planner::Stage;
use crate::trace::{self, live};

pub(super) use counters::Owners;
use ruleset::{TABLE, table_keys};
pub use tables::DesiredTables;

/// The tables as they should be, and the kernel that follows them.
#[derive(Debug)]
pub struct NftablesDataplane {
    desired: DesiredTables,
    kernel: Kernel,
    /// What an earlier run left, until it is corrected for the first time.
    left: Option<Observed>,
}

impl NftablesDataplane {
    /// The plans of all Services.
    pub(super) fn plans(&self) -> impl Iterator<Item = (&Arc<NamespacedName>, &ServicePlan)> {
        self.desired.plans()
    }

    /// This node, as it was staged last.
    pub(super) fn node(&self) -> &NodeConfig {
        self.desired.node()
    }

    /// Every frontend that is served, with the Service that has it.
    pub(super) fn owners(&self) -> Owners {
        self.desired.owners()
    }

    /// One that needs the kernel for nothing but to read it and to change it.
    pub fn new(config: &Config) -> NftablesDataplane {
        NftablesDataplane { desired: DesiredTables::new(config), kernel: Kernel::default(), left: None }
    }

    /// One for the kernel's nf_tables in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn open(config: &Config) -> Result<NftablesDataplane, Error> {
        Ok(NftablesDataplane { kernel: Kernel::open()?, ..NftablesDataplane::new(config) })
    }

    fn observe(&mut self) -> Result<Observed, weft_netlink::Error> {
        self.kernel.reader()?.observe(&table_keys())
    }

    /// What brings the kernel into step that holds this.
    fn correction(&mut self, observed: &Observed, is_first: bool) -> Transaction {
        let staged = self.desired.take_changes();
        self.desired.forget_adopted();
        match (observed.tables.is_empty(), is_first) {
            (true, true) => {
                // What was staged is all that there is to be, and nothing is there to compare it with.
                let mut transaction = diff(&self.desired.bare_tables(), observed);
                transaction.changes.extend(staged.changes);
                transaction
            }
            // The commonest case, with the most to do: somebody flushed all rules.
            (true, false) => self.desired.fill(),
            (false, _) => {
                drop(staged);
                diff(&self.desired.tables(), observed)
            }
        }
    }

    /// Commits what brings the kernel into step, wherever it was.
    fn load_all(&mut self, mut transaction: Transaction) -> Result<(), Error> {
        transaction.make_room();
        debug!(changes = transaction.changes.len(), services = self.desired.services(), "correcting");
        match self.kernel.load(&transaction) {
            // What only adds can be committed in parts. Without the tables, connections that go on are not
            // disturbed.
            Err(error) if error.is_too_large() => {
                warn!("{error}; making the tables anew instead");
                let observed = self.observe()?;
                self.kernel.load(&diff(&[], &observed))?;
                Ok(self.kernel.load(&self.desired.fill())?)
            }
            loaded => Ok(loaded?),
        }
    }
}

impl Stage for NftablesDataplane {
    fn stage(&mut self, service: &Arc<NamespacedName>, plan: ServicePlan) {
        self.desired.stage(service, plan);
    }

    fn stage_node(&mut self, node: &NodeConfig) {
        self.desired.stage_node(node);
    }
}

impl Dataplane for NftablesDataplane {
    fn adopt(&mut self) -> Result<(), Error> {
        let observed = self.observe()?;
        self.desired.adopt(&observed);
        self.left = Some(observed);
        Ok(())
    }

    fn commit(&mut self) -> Result<Outcome, Error> {
        // Fixed chains change once in a node's life: not worth a way of their own.
        if self.desired.ruleset_changed() {
            self.resync()?;
            return Ok(Outcome::Full);
        }
        let transaction = self.desired.take_changes();
        match self.kernel.load(&transaction) {
            Ok(()) => Ok(Outcome::Partial),
            Err(error) if error.errno() == Some(Errno::ENFILE) => {
                info!("there are more Services than when the tables were made; making larger ones");
                self.resync()?;
                Ok(Outcome::Full)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn resync(&mut self) -> Result<(), Error> {
        let left = self.left.take();
        let is_first = left.is_some();
        let observed = match left {
            Some(observed) => observed,
            None => self.observe()?,
        };
        let transaction = self.correction(&observed, is_first);
        drop(observed);
        self.load_all(transaction)
    }

    fn plan(&self, service: &NamespacedName) -> Option<&ServicePlan> {
        self.desired.plan(service)
    }

    fn services(&self) -> usize {
        self.desired.services()
    }

    fn render(&self) -> String {
        let tables: Vec<String> = self.desired.tables().iter().map(ToString::to_string).collect();
        tables.join("\n")
    }

    fn trace(&mut self, packet: &str, through: Through) -> Result<String, Error> {
        match through {
            Through::Kernel => live::trace(packet),
            Through::Staged => trace::explain(packet, self.desired.tables(), self.desired.node()),
        }
    }

    fn counters(&self) -> ReadCounters {
        let owners = self.desired.owners();
        Box::new(move || counters::read(&owners))
    }

    fn watch(&mut self, other_programs: &Arc<Notify>) -> Result<bool, Error> {
        self.kernel.watch(&[TABLE], |_, _| true, other_programs)
    }

    fn poll_foreign_change(&mut self, context: &mut Context<'_>) -> Poll<ForeignChange> {
        self.kernel.poll_foreign_change(context)
    }

    fn clean_up(&mut self) -> Result<(), Error> {
        let ways_in = ruleset::ways_in(&self.observe()?);
        if !ways_in.changes.is_empty() {
            self.kernel.commit(&ways_in)?;
            barrier::wait_for_packets();
        }
        let observed = self.observe()?;
        Ok(self.kernel.load(&diff(&[], &observed))?)
    }
}
