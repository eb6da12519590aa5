//! The flags for programs that lead sockets to endpoints ([`crate::dataplane::ebpf`]).

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::config::{Ebpf, EbpfScope, StaleSockets};

/// Whether and where programs lead sockets.
#[derive(Clone, Debug, Args)]
pub struct EbpfOptions {
    /// Lead connections to ClusterIPs to endpoints when sockets connect or send, by eBPF programs at a
    /// cgroup. All other traffic, and all where the kernel cannot do it, goes by packets as without this
    /// flag. Needs Linux 5.14, and the capabilities BPF and NET_ADMIN.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub ebpf: bool,

    /// Whose sockets eBPF leads: "host", those of this machine's own network namespace; "all", those of pods
    /// too. Meshes that redirect traffic within pods do not see the ClusterIP then.
    #[arg(long, value_name = "SCOPE", default_value = "host")]
    pub ebpf_scope: EbpfScope,

    /// cgroup, of version 2, whose sockets eBPF leads. Without it, the root of the hierarchy.
    #[arg(long, value_name = "FOLDER")]
    pub ebpf_cgroup: Option<PathBuf>,

    /// File system of type bpf, where eBPF programs and maps are pinned so that they outlive weft-proxy.
    #[arg(long, value_name = "FOLDER", default_value = "/sys/fs/bpf")]
    pub ebpf_bpffs: PathBuf,

    /// Which sockets to destroy when eBPF led them to an endpoint that is gone: "none"; "udp", since nothing
    /// else tells those; or "all".
    #[arg(long, value_name = "SOCKETS", default_value = "udp")]
    pub ebpf_destroy_sockets: StaleSockets,
}

impl EbpfOptions {
    /// What the data plane needs of them.
    pub fn config(&self) -> Ebpf {
        Ebpf {
            scope: self.ebpf.then_some(self.ebpf_scope),
            cgroup: self.ebpf_cgroup.clone(),
            bpffs: Some(self.ebpf_bpffs.clone()),
            stale_sockets: self.ebpf_destroy_sockets,
        }
    }
}
