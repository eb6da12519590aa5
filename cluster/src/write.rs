//! What the daemons write to the API server. Nothing else of them does, so here is all that their roles must
//! allow: `create` of `events` (events.k8s.io), `get` of the objects that events are about, and `patch` of
//! `nodes/status`.

mod event;
mod node;
mod queue;

pub use event::{Recorder, Warning};
pub use node::{FalseCondition, set_condition};
pub use queue::Events;
