//! What can go wrong between this command and a cluster, with what to do about it.

use std::time::Duration;

use thiserror::Error;

/// Why something was not done to a cluster.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no cluster to talk to.
    #[error("cannot use a kubeconfig: {problem}; give --kubeconfig FILE or set KUBECONFIG")]
    Kubeconfig {
        /// The reason.
        problem: String,
    },
    /// The API server refused something, or is not to be reached.
    #[error("cannot {operation} {object}: {problem}")]
    Api {
        /// The verb: `apply`, `list`, ...
        operation: &'static str,
        /// The kind and name.
        object: String,
        /// What the server or the connection said.
        problem: String,
    },
    /// A template of this program is not what it must be, or flags made it so.
    #[error("the manifests are no objects: {problem}; look at what weft manifests prints")]
    Manifests {
        /// The reason.
        problem: String,
    },
    /// Flags do not fit together.
    #[error("{0}")]
    Flags(String),
    /// The cluster would not work with Weft on it as it is.
    #[error("nothing was changed, as this is in the way:\n  {}\nWith --force it is done all the same", .0.join("\n  "))]
    PrerequisitesUnmet(Vec<String>),
    /// The address in the kubeconfig is of no use to nodes.
    #[error(
        "the kubeconfig names the API server as {host}, which nodes cannot reach it by: give --api-host HOST (and \
         --api-port), an address that works from every node without Services"
    )]
    ApiHost {
        /// The host of the server's URL.
        host: String,
    },
    /// There is no such node.
    #[error("there is no Node {0}: see kubectl get nodes")]
    NoNode(String),
    /// Something takes too long.
    #[error("{what} within {} s: {seen}; look at weft status and kubectl -n kube-system get pods -o wide", waited.as_secs())]
    Timeout {
        /// What did not come.
        what: &'static str,
        /// How long it was waited for.
        waited: Duration,
        /// How far it got.
        seen: String,
    },
    /// The process cannot run.
    #[error("cannot {operation}: {problem}")]
    Process {
        /// What was tried.
        operation: &'static str,
        /// The reason.
        problem: std::io::Error,
    },
}

/// The result of what is done to a cluster.
pub type Result<T, E = Error> = std::result::Result<T, E>;
