//! What can keep any daemon from starting.

use std::io;
use std::net::SocketAddr;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket for HTTP cannot be had.
    #[error("cannot serve {flag} on {address}: {source}; {}", bind_hint(source))]
    Serve {
        /// The flag that names the address.
        flag: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no runtime to be had.
    #[error("cannot start the runtime: {0}; raise the limits of open files and of threads (ulimit -n, -u)")]
    Runtime(io::Error),
    /// The name of this machine's Node is nowhere to be found.
    #[error("cannot tell this Node's name from the host's: {problem}; name it with --hostname-override")]
    NodeName {
        /// What is wrong with the host's name.
        problem: String,
    },
}

/// What to do where a socket cannot have its address.
pub fn bind_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there already: stop it or choose another address"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below net.ipv4.ip_unprivileged_port_start (1024) need root or CAP_NET_BIND_SERVICE in effect"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: add it or choose another",
        _ => "choose another address",
    }
}
