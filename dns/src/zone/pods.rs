//! The pods of the cluster by their addresses, as far as they are watched at all.

use std::net::IpAddr;

use weft_types::Snapshot;

use crate::wire::name::wire_label;

/// Which pods have an address. About 24 bytes for each address.
#[derive(Debug, Default)]
pub struct PodTable {
    /// The namespaces' labels in wire form, in order.
    namespaces: Box<[Box<[u8]>]>,
    /// In the order of addresses, each with the place of its namespace, and whether its resolver searches.
    pods: Box<[(IpAddr, u32, bool)]>,
}

impl PodTable {
    /// The table of the pods that a snapshot holds.
    pub(super) fn new(snapshot: &Snapshot) -> PodTable {
        let (mut namespaces, mut pods) = (Vec::new(), Vec::new());
        // They come in the order of their namespaces.
        for pod in snapshot.pods() {
            let Ok(label) = wire_label(&pod.key.namespace) else { continue };
            if namespaces.last() != Some(&label) {
                namespaces.push(label);
            }
            let place = namespaces.len() as u32 - 1;
            pods.extend(pod.addresses.iter().map(|&address| (address, place, pod.searches)));
        }
        pods.sort_unstable();
        pods.dedup();
        PodTable { namespaces: namespaces.into(), pods: pods.into() }
    }

    /// Whether a pod of that namespace has that address. `namespace` is a label in wire form.
    pub fn has(&self, address: IpAddr, namespace: &[u8]) -> bool {
        self.of(address).iter().any(|&(_, place, _)| *self.namespaces[place as usize] == *namespace)
    }

    /// The namespace, a label in wire form, of the pod that asks from that address and searches. None where
    /// that is not certain: no pod has the address, several have it, or its resolver has another search list.
    pub fn searching(&self, address: IpAddr) -> Option<&[u8]> {
        match self.of(address) {
            &[(_, place, true)] => Some(&self.namespaces[place as usize]),
            _ => None,
        }
    }

    /// Those with that address: one, or several on a host's network.
    fn of(&self, address: IpAddr) -> &[(IpAddr, u32, bool)] {
        let start = self.pods.partition_point(|&(other, ..)| other < address);
        let count = self.pods[start..].iter().take_while(|&&(other, ..)| other == address).count();
        &self.pods[start..start + count]
    }
}
