//! Keeps the kernel in step with the plan: commits changes, and observes where it no longer knows what the kernel
//! holds. What should be there is for the planner.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use nix::errno::Errno;
use tracing::{debug, info, warn};
use weft_netlink::rtnl::RtnetlinkClient;
use weft_nftables::{Announcement, Author, Client, Observed, Transaction, diff};
use weft_types::{ChangeSet, NamespacedName, Snapshot};

use crate::config::{Config, NodePortAddresses};
use crate::counters::Owners;
use crate::dataplane::nftables::ruleset::table_keys;
use crate::error::Error;
use crate::host_ports;
use crate::planner::{Planner, Totals};
use crate::services::ownership::Claims;
use crate::services::problem::Problem;

/// The planner and the kernel that follows it.
#[derive(Debug)]
pub struct Sync {
    planner: Planner,
    kernel: Client,
    /// Where the machine's addresses are needed.
    route: Option<RtnetlinkClient>,
    phase: Phase,
    /// The numbers of our own transactions that the kernel has not announced yet.
    own: BTreeSet<u32>,
    /// The number of the kernel's last transaction, if nobody else commits any from the last reading on.
    expected: Option<u32>,
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

/// How the kernel was brought into step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With what changed only.
    Partial,
    /// By reading all of it and correcting the difference.
    Full,
}

impl Sync {
    /// Opens the kernel's nf_tables in the network namespace of the calling thread.
    pub fn open(config: Config) -> Result<Sync, Error> {
        let kernel = Client::open()?;
        if !kernel.may_exceed_limits()? {
            info!(
                "sockets are kept to net.core.rmem_max and net.core.wmem_max, as in a user namespace: large changes \
                 are committed in smaller parts, and more announcements of the kernel may be lost"
            );
        }
        let serves_many = config.nodeport_addresses != NodePortAddresses::Primary;
        Ok(Sync {
            planner: Planner::new(config),
            kernel,
            route: serves_many.then(RtnetlinkClient::open).transpose()?,
            phase: Phase::New,
            own: BTreeSet::new(),
            expected: None,
        })
    }

    /// Brings the kernel into step after `changes`. After an error it is out of step, and the next call, which may be for
    /// no change at all, reads what it holds and corrects that. The first call plans everything in the snapshot, whatever
    /// `changes` say.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn apply(&mut self, snapshot: &Snapshot, changes: &ChangeSet) -> Result<Outcome, Error> {
        if self.phase == Phase::New {
            let observed = self.observe()?;
            self.planner.adopt(&observed);
            let first = self.planner.start(snapshot);
            self.planner.layout_changed();
            self.planner.forget_adopted();
            if observed.tables.is_empty() {
                // What the update adds is all that there is to be, and nothing is there to compare it with.
                let mut transaction = diff(&self.planner.bare_tables(), &observed);
                transaction.changes.extend(first.changes);
                return self.commit_all(transaction);
            }
            drop(first);
            return self.correct(&observed);
        }
        let transaction = self.planner.update(snapshot, changes);
        // Fixed chains change once in a node's life: not worth a way of their own.
        let layout_changed = self.planner.layout_changed();
        if self.phase == Phase::InStep && !layout_changed {
            match self.commit(&transaction) {
                Ok(()) => return Ok(Outcome::Partial),
                Err(error) if error.errno() == Some(Errno::ENFILE) => {
                    info!("there are more Services than when the tables were made; making larger ones");
                }
                Err(error) => warn!("{error}; reading what the kernel holds to correct it"),
            }
        }
        self.phase = Phase::OutOfStep;
        let observed = self.observe()?;
        self.correct(&observed)
    }

    fn observe(&mut self) -> Result<Observed, Error> {
        self.expected = self.kernel.generation()?;
        Ok(self.kernel.observe(&table_keys())?)
    }

    /// What keeps parts of Services from being served, by the last plan.
    pub fn problems(&self) -> &BTreeMap<Arc<NamespacedName>, Vec<Problem>> {
        self.planner.problems()
    }

    /// The Services that have the numbers of ports of containers on this node, with what is to be said of each.
    ///
    /// # Errors
    /// Where those cannot be read.
    pub fn host_ports(&mut self) -> Result<Vec<(NamespacedName, Problem)>, Error> {
        let host_ports = host_ports::read(&mut self.kernel)?;
        Ok(self.planner.hide(&host_ports).collect())
    }

    /// Whether a Service has the port for its health checks.
    pub fn answers_health_checks(&self, service: &NamespacedName) -> bool {
        self.planner.answers_health_checks(service)
    }

    /// Every frontend that is served, with the Service that has it.
    pub fn frontends(&self) -> Owners {
        self.planner.frontends().map(|(frontend, owner)| (frontend, owner.clone())).collect()
    }

    /// Who has which frontend, by the last plan.
    pub fn claims(&self) -> &Claims {
        self.planner.claims()
    }

    /// The addresses at which NodePorts are served: those of the last plan, or those that the machine has now.
    pub fn node_port_addresses(&mut self) -> Vec<IpAddr> {
        let (Some(route), NodePortAddresses::Networks(networks)) =
            (&mut self.route, self.planner.nodeport_addresses())
        else {
            return self.planner.addresses().to_vec();
        };
        let serves = |address: &IpAddr| {
            !address.is_loopback() && networks.iter().any(|network| network.contains(*address))
        };
        match route.addresses(None) {
            Ok(addresses) => addresses.iter().map(|address| address.address.ip()).filter(serves).collect(),
            Err(error) => {
                warn!("{error}; UDP clients of NodePorts may be stuck");
                Vec::new()
            }
        }
    }

    /// What the last plan amounts to.
    pub fn totals(&self) -> Totals {
        self.planner.totals()
    }

    /// Somebody else may have changed our tables: the next [`Sync::apply`] reads them.
    pub fn doubt(&mut self) {
        if self.phase == Phase::InStep {
            self.phase = Phase::OutOfStep;
        }
    }

    /// The kernel announced these transactions that changed our tables. Returns who made the last one that was not our own;
    /// where there was one, the kernel is out of step.
    pub fn announced(&mut self, transactions: Vec<Announcement>) -> Option<Author> {
        let foreign = transactions.into_iter().filter(|transaction| !self.own.remove(&transaction.number));
        let author = foreign.last()?.author;
        self.doubt();
        Some(author)
    }

    /// The kernel will announce transactions from now on, and said nothing of those before. Returns whether there was none
    /// since the kernel was read but our own; otherwise it may be out of step.
    pub fn announcements_begin(&mut self) -> bool {
        self.own.clear();
        let undisturbed = self.kernel.generation().is_ok_and(|number| number == self.expected);
        if !undisturbed {
            self.doubt();
        }
        undisturbed
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<(), weft_netlink::Error> {
        let own = self.kernel.load(transaction)?;
        self.expected = self.expected.map(|number| number.wrapping_add(own.len() as u32));
        self.own.extend(own);
        Ok(())
    }

    fn correct(&mut self, observed: &Observed) -> Result<Outcome, Error> {
        self.commit_all(match observed.tables.is_empty() {
            // The commonest case, with the most to do: somebody flushed all rules.
            true => self.planner.fill(),
            false => diff(&self.planner.tables(), observed),
        })
    }

    /// Commits what brings the kernel into step, wherever it was.
    fn commit_all(&mut self, mut transaction: Transaction) -> Result<Outcome, Error> {
        self.phase = Phase::OutOfStep;
        transaction.make_room();
        debug!(changes = transaction.changes.len(), services = self.planner.services(), "correcting");
        match self.commit(&transaction) {
            // What only adds can be committed in parts. Without the tables, connections that go on are not disturbed.
            Err(error) if error.is_too_large() => {
                warn!("{error}; making the tables anew instead");
                let observed = self.observe()?;
                self.commit(&diff(&[], &observed))?;
                self.commit(&self.planner.fill())?;
            }
            committed => committed?,
        }
        self.phase = Phase::InStep;
        Ok(Outcome::Full)
    }
}

/// Deletes both tables, if they are there.
pub fn clean_up() -> Result<(), Error> {
    let mut kernel = Client::open()?;
    let observed = kernel.observe(&table_keys())?;
    Ok(kernel.commit(&diff(&[], &observed))?)
}
