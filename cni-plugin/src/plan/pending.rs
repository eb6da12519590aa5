//! Addresses of a pod that starts closed, until it has its policies. What closes it is the policies' own
//! table.

use std::fmt;
use std::net::IpAddr;

use weft_cni_spec::Success;
use weft_policy::pending::{PENDING, TABLE, WaitingPod};

/// The addresses that nothing may reach, and that may reach nothing, before the agent has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The pod.
    pub pod: WaitingPod,
    /// Its addresses: one at least.
    pub addresses: Vec<IpAddr>,
}

impl Pending {
    pub(super) fn of(pod: WaitingPod, lease: &Success) -> Option<Pending> {
        let addresses: Vec<IpAddr> = lease.ips.iter().map(|ip| ip.address.ip()).collect();
        (!addresses.is_empty()).then_some(Pending { pod, addresses })
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comment = self.pod.comment();
        self.addresses.iter().try_for_each(|address| {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            writeln!(f, "nft add element {family} {TABLE} {PENDING} {{ {address} comment \"{comment}\" }}")
        })
    }
}
