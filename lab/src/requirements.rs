//! What must be there before a lab can be made: root, the kernel's parts, and Weft's own programs.

use std::path::{Path, PathBuf};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::addressing::IpFamily;
use crate::error::{Error, Result};
use crate::underlay;

/// Weft's programs, as they stand beside each other after a build.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

/// The daemons that run on every node, in the order in which `status` shows them.
pub const DAEMONS: [&str; 3] = ["weft-agent", "weft-proxy", "weft-dns"];
/// The CNI plugins that every node has.
pub const PLUGINS: [&str; 2] = ["weft-cni", "weft-ipam"];

impl Programs {
    /// The programs of a folder; an error names the first that is missing.
    pub fn find(folder: &Path) -> Result<Programs> {
        let folder = folder.canonicalize().map_err(|_| Error::MissingBinary(folder.to_path_buf()))?;
        for name in DAEMONS.iter().chain(&PLUGINS) {
            let program = folder.join(name);
            if !program.is_file() {
                return Err(Error::MissingBinary(program));
            }
        }
        Ok(Programs { folder })
    }

    /// The folder that they are in.
    pub fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// The path of one program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Checks that the caller is root and that the kernel has what a lab of those families needs.
pub fn check_machine(families: IpFamily) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    underlay::try_kernel()?;
    if families.has_ipv6() && !Path::new("/proc/sys/net/ipv6").is_dir() {
        return Err(Error::MissingKernelFeature {
            feature: "IPv6 addresses",
            module: "ipv6 (CONFIG_IPV6), or make a lab without it: --ip-family ipv4",
            reason: "it is built or booted without".to_owned(),
        });
    }
    try_nf_tables().map_err(|error| Error::MissingKernelFeature {
        feature: "an nf_tables request",
        module: "nf_tables (CONFIG_NF_TABLES)",
        reason: error.to_string(),
    })
}

/// Asks nf_tables for its generation number, the cheapest question that only nf_tables answers. Asking loads
/// the module where it is one.
fn try_nf_tables() -> std::io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.send_to(&generation_request(), &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match answer.get(4..6) {
        // NLMSG_ERROR: the kernel knows no such subsystem or message.
        Some([2, 0]) => Err(std::io::Error::other("the kernel answered with an error")),
        _ => Ok(()),
    }
}

/// A netlink header (length, type, flags, sequence, port) and an nfgenmsg (family, version, resource).
fn generation_request() -> Vec<u8> {
    const NFNL_SUBSYS_NFTABLES: u16 = 10;
    const NFT_MSG_GETGEN: u16 = 16;
    const NLM_F_REQUEST: u16 = 1;
    let mut message = Vec::with_capacity(20);
    message.extend(20u32.to_ne_bytes());
    message.extend(((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN).to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 12]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        for name in DAEMONS {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let error = Programs::find(folder.path()).unwrap_err().to_string();
        assert!(error.contains("weft-cni") && error.contains("make build"), "{error}");
    }

    #[test]
    fn the_generation_request_is_as_long_as_it_says() {
        let message = generation_request();
        assert_eq!(u32::from_ne_bytes(message[..4].try_into().unwrap()) as usize, message.len());
    }
}
