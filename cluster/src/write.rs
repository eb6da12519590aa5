//! What the daemons write to the API server. Nothing else of them does, so here is all that their roles must
//! allow: `create` of `events` (events.k8s.io), `get` of the objects that events are about, `patch` of
//! `nodes/status` and of `services/status`, and `get`, `create` and `patch` of `leases` (coordination.k8s.io).

mod event;
mod lease;
mod node;
mod queue;
mod service;

pub use event::{Recorder, Severity, Warning};
pub use lease::Candidate;
pub use node::{FalseCondition, set_condition};
pub use queue::Events;
pub use service::{NotWritten, set_addresses};
