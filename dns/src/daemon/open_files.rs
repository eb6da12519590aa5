//! How many files the process may have open: each query to an upstream has a socket of its own, and each
//! client of TCP another.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Allows as many as the process may allow itself. Where nobody raised it, the limit is one that programs of
/// the past could live with: 1024.
pub fn allow_most() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, ?current, "cannot raise the limit on open files: many concurrent queries may fail");
    }
}
