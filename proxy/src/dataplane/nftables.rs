//! The data plane on nf_tables: fixed chains, and maps whose elements are all that there is of a Service.
//!
//! ```text
//! stage -> DesiredTables -> Transaction -> commit                                       (a change)
//!          DesiredTables::tables() --.
//!          observe() ----------------+-> diff() -> Transaction -> commit                 (at the start, after a failure)
//! ```
//!
//! Here stands what talks to the kernel; `monitor` listens to it, `counters` reads from it, and all else is pure.

mod affinity_numbers;
mod counters;
mod elements;
mod monitor;
mod refcounts;
pub mod ruleset;
mod settings;
mod slots;
mod tables;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll};

use nix::errno::Errno;
use tokio::sync::Notify;
use tracing::{debug, info, warn};
use weft_nftables::{self as nft, Client, Observed, Transaction, diff};
use weft_types::NamespacedName;

use super::{Author, Dataplane, ForeignChange, Outcome, Through};
use crate::config::Config;
use crate::counters::ReadCounters;
use crate::error::Error;
use crate::services::node::NodeConfig;
use crate::services::plan::ServicePlan;
use crate::services::planner::Stage;
use crate::trace::{Memory, Packet, Tracer, live};

use monitor::{Announced, Monitor};
use ruleset::table_keys;
pub use tables::DesiredTables;

/// The tables as they should be, and the kernel that follows them.
#[derive(Debug)]
pub struct NftablesDataplane {
    desired: DesiredTables,
    /// Opened when it is needed.
    kernel: Option<Client>,
    /// What an earlier run left, until it is corrected for the first time.
    left: Option<Observed>,
    /// The numbers of our own transactions that the kernel has not announced yet.
    own: BTreeSet<u32>,
    /// The number of the kernel's last transaction, if nobody else commits any from the last reading on.
    expected: Option<u32>,
    /// Who tells of what others change, while that is noticed.
    monitor: Option<Monitor>,
}

impl NftablesDataplane {
    /// One that needs the kernel for nothing but to read it and to change it.
    pub fn new(config: &Config) -> NftablesDataplane {
        NftablesDataplane {
            desired: DesiredTables::new(config),
            kernel: None,
            left: None,
            own: BTreeSet::new(),
            expected: None,
            monitor: None,
        }
    }

    /// One for the kernel's nf_tables in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn open(config: &Config) -> Result<NftablesDataplane, Error> {
        let mut opened = NftablesDataplane::new(config);
        if !opened.kernel()?.may_exceed_limits()? {
            info!(
                "sockets are kept to net.core.rmem_max and net.core.wmem_max, as in a user namespace: large changes \
                 are committed in smaller parts, and more announcements of the kernel may be lost"
            );
        }
        Ok(opened)
    }

    fn kernel(&mut self) -> Result<&mut Client, weft_netlink::Error> {
        match &mut self.kernel {
            Some(kernel) => Ok(kernel),
            none => Ok(none.insert(Client::open()?)),
        }
    }

    fn observe(&mut self) -> Result<Observed, weft_netlink::Error> {
        self.expected = self.kernel()?.generation()?;
        self.kernel()?.observe(&table_keys())
    }

    fn load(&mut self, transaction: &Transaction) -> Result<(), weft_netlink::Error> {
        let own = self.kernel()?.load(transaction)?;
        self.expected = self.expected.map(|number| number.wrapping_add(own.len() as u32));
        self.own.extend(own);
        Ok(())
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
        match self.load(&transaction) {
            // What only adds can be committed in parts. Without the tables, connections that go on are not disturbed.
            Err(error) if error.is_too_large() => {
                warn!("{error}; making the tables anew instead");
                let observed = self.observe()?;
                self.load(&diff(&[], &observed))?;
                Ok(self.load(&self.desired.fill())?)
            }
            loaded => Ok(loaded?),
        }
    }

    /// Who made the last of these transactions that was not our own.
    fn foreign_author(&mut self, transactions: Vec<nft::Announcement>) -> Option<Author> {
        let foreign = transactions.into_iter().filter(|transaction| !self.own.remove(&transaction.number));
        Some(foreign.last()?.author)
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
        match self.load(&transaction) {
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
            Through::Staged => {
                let NodeConfig { addresses, pod_cidrs, .. } = self.desired.node().clone();
                let packet = Packet::parse(packet, &addresses)?;
                let tracer = Tracer::new(self.desired.tables(), addresses).on_node(&pod_cidrs);
                tracer.explain(&packet, &Memory::default())
            }
        }
    }

    fn counters(&self) -> ReadCounters {
        let owners = self.desired.owners();
        Box::new(move || counters::read(&owners))
    }

    fn watch(&mut self, other_programs: &Arc<Notify>) -> Result<bool, Error> {
        if self.monitor.is_some() {
            return Ok(true);
        }
        // From now on: before, the kernel would have told of every element that was put in.
        self.monitor = Some(Monitor::open(other_programs.clone())?);
        other_programs.notify_one();
        self.own.clear();
        // Where somebody came in between, nobody told of it.
        let expected = self.expected;
        Ok(self.kernel()?.generation().is_ok_and(|number| number == expected))
    }

    fn poll_foreign_change(&mut self, context: &mut Context<'_>) -> Poll<ForeignChange> {
        while let Some(monitor) = &mut self.monitor {
            let Poll::Ready(announced) = monitor.poll_next(context) else { break };
            match announced {
                Announced::Events(transactions) => {
                    let Some(author) = self.foreign_author(transactions) else { continue };
                    // Of all that is put back, the kernel would make announcements too.
                    self.monitor = None;
                    return Poll::Ready(ForeignChange::By(author));
                }
                Announced::Overrun => return Poll::Ready(ForeignChange::Unknown),
            }
        }
        Poll::Pending
    }

    fn clean_up(&mut self) -> Result<(), Error> {
        let observed = self.observe()?;
        Ok(self.load(&diff(&[], &observed))?)
    }
}
