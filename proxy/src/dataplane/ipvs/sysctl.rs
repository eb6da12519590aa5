//! What IPVS needs of the kernel's settings.

use std::path::PathBuf;

use tracing::info;
use weft_netlink::sysctl::Originals;

use crate::error::Error;
use crate::ipvs_options::IpvsOptions;

/// Settings with their values. A connection is reused for another one as it should be since Linux 5.9, so
/// that conn_reuse_mode stays as it is.
const SETTINGS: [(&str, u64); 3] = [
    // Connection tracking knows the connections: masquerading needs that, and so do policies.
    ("net/ipv4/vs/conntrack", 1),
    // Clients of a destination that is gone begin anew, in place of silence.
    ("net/ipv4/vs/expire_nodest_conn", 1),
    // Clients with affinity to a destination that gets no new connections go to another one.
    ("net/ipv4/vs/expire_quiescent_template", 1),
];
/// The node answers ARP for no address of the interface that has those of Services. Who announces them needs
/// that.
const STRICT_ARP: [(&str, u64); 2] =
    [("net/ipv4/conf/all/arp_ignore", 1), ("net/ipv4/conf/all/arp_announce", 2)];

/// Puts them into effect in the network namespace of the calling thread.
///
/// # Errors
/// What cannot be set, and has another value.
pub(super) fn set(config: &IpvsOptions, originals: &Originals) -> Result<(), Error> {
    let strict_arp = STRICT_ARP.iter().filter(|_| config.strict_arp);
    for (name, value) in SETTINGS.iter().chain(strict_arp) {
        let refused =
            |source| Error::Sysctl { path: PathBuf::from("/proc/sys").join(name), value: *value, source };
        if originals.ensure(name, &value.to_string()).map_err(refused)? {
            info!(name, to = value, "set");
        }
    }
    Ok(())
}
