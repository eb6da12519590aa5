//! metallb.io/v1beta1 L2Advertisement.

use serde::Deserialize;
use weft_types::{L2Advertisement, NamespacedName, PreferredNodes};

use super::metadata::Metadata;
use super::metallb::{V1BETA1, names, pools, selectors};
use super::policy::{SelectorObject, selector};
use super::values::{each, within};
use super::{ApiResource, Optional, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

impl ApiResource for L2Advertisement {
    const API_VERSION: &'static str = V1BETA1;
    const PLURAL: &'static str = "l2advertisements";
    const OPTIONAL: Optional = Optional::Definition;

    type Wire = L2AdvertisementObject;
}

/// metallb.io/v1beta1 L2Advertisement
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct L2AdvertisementObject {
    metadata: Field<Metadata>,
    spec: Field<Spec>,
}

/// `spec` of an L2Advertisement.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "ipAddressPools")]
    pools: Field<Vec<Field<String>>>,
    #[serde(rename = "ipAddressPoolSelectors")]
    pool_selectors: Field<Vec<Field<SelectorObject>>>,
    node_selectors: Field<Vec<Field<SelectorObject>>>,
    interfaces: Field<Vec<Field<String>>>,
    service_selectors: Field<Vec<Field<SelectorObject>>>,
    preferred_node_selectors: Field<Vec<Field<PreferredObject>>>,
}

/// One of `spec.preferredNodeSelectors` of an L2Advertisement.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PreferredObject {
    weight: Field<i64>,
    preference: Field<SelectorObject>,
}

impl WireObject for L2AdvertisementObject {
    type Kind = L2Advertisement;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(
        self,
        key: NamespacedName,
        _: &WatchFilter,
        faults: &mut Faults,
    ) -> Result<Option<L2Advertisement>, Fault> {
        // Without a spec, it is about all pools, from all nodes.
        let spec = self.spec.or_default("spec")?;
        Ok(Some(L2Advertisement {
            key,
            pools: pools(spec.pools, spec.pool_selectors)?,
            node_selectors: selectors(spec.node_selectors, "spec.nodeSelectors")?,
            interfaces: names(spec.interfaces, "spec.interfaces")?,
            service_selectors: selectors(spec.service_selectors, "spec.serviceSelectors")?,
            preferred_nodes: each(
                spec.preferred_node_selectors,
                "spec.preferredNodeSelectors",
                faults,
                |object, _| preferred(object),
            )
            .into(),
        }))
    }
}

fn preferred(object: PreferredObject) -> Result<PreferredNodes, Fault> {
    let weight = object.weight.required("weight")?;
    let selector = object.preference.required("preference").and_then(selector)?;
    Ok(PreferredNodes { weight: within(weight, 1..=100, "weight")?, selector })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_types::{Kind, Labels, Object};

    use super::*;
    use crate::resource::{Reading, read_document};

    fn read(spec: Value) -> Result<(L2Advertisement, String), String> {
        let object = json!({"metadata": {"name": "lan", "namespace": "metallb-system"}, "spec": spec});
        match read_document(Kind::L2Advertisement, object, &WatchFilter::default()) {
            Reading::Object(Object::L2Advertisement(it)) => Ok((it, String::new())),
            Reading::InPart(Object::L2Advertisement(it), malformed) => Ok((it, malformed.to_string())),
            Reading::Malformed(malformed) => Err(malformed.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_advertisement_without_a_spec_is_about_everything() {
        let (it, told) = read(Value::Null).unwrap();
        assert!(it.pools.selects("any", &Labels::default()) && told.is_empty());
        assert!(it.node_selectors.is_empty() && it.interfaces.is_empty() && it.preferred_nodes.is_empty());
    }

    #[test]
    fn all_that_limits_an_advertisement_is_read() {
        let zone = json!({"matchLabels": {"zone": "a"}});
        let (it, told) = read(json!({
            "ipAddressPools": ["lan"], "ipAddressPoolSelectors": [zone], "nodeSelectors": [zone],
            "interfaces": ["eth0", "eth1"], "serviceSelectors": [zone],
            "preferredNodeSelectors": [{"weight": 50, "preference": zone}, {"weight": 0, "preference": {}}],
        }))
        .unwrap();
        assert!(it.pools.selects("lan", &Labels::default()) && !it.pools.selects("wan", &Labels::default()));
        assert_eq!((it.node_selectors.len(), it.service_selectors.len()), (1, 1));
        assert_eq!(*it.interfaces, ["eth0".into(), "eth1".into()]);
        assert_eq!((it.preferred_nodes.len(), it.preferred_nodes[0].weight), (1, 50));
        assert!(told.contains("spec.preferredNodeSelectors[1].weight: 0 is none of 1 to 100"), "{told}");
    }

    #[test]
    fn an_advertisement_with_a_selector_that_cannot_be_read_is_left_out() {
        let told = read(json!({"nodeSelectors": [{"matchLabels": {"zone": 5}}]})).unwrap_err();
        assert!(told.contains("spec.nodeSelectors[0].matchLabels[zone]: "), "{told}");
    }
}
