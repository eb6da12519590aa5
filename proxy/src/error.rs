//! The crate's errors. What is tried again after one is decided in `daemon.rs`.

use std::num::NonZeroU16;
use std::path::PathBuf;

use thiserror::Error;
use weft_types::NamespacedName;

/// How a packet is written down.
pub const PACKET_FORM: &str =
    "'SOURCE -> ADDRESS:PORT[/tcp|udp|sctp] [via INTERFACE]', with \"node\" or an address as SOURCE";

/// Why the proxy cannot start, or cannot bring the kernel into step.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel's nf_tables cannot be used.
    #[error("{source}{}", advice(source))]
    Kernel {
        /// The operation, its object and the reason.
        #[from]
        source: weft_netlink::Error,
    },
    /// A data plane that is not the kernel's nf_tables refused something.
    #[error("{0}")]
    Dataplane(String),
    /// What was asked for the mode iptables does not have.
    #[error("--proxy-mode=iptables does not support {0}; or use --proxy-mode=nftables")]
    Unsupported(&'static str),
    /// The kernel has no IPVS.
    #[error(
        "cannot use --proxy-mode=ipvs: this kernel has no IPVS; load the modules ip_vs and ip_vs_rr, or that of another \
         --ipvs-scheduler (modprobe -a ip_vs ip_vs_rr), or use --proxy-mode=nftables"
    )]
    NoIpvs,
    /// Rules that `iptables-legacy` made are in effect.
    #[error(
        "cannot use --proxy-mode=iptables beside rules of the legacy iptables (tables {tables}), which the kernel runs apart from \
         those that iptables-nft shows; use --proxy-mode=nftables, or change to iptables-nft (update-alternatives --set iptables \
         /usr/sbin/iptables-nft) and reboot"
    )]
    LegacyTables {
        /// The tables that there are.
        tables: String,
    },
    /// The cluster cannot be reached at all, or a manifest cannot be read.
    #[error(transparent)]
    Cluster(#[from] weft_cluster::Error),
    /// What every daemon needs at its start: an address for HTTP, a runtime, the Node's name.
    #[error(transparent)]
    Daemon(#[from] weft_daemon::Error),
    /// The configuration file cannot be used.
    #[error("cannot use the configuration {path}: {problem}", path = path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A setting of the kernel cannot be made.
    #[error("cannot set {path} to {value}: {source}; run weft-proxy --init-only with the privileges to set it", path = path.display())]
    Sysctl {
        /// The file that stands for it.
        path: PathBuf,
        /// What it should hold.
        value: u64,
        /// The reason.
        source: std::io::Error,
    },
    /// A Service's health check port cannot be opened.
    #[error(
        "cannot answer health checks of Service {service} at port {port}: {source}; load balancers send it no traffic of this Service"
    )]
    HealthCheckPort {
        /// The Service.
        service: NamespacedName,
        /// Its `healthCheckNodePort`.
        port: NonZeroU16,
        /// The reason.
        source: std::io::Error,
    },
    /// What `--trace` asks about cannot be understood.
    #[error("cannot trace {text:?}: {problem}; write {form}, for instance '10.244.1.5 -> 10.96.0.10:53/udp'", form = PACKET_FORM)]
    Packet {
        /// What was asked.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A packet cannot be followed through the rules.
    #[error("cannot follow the packet through {rule}: {problem}")]
    Trace {
        /// The rule or the chain.
        rule: String,
        /// What is not known, and what to do.
        problem: String,
    },
    /// A thread for the kernel's announcements, or for connections, cannot be started.
    #[error("cannot start a thread: {0}")]
    Runtime(std::io::Error),
}

/// What to do about the commonest refusal.
fn advice(error: &weft_netlink::Error) -> &'static str {
    match error.errno() {
        Some(nix::errno::Errno::EPERM) => "; weft-proxy needs the capability NET_ADMIN",
        _ => "",
    }
}
