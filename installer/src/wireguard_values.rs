//! What `weft install` has the agents do about the encrypted tunnel: the agent's own flags, by the same names.

use clap::Args;

/// What the agent's flag `--encryption` takes, its default first.
const ENCRYPTIONS: [&str; 2] = ["strict", "prefer"];

/// What differs from one cluster to the next.
#[derive(Args, Clone, Debug)]
pub struct WireGuardValues {
    /// With --backend wireguard: what becomes of packets to the pods of a node that has no WireGuard key. They
    /// are held until it has one (strict), or go through the VXLAN tunnel, unencrypted (prefer).
    #[arg(long, default_value = ENCRYPTIONS[0], value_parser = ENCRYPTIONS, value_name = "HOW")]
    pub encryption: String,
    /// The UDP port of the WireGuard tunnel. Without it, 51820.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub wireguard_port: Option<u16>,
    /// After how many seconds without a packet one is sent to each WireGuard peer. Without it, never.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    pub wireguard_keepalive: Option<u16>,
}

impl WireGuardValues {
    /// The agent's flags, where they differ from its defaults.
    pub(crate) fn flags(&self) -> [Option<String>; 3] {
        [
            (self.encryption != ENCRYPTIONS[0]).then(|| format!("--encryption={}", self.encryption)),
            self.wireguard_port.map(|port| format!("--wireguard-port={port}")),
            self.wireguard_keepalive.map(|seconds| format!("--wireguard-keepalive={seconds}")),
        ]
    }
}
