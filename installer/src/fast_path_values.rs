//! What `weft install` has the nodes do about the fast path between pods: the agent's own flag, by the same name,
//! and what comes with it.

use clap::Args;

/// What the agent's flag `--fast-path` takes, its default first.
const FAST_PATHS: [&str; 2] = ["none", "ebpf"];

/// What differs from one cluster to the next.
#[derive(Args, Clone, Debug)]
pub struct FastPathValues {
    /// How packets of established connections between pods go: as all others do (none), or past the network
    /// stack of the host, by eBPF programs (ebpf).
    #[arg(long, default_value = FAST_PATHS[0], value_parser = FAST_PATHS, value_name = "HOW")]
    pub fast_path: String,
}

impl FastPathValues {
    /// Whether packets are to go another way than all others.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.fast_path != FAST_PATHS[0]
    }

    /// The agent's flag, where it differs from its default.
    pub(crate) fn agent_flag(&self) -> Option<String> {
        self.is_asked_for().then(|| format!("--fast-path={}", self.fast_path))
    }

    /// What the agent needs to have programs ask connection tracking, as the rest of a list in YAML. That may be
    /// a module, whose types are shown to SYS_ADMIN alone.
    pub(crate) fn agent_capabilities(&self) -> &'static str {
        if self.is_asked_for() { ", BPF, PERFMON, SYS_ADMIN" } else { "" }
    }

    /// A setting that the agent relies on, and that only the proxy's init container has the privilege to make.
    pub(crate) fn proxy_flag(&self) -> Option<String> {
        self.is_asked_for().then(|| "--conntrack-tcp-be-liberal=true".to_owned())
    }
}
