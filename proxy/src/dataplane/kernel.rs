//! The kernel's nf_tables as a data plane uses them: what it commits, and by which numbers it knows its own
//! transactions from those of others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tracing::info;
use weft_netlink::Result;
use weft_nftables::{Announcement, Author, Client, IsOurs, Transaction};

use super::ForeignChange;
use super::monitor::{Announced, Monitor};
use crate::error::Error;

/// A way to the kernel.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    /// Opened when it is needed.
    client: Option<Client>,
    /// The numbers of our own transactions that the kernel has not announced yet.
    own: BTreeSet<u32>,
    /// The number of the kernel's last transaction, if nobody else commits any from the last reading on.
    expected: Option<u32>,
    /// Who tells of what others change, while that is noticed.
    monitor: Option<Monitor>,
}

/// Tells the log where sockets are small.
pub(super) fn tell_of_limits() -> Result<()> {
    if !Client::open()?.may_exceed_limits()? {
        info!(
            "sockets are kept to net.core.rmem_max and net.core.wmem_max, as in a user namespace: large changes are committed in \
             smaller parts, and more announcements of the kernel may be lost"
        );
    }
    Ok(())
}

impl Kernel {
    /// One in the network namespace of the calling thread.
    pub(super) fn open() -> Result<Kernel> {
        Ok(Kernel { client: Some(Client::open()?), ..Kernel::default() })
    }

    pub(super) fn client(&mut self) -> Result<&mut Client> {
        match &mut self.client {
            Some(client) => Ok(client),
            none => Ok(none.insert(Client::open()?)),
        }
    }

    /// The same to read all that is to be known: what others commit from now on was not read.
    pub(super) fn reader(&mut self) -> Result<&mut Client> {
        self.expected = self.client()?.generation()?;
        self.client()
    }

    /// Commits a transaction; one that only adds, perhaps in parts.
    pub(super) fn load(&mut self, transaction: &Transaction) -> Result<()> {
        let own = self.client()?.load(transaction)?;
        self.committed(own);
        Ok(())
    }

    /// Commits a transaction at once.
    pub(super) fn commit(&mut self, transaction: &Transaction) -> Result<()> {
        let own = self.client()?.commit_numbered(transaction)?;
        self.committed(own);
        Ok(())
    }

    fn committed(&mut self, own: std::ops::Range<u32>) {
        self.expected = self.expected.map(|number| number.wrapping_add(own.len() as u32));
        self.own.extend(own);
    }

    /// Begins to notice what others change in these tables, if it has not begun. Returns whether nobody has
    /// changed anything since it was read.
    pub(super) fn watch(
        &mut self,
        tables: &[&'static str],
        is_ours: IsOurs,
        other_programs: &Arc<Notify>,
    ) -> std::result::Result<bool, Error> {
        if self.monitor.is_some() {
            return Ok(true);
        }
        // From now on: before, the kernel would have told of all that was put in.
        self.monitor = Some(Monitor::open(tables, is_ours, other_programs.clone())?);
        other_programs.notify_one();
        self.own.clear();
        // Where somebody came in between, nobody told of it.
        let expected = self.expected;
        Ok(self.client()?.generation().is_ok_and(|number| number == expected))
    }

    /// Whether somebody else has changed one of these tables.
    pub(super) fn poll_foreign_change(&mut self, context: &mut Context<'_>) -> Poll<ForeignChange> {
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

    /// Who made the last of these transactions that was not our own.
    fn foreign_author(&mut self, transactions: Vec<Announcement>) -> Option<Author> {
        let foreign = transactions.into_iter().filter(|transaction| !self.own.remove(&transaction.number));
        Some(foreign.last()?.author)
    }
}
