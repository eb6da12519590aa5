//! What can go wrong in the lab, each with the object it went wrong on. No handling happens here.

use std::path::PathBuf;

use thiserror::Error;

/// The lab's result.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the lab.
#[derive(Debug, Error)]
pub enum Error {
    /// The caller may not make network namespaces.
    #[error("weft-lab makes network namespaces and needs root: run it again with sudo")]
    NotRoot,
    /// The kernel lacks something that the lab or the daemons need.
    #[error("this kernel cannot make {feature} ({reason}): load or build in {module}")]
    MissingKernelFeature {
        /// What was tried, for example `a veth pair`.
        feature: &'static str,
        /// The module or option that brings it.
        module: &'static str,
        /// What the kernel answered.
        reason: String,
    },
    /// A program that the lab starts is not where it should be.
    #[error("{} is missing: run `make build`, or name the folder of the programs with --bin-dir", .0.display())]
    MissingBinary(PathBuf),
    /// A name or number given by the user cannot be used.
    #[error("{what} {value:?}: {reason}")]
    Invalid {
        /// What the value is for.
        what: &'static str,
        /// The value as given.
        value: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// `up` found a lab of that name.
    #[error("lab {0:?} is already there: use it, or remove it with `weft-lab down --name {0}`")]
    LabExists(String),
    /// A command needs a running lab.
    #[error("lab {0:?} is not running: start it with `weft-lab up --name {0}`")]
    NoLab(String),
    /// The background process ended before the cluster was ready.
    #[error("the lab process ended; the end of {}:\n{tail}", log.display())]
    LabDied {
        /// Its log file.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A file operation failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A system call on a namespace or process failed.
    #[error("cannot {operation} {object}: {source}")]
    System {
        /// The operation, as a verb.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// The reason.
        source: nix::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A socket operation failed.
    #[error("cannot {operation} {address}: {source}")]
    Socket {
        /// The operation, as a verb.
        operation: &'static str,
        /// The address.
        address: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The kernel refused a link, address or route.
    #[error("cannot {operation} {object}: {source}")]
    Netlink {
        /// The operation, as a verb.
        operation: &'static str,
        /// The link, address or route.
        object: String,
        /// The reason.
        source: Box<rtnetlink::Error>,
    },
    /// The API server refused or could not be reached.
    #[error("cannot {operation} {object}: {source}")]
    Api {
        /// The operation, as a verb.
        operation: &'static str,
        /// The object, as kubectl names it.
        object: String,
        /// The reason.
        source: Box<kube::Error>,
    },
    /// A network configuration that no runtime would load.
    #[error("network configuration {} is malformed: {reason}", path.display())]
    Conflist {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No network configuration is there yet.
    #[error("no network configuration in {}: has the node agent written one?", .0.display())]
    NoConflist(PathBuf),
    /// A CNI plugin failed.
    #[error("{plugin} {command} failed: {message}")]
    Cni {
        /// The plugin's type.
        plugin: String,
        /// ADD or DEL.
        command: &'static str,
        /// The plugin's error, code included.
        message: String,
    },
    /// A manifest on disk that is no Kubernetes object.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that was waited for did not come.
    #[error("{what} did not come about within {seconds} s: {seen}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long, in seconds.
        seconds: u64,
        /// How things stood at the end.
        seen: String,
    },
    /// A request from inside a pod or node failed.
    #[error("{what}: {reason}")]
    Probe {
        /// The request.
        what: String,
        /// What came of it.
        reason: String,
    },
    /// The process that holds the lab could not do what a command asked of it.
    #[error("{0}")]
    Refused(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// The demo ran, and not all of it went well.
    #[error("{failed} of {total} checks failed")]
    ChecksFailed {
        /// How many failed.
        failed: usize,
        /// How many there were.
        total: usize,
    },
    /// Teardown went on after errors; here are all of them.
    #[error("not everything could be removed:\n{0}")]
    Teardown(String),
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { operation, path, source }
    }

    /// For `map_err` on system calls.
    pub(crate) fn system(
        operation: &'static str,
        object: impl std::fmt::Display,
    ) -> impl FnOnce(nix::Error) -> Error {
        let object = object.to_string();
        move |source| Error::System { operation, object, source }
    }

    /// For `map_err` on rtnetlink requests.
    pub(crate) fn netlink(
        operation: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(rtnetlink::Error) -> Error {
        let object = object.into();
        move |source| Error::Netlink { operation, object, source: Box::new(source) }
    }

    /// For `map_err` on requests to the API server.
    pub(crate) fn api(
        operation: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(kube::Error) -> Error {
        let object = object.into();
        move |source| Error::Api { operation, object, source: Box::new(source) }
    }
}
