//! The runtime's side of CNI, as libcni and containerd have it: configuration lists, the plugins' environment
//! and input, results and their cache.

pub mod conflist;
pub mod invocation;
pub mod runtime;

pub use conflist::NetworkList;
pub use invocation::{Attachment, Command, PortMapping};
pub use runtime::Runtime;
