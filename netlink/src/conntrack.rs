//! conntrack: the connections that the kernel knows of in a network namespace, read and deleted. Which of
//! them are to be deleted is not decided here.
//!
//! ```text
//! ConntrackClient::flows(family, &Filter) -> Vec<Flow> -> ConntrackClient::delete(&[Flow])
//! ConntrackClient::delete_where(family, &Filter, is_stale)
//! ```

mod flow;
mod message;
mod monitor;

use std::collections::HashMap;

use nix::errno::Errno;

use crate::Family;
use crate::socket::Batch;
use crate::{Error, Protocol, Refusal, Request, Result, Socket};

pub use flow::{CtStatus, Event, Filter, Flow, TcpState, Traffic, Tuple};
pub use monitor::{Group, Monitor};

/// Room for the answers to [`CHUNK`] requests that are all refused.
const RECEIVE_BUFFER: usize = 1 << 20;
/// How many flows are deleted by one system call.
const CHUNK: usize = 256;

/// A connection to the conntrack table.
#[derive(Debug)]
pub struct ConntrackClient {
    /// Reads the table.
    reader: Socket,
    /// Deletes flows, while the other may be in the midst of reader.
    deleter: Deleter,
}

#[derive(Debug)]
struct Deleter(Socket);

impl ConntrackClient {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> Result<ConntrackClient> {
        let [reader, mut deleter] = [Socket::open(Protocol::Netfilter)?, Socket::open(Protocol::Netfilter)?];
        deleter.set_receive_buffer(RECEIVE_BUFFER)?;
        Ok(ConntrackClient { reader, deleter: Deleter(deleter) })
    }

    /// How many flows there are in the network namespace, of all families and protocols. This costs nothing,
    /// where to read them the kernel looks into each bucket of a table that all namespaces share.
    ///
    /// # Errors
    /// As of [`ConntrackClient::flows`].
    pub fn count(&mut self) -> Result<usize> {
        let counts = self.reader.query(message::count(), message::read_count);
        let counts = counts.map_err(|error| error.during("count tracked connections"))?;
        Ok(counts.into_iter().sum())
    }

    /// The flows of one family that pass the filter. Flows of protocols without ports are left out. The
    /// kernel does the sorting (since Linux 5.8), so that little is copied where little is wanted.
    ///
    /// The table is not read at one moment: flows that come or go meanwhile may or may not be there.
    ///
    /// # Errors
    /// What the kernel refused: EPERM without CAP_NET_ADMIN, EINVAL or ENOENT without connection tracking.
    pub fn flows(&mut self, family: Family, filter: &Filter) -> Result<Vec<Flow>> {
        // By their identity: an entry may be shown twice, and a dump that is started anew shows all once
        // more.
        let mut flows = HashMap::new();
        self.for_each(family, filter, |flow| {
            flows.insert((flow.id, flow.original), flow);
        })?;
        Ok(flows.into_values().collect())
    }

    /// Shows the flows of one family that pass the filter as they are read; one may be shown twice.
    ///
    /// # Errors
    /// As of [`ConntrackClient::flows`].
    pub fn for_each(&mut self, family: Family, filter: &Filter, mut show: impl FnMut(Flow)) -> Result<()> {
        read(&mut self.reader, family, filter, |flow| {
            show(flow);
            Ok(())
        })
    }

    /// Deletes the flows of one family that pass the filter and are stale, each as soon as it is read: of a
    /// large table no more is ever held than a handful. Returns how many were deleted.
    ///
    /// # Errors
    /// As of [`ConntrackClient::flows`] and [`ConntrackClient::delete`].
    pub fn delete_where(
        &mut self,
        family: Family,
        filter: &Filter,
        is_stale: impl FnMut(&Flow) -> bool,
    ) -> Result<usize> {
        self.delete_where_after(family, filter, is_stale, |_| Ok(()))
    }

    /// The same as [`ConntrackClient::delete_where`], but `prepare` sees the flows first, a handful at a
    /// time, and may still take some of them out.
    ///
    /// # Errors
    /// As of [`ConntrackClient::delete_where`], and what `prepare` says: then these flows stay.
    pub fn delete_where_after(
        &mut self,
        family: Family,
        filter: &Filter,
        mut is_stale: impl FnMut(&Flow) -> bool,
        mut prepare: impl FnMut(&mut Vec<Flow>) -> Result<()>,
    ) -> Result<usize> {
        let ConntrackClient { reader, deleter } = self;
        let (mut stale, mut gone) = (Vec::with_capacity(CHUNK), 0);
        let mut delete = |stale: &mut Vec<Flow>| {
            prepare(stale)?;
            gone += deleter.delete(stale)?;
            stale.clear();
            Ok(())
        };
        let keep = |flow: Flow| {
            if is_stale(&flow) {
                stale.push(flow);
            }
            if stale.len() == CHUNK { delete(&mut stale) } else { Ok(()) }
        };
        read(reader, family, filter, keep)?;
        delete(&mut stale)?;
        Ok(gone)
    }

    /// Deletes these flows: their next packets are looked at as if they were first ones. Returns how many of
    /// them were still there.
    ///
    /// # Errors
    /// What the kernel refused first; the flows behind that one may stay.
    pub fn delete(&mut self, flows: &[Flow]) -> Result<usize> {
        self.deleter.delete(flows)
    }
}

fn read<T>(
    socket: &mut Socket,
    family: Family,
    filter: &Filter,
    keep: impl FnMut(Flow) -> Result<T>,
) -> Result<()> {
    let read = socket.dump(message::dump(family, filter), message::reader(filter, keep));
    read.map(drop).map_err(|error| error.during("read the table of connections"))
}

impl Deleter {
    fn delete(&mut self, flows: &[Flow]) -> Result<usize> {
        let mut gone = 0;
        for chunk in flows.chunks(CHUNK) {
            gone += self
                .send_all(chunk.iter().map(message::delete))
                .map_err(|error| error.during("delete tracked connections"))?;
        }
        Ok(gone)
    }

    /// Sends requests in one go, and returns how many were granted. Flows that are gone are no error.
    fn send_all(&mut self, requests: impl ExactSizeIterator<Item = Request>) -> Result<usize> {
        let count = requests.len();
        let first = self.0.reserve_sequences(count as u32);
        let mut batch = Batch::default();
        for (request, sequence) in requests.zip(first..) {
            batch.push(&request, sequence);
        }
        match self.0.batch(&batch, |_| Ok(())) {
            Ok(_) => Ok(count),
            Err(Error::Batch(refusals)) => count_granted(count, refusals),
            Err(error) => Err(error),
        }
    }
}

fn count_granted(count: usize, refusals: Vec<Refusal>) -> Result<usize> {
    let missing = refusals.len();
    let other: Vec<_> = refusals.into_iter().filter(|refusal| refusal.errno != Errno::ENOENT).collect();
    if other.is_empty() { Ok(count - missing) } else { Err(Error::Batch(other)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_is_gone_is_no_error_and_any_other_refusal_is() {
        let refusal = |errno| Refusal { sequence: 1, errno, reason: None };
        assert_eq!(count_granted(3, vec![refusal(Errno::ENOENT)]).unwrap(), 2);
        let error = count_granted(3, vec![refusal(Errno::ENOENT), refusal(Errno::EPERM)]).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EPERM));
    }
}
