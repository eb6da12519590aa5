//! The flags of the encrypted tunnel.

use std::path::{Path, PathBuf};

use clap::Args;
use weft_types::well_known::port;

use super::plan::{Encryption, Settings};

/// The name of the key's file, where no other is given.
pub(crate) const KEY_FILE: &str = ".wireguard-key";

/// The flags of the encrypted tunnel.
#[derive(Args, Clone, Debug)]
pub struct WireGuardOptions {
    /// With --backend wireguard: what becomes of packets to the pods of a node that has no WireGuard key. They
    /// are held until it has one, or go through the VXLAN tunnel, unencrypted.
    #[arg(long, value_name = "HOW", default_value = "strict")]
    pub encryption: Encryption,

    /// The UDP port of the WireGuard tunnel on this node.
    #[arg(long, value_name = "PORT", default_value_t = port::WIREGUARD, value_parser = clap::value_parser!(u16).range(1..))]
    pub wireguard_port: u16,

    /// After how many seconds without a packet one is sent to each WireGuard peer: for nodes behind an address
    /// translation or a firewall that forgets. Without it, never.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    pub wireguard_keepalive: Option<u16>,

    /// The file of this node's private WireGuard key, as `wg genkey` writes it. It is made where there is none.
    /// Without it, .wireguard-key in --cni-data-dir.
    #[arg(long, value_name = "PATH")]
    pub wireguard_key_file: Option<PathBuf>,
}

impl WireGuardOptions {
    /// The settings that plans depend on.
    pub(crate) fn settings(&self, data_dir: &Path) -> Settings {
        Settings {
            port: self.wireguard_port,
            keepalive: self.wireguard_keepalive,
            encryption: self.encryption,
            key_file: self.wireguard_key_file.clone().unwrap_or_else(|| data_dir.join(KEY_FILE)),
        }
    }
}
