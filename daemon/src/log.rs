//! The log of a daemon, on stderr.

use std::io::{IsTerminal, stderr};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// Without RUST_LOG. Of a failed connection weft-cluster says more than the Kubernetes client, and says it
/// once.
const FILTER: &str = "info,kube_client=off";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// From now on all that the process says goes to stderr in this format; RUST_LOG says how much. To be
    /// called once.
    pub fn start(self) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(stderr)
            .with_ansi(stderr().is_terminal());
        match self {
            LogFormat::Text => log.init(),
            LogFormat::Json => log.json().init(),
        }
    }
}
