//! What `weft install` has agents do about flows: the agent's own flags, by the same names.

use clap::Args;

/// When flows are looked at, the agent's default first.
const WHEN: [&str; 3] = ["asked", "always", "never"];
/// The agent's default of the time after the last question.
const KEEP: u64 = 60;

/// What differs from one cluster to the next.
#[derive(Args, Clone, Debug)]
pub struct FlowsValues {
    /// When agents look at who talks with whom, for `weft flows`: from the first question until some time
    /// after the last one, always, so that there is something to tell at once, or never.
    #[arg(long, value_name = "WHEN", default_value = WHEN[0], value_parser = WHEN)]
    pub flows: String,
    /// With --flows asked: for how many seconds after the last question.
    #[arg(long, value_name = "SECONDS", default_value_t = KEEP, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub flows_keep: u64,
}

impl FlowsValues {
    /// The agent's flags, as far as they differ from its defaults.
    pub(crate) fn flags(&self) -> [Option<String>; 2] {
        [
            (self.flows != WHEN[0]).then(|| format!("--flows={}", self.flows)),
            (self.flows_keep != KEEP).then(|| format!("--flows-keep={}", self.flows_keep)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        values: FlowsValues,
    }

    #[test]
    fn only_what_differs_from_the_agent_s_defaults_is_given_to_it() {
        let flags = |line: &[&str]| -> Vec<String> {
            let cli = Cli::parse_from(["weft"].iter().chain(line));
            cli.values.flags().into_iter().flatten().collect()
        };
        assert!(flags(&["--flows=asked", "--flows-keep=60"]).is_empty());
        assert_eq!(flags(&["--flows", "always", "--flows-keep", "5"]), ["--flows=always", "--flows-keep=5"]);
        assert!(Cli::try_parse_from(["weft", "--flows=often"]).is_err());
    }
}
