//! What the daemons write to the API server. Nothing else of them does, so here is all that their roles must
//! allow: `create` of `events` (events.k8s.io), `get` of the objects that events are about, `patch` of
//! `nodes/status` and of `services/status`, `get`, `create` and `patch` of `leases` (coordination.k8s.io),
//! `create` of `tokenreviews` (authentication.k8s.io), and with `--ipam blocks` `create`, `update` and `delete`
//! of `ipamblocks`.

mod event;
mod ipam_block;
mod lease;
mod node;
mod queue;
mod service;
mod token_review;

pub use event::{Recorder, Severity, Warning};
pub use ipam_block::{Written, claim_block, delete_block, delete_block_of_lost_node, renew_block};
pub use lease::Candidate;
pub use node::{FalseCondition, annotate, set_condition};
pub use queue::Events;
pub use service::{NotWritten, set_addresses};
pub use token_review::review_token;
