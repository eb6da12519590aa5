//! Who talks with whom: connections that begin and end, packets that network policies deny, DNS questions;
//! remembered for whoever asks (`/flows`). While nobody does there is nothing: no socket, no subscription, no
//! rule, no thread.
//!
//! ```text
//! conntrack, nflog -> collector (a thread) -> Memory (bounded) -> /flows -> weft flows
//! policy/denials ----------------------------'
//! ```

mod collector;
mod dns;
pub(crate) mod endpoint;
mod interest;
mod memory;
mod metrics;
pub(crate) mod options;
mod shared;
mod table;

use prometheus_client::registry::Registry;

pub(crate) use self::shared::{Settings, SharedFlows, now};
use crate::subsystem::Wake;

/// The flows of this node; those in the calling thread's network namespace, which is the process's own.
pub(crate) fn open(settings: Settings, wake: Wake, registry: &mut Registry) -> SharedFlows {
    SharedFlows::new(settings, wake, registry, collector::run)
}
