//! The crate's errors. What a caller does about them is decided elsewhere.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use thiserror::Error;

/// Why an operation on the kernel failed.
#[derive(Debug, Error)]
pub enum Error {
    /// A system call on the netlink socket itself failed.
    #[error("cannot {operation} the netlink socket: {source}")]
    Socket {
        /// The verb: `open`, `send on`, `receive from`, ...
        operation: &'static str,
        /// What the system call reported.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error(transparent)]
    Refused(Refusal),
    /// The kernel refused messages of a batch; of an nf_tables batch, nothing was applied then.
    #[error("the kernel refused {} of the messages of a batch, first {}", .0.len(), first(.0))]
    Batch(Vec<Refusal>),
    /// A named operation on a named object failed.
    #[error("cannot {operation}: {source}")]
    Operation {
        /// What was tried, on which object: `create bridge cni0`.
        operation: String,
        /// Why it failed.
        source: Box<Error>,
    },
    /// The kernel dropped messages because the receive buffer was full: what was known must be dumped anew.
    #[error("the kernel dropped netlink messages because the receive buffer was full; dump the state again")]
    Overrun,
    /// One datagram was larger than this process may send.
    #[error(
        "a transaction of {bytes} bytes is more than this process may send at once; set net.core.wmem_max on the host to at least that"
    )]
    TooLarge {
        /// How large it was.
        bytes: usize,
    },
    /// A dump kept changing while it was read.
    #[error("the kernel's answer to a dump changed while it was read, {attempts} times in a row")]
    DumpInterrupted {
        /// How often it was tried.
        attempts: u32,
    },
    /// A message does not have the form that it must have.
    #[error("malformed netlink message: {0}")]
    Malformed(String),
    /// What was asked for does not exist, although the kernel did not call that an error.
    #[error("the kernel knows no {0}")]
    Missing(String),
    /// An object was made by another program, so that what it means is not known.
    #[error("{0}, which no part of Weft writes")]
    Foreign(String),
    /// A system call on an object that netlink does not know failed.
    #[error("cannot {operation}: {source}")]
    System {
        /// What was tried, on which object: `create BPF map endpoints`.
        operation: String,
        /// What the system call reported.
        source: io::Error,
    },
    /// An operation on a network namespace or its file failed.
    #[error("cannot {operation} network namespace {path}: {source}", path = .path.display())]
    Namespace {
        /// The verb: `open`, `enter`, `create`, ...
        operation: &'static str,
        /// The namespace's file.
        path: PathBuf,
        /// What the system call reported.
        source: io::Error,
    },
}

/// A negative acknowledgement (NLMSG_ERROR).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{}", .errno.desc(), .reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default())]
pub struct Refusal {
    /// The sequence number of the refused message.
    pub sequence: u32,
    /// The error number.
    pub errno: Errno,
    /// The kernel's own words about it, where it sent any (extended acknowledgement).
    pub reason: Option<String>,
}

impl Error {
    /// The error number with which the kernel refused a request, where that is what happened.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Refused(refusal) => Some(refusal.errno),
            Error::Batch(refusals) => refusals.first().map(|refusal| refusal.errno),
            Error::Operation { source, .. } => source.errno(),
            Error::Socket { source, .. } | Error::System { source, .. } | Error::Namespace { source, .. } => {
                source.raw_os_error().map(Errno::from_raw)
            }
            Error::Overrun
            | Error::TooLarge { .. }
            | Error::DumpInterrupted { .. }
            | Error::Malformed(_)
            | Error::Missing(_)
            | Error::Foreign(_) => None,
        }
    }

    /// Whether the object is not there: the kernel said so, or its dump did not hold it.
    pub fn is_missing(&self) -> bool {
        match self {
            Error::Missing(_) => true,
            Error::Operation { source, .. } => source.is_missing(),
            _ => matches!(self.errno(), Some(Errno::ENOENT | Errno::ENODEV | Errno::ESRCH)),
        }
    }

    /// Whether a datagram was larger than this process may send.
    pub fn is_too_large(&self) -> bool {
        match self {
            Error::TooLarge { .. } => true,
            Error::Operation { source, .. } => source.is_too_large(),
            _ => false,
        }
    }

    /// Names the operation and its object, for instance `create bridge cni0`.
    pub fn during(self, operation: impl Into<String>) -> Error {
        Error::Operation { operation: operation.into(), source: Box::new(self) }
    }
}

fn first(refusals: &[Refusal]) -> String {
    refusals.first().map(|refusal| format!("#{}: {refusal}", refusal.sequence)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(errno: Errno, reason: Option<&str>) -> Refusal {
        Refusal { sequence: 3, errno, reason: reason.map(str::to_owned) }
    }

    #[test]
    fn an_error_names_operation_object_and_the_kernels_reason() {
        let error = Error::Refused(refusal(Errno::EINVAL, Some("Attribute failed policy validation")))
            .during("create bridge cni0");
        assert_eq!(
            error.to_string(),
            "cannot create bridge cni0: Invalid argument (Attribute failed policy validation)"
        );
        assert_eq!(error.errno(), Some(Errno::EINVAL));
    }

    #[test]
    fn what_is_missing_is_missing_through_every_wrapper() {
        assert!(Error::Refused(refusal(Errno::ENODEV, None)).during("delete link a").is_missing());
        assert!(Error::Missing("link a".into()).during("set link a up").is_missing());
        assert!(!Error::Refused(refusal(Errno::EPERM, None)).is_missing());
    }

    #[test]
    fn a_batch_error_shows_its_first_refusal() {
        let error =
            Error::Batch(vec![refusal(Errno::ENOENT, None), refusal(Errno::EINVAL, None)]).to_string();
        assert_eq!(
            error,
            "the kernel refused 2 of the messages of a batch, first #3: No such file or directory"
        );
    }
}
