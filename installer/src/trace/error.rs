//! Why a packet cannot be followed at all.

use thiserror::Error;

use crate::dns;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server says no.
    #[error(transparent)]
    Cluster(#[from] crate::Error),
    /// The name cannot be looked up.
    #[error(transparent)]
    Dns(#[from] dns::Error),
    /// The question makes no sense for this cluster.
    #[error("{0}")]
    Question(String),
}
