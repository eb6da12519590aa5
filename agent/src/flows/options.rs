//! The flags of flows.

use std::time::Duration;

use clap::{Args, ValueEnum};

/// When the agent looks at who talks with whom.
#[derive(Args, Clone, Debug)]
pub struct FlowsOptions {
    /// When the agent looks at who talks with whom, for `weft flows`: from the first question until some time
    /// after the last one, always, so that there is something to tell at once, or never.
    #[arg(long, value_name = "WHEN", default_value = "asked")]
    pub flows: Mode,

    /// With --flows asked: for how many seconds after the last question.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub flows_keep: u64,
}

/// When flows are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// While somebody asks.
    Asked,
    /// From the start.
    Always,
    /// Not at all: questions are refused.
    Never,
}

impl FlowsOptions {
    /// For how long after the last question.
    pub(crate) fn keep(&self) -> Duration {
        Duration::from_secs(self.flows_keep)
    }
}
