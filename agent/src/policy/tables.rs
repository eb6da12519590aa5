//! The kernel's tables of network policies: kept in step with the plan by small changes, read and compared
//! where that is in doubt.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use weft_nftables::{
    self as nft, Change, Data, DataType, Family, KnownTable, Observed, TableKey, Transaction, Tuple, Value,
};
use weft_policy::pending::{self, PENDING, TABLE};
use weft_policy::plan::{Delta, Direction};
use weft_policy::ruleset::refused::REFUSED;
use weft_policy::ruleset::{Denied, Ruleset, adopt, denying_chain};

use crate::Result;
use crate::subsystem::KernelChanges;

/// What is known of the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing: they must be read.
    Unknown,
    /// There are none.
    Absent,
    /// They are as in the ruleset, but for the addresses that wait.
    InStep,
}

/// A connection to nf_tables that several threads use: so that none commits while another reads, or counts
/// its transactions.
#[derive(Clone)]
pub(crate) struct SharedClient(Arc<Mutex<nft::Client>>);

impl SharedClient {
    /// In the calling thread's network namespace.
    pub(crate) fn open() -> Result<SharedClient> {
        Ok(SharedClient(Arc::new(Mutex::new(nft::Client::open()?))))
    }

    /// Waits for the others.
    pub(crate) fn lock(&self) -> MutexGuard<'_, nft::Client> {
        // Whatever a thread that panicked left in the socket, answers go by their numbers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tables, in the network namespace in which they were opened.
pub(crate) struct PolicyTables {
    nft: SharedClient,
    denied: Denied,
    ruleset: Ruleset,
    state: State,
    /// The numbers of transactions of our own that are still to be announced.
    own: Vec<u32>,
    /// Addresses came to those that wait, or went, and are still to be read.
    pending_changed: bool,
    /// The addresses that wait, each with the plugin's remark.
    waiting: Vec<(IpAddr, String)>,
}

impl PolicyTables {
    /// The tables by way of that connection.
    pub(crate) fn new(nft: SharedClient, denied: Denied) -> PolicyTables {
        PolicyTables {
            nft,
            denied,
            ruleset: Ruleset::new(denied),
            state: State::Unknown,
            own: Vec::new(),
            pending_changed: false,
            waiting: Vec::new(),
        }
    }

    /// Logs denied packets to that group of nflog from the next commit on, or none.
    pub(crate) fn log_to(&mut self, group: Option<u16>) {
        if self.denied.log_group == group {
            return;
        }
        self.denied.log_group = group;
        self.ruleset.set_denied(self.denied);
        if self.state == State::InStep {
            self.state = State::Unknown;
        }
    }

    /// Takes in what the kernel told.
    pub(crate) fn note(&mut self, changes: &KernelChanges) {
        if changes.is_unknown {
            self.state = State::Unknown;
            self.own.clear();
            return;
        }
        for transaction in &changes.transactions {
            if let Some(place) = self.own.iter().position(|own| *own == transaction.number) {
                self.own.swap_remove(place);
                continue;
            }
            for place in transaction.places.iter().filter(|place| *place.table == *TABLE) {
                match (place.set.as_deref(), self.state) {
                    (Some(REFUSED), _) => {}
                    (Some(PENDING), State::InStep) => self.pending_changed = true,
                    _ => self.state = State::Unknown,
                }
            }
        }
    }

    /// What the kernel holds now, to follow packets through.
    pub(crate) fn held(&mut self) -> Result<Vec<KnownTable>> {
        Ok(self.nft.lock().whole(TABLE)?)
    }

    /// The addresses that wait, as of the last look.
    pub(crate) fn waiting(&self) -> &[(IpAddr, String)] {
        &self.waiting
    }

    /// Finds out what waits. Returns what the tables hold, where they are not known to be in step.
    pub(crate) fn look(&mut self) -> Result<Option<Observed>> {
        if self.state == State::InStep {
            if std::mem::take(&mut self.pending_changed) {
                self.read_waiting().inspect_err(|_| self.state = State::Unknown)?;
            }
            return Ok(None);
        }
        let observed = self.nft.lock().observe(&keys())?;
        // With a table, the addresses that wait in it are lost: they must not be open for that.
        let lost = |address: &IpAddr| !observed.tables.contains_key(&key(Family::of(*address)));
        self.waiting.retain(|(address, _)| lost(address));
        self.waiting.extend(adopt::pending(&observed));
        self.pending_changed = false;
        Ok(Some(observed))
    }

    fn read_waiting(&mut self) -> Result<()> {
        let mut waiting = Vec::new();
        for family in Family::BOTH {
            for element in self.nft.lock().owned(&pending::declaration(family))? {
                let values = element.key.values(&[DataType::address(family)]);
                if let Some([Value::Address(address)]) = values.as_deref() {
                    waiting.push((*address, element.owner.to_string()));
                }
            }
        }
        self.waiting = waiting;
        Ok(())
    }

    /// Writes a change of the plan, and takes the addresses out that no longer wait, in one transaction.
    /// `observed` is what [`PolicyTables::look`] returned. Returns whether anything was written.
    ///
    /// # Errors
    /// What the kernel refused. The change is taken in all the same: the next look tells what is missing.
    pub(crate) fn commit(
        &mut self,
        delta: &Delta,
        answered: &[IpAddr],
        observed: Option<Observed>,
    ) -> Result<bool> {
        let mut transaction = self.ruleset.apply(delta);
        let before = self.waiting.clone();
        self.waiting.retain(|(address, _)| !answered.contains(address));
        match observed {
            Some(observed) => {
                self.ruleset.set_pending(&self.waiting);
                transaction = self.ruleset.bring(&observed);
            }
            None => release(answered, &mut transaction),
        }
        let committed = match self.write(&transaction) {
            Err(error) if error.errno() == Some(Errno::ENFILE) => self.make_room(answered),
            other => other,
        };
        if committed.is_err() {
            self.state = State::Unknown;
            self.waiting = before;
        } else {
            self.state = State::InStep;
        }
        Ok(committed.map(|()| !transaction.is_empty())?)
    }

    /// A set is full: with more room, it is made anew under the rules, in one transaction.
    fn make_room(&mut self, answered: &[IpAddr]) -> weft_netlink::Result<()> {
        let observed = self.nft.lock().observe(&keys())?;
        self.waiting = adopt::pending(&observed);
        self.waiting.retain(|(address, _)| !answered.contains(address));
        self.ruleset.set_pending(&self.waiting);
        self.write(&self.ruleset.bring(&observed))
    }

    fn write(&mut self, transaction: &Transaction) -> weft_netlink::Result<()> {
        if transaction.is_empty() {
            return Ok(());
        }
        // Where others committed meanwhile, it is not certain which is whose: then the announcement counts as
        // another's.
        self.own.extend(self.nft.lock().commit_numbered(transaction)?);
        Ok(())
    }

    /// How many packets the tables of both families denied on that way; nothing where there are none.
    pub(crate) fn denied(&mut self, direction: Direction) -> Result<Option<[u64; 2]>> {
        if self.state != State::InStep {
            return Ok(None);
        }
        let [v4, v6] = keys().map(|key| self.nft.lock().counted(&key, denying_chain(direction)));
        Ok(Some([v4?, v6?]))
    }

    /// Deletes the tables, where there are any. Returns whether there were.
    pub(crate) fn remove(&mut self) -> Result<bool> {
        if self.state == State::Absent {
            return Ok(false);
        }
        let transaction = nft::diff(&[], &self.nft.lock().observe(&keys())?);
        self.write(&transaction)?;
        self.state = State::Absent;
        self.ruleset = Ruleset::new(self.denied);
        self.waiting.clear();
        Ok(!transaction.is_empty())
    }
}

fn key(family: Family) -> TableKey {
    (family.into(), TABLE.into())
}

fn keys() -> [TableKey; 2] {
    Family::BOTH.map(key)
}

/// Takes addresses out of those that wait.
fn release(answered: &[IpAddr], transaction: &mut Transaction) {
    for family in Family::BOTH {
        let own = answered.iter().filter(|address| Family::of(**address) == family);
        let elements: Vec<_> =
            own.map(|address| (Tuple::new(&[Value::Address(*address)]), Data::None)).collect();
        if !elements.is_empty() {
            transaction.changes.push(Change::DeleteElements(pending::declaration(family), elements));
        }
    }
}
