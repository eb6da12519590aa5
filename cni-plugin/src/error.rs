//! The crate's errors, and the CNI codes by which a runtime is told.

use std::io;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use thiserror::Error;
use weft_cni_spec::{Code, ContainerId, Failure};

/// Why a container could not be connected or disconnected.
#[derive(Debug, Error)]
pub enum Error {
    /// The protocol's own failure, of IPAM or of decoding.
    #[error("{0}")]
    Failure(Failure),
    /// An option of the reference plugin that this one does not have.
    #[error("network {network}: option {option} is not supported")]
    Unsupported {
        /// The network's name.
        network: String,
        /// The option, as it is spelled in the configuration, and its value (SPEC section 5, code 2).
        option: String,
    },
    /// An option that needs what the running kernel was built without.
    #[error("option {option}: the kernel lacks {what}")]
    KernelLacks {
        /// The option, or the capability, and its value (SPEC section 5, code 2).
        option: String,
        /// What the kernel lacks.
        what: &'static str,
    },
    /// An option with a value that it cannot have.
    #[error("network {network}: option {option}: {reason}")]
    Invalid {
        /// The network's name.
        network: String,
        /// The option, as it is spelled in the configuration.
        option: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The container's namespace is the plugin's own.
    #[error("CNI_NETNS {} is the plugin's own network namespace", .0.display())]
    OwnNamespace(PathBuf),
    /// The namespace of the container cannot be opened.
    #[error("CNI_NETNS: {0}")]
    Namespace(weft_netlink::Error),
    /// The container has an interface of that name.
    #[error("CNI_IFNAME: container {container} already has an interface {ifname}")]
    InterfaceExists {
        /// The container's id.
        container: ContainerId,
        /// The interface.
        ifname: String,
    },
    /// The machine is not prepared for the network, as its configuration says.
    #[error("network {network} is not ready on this machine: {problem}")]
    NotReady {
        /// The network's name.
        network: String,
        /// What is missing.
        problem: String,
    },
    /// The network has IPv6 ranges, and the host no IPv6.
    #[error("the bridge cannot have the IPv6 gateway's address: {why}")]
    NoIpv6 {
        /// The setting, or what is missing.
        why: String,
    },
    /// The bridge's name is another kind of interface's.
    #[error("{name} exists and is a {kind}, not a bridge")]
    NotABridge {
        /// The interface.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// The bridge has as many ports as a bridge can have (BR_MAX_PORTS).
    #[error("bridge {bridge} already has 1023 ports, the most that Linux allows")]
    BridgeFull {
        /// The bridge.
        bridge: String,
    },
    /// The bridge has an address that does not go with the network's gateway.
    #[error("bridge {bridge} already has an IP address different from {wanted}: {found}")]
    BridgeAddress {
        /// The bridge.
        bridge: String,
        /// The gateway's address.
        wanted: IpNetwork,
        /// What it has.
        found: IpNetwork,
    },
    /// Another on the link has the address that IPAM gave, or the kernel did not get to ask.
    #[error("container {container}: address {address} of {ifname} {why}")]
    NotUsable {
        /// The container's id.
        container: ContainerId,
        /// The interface.
        ifname: String,
        /// The address.
        address: IpNetwork,
        /// What keeps it from being used.
        why: &'static str,
    },
    /// The kernel refused a request.
    #[error(transparent)]
    Kernel(#[from] weft_netlink::Error),
    /// Two bridges have networks of which one is a part of the other.
    #[error("cannot masquerade a network of bridge {bridge}: it overlaps one of bridge {other}")]
    OverlappingNetworks {
        /// The bridge.
        bridge: String,
        /// The bridge whose network is masqueraded already.
        other: String,
    },
    /// Another container has a port of the host.
    #[error("container {container}: host port {port} is already mapped to {owner}")]
    HostPortTaken {
        /// The container's id.
        container: ContainerId,
        /// The port and its protocol.
        port: String,
        /// Who has it: network, container's id and interface.
        owner: String,
    },
    /// Whether a policy may select the pod cannot be known.
    #[error("cannot read {}, which says what namespaces have policies: {source}", path.display())]
    PolicyNamespaces {
        /// The agent's file.
        path: PathBuf,
        /// What the operating system reported.
        source: io::Error,
    },
    /// The lock that all calls share cannot be taken.
    #[error("cannot lock the network namespace: {0}")]
    Lock(io::Error),
    /// A kernel setting could not be written.
    #[error("cannot set /proc/sys/{key} to {value}: {source}")]
    Sysctl {
        /// The setting, as a path below /proc/sys.
        key: String,
        /// The value.
        value: &'static str,
        /// What the system call reported.
        source: io::Error,
    },
    /// CHECK: neither the container's interface nor its addresses are there.
    #[error("container {container} is not attached to network {network}")]
    NotAttached {
        /// The container's id.
        container: ContainerId,
        /// The network's name.
        network: String,
    },
    /// CHECK: something is not as ADD left it.
    #[error("container {container}: {what}")]
    Check {
        /// The container's id.
        container: ContainerId,
        /// What is missing or different.
        what: String,
    },
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Failure(failure)
    }
}

impl Error {
    /// The code and the words for a runtime.
    pub fn failure(&self) -> Failure {
        let (code, details) = match self {
            Error::Failure(failure) => return failure.clone(),
            Error::Unsupported { .. } => (Code::UnsupportedField, "leave it out"),
            Error::KernelLacks { .. } => {
                (Code::UnsupportedField, "leave the option out, or use a kernel that has it")
            }
            Error::Invalid { .. } => (Code::Config, ""),
            Error::OwnNamespace(_) => {
                (Code::Namespace, "set CNI_NETNS_OVERRIDE=1 where that is really meant")
            }
            Error::Namespace(_) => (Code::Environment, "CNI_NETNS must be a network namespace's file"),
            Error::InterfaceExists { .. } => {
                (Code::Environment, "call DEL for that container and interface before another ADD")
            }
            Error::NotReady { .. } => {
                (Code::Unavailable, "the log of weft-agent, which writes the configuration, says more")
            }
            Error::NoIpv6 { .. } => (
                Code::Unavailable,
                "switch IPv6 on (sysctl net.ipv6.conf.all.disable_ipv6=0), or leave out the IPv6 ranges",
            ),
            Error::NotABridge { .. } => {
                (Code::Config, "give option bridge another name, or delete that interface")
            }
            Error::BridgeFull { .. } => (
                Code::Kernel,
                "call DEL or GC for containers that are gone, or give the network of others another bridge",
            ),
            Error::BridgeAddress { .. } => {
                (Code::Config, "delete that address, or set forceAddress to have it replaced")
            }
            Error::NotUsable { .. } => (
                Code::TryAgain,
                "another ADD gets another address; leave out enabledad to use this one anyway",
            ),
            Error::OverlappingNetworks { .. } => {
                (Code::Config, "give the bridges' networks subnets of their own, or leave out ipMasq for one")
            }
            Error::HostPortTaken { .. } => {
                (Code::HostPortTaken, "choose another host port, or call DEL for that container")
            }
            Error::PolicyNamespaces { .. } => (
                Code::Io,
                "weft-agent writes it; see that it can be read, or delete it where there are no policies",
            ),
            Error::Lock(_) => (Code::Io, ""),
            Error::Kernel(_) => (Code::Kernel, ""),
            Error::Sysctl { .. } => (Code::Kernel, "the plugin needs a writable /proc/sys"),
            Error::NotAttached { .. } => (Code::UnknownContainer, "there is nothing to clean up"),
            Error::Check { .. } => (Code::CheckFailed, ""),
        };
        Failure::new(code, self.to_string()).with_details(details)
    }
}
