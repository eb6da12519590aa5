//! metallb.io/v1beta1 IPAddressPool.
//!
//! A range that cannot be read is left out. A pool that could come to mean more Services or addresses than
//! its author wanted is not used at all.

use serde::Deserialize;
use weft_types::{AddressRange, IpAddressPool, NamespacedName, ServiceAllocation};

use super::metadata::{Metadata, labels};
use super::metallb::{V1BETA1, names, selectors};
use super::policy::SelectorObject;
use super::values::each;
use super::{ApiResource, Optional, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

impl ApiResource for IpAddressPool {
    const API_VERSION: &'static str = V1BETA1;
    const PLURAL: &'static str = "ipaddresspools";
    const OPTIONAL: Optional = Optional::Definition;

    type Wire = IpAddressPoolObject;
}

/// metallb.io/v1beta1 IPAddressPool
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct IpAddressPoolObject {
    metadata: Field<Metadata>,
    spec: Field<Spec>,
}

/// `spec` of an IPAddressPool.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    addresses: Field<Vec<Field<String>>>,
    auto_assign: Field<bool>,
    #[serde(rename = "avoidBuggyIPs")]
    avoid_buggy_ips: Field<bool>,
    service_allocation: Field<AllocationObject>,
}

/// `spec.serviceAllocation` of an IPAddressPool.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AllocationObject {
    priority: Field<i64>,
    namespaces: Field<Vec<Field<String>>>,
    namespace_selectors: Field<Vec<Field<SelectorObject>>>,
    service_selectors: Field<Vec<Field<SelectorObject>>>,
}

impl WireObject for IpAddressPoolObject {
    type Kind = IpAddressPool;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(
        self,
        key: NamespacedName,
        filter: &WatchFilter,
        faults: &mut Faults,
    ) -> Result<Option<IpAddressPool>, Fault> {
        let spec = self.spec.required("spec")?;
        let allocation = spec.service_allocation.optional("spec.serviceAllocation")?;
        let auto_assign = spec.auto_assign.optional("spec.autoAssign")?.unwrap_or(true);
        let avoid_buggy_ips = spec.avoid_buggy_ips.or_default("spec.avoidBuggyIPs")?;
        let allocation = allocation.map(service_allocation).transpose();
        let allocation = allocation.map_err(|fault| fault.within("spec.serviceAllocation"))?;
        let ranges = each(spec.addresses, "spec.addresses", faults, |text, _| {
            text.parse::<AddressRange>().map_err(|error| Fault::new("", error.to_string()))
        });
        Ok(Some(IpAddressPool {
            key,
            labels: labels(self.metadata, filter, faults),
            ranges: ranges.into(),
            auto_assign,
            avoid_buggy_ips,
            allocation,
        }))
    }
}

fn service_allocation(object: AllocationObject) -> Result<ServiceAllocation, Fault> {
    Ok(ServiceAllocation {
        priority: object.priority.or_default("priority")?,
        namespaces: names(object.namespaces, "namespaces")?,
        namespace_selectors: selectors(object.namespace_selectors, "namespaceSelectors")?,
        service_selectors: selectors(object.service_selectors, "serviceSelectors")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_types::{Kind, Labels, Object};

    use super::*;
    use crate::resource::{Reading, read_document};

    fn read(spec: Value) -> Result<(IpAddressPool, String), String> {
        let metadata = json!({"name": "lan", "namespace": "metallb-system", "labels": {"site": "home"}});
        let object = json!({"metadata": metadata, "spec": spec});
        match read_document(Kind::IpAddressPool, object, &WatchFilter::network_policies()) {
            Reading::Object(Object::IpAddressPool(pool)) => Ok((pool, String::new())),
            Reading::InPart(Object::IpAddressPool(pool), malformed) => Ok((pool, malformed.to_string())),
            Reading::Malformed(malformed) => Err(malformed.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pool_is_read_with_the_defaults_of_metallb() {
        let (pool, told) = read(json!({"addresses": ["192.0.2.0/28", "2001:db8::1-2001:db8::9"]})).unwrap();
        let ranges: Vec<String> = pool.ranges.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["192.0.2.0-192.0.2.15", "2001:db8::1-2001:db8::9"]);
        assert!(pool.auto_assign && !pool.avoid_buggy_ips && pool.allocation.is_none() && told.is_empty());
        assert_eq!(pool.labels.get("site"), Some("home"));
    }

    #[test]
    fn all_that_limits_a_pool_is_read() {
        let (pool, _) = read(json!({
            "addresses": ["192.0.2.0/28"], "autoAssign": false, "avoidBuggyIPs": true,
            "serviceAllocation": {
                "priority": 7, "namespaces": ["shop"], "namespaceSelectors": [{"matchLabels": {"team": "a"}}],
                "serviceSelectors": [{"matchExpressions": [{"key": "app", "operator": "Exists"}]}],
            },
        }))
        .unwrap();
        let allocation = pool.allocation.unwrap();
        assert!(!pool.auto_assign && pool.avoid_buggy_ips && allocation.priority == 7);
        assert_eq!(*allocation.namespaces, ["shop".into()]);
        assert!(allocation.namespace_selectors[0].matches(&[("team", "a")].into_iter().collect::<Labels>()));
        assert!(!allocation.service_selectors[0].matches(&Labels::default()));
    }

    #[test]
    fn a_bad_range_is_left_out_and_a_bad_limit_leaves_the_pool_out() {
        let (pool, told) = read(json!({"addresses": ["192.0.2.0/28", "192.0.2.9-192.0.2.1", 5]})).unwrap();
        assert_eq!(pool.ranges.len(), 1);
        assert!(told.contains("spec.addresses[1]: \"192.0.2.9-192.0.2.1\" ends before it begins"), "{told}");
        assert!(told.contains("spec.addresses[2]: "), "{told}");
        let selector = json!({"matchExpressions": [{"key": "a", "operator": "Like"}]});
        for (bad, field) in [
            (json!({"autoAssign": "no"}), "spec.autoAssign"),
            (json!({"avoidBuggyIPs": 1}), "spec.avoidBuggyIPs"),
            (json!({"serviceAllocation": "all"}), "spec.serviceAllocation"),
            (json!({"serviceAllocation": {"priority": "high"}}), "spec.serviceAllocation.priority"),
            (json!({"serviceAllocation": {"namespaces": [1]}}), "spec.serviceAllocation.namespaces[0]"),
            (
                json!({"serviceAllocation": {"serviceSelectors": [{}, selector]}}),
                "spec.serviceAllocation.serviceSelectors[1].matchExpressions[0]",
            ),
        ] {
            let told = read(bad).unwrap_err();
            let start = format!("IPAddressPool metallb-system/lan: {field}: ");
            assert!(told.starts_with(&start), "{told}");
        }
    }
}
