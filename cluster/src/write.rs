//! What the daemons write to the API server. Nothing else of them does, so here is all that their roles must allow:
//! `create` of `events` (events.k8s.io), and `get` of the objects that events are about.

mod event;

pub use event::{Recorder, Warning};
