//! What the proxy's pods have besides where eBPF leads sockets (`--proxy-ebpf`).

/// What the proxy's flag `--ebpf-scope` takes, its default first.
pub const EBPF_SCOPES: [&str; 2] = ["host", "all"];
/// Where the nodes' cgroups are in the proxy's container.
const CGROUP: &str = "/host/cgroup";

/// Flags, and lines of YAML.
#[derive(Clone, Debug, Default)]
pub struct EbpfParts {
    /// The proxy's.
    pub flags: Vec<String>,
    /// The rest of a list.
    pub capabilities: &'static str,
    /// Of the container.
    pub mounts: String,
    /// Besides that of `/sys/fs/bpf`, which the pods have anyway.
    pub volumes: String,
}

impl EbpfParts {
    /// All of it for that scope, or nothing.
    pub fn of(scope: Option<&str>) -> EbpfParts {
        let Some(scope) = scope else { return EbpfParts::default() };
        let mut parts = EbpfParts {
            flags: vec!["--ebpf".to_owned(), format!("--ebpf-cgroup={CGROUP}")],
            capabilities: ", BPF",
            mounts: format!(
                "\n          volumeMounts:\n            - {{name: bpf, mountPath: /sys/fs/bpf}}\n            \
                 - {{name: cgroup, mountPath: {CGROUP}, readOnly: true}}"
            ),
            volumes: "\n        - {name: cgroup, hostPath: {path: /sys/fs/cgroup, type: Directory}}"
                .to_owned(),
        };
        if scope != EBPF_SCOPES[0] {
            parts.flags.push(format!("--ebpf-scope={scope}"));
            // By these, sockets of pods are found that have lost their endpoint, and destroyed.
            parts.capabilities = ", BPF, SYS_ADMIN";
            parts.mounts +=
                "\n            - {name: netns, mountPath: /run/netns, mountPropagation: HostToContainer}";
            parts.volumes +=
                "\n        - {name: netns, hostPath: {path: /run/netns, type: DirectoryOrCreate}}";
        }
        parts
    }
}
