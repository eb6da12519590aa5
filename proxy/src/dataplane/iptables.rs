//! The data plane with the chains that kube-proxy makes in its mode iptables, and that guides show: in the
//! tables `nat` and `filter` of `iptables-nft`, which other programs share. They are written by nf_tables'
//! own messages; there is no program to be called.
//!
//! ```text
//! stage -> DesiredRules -> Changes -> commit                                            (a change)
//!          DesiredRules --.
//!          held::read() --+-> correct() -> what nothing leads to, then all else  (at the start, after a failure)
//! ```
//!
//! Here and in `held` stands what talks to the kernel; all else is pure.

mod correction;
mod desired;
mod held;
mod layout;
mod names;
mod rule;
mod service;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tracing::{debug, warn};
use weft_netlink::barrier;
use weft_nftables::{Change, Name, Transaction};
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

use correction::{clean_up, correct, ways_in};
pub use desired::DesiredRules;
use desired::{Changes, SharedChain};
use held::{Handles, handles};
pub(crate) use layout::SERVICES;
use layout::Table;

/// So many changes fit into a datagram however little room a socket has.
const FEW: usize = 100;

/// The rules as they should be, and the kernel that follows them.
#[derive(Debug)]
pub struct IptablesDataplane {
    desired: DesiredRules,
    kernel: Kernel,
    /// The kernel's numbers of rules in shared chains, of the chains that were asked for them.
    handles: HashMap<SharedChain, Handles>,
}

impl IptablesDataplane {
    /// One that needs the kernel for nothing but to read it and to change it.
    pub fn new(config: &Config) -> IptablesDataplane {
        let (desired, kernel) = (DesiredRules::new(config), Kernel::default());
        IptablesDataplane { desired, kernel, handles: HashMap::new() }
    }

    /// One for the tables in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn open(config: &Config) -> Result<IptablesDataplane, Error> {
        Ok(IptablesDataplane { kernel: Kernel::open()?, ..IptablesDataplane::new(config) })
    }

    /// What deletes these rules of shared chains. Of a chain that was filled since it was asked, the numbers
    /// are asked for anew.
    fn deletions(&mut self, gone: BTreeMap<SharedChain, Vec<u64>>) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        for ((family, shared), digests) in gone {
            let (key, chain) = (shared.table().key(family), Name::from(shared.chain()));
            let known = self.handles.entry((family, shared)).or_default();
            if !digests.iter().all(|digest| known.get(digest).is_some_and(|handles| !handles.is_empty())) {
                *known = handles(&self.kernel.client()?.rule_heads(&key, Some(&chain))?);
            }
            for digest in digests {
                let handle = known.get_mut(&digest).and_then(Vec::pop);
                let missing = || {
                    Error::Dataplane(format!("a rule of chain {chain} of table {} {} is gone", key.0, key.1))
                };
                changes.push(Change::DeleteRule(key.clone(), chain.clone(), handle.ok_or_else(missing)?));
            }
        }
        Ok(changes)
    }
}

/// Rules of the legacy iptables are run beside those of `iptables-nft`, in an order that nobody expects, and
/// are not seen from here.
///
/// # Errors
/// Where there are some.
pub(super) fn refuse_beside_legacy_tables() -> Result<(), Error> {
    let tables = live::all_legacy_tables();
    if tables.iter().any(|table| Table::ALL.iter().any(|ours| ours.name() == table)) {
        return Err(Error::LegacyTables { tables: tables.join(", ") });
    }
    Ok(())
}

/// Whether a change of a chain concerns us: one of our own chains, or a deletion where packets enter.
fn is_ours(chain: &str, is_deletion: bool) -> bool {
    let is_entry = || Table::ALL.iter().any(|table| table.entries().iter().any(|(entry, _)| *entry == chain));
    Table::ALL.iter().any(|table| table.owns(chain)) || (is_deletion && is_entry())
}

impl Stage for IptablesDataplane {
    fn stage(&mut self, service: &Arc<NamespacedName>, plan: ServicePlan) {
        self.desired.stage(service, plan);
    }

    fn stage_node(&mut self, node: &NodeConfig) {
        self.desired.stage_node(node);
    }
}

impl Dataplane for IptablesDataplane {
    /// Nothing depends on what is there: rules are compared with those that are planned.
    fn adopt(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn commit(&mut self) -> Result<Outcome, Error> {
        if self.desired.fixed_changed() {
            self.resync()?;
            return Ok(Outcome::Full);
        }
        let Changes { added, changed, gone, deleted } = self.desired.take_changes();
        let gone = self.deletions(gone)?;
        let changes = added.changes.into_iter().chain(changed.changes).chain(gone).chain(deleted.changes);
        self.kernel.commit(&Transaction { changes: changes.collect() })?;
        Ok(Outcome::Partial)
    }

    fn resync(&mut self) -> Result<(), Error> {
        self.desired.forget_changes();
        self.handles.clear();
        let held = held::read(self.kernel.reader()?)?;
        let (desired, kernel) = (&self.desired, &mut self.kernel);
        // At once where that may be: at each commit the kernel goes through all chains that there are.
        let rest = correct(desired, &held, |added| match kernel.commit(added) {
            Err(error) if error.is_too_large() => Ok(kernel.load(added)?),
            committed => Ok(committed?),
        })?;
        debug!(changes = rest.changes.len(), services = self.desired.services(), "correcting");
        match self.kernel.commit(&rest) {
            Err(error) if error.is_too_large() => {
                warn!("{error}; committing it in parts, between which some Services are not served");
                let mut parts = rest.changes.chunks(FEW);
                parts.try_for_each(|part| Ok(self.kernel.commit(&Transaction { changes: part.to_vec() })?))
            }
            committed => Ok(committed?),
        }
    }

    fn plan(&self, service: &NamespacedName) -> Option<&ServicePlan> {
        self.desired.plan(service)
    }

    fn services(&self) -> usize {
        self.desired.services()
    }

    fn render(&self) -> String {
        self.desired.render()
    }

    fn trace(&mut self, packet: &str, through: Through) -> Result<String, Error> {
        match through {
            Through::Kernel => live::trace(packet),
            Through::Staged => trace::explain(packet, self.desired.tables(), self.desired.node()),
        }
    }

    /// The rules count for themselves, as `iptables -vL` shows.
    fn counters(&self) -> ReadCounters {
        Box::new(|| Ok(Vec::new()))
    }

    fn watch(&mut self, other_programs: &Arc<Notify>) -> Result<bool, Error> {
        self.kernel.watch(&Table::ALL.map(Table::name), is_ours, other_programs)
    }

    fn poll_foreign_change(&mut self, context: &mut Context<'_>) -> Poll<ForeignChange> {
        self.kernel.poll_foreign_change(context)
    }

    fn clean_up(&mut self) -> Result<(), Error> {
        let ways_in = ways_in(&held::read(self.kernel.reader()?)?);
        if !ways_in.changes.is_empty() {
            self.kernel.commit(&ways_in)?;
            barrier::wait_for_packets();
        }
        let held = held::read(self.kernel.reader()?)?;
        Ok(self.kernel.commit(&clean_up(&held))?)
    }
}
