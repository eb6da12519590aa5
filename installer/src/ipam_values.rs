//! Where `weft install` has agents take pods' addresses from.

use clap::ValueEnum;

const BLOCKS: &str = include_str!("ipam_blocks.yaml");

/// Where pods' addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum IpamMode {
    /// The pod CIDR that the control plane gives each Node.
    #[default]
    NodeCidr,
    /// Blocks of the cluster CIDR, which nodes claim as they need them.
    Blocks,
}

impl IpamMode {
    /// The agent's flag, where it differs from the agent's default.
    pub(crate) fn flag(self) -> Option<String> {
        (self == IpamMode::Blocks).then(|| "--ipam=blocks".to_owned())
    }

    /// What the cluster needs besides.
    pub(crate) fn manifests(self) -> &'static str {
        if self == IpamMode::Blocks { BLOCKS } else { "" }
    }
}
