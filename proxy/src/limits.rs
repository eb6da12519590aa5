//! The limits and timeouts of connection tracking that flags ask for, as settings of the kernel. Pure; they
//! are put into effect in `sysctl.rs`.
//!
//! The defaults are kube-proxy's, and only raise what is lower, as with it: a node whose administrator set
//! more keeps it. What a flag names is set as it says, save the size of the table, which never shrinks.

use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;

/// How many connections are tracked for each processor.
const MAX_PER_CORE: u64 = 32 * 1024;
/// How many at least.
const MIN: u64 = 128 * 1024;
const ESTABLISHED: Duration = Duration::from_secs(24 * 3600);
const CLOSE_WAIT: Duration = Duration::from_secs(3600);
/// How many connections there are to a bucket of the table when it is full.
const PER_BUCKET: u64 = 4;

/// What is asked for; nothing where the defaults are to do.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of connections to track per CPU core [default: 32768]; 0 leaves the kernel's limit as
    /// it is.
    #[arg(long = "conntrack-max-per-core", value_name = "NUMBER")]
    pub max_per_core: Option<u32>,

    /// Minimum number of connections to track, regardless of --conntrack-max-per-core [default: 131072].
    #[arg(long = "conntrack-min", value_name = "NUMBER")]
    pub min: Option<u32>,

    /// Timeout of idle TCP connections [default: 24h]; 0s leaves the kernel's as it is.
    #[arg(long = "conntrack-tcp-timeout-established", value_name = "TIME", value_parser = duration)]
    pub established: Option<Duration>,

    /// Timeout of TCP connections in CLOSE_WAIT [default: 1h]; 0s leaves the kernel's as it is.
    #[arg(long = "conntrack-tcp-timeout-close-wait", value_name = "TIME", value_parser = duration)]
    pub close_wait: Option<Duration>,

    /// Timeout of UDP entries without a reply; 0s leaves the kernel's as it is.
    #[arg(long = "conntrack-udp-timeout", value_name = "TIME", value_parser = duration)]
    pub udp: Option<Duration>,

    /// Timeout of UDP entries with a reply; 0s leaves the kernel's as it is.
    #[arg(long = "conntrack-udp-timeout-stream", value_name = "TIME", value_parser = duration)]
    pub udp_stream: Option<Duration>,

    /// Accept TCP packets outside of their connection's window, instead of marking them INVALID.
    #[arg(long = "conntrack-tcp-be-liberal", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub be_liberal: Option<bool>,
}

/// A setting of the kernel, under `net/netfilter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What it should be; times in seconds.
    pub value: u64,
    /// Whether it may be more.
    pub at_least: bool,
    /// Whether a flag asked for it.
    pub asked: bool,
}

impl Limits {
    /// The settings for a machine with that many processors.
    pub fn settings(&self, processors: u64) -> Vec<Setting> {
        let mut settings = Vec::new();
        if self.max_per_core != Some(0) {
            let asked = self.max_per_core.is_some() || self.min.is_some();
            let max = self.max_per_core.map_or(MAX_PER_CORE, u64::from) * processors;
            let value = max.max(self.min.map_or(MIN, u64::from));
            settings.push(Setting { name: "nf_conntrack_max", value, at_least: true, asked });
            let buckets = value / PER_BUCKET;
            settings.push(Setting { name: "nf_conntrack_buckets", value: buckets, at_least: true, asked });
        }
        let times = [
            ("nf_conntrack_tcp_timeout_established", self.established, ESTABLISHED),
            ("nf_conntrack_tcp_timeout_close_wait", self.close_wait, CLOSE_WAIT),
            ("nf_conntrack_udp_timeout", self.udp, Duration::ZERO),
            ("nf_conntrack_udp_timeout_stream", self.udp_stream, Duration::ZERO),
        ];
        for (name, time, default) in times {
            let (value, asked) = (time.unwrap_or(default).as_secs(), time.is_some());
            settings.extend((value > 0).then_some(Setting { name, value, at_least: !asked, asked }));
        }
        if self.be_liberal == Some(true) {
            let name = "nf_conntrack_tcp_be_liberal";
            settings.push(Setting { name, value: 1, at_least: false, asked: true });
        }
        settings
    }
}

/// A time as Go writes it: `1h30m`, `0s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is not a duration such as 90s or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let duration: SignedDuration = text.parse().map_err(|_| refuse())?;
    Duration::try_from(duration).map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(limits: &Limits, processors: u64) -> Vec<(&'static str, u64, bool)> {
        limits.settings(processors).iter().map(|it| (it.name, it.value, it.at_least)).collect()
    }

    #[test]
    fn the_defaults_are_kube_proxys_and_only_raise() {
        let expected = |max| {
            [
                ("nf_conntrack_max", max, true),
                ("nf_conntrack_buckets", max / 4, true),
                ("nf_conntrack_tcp_timeout_established", 86400, true),
                ("nf_conntrack_tcp_timeout_close_wait", 3600, true),
            ]
        };
        assert_eq!(settings(&Limits::default(), 2), expected(131_072));
        assert_eq!(settings(&Limits::default(), 8), expected(262_144));
    }

    #[test]
    fn zero_leaves_alone_and_what_is_asked_for_is_set() {
        let zero = Some(Duration::ZERO);
        let limits = Limits {
            max_per_core: Some(0),
            min: Some(1),
            established: zero,
            close_wait: Some(Duration::from_secs(7)),
            udp: zero,
            udp_stream: Some(Duration::from_secs(8)),
            be_liberal: Some(true),
        };
        let expected = [
            ("nf_conntrack_tcp_timeout_close_wait", 7, false),
            ("nf_conntrack_udp_timeout_stream", 8, false),
            ("nf_conntrack_tcp_be_liberal", 1, false),
        ];
        assert_eq!(settings(&limits, 2), expected);
    }

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, seconds) in
            [("24h0m0s", 86400), ("1h", 3600), ("90s", 90), ("0s", 0), ("0", 0), ("1m30s", 90)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "-1s", "5", "x"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
