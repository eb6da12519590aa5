//! The kernel's table of connections, and the set of those whose ends are refused for a while.

use nix::errno::Errno;
use tracing::warn;
use weft_netlink::conntrack::{ConntrackClient, Filter, Flow};
use weft_netlink::{Family, Result, barrier};
use weft_policy::ruleset::refused::refuse;

use super::Connections;
use super::judge::refused;
use crate::policy::tables::SharedClient;

/// In the network namespace in which it was opened.
pub(crate) struct Kernel {
    conntrack: ConntrackClient,
    tables: SharedClient,
}

impl Kernel {
    /// In the calling thread's network namespace.
    pub(crate) fn open(tables: SharedClient) -> Result<Kernel> {
        Ok(Kernel { conntrack: ConntrackClient::open()?, tables })
    }
}

impl Connections for Kernel {
    fn settle(&mut self) {
        barrier::wait_for_packets();
    }

    fn count(&mut self) -> Result<usize> {
        self.conntrack.count()
    }

    fn end(&mut self, family: Family, filter: &Filter, is_denied: &dyn Fn(&Flow) -> bool) -> Result<usize> {
        let Kernel { conntrack, tables } = self;
        let mut is_full = false;
        // What is sent next must be refused before the connection is forgotten.
        let prepare = |flows: &mut Vec<Flow>| {
            flows.retain(is_denied);
            if is_full {
                return Ok(());
            }
            let refused: Vec<_> = flows.iter().filter_map(refused).collect();
            match tables.lock().commit(&refuse(&refused)) {
                // Without the tables nothing is denied.
                Err(error) if error.is_missing() => Ok(()),
                Err(error) if error.errno() == Some(Errno::ENFILE) => {
                    // For each further try the kernel waits for a grace period of RCU.
                    is_full = true;
                    warn!(
                        "more connections are to be refused than the set takes; their ends may begin them anew"
                    );
                    Ok(())
                }
                other => other,
            }
        };
        conntrack.delete_where_after(family, filter, is_denied, prepare)
    }
}
