//! v1 Pod: its addresses, and whether its resolver searches the cluster's domains.

use std::net::IpAddr;

use weft_types::{Labels, NamespacedName, Pod};

use super::{address, each};
use crate::field::{Fault, Faults};
use crate::wire;

/// Nothing for a pod that ended: its addresses may be another's by now.
pub(super) fn convert(
    key: NamespacedName,
    object: wire::Pod,
    faults: &mut Faults,
) -> Result<Option<Pod>, Fault> {
    let spec = object.spec.or_default("spec")?;
    let status = object.status.or_default("status")?;
    let phase = status.phase.or_default("status.phase")?;
    if phase == "Succeeded" || phase == "Failed" {
        return Ok(None);
    }
    let text = |ip: wire::PodIp, _: &mut Faults| address(&ip.ip.required("ip")?, "ip");
    let mut addresses: Vec<IpAddr> = each(status.pod_ips, "status.podIPs", faults, text);
    let first = status.pod_ip.or_default("status.podIP")?;
    if addresses.is_empty() && !first.is_empty() {
        addresses.extend(faults.note(address(&first, "status.podIP")));
    }
    let on_host = spec.host_network.or_default("spec.hostNetwork")?;
    let policy = spec.dns_policy.or_default("spec.dnsPolicy")?;
    let more =
        spec.dns_config.or_default("spec.dnsConfig")?.searches.or_default("spec.dnsConfig.searches")?;
    // Off the host's network, `ClusterFirstWithHostNet` is the same as `ClusterFirst`, which is the default.
    let by_default = ["", "ClusterFirst", "ClusterFirstWithHostNet"].contains(&policy.as_str());
    let searches = !on_host && by_default && more.is_empty();
    Ok(Some(Pod { key, addresses: addresses.into_iter().collect(), searches, labels: Labels::default() }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_types::Object;

    use crate::convert::{Reading, read};
    use crate::view::View;
    use crate::wire;

    fn reading(spec: Value, status: Value) -> Reading {
        let object =
            json!({"metadata": {"name": "db-0", "namespace": "shop"}, "spec": spec, "status": status});
        read(serde_json::from_value::<wire::Pod>(object).unwrap(), View::Whole)
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
}
