//! Everything that can go wrong outside of the pure parts: what failed, on which object, and what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;
use weft_daemon::bind_hint;

use crate::wire::format::Transport;

/// What went wrong.
#[derive(Debug, Error)]
pub enum Error {
    /// A DNS socket cannot be had.
    #[error("cannot listen on {address} ({transport}): {source}; {}", bind_hint(source))]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// UDP or TCP.
        transport: Transport,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The signal that switches the query log cannot be had.
    #[error("cannot listen to SIGUSR1: {0}")]
    Signal(#[source] io::Error),
    /// The sockets cannot be taken over, or the next server could not find this one.
    #[error(
        "cannot hand over the sockets of {address}: {source}; stop the other server, or run without --handover"
    )]
    Handover {
        /// The first address to answer at.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An address is no one's in particular, or cannot be given to an interface.
    #[error(
        "--node-local needs concrete addresses in --listen: neither 0.0.0.0 nor ::, and none of loopback"
    )]
    NoOwnAddress,
    /// The kernel refuses what a node-local server needs.
    #[error(
        "cannot set up --node-local: {0}; it needs the capability NET_ADMIN in the host's network namespace"
    )]
    NodeLocal(#[source] weft_netlink::Error),
    /// A thread for the datagrams of one core cannot be had.
    #[error("cannot start a thread: {0}; raise the limit on threads (ulimit -u, pids.max)")]
    Thread(#[source] io::Error),
    /// What every daemon needs at its start: an address for HTTP, a runtime, the Node's name.
    #[error(transparent)]
    Daemon(#[from] weft_daemon::Error),
    /// A file of the certificate, or of its key, cannot be read.
    #[error("cannot read {}: {source}; see --tls-certificate and --tls-key", path.display())]
    ReadCertificate {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The certificate and its key are of no use.
    #[error("cannot use the certificate {}: {source}; see --tls-certificate and --tls-key", path.display())]
    Certificate {
        /// The certificate.
        path: PathBuf,
        /// What is wrong with it or with the key.
        source: io::Error,
    },
    /// There is no TLS to be had.
    #[error("cannot set up TLS: {0}")]
    Tls(#[source] tokio_rustls::rustls::Error),
    /// The cluster cannot be watched at all.
    #[error(transparent)]
    Cluster(#[from] weft_cluster::Error),
    /// An upstream is one of our own listeners.
    #[error("upstream {0} is this server itself: queries would loop; name another with --upstream")]
    OwnUpstream(SocketAddr),
    /// The list of the node's name servers cannot be read.
    #[error("cannot read name servers from {}: {source}; name upstreams with --upstream", path.display())]
    ResolvConf {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The Corefile cannot be read.
    #[error("cannot read the Corefile {}: {source}; see --corefile", path.display())]
    ReadCorefile {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What the Corefile says cannot be done, or not without a restart.
    #[error("{0}; `weft dns check-corefile` tells what is supported")]
    Corefile(String),
    /// An upstream did not answer in time.
    #[error("upstream {0} did not answer in time")]
    Timeout(SocketAddr),
    /// An upstream cannot be reached.
    #[error("upstream {upstream} cannot be reached: {source}")]
    Unreachable {
        /// The upstream.
        upstream: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An upstream's answer cannot be read.
    #[error("upstream {0} sent a malformed response")]
    Malformed(SocketAddr),
    /// The machine has no socket for a query to an upstream.
    #[error("cannot open a socket to query upstreams: {0}; raise the limit on open files (ulimit -n)")]
    NoSocket(#[source] io::Error),
    /// There is nobody to ask.
    #[error("no upstream is available; see --upstream")]
    NoUpstream,
    /// A query cannot be written as a message.
    #[error("cannot encode the query for {0}")]
    Question(String),
}

impl Error {
    /// Whether another program listens there.
    pub fn is_taken(&self) -> bool {
        match self {
            Error::Listen { source, .. } | Error::Daemon(weft_daemon::Error::Serve { source, .. }) => {
                source.kind() == io::ErrorKind::AddrInUse
            }
            _ => false,
        }
    }
}
