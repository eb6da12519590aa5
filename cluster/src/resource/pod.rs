//! v1 Pod: its addresses, and whether its resolver searches the cluster's domains.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::IgnoredAny;
use weft_types::{NamespacedName, Pod, PodAddresses};

use super::address::address;
use super::metadata::{AllLabels, KnownLabels, Metadata, ReadLabels, labels};
use super::values::each;
use super::{ApiResource, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

impl ApiResource for Pod {
    const API_VERSION: &'static str = "v1";
    const PLURAL: &'static str = "pods";

    type Wire = PodObject<KnownLabels>;
    type LabelledWire = PodObject<AllLabels>;

    fn field_selector(filter: &WatchFilter) -> Option<String> {
        let running = "status.phase!=Succeeded,status.phase!=Failed";
        let of_node = |node| format!("{running},spec.nodeName={node}");
        Some(filter.node.as_ref().map_or(running.to_owned(), of_node))
    }
}

/// v1 Pod
#[derive(Clone, Debug, Deserialize)]
#[serde(default, bound = "L: Deserialize<'de>")]
pub(crate) struct PodObject<L> {
    metadata: Field<Metadata<L>>,
    spec: Field<PodSpec>,
    status: Field<PodStatus>,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    host_network: Field<bool>,
    dns_policy: Field<String>,
    dns_config: Field<DnsConfig>,
}

/// `spec.dnsConfig` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DnsConfig {
    searches: Field<Vec<IgnoredAny>>,
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: Field<String>,
    #[serde(rename = "podIP")]
    pod_ip: Field<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Field<Vec<Field<PodIp>>>,
}

/// One of `status.podIPs` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: Field<String>,
}

impl<L> Default for PodObject<L> {
    fn default() -> Self {
        PodObject { metadata: Field::Absent, spec: Field::Absent, status: Field::Absent }
    }
}

impl<L> WireObject for PodObject<L>
where
    L: ReadLabels + Clone + for<'de> Deserialize<'de> + Send + 'static,
{
    type Kind = Pod;
    type Labels = L;

    fn metadata(&self) -> &Field<Metadata<L>> {
        &self.metadata
    }

    fn convert(
        self,
        key: NamespacedName,
        _: &WatchFilter,
        faults: &mut Faults,
    ) -> Result<Option<Pod>, Fault> {
        convert(key, self, faults)
    }
}

/// Nothing for a pod that ended: its addresses may be another's by now.
fn convert<L: ReadLabels>(
    key: NamespacedName,
    object: PodObject<L>,
    faults: &mut Faults,
) -> Result<Option<Pod>, Fault> {
    let spec = object.spec.or_default("spec")?;
    let status = object.status.or_default("status")?;
    let phase = status.phase.or_default("status.phase")?;
    if phase == "Succeeded" || phase == "Failed" {
        return Ok(None);
    }
    let text = |ip: PodIp, _: &mut Faults| address(&ip.ip.required("ip")?, "ip");
    let mut addresses: Vec<IpAddr> = each(status.pod_ips, "status.podIPs", faults, text);
    let first = status.pod_ip.or_default("status.podIP")?;
    if addresses.is_empty() && !first.is_empty() {
        addresses.extend(faults.note(address(&first, "status.podIP")));
    }
    if let Some(more) = addresses.get(PodAddresses::MOST) {
        faults.add(Fault::new(
            "status.podIPs",
            format!("{more} is one too many: a pod has one of each family"),
        ));
    }
    let on_host = spec.host_network.or_default("spec.hostNetwork")?;
    let policy = spec.dns_policy.or_default("spec.dnsPolicy")?;
    let more =
        spec.dns_config.or_default("spec.dnsConfig")?.searches.or_default("spec.dnsConfig.searches")?;
    // Off the host's network, `ClusterFirstWithHostNet` is the same as `ClusterFirst`, which is the default.
    let by_default = ["", "ClusterFirst", "ClusterFirstWithHostNet"].contains(&policy.as_str());
    let searches = !on_host && by_default && more.is_empty();
    let labels = labels(object.metadata, faults);
    Ok(Some(Pod { key, addresses: addresses.into_iter().collect(), searches, labels }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_types::{Kind, Object};

    use super::*;
    use crate::resource::{Reading, read_document};

    fn reading(spec: Value, status: Value) -> Reading {
        let object =
            json!({"metadata": {"name": "db-0", "namespace": "shop"}, "spec": spec, "status": status});
        read_document(Kind::Pod, object, &WatchFilter::default())
    }

    fn pod(spec: Value, status: Value) -> (Vec<String>, bool) {
        let Reading::Object(Object::Pod(pod)) = reading(spec, status) else { panic!("no pod") };
        assert_eq!(pod.key.to_string(), "shop/db-0");
        (pod.addresses.iter().map(ToString::to_string).collect(), pod.searches)
    }

    #[test]
    fn a_pod_has_its_addresses_once_it_has_any() {
        let both = json!({"phase": "Running", "podIP": "10.244.1.7", "podIPs": [{"ip": "10.244.1.7"}, {"ip": "fd00::7"}]});
        assert_eq!(pod(json!({}), both).0, ["10.244.1.7", "fd00::7"]);
        assert_eq!(pod(json!({}), json!({"podIP": "10.244.1.7"})).0, ["10.244.1.7"]);
        assert_eq!(pod(json!({}), json!({"phase": "Pending"})).0, [""; 0]);
    }

    #[test]
    fn a_pod_that_ended_is_none() {
        for phase in ["Succeeded", "Failed"] {
            let reading = reading(json!({}), json!({"phase": phase, "podIP": "10.244.1.7"}));
            assert!(matches!(reading, Reading::Ignored(_)), "{phase}");
        }
    }

    #[test]
    fn only_a_pod_of_its_own_network_and_the_cluster_s_resolver_searches() {
        for (spec, searches) in [
            (json!({}), true),
            (json!({"dnsPolicy": "ClusterFirst"}), true),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet"}), true),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), false),
            (json!({"dnsPolicy": "Default"}), false),
            (json!({"dnsPolicy": "None"}), false),
            (json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}), true),
            (json!({"dnsConfig": {"searches": ["example.com"]}}), false),
        ] {
            assert_eq!(pod(spec.clone(), json!({})).1, searches, "{spec}");
        }
    }

    #[test]
    fn a_malformed_address_is_named_and_the_other_one_counts() {
        let status = json!({"podIPs": [{"ip": "10.1"}, {"ip": "fd00::7"}]});
        let Reading::InPart(Object::Pod(pod), malformed) = reading(json!({}), status) else {
            panic!("it is taken, or left out as a whole");
        };
        assert_eq!(*pod.addresses, ["fd00::7".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(malformed.to_string(), "Pod shop/db-0: status.podIPs[0].ip: \"10.1\" is no IP address");
    }

    #[test]
    fn labels_are_read_for_those_who_ask_for_them() {
        let metadata =
            json!({"name": "db-0", "namespace": "shop", "labels": {"app": "db", "bad": 5, "tier": ""}});
        let labels =
            |filter: &WatchFilter| match read_document(Kind::Pod, json!({"metadata": metadata}), filter) {
                Reading::Object(Object::Pod(pod)) => (pod.labels, String::new()),
                Reading::InPart(Object::Pod(pod), malformed) => (pod.labels, malformed.to_string()),
                other => panic!("{other:?}"),
            };
        assert_eq!(labels(&WatchFilter::default()), (weft_types::Labels::default(), String::new()));
        let (labels, told) = labels(&WatchFilter { labels: true, ..WatchFilter::default() });
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("app", "db"), ("tier", "")]);
        assert!(told.starts_with("Pod shop/db-0: metadata.labels[bad]: invalid type"), "{told}");
    }

    #[test]
    fn more_addresses_than_families_are_told() {
        let status = json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::7"}, {"ip": "10.0.0.2"}]});
        let Reading::InPart(Object::Pod(pod), malformed) = reading(json!({}), status) else {
            panic!("taken")
        };
        assert_eq!(pod.addresses.len(), 2);
        assert!(malformed.to_string().contains("status.podIPs: 10.0.0.2 is one too many"), "{malformed}");
    }
}
