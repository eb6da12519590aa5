//! Which pods the addresses that wait belong to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_policy::pending::WaitingPod;
use weft_types::{Family, NamespacedName, Pod, Snapshot};

/// The addresses that the plugin gave to a pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// The pod's uid.
    pub(crate) uid: Box<str>,
    /// The addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Assigned {
    /// Takes in what waits now. The families are read one after the other: of a pod that began to wait in
    /// between, the second one's address is answered before the first one's is seen, and must stay the pod's.
    pub(crate) fn renew(&mut self, now: Assigned) {
        let is_named = |family: Family| now.addresses.iter().any(|address| Family::of(*address) == family);
        let is_same = self.uid == now.uid;
        self.addresses.retain(|address| is_same && !is_named(Family::of(*address)));
        self.addresses.extend(now.addresses);
        self.uid = now.uid;
    }
}

/// Finds the pods of addresses that wait. Pods that are not known yet, or whose namespace is not, are left
/// out.
pub(crate) fn assignments(
    waiting: &[(IpAddr, String)],
    pods: &Snapshot,
    namespaces: &Snapshot,
) -> BTreeMap<NamespacedName, Assigned> {
    let mut found: BTreeMap<NamespacedName, Assigned> = BTreeMap::new();
    for (address, remark) in waiting {
        let pod = WaitingPod::parse(remark).and_then(|waiting| find(&waiting, pods));
        let Some(pod) = pod.filter(|pod| namespaces.has_namespace(&pod.key.namespace)) else { continue };
        let assigned = found.entry(pod.key.clone()).or_default();
        assigned.uid = uid(pod).into();
        assigned.addresses.push(*address);
    }
    found
}

/// Whether a pod of these addresses is known, and its namespace still to come: then its labels are not known
/// yet.
pub(crate) fn is_early(waiting: &[(IpAddr, String)], pods: &Snapshot, namespaces: &Snapshot) -> bool {
    let found = waiting.iter().filter_map(|(_, remark)| find(&WaitingPod::parse(remark)?, pods));
    found.into_iter().any(|pod| !namespaces.has_namespace(&pod.key.namespace))
}

/// The pod with that name and uid: an earlier one of its name has other policies perhaps.
fn find<'a>(waiting: &WaitingPod, pods: &'a Snapshot) -> Option<&'a Pod> {
    let is_it = |pod: &&Pod| waiting.uid.is_empty() || uid(pod) == waiting.uid;
    if waiting.name.is_empty() {
        let mut all = pods.of::<Pod>().iter().filter(|pod| pod.key.namespace == waiting.namespace);
        return all.find(is_it);
    }
    let key = NamespacedName::new(&waiting.namespace, &waiting.name);
    pods.of::<Pod>().get(&key).filter(is_it)
}

/// A pod's uid; empty where it is not known.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.details.as_ref().map_or("", |details| &details.uid)
}

/// How a pod that waits is called.
pub(crate) fn name(address: IpAddr, remark: &str) -> String {
    match WaitingPod::parse(remark) {
        Some(WaitingPod { namespace, name, .. }) if !name.is_empty() => format!("{namespace}/{name}"),
        Some(WaitingPod { namespace, uid, .. }) => format!("{namespace}/{uid}"),
        None => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use weft_types::{ChangeSet, Namespace, Object, PodDetails};

    use super::*;

    fn snapshot(uid: &str) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let details = PodDetails { uid: uid.into(), ..PodDetails::default() };
        let pod = Pod {
            key: NamespacedName::new("shop", "web"),
            addresses: Default::default(),
            searches: true,
            labels: Default::default(),
            details: Some(Box::new(details)),
        };
        let namespace = Namespace::new("shop");
        for object in [Object::Pod(pod), Object::Namespace(namespace)] {
            snapshot.apply(object, &mut ChangeSet::default());
        }
        snapshot
    }

    #[test]
    fn addresses_of_both_families_stay_a_pod_s_though_they_are_seen_one_after_the_other() {
        let assigned = |uid: &str, addresses: &[&str]| Assigned {
            uid: uid.into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        let mut pod = Assigned::default();
        pod.renew(assigned("1", &["fd00::7"]));
        pod.renew(assigned("1", &["10.244.1.7"]));
        assert_eq!(pod, assigned("1", &["fd00::7", "10.244.1.7"]));
        // The same pod in another sandbox, and another pod of its name.
        pod.renew(assigned("1", &["10.244.1.8"]));
        assert_eq!(pod, assigned("1", &["fd00::7", "10.244.1.8"]));
        pod.renew(assigned("2", &["10.244.1.9"]));
        assert_eq!(pod, assigned("2", &["10.244.1.9"]));
    }

    #[test]
    fn a_pod_is_found_by_its_uid_and_never_an_earlier_one_of_its_name() {
        let address: IpAddr = "10.244.1.7".parse().unwrap();
        let found = |remark: &str, known: &str| {
            let snapshot = snapshot(known);
            assignments(&[(address, remark.to_owned())], &snapshot, &snapshot).len()
        };
        assert_eq!(found("shop/web/2", "2"), 1);
        assert_eq!(found("shop/web/2", "1"), 0, "that one is on its way out");
        assert_eq!(found("shop//2", "2"), 1);
        assert_eq!(found("shop/web/", "2"), 1, "runtimes need not say the uid");
        assert_eq!(found("shop/db/2", "2"), 0);
        assert_eq!(found("a remark of somebody's", "2"), 0);
        let snapshot = snapshot("2");
        let waiting = [(address, "shop/web/2".to_owned())];
        let nothing = Snapshot::default();
        assert!(is_early(&waiting, &snapshot, &nothing) && !is_early(&waiting, &snapshot, &snapshot));
        assert!(!is_early(&waiting, &nothing, &nothing), "the pod is gone");
        assert!(
            assignments(&waiting, &snapshot, &Snapshot::default()).is_empty(),
            "labels are not known yet"
        );
    }
}
