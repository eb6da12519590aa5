//! Host-local IP address management: which address a container gets, and where that is written down. The disk
//! format is that of the reference `host-local` plugin, so that a node can change over and back with its pods
//! running.
//!
//! A [`Pool`] is what the configuration says, an allocator decides over a [`Store`], [`DiskStore`] keeps it.
//! Nothing here touches the network.

mod allocator;
mod blocks;
mod content;
mod disk;
mod error;
mod folder;
mod freed;
mod mark;
mod plugin;
mod pool;
mod range;
mod resolver;
mod store;

pub use allocator::{Lease, allocate, collect, release};
pub use blocks::{Blocks, range_sets, usable};
pub use disk::DiskStore;
pub use error::Error;
pub use mark::Key;
pub use plugin::Ipam;
pub use pool::{DEFAULT_DATA_DIR, Pool};
pub use range::{Range, RangeSet};
pub use store::{Holder, Listing, Owner, Record, Store};

/// The result of every operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
