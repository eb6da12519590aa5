//! The flags of DHCP.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args};
use weft_dhcp::daemon::Settings;

/// The folder of leases, below that of reservations. No network's name begins so.
const FOLDER: &str = ".dhcp";

/// Whether and how pods get addresses of DHCP servers.
#[derive(Args, Clone, Debug)]
pub struct DhcpOptions {
    /// Serve the CNI plugin dhcp (ipam.type dhcp of other networks), as `dhcp daemon` does: get leases for
    /// containers, renew them, give them back. They are kept on disk, and outlive this process.
    #[arg(long, value_name = "BOOL", default_value_t = false, action = ArgAction::Set)]
    pub dhcp: bool,

    /// The socket by which the CNI plugin dhcp calls (ipam.daemonSocketPath).
    #[arg(long, value_name = "PATH", default_value = "/run/cni/dhcp.sock")]
    pub dhcp_socket: PathBuf,

    /// For how many seconds DHCP servers are asked for a container's first address.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub dhcp_timeout: u64,
}

impl DhcpOptions {
    /// What the daemon is to do, where there is to be one.
    pub(crate) fn settings(&self, data_dir: &Path) -> Settings {
        Settings {
            socket: self.dhcp_socket.clone(),
            folder: data_dir.join(FOLDER),
            patience: Duration::from_secs(self.dhcp_timeout),
        }
    }
}
