//! What `weft install` has the agents do about the tunnel, and the encrypted one: the agent's own flags, by the
//! same names.

use clap::Args;

use crate::{Error, Result};

/// What the agent's flag `--encryption` takes, its default first.
const ENCRYPTIONS: [&str; 2] = ["strict", "prefer"];
/// The backend that leads through a tunnel where it does not reach a node directly.
const AUTO: &str = "auto";
/// What its flag `--tunnel` takes, its default first.
pub const TUNNELS: [&str; 2] = ["vxlan", "wireguard"];

/// What differs from one cluster to the next.
#[derive(Args, Clone, Debug)]
pub struct WireGuardValues {
    /// With --backend auto: what leads to nodes that are not reached directly. WireGuard encrypts, and leaves what
    /// is reached directly as it is.
    #[arg(long, default_value = TUNNELS[0], value_parser = TUNNELS, value_name = "TUNNEL")]
    pub tunnel: String,
    /// With --backend wireguard or --tunnel wireguard: what becomes of packets to the pods of a node that has no WireGuard key. They
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
    pub(crate) fn flags(&self) -> [Option<String>; 4] {
        [
            (self.tunnel != TUNNELS[0]).then(|| format!("--tunnel={}", self.tunnel)),
            (self.encryption != ENCRYPTIONS[0]).then(|| format!("--encryption={}", self.encryption)),
            self.wireguard_port.map(|port| format!("--wireguard-port={port}")),
            self.wireguard_keepalive.map(|seconds| format!("--wireguard-keepalive={seconds}")),
        ]
    }

    /// Whether the agents take these flags beside that backend.
    ///
    /// # Errors
    /// Where they end at their start: nobody is to think that packets are encrypted.
    pub(crate) fn check(&self, backend: &str) -> Result<()> {
        let is_fitting = self.tunnel == TUNNELS[0] || backend == AUTO || backend == self.tunnel;
        let Self { tunnel, .. } = self;
        match is_fitting {
            true => Ok(()),
            false => Err(Error::Flags(format!(
                "--tunnel {tunnel} has no effect with --backend {backend}: it says what --backend {AUTO} leads through; leave \
                 one of them out"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::BACKENDS;

    #[test]
    fn a_tunnel_is_refused_where_the_agents_would_refuse_it() {
        let check = |tunnel: &str, backend| {
            let encryption = ENCRYPTIONS[0].to_owned();
            let (tunnel, wireguard_port, wireguard_keepalive) = (tunnel.to_owned(), None, None);
            WireGuardValues { tunnel, encryption, wireguard_port, wireguard_keepalive }.check(backend)
        };
        for backend in BACKENDS {
            assert!(check("vxlan", backend).is_ok(), "{backend}: it is the default");
            assert_eq!(check("wireguard", backend).is_ok(), ["auto", "wireguard"].contains(&backend));
        }
        let said = check("wireguard", "bgp").unwrap_err().to_string();
        assert!(said.contains("--tunnel wireguard has no effect with --backend bgp"), "{said}");
    }
}
