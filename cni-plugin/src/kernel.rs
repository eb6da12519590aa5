//! The kernel: reads what the host and a container have, and makes it what a plan says. What that is, is
//! decided in `plan`; nf_tables is for `nft`.

mod apply;
pub(crate) mod conntrack;
mod lock;
mod observe;
mod sysctl;

pub(crate) use apply::{apply, complete, ensure_bridge, settle_port};
pub(crate) use lock::Lock;
pub(crate) use observe::ContainerInterface;
