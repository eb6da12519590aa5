//! What `weft install` has agents and plugin do about network policies: the agent's own flags, by the same
//! names.

use clap::{ArgAction, Args};
use weft_types::well_known::nflog;

/// What happens to denied traffic, the agent's default first.
const DENY: [&str; 2] = ["drop", "reject"];
/// How denied traffic is told of.
const LOG: [&str; 2] = ["lines", "count"];

/// What differs from one cluster to the next.
#[derive(Args, Clone, Debug)]
pub struct PolicyValues {
    /// Enforce NetworkPolicies, and ClusterNetworkPolicies where the cluster has them.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub network_policy: bool,
    /// What happens to traffic that network policies deny: it is dropped, so that who sends it waits, or
    /// rejected, so that who sends it is told.
    #[arg(long, value_name = "HOW", default_value = DENY[0], value_parser = DENY)]
    pub policy_deny: String,
    /// Count traffic that network policies deny by policy, and have a line for each packet in the agents'
    /// logs; `count` only counts.
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = LOG[0], value_parser = LOG)]
    pub policy_log: Option<String>,
    /// The group of nflog by which the nodes tell the agents of that traffic. A group has one reader: where
    /// another program reads group 7, choose another one.
    #[arg(long, value_name = "NUMBER", default_value_t = nflog::DENIED)]
    pub policy_log_group: u16,
    /// End connections that a change of network policies denies. Without it, they last until their ends close
    /// them.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub policy_cut_connections: bool,
    /// For how many seconds the start of a pod waits until the agent has read its policies; 0 for not at all.
    /// A pod that still waits then runs, closed. Without it, 2.
    #[arg(long, value_name = "SECONDS")]
    pub policy_timeout: Option<u32>,
}

impl PolicyValues {
    /// The agent's flags, as far as they differ from its defaults.
    pub(crate) fn flags(&self) -> [Option<String>; 6] {
        [
            (!self.network_policy).then(|| "--network-policy=false".to_owned()),
            (self.policy_deny != DENY[0]).then(|| format!("--policy-deny={}", self.policy_deny)),
            self.policy_log.as_ref().map(|how| format!("--policy-log={how}")),
            (self.policy_log_group != nflog::DENIED)
                .then(|| format!("--policy-log-group={}", self.policy_log_group)),
            (!self.policy_cut_connections).then(|| "--policy-cut-connections=false".to_owned()),
            self.policy_timeout.map(|seconds| format!("--policy-timeout={seconds}")),
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
        values: PolicyValues,
    }

    fn flags(line: &[&str]) -> Vec<String> {
        let cli = Cli::parse_from(["weft"].iter().chain(line));
        cli.values.flags().into_iter().flatten().collect()
    }

    #[test]
    fn only_what_differs_from_the_agent_s_defaults_is_given_to_it() {
        assert!(flags(&["--network-policy=true", "--policy-deny=drop", "--policy-log-group=7"]).is_empty());
        let all = [
            "--network-policy=false",
            "--policy-deny=reject",
            "--policy-log=count",
            "--policy-log-group=9",
            "--policy-cut-connections=false",
            "--policy-timeout=5",
        ];
        assert_eq!(flags(&all), all);
        assert_eq!(flags(&["--policy-log"]), ["--policy-log=lines"]);
        assert!(Cli::try_parse_from(["weft", "--policy-deny=tarpit"]).is_err());
    }
}
