//! The encrypted tunnel to the other nodes: `plan` says what the device is, who its peers are and what the Node
//! says of it; `changes` how the kernel's device comes to that; `device` makes it so. `key_file` keeps the
//! node's key, `announcer` tells the other nodes of it, `silence` notices who does not answer, and
//! `metrics` counts.

pub(crate) mod announcer;
pub mod changes;
pub(crate) mod device;
pub mod key;
mod key_file;
pub(crate) mod metrics;
pub mod options;
pub mod plan;
mod silence;
