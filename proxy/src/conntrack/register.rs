//! Which tracked connections are stale: those that the kernel goes on sending to an endpoint that no longer
//! serves the address that their client knows. Pure; the table of connections is read and cut in
//! `conntrack.rs`.
//!
//! An nf_tables rule sees only the first packet of a connection. A client that goes on sending datagrams from
//! one socket keeps its flow alive for ever, whether there is somebody at the other end or not, and so does
//! one that sent its first datagram before there was a rule. The same holds for a TCP or SCTP client for as
//! long as nobody has answered: every further SYN goes where the first one went. So it is the state that
//! decides, and not the protocol. Open TCP connections end by their own timers, and are helped only where
//! that is asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use weft_types::{ChangeSet, Family, NamespacedName, Protocol, Snapshot};

use super::served::Served;
use crate::services::ownership::Ownership;
use crate::services::plan::Frontend;
use crate::services::requests::Requests;
use crate::services::valid_endpoints::{ValidEndpoints, valid_endpoints};

/// Remembers of every Service what it takes to see that flows may have become stale.
#[derive(Debug)]
pub struct Register {
    /// Whether open TCP connections of endpoints that are gone are stale.
    ends_tcp: bool,
    services: HashMap<Arc<NamespacedName>, Known>,
}

/// What is remembered of a Service. There are many, so it is little.
#[derive(Debug, Default)]
struct Known {
    /// The frontends whose flows go with them.
    frontends: Box<[Frontend]>,
    /// Digests of all frontends and of those who may answer there, in order.
    digests: Box<[u64]>,
}

impl Register {
    /// An empty one. Open TCP connections count where that is said.
    pub fn new(ends_tcp: bool) -> Register {
        Register { ends_tcp, services: HashMap::new() }
    }

    /// Takes in what changed, and returns the frontends that may have stale flows by that. `ownership` say
    /// who has which frontend now.
    pub fn update(
        &mut self,
        snapshot: &Snapshot,
        changes: &ChangeSet,
        ownership: &Ownership,
    ) -> BTreeSet<Frontend> {
        let mut touched = BTreeSet::new();
        changes.services.iter().for_each(|key| self.update_service(snapshot, key, ownership, &mut touched));
        touched
    }

    /// These frontends, with those who may go on answering there. NodePorts are served at the addresses
    /// `node`.
    pub fn served(
        &self,
        touched: &BTreeSet<Frontend>,
        snapshot: &Snapshot,
        ownership: &Ownership,
        node: &[IpAddr],
    ) -> Served {
        let at_node: BTreeSet<Frontend> =
            touched.iter().flat_map(|frontend| at_addresses(frontend, node)).collect();
        let mut served = Served::new(node.iter().copied().collect(), self.ends_tcp);
        let mut held: BTreeMap<&Arc<NamespacedName>, BTreeSet<Frontend>> = BTreeMap::new();
        for frontend in touched {
            match ownership.owner(frontend) {
                Some(owner) => drop(held.entry(owner).or_default().insert(*frontend)),
                None => served.insert(*frontend, ValidEndpoints::default()),
            }
        }
        // What another Service has at the node's own addresses is not the NodePort's.
        for frontend in at_node {
            if let Some(owner) = ownership.owner(&frontend) {
                held.entry(owner).or_default().insert(frontend);
            }
        }
        for (owner, frontends) in held {
            let known = snapshot.service(owner).zip(ownership.requests(owner));
            known
                .into_iter()
                .flat_map(|(service, requests)| valid_endpoints(service, requests, snapshot.slices_of(owner)))
                .filter(|(frontend, _)| frontends.contains(frontend))
                .for_each(|(frontend, valid)| served.insert(frontend, valid));
        }
        served
    }

    /// All frontends, with the flows of which anything may have happened.
    pub fn everything(&self, snapshot: &Snapshot, ownership: &Ownership, node: &[IpAddr]) -> Served {
        let mut served = Served::new(node.iter().copied().collect(), self.ends_tcp);
        for (service, slices) in snapshot.services_with_slices() {
            let Some(requests) = ownership.requests(&service.key) else { continue };
            valid_endpoints(service, requests, slices.iter().map(|slice| &**slice))
                .filter(|(frontend, _)| ownership.owner(frontend).is_some_and(|owner| **owner == service.key))
                .for_each(|(frontend, valid)| served.insert(frontend, valid));
        }
        served
    }

    /// Those who will answer as soon as these changes are in the kernel, at whatever frontend they may get.
    pub fn coming(&self, snapshot: &Snapshot, changes: &ChangeSet) -> Served {
        let mut served = Served::new(BTreeSet::new(), self.ends_tcp);
        for service in changes.services.iter().filter_map(|key| snapshot.service(key)) {
            valid_endpoints(service, &Requests::of(service), snapshot.slices_of(&service.key))
                .for_each(|(frontend, valid)| served.insert(frontend, valid));
        }
        served
    }

    /// Replaces what is known of a Service, and adds the frontends that may have stale flows by that.
    fn update_service(
        &mut self,
        snapshot: &Snapshot,
        key: &NamespacedName,
        ownership: &Ownership,
        touched: &mut BTreeSet<Frontend>,
    ) {
        let known = self.services.remove_entry(key);
        let (key, old) = known.unwrap_or_else(|| (ownership.name(key), Known::default()));
        let mut new = Known::default();
        if let Some((service, requests)) = snapshot.service(&key).zip(ownership.requests(&key)) {
            let valid: Vec<_> = valid_endpoints(service, requests, snapshot.slices_of(&key)).collect();
            new = Known::of(&valid, self.ends_tcp);
            // Whose clients came before there was anybody, or before the rules.
            let has_come =
                |(frontend, valid): &&(Frontend, ValidEndpoints)| !old.has(&digest_of(frontend, valid));
            touched.extend(valid.iter().filter(has_come).map(|(frontend, _)| *frontend));
            if old.digests.iter().any(|digest| !new.has(digest)) {
                touched.extend(valid.iter().map(|(frontend, _)| *frontend));
            }
        }
        touched.extend(old.frontends.iter().filter(|frontend| !new.frontends.contains(frontend)));
        if !new.digests.is_empty() {
            self.services.insert(key, new);
        }
    }
}

impl Known {
    fn of(frontends: &[(Frontend, ValidEndpoints)], ends_tcp: bool) -> Known {
        let stays = |frontend: &Frontend| match frontend.protocol() {
            Protocol::Udp => true,
            Protocol::Tcp => ends_tcp,
            Protocol::Sctp => false,
        };
        let mut digests = Vec::new();
        for (frontend, valid) in frontends {
            digests.push(digest_of(frontend, valid));
            let of_tcp = ends_tcp && frontend.protocol() == Protocol::Tcp;
            digests.extend(
                valid
                    .iter()
                    .filter(|(_, may_answer)| *may_answer || of_tcp)
                    .map(|endpoint| digest(&(frontend.protocol(), endpoint))),
            );
        }
        digests.sort_unstable();
        digests.dedup();
        let frontends = frontends.iter().map(|(frontend, _)| *frontend).filter(stays).collect();
        Known { frontends, digests: digests.into() }
    }

    fn has(&self, digest: &u64) -> bool {
        self.digests.binary_search(digest).is_ok()
    }
}

/// Of a frontend, and whether anybody may answer there.
fn digest_of(frontend: &Frontend, valid: &ValidEndpoints) -> u64 {
    digest(&(frontend, valid.iter().any(|(_, may_answer)| may_answer)))
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A NodePort at each of these addresses, as another Service may have it there.
fn at_addresses(frontend: &Frontend, node: &[IpAddr]) -> Vec<Frontend> {
    let Frontend::NodePort(family, protocol, port) = *frontend else { return Vec::new() };
    let addresses = node.iter().filter(|address| Family::of(**address) == family);
    addresses.map(|address| Frontend::Address(*address, protocol, port)).collect()
}

#[cfg(test)]
mod tests;
