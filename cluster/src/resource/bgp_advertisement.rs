//! metallb.io/v1beta1 BGPAdvertisement.

use serde::Deserialize;
use weft_types::{BgpAdvertisement, Family, NamespacedName};

use super::metadata::Metadata;
use super::metallb::{V1BETA1, names, pools, selectors};
use super::policy::SelectorObject;
use super::values::within;
use super::{ApiResource, Optional, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

impl ApiResource for BgpAdvertisement {
    const API_VERSION: &'static str = V1BETA1;
    const PLURAL: &'static str = "bgpadvertisements";
    const OPTIONAL: Optional = Optional::Definition;

    type Wire = BgpAdvertisementObject;
}

/// metallb.io/v1beta1 BGPAdvertisement
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BgpAdvertisementObject {
    metadata: Field<Metadata>,
    spec: Field<Spec>,
}

/// `spec` of a BGPAdvertisement.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    aggregation_length: Field<i64>,
    aggregation_length_v6: Field<i64>,
    local_pref: Field<u32>,
    communities: Field<Vec<Field<String>>>,
    #[serde(rename = "ipAddressPools")]
    pools: Field<Vec<Field<String>>>,
    #[serde(rename = "ipAddressPoolSelectors")]
    pool_selectors: Field<Vec<Field<SelectorObject>>>,
    node_selectors: Field<Vec<Field<SelectorObject>>>,
    peers: Field<Vec<Field<String>>>,
    service_selectors: Field<Vec<Field<SelectorObject>>>,
}

impl WireObject for BgpAdvertisementObject {
    type Kind = BgpAdvertisement;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(
        self,
        key: NamespacedName,
        _: &WatchFilter,
        _: &mut Faults,
    ) -> Result<Option<BgpAdvertisement>, Fault> {
        // Without a spec, it is about all pools, for all peers.
        let spec = self.spec.or_default("spec")?;
        Ok(Some(BgpAdvertisement {
            key,
            pools: pools(spec.pools, spec.pool_selectors)?,
            aggregation_length: length(spec.aggregation_length, Family::V4, "spec.aggregationLength")?,
            aggregation_length_v6: length(
                spec.aggregation_length_v6,
                Family::V6,
                "spec.aggregationLengthV6",
            )?,
            local_pref: spec.local_pref.optional("spec.localPref")?.filter(|number| *number != 0),
            communities: names(spec.communities, "spec.communities")?,
            node_selectors: selectors(spec.node_selectors, "spec.nodeSelectors")?,
            peers: names(spec.peers, "spec.peers")?,
            service_selectors: selectors(spec.service_selectors, "spec.serviceSelectors")?,
        }))
    }
}

/// The length of a prefix; that of a whole address where none is given.
fn length(field: Field<i64>, family: Family, path: &str) -> Result<u8, Fault> {
    let bits = family.bits();
    let length = field.optional(path)?.map(|number| within(number, 1..=bits, path));
    Ok(length.transpose()?.unwrap_or(bits))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_types::{Kind, Object};

    use super::*;
    use crate::resource::{Reading, read_document};

    fn read(spec: Value) -> Result<BgpAdvertisement, String> {
        let object = json!({"metadata": {"name": "lan", "namespace": "metallb-system"}, "spec": spec});
        match read_document(Kind::BgpAdvertisement, object, &WatchFilter::default()) {
            Reading::Object(Object::BgpAdvertisement(it)) => Ok(it),
            Reading::Malformed(malformed) => Err(malformed.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_advertisement_is_read_with_the_defaults_of_metallb() {
        let it = read(json!({})).unwrap();
        assert_eq!((it.aggregation_length, it.aggregation_length_v6, it.local_pref), (32, 128, None));
        assert!(it.communities.is_empty() && it.peers.is_empty() && it.node_selectors.is_empty());
        let it = read(json!({"aggregationLength": 24, "aggregationLengthV6": 64, "localPref": 100,
            "communities": ["64512:1", "no-export"], "peers": ["tor"], "ipAddressPools": ["lan"]}))
        .unwrap();
        assert_eq!((it.aggregation_length, it.aggregation_length_v6, it.local_pref), (24, 64, Some(100)));
        assert_eq!((&*it.communities[1], &*it.peers[0], &*it.pools.names[0]), ("no-export", "tor", "lan"));
    }

    #[test]
    fn an_advertisement_that_cannot_be_meant_is_left_out() {
        for (spec, field) in [
            (json!({"aggregationLength": 33}), "spec.aggregationLength: 33 is none of 1 to 32"),
            (json!({"aggregationLengthV6": 0}), "spec.aggregationLengthV6: 0 is none of 1 to 128"),
            (json!({"localPref": -1}), "spec.localPref: "),
            (json!({"peers": [{}]}), "spec.peers[0]: "),
        ] {
            let told = read(spec).unwrap_err();
            assert!(told.contains(field), "{told}");
        }
    }
}
