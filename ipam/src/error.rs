//! The crate's errors, and the CNI codes by which a runtime is told.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;
use weft_cni_spec::{Code, Failure};

use crate::Owner;

/// Why an address could not be given, kept or freed.
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration cannot be what is meant.
    #[error("network {network}: {field}: {reason}")]
    Config {
        /// The network's name.
        network: String,
        /// The configuration's field: `ipam.ranges[0][1].rangeStart`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Every address is taken.
    #[error("no IP addresses available in range set {set} of network {network}")]
    Exhausted {
        /// The network's name.
        network: String,
        /// The set's ranges, `first-last`, with commas between.
        set: String,
        /// The folder that holds the reservations.
        folder: PathBuf,
    },
    /// The node has claimed no block of addresses yet.
    #[error("network {network} has no block of addresses on this node")]
    NoBlock {
        /// The network's name.
        network: String,
        /// Why, for people.
        missing: String,
    },
    /// Every address of the node's blocks is taken, and no other block came in time.
    #[error("no IP addresses available in the blocks {set} of network {network}")]
    BlocksFull {
        /// The network's name.
        network: String,
        /// The blocks' ranges.
        set: String,
        /// Why there is no other block, for people.
        missing: String,
    },
    /// An address was asked for that is the gateway's.
    #[error("requested IP address {address} is the gateway of range set {set}")]
    Gateway {
        /// The address.
        address: IpAddr,
        /// The set's ranges.
        set: String,
    },
    /// An address was asked for that another container has.
    #[error("requested IP address {address} is not available in range set {set}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// The set's ranges.
        set: String,
    },
    /// Addresses were asked for that no range holds, or more than there are sets.
    #[error("failed to allocate all requested IPs: {} left over", list(.0))]
    LeftOver(Vec<IpAddr>),
    /// The attachment has an address of that set already.
    #[error("{address} has already been allocated to {owner}, duplicate allocation is not allowed")]
    Duplicate {
        /// The container and interface.
        owner: Owner,
        /// The address that it has.
        address: IpAddr,
    },
    /// The attachment has no reservation.
    #[error("network {network} has no reservation for {owner}")]
    NotReserved {
        /// The network's name.
        network: String,
        /// The container and interface.
        owner: Owner,
    },
    /// Reading or writing the store failed.
    #[error("cannot {operation} {path}: {source}", path = .path.display())]
    Store {
        /// The verb: `create`, `lock`, `read`, ...
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system call reported.
        source: io::Error,
    },
    /// The configuration cannot be decoded.
    #[error("{0}")]
    Decode(Failure),
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// The code and the words for a runtime.
    pub fn failure(&self) -> Failure {
        let msg = self.to_string();
        match self {
            Error::Decode(failure) => failure.clone(),
            Error::Config { .. } => Failure::new(Code::Config, msg),
            Error::Exhausted { folder, .. } => Failure::new(Code::NoAddress, msg).with_details(format!(
                "add a range to ipam.ranges, or delete the files in {} whose containers are gone",
                folder.display()
            )),
            // The agent is about to claim another one; the runtime tries again anyway.
            Error::NoBlock { missing, .. } => Failure::new(Code::TryAgain, msg).with_details(missing),
            Error::BlocksFull { missing, .. } => Failure::new(Code::NoAddress, msg).with_details(missing),
            Error::Gateway { .. } | Error::Taken { .. } | Error::LeftOver(_) => {
                Failure::new(Code::NoAddress, msg).with_details("ask for another address, or for none")
            }
            Error::Duplicate { .. } => Failure::new(Code::NoAddress, msg)
                .with_details("call DEL for that container and interface before another ADD"),
            Error::NotReserved { .. } => Failure::new(Code::CheckFailed, msg),
            Error::Store { path, .. } => Failure::new(Code::Io, msg)
                .with_details(format!("see that {} is writable and its disk not full", path.display())),
        }
    }
}
