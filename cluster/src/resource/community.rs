//! metallb.io/v1beta1 Community.

use serde::Deserialize;
use weft_types::{Community, CommunityValue, NamespacedName};

use super::metadata::Metadata;
use super::metallb::V1BETA1;
use super::values::each;
use super::{ApiResource, Optional, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

impl ApiResource for Community {
    const API_VERSION: &'static str = V1BETA1;
    const PLURAL: &'static str = "communities";
    const OPTIONAL: Optional = Optional::Definition;

    type Wire = CommunityObject;
}

/// metallb.io/v1beta1 Community
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CommunityObject {
    metadata: Field<Metadata>,
    spec: Field<Spec>,
}

/// `spec` of a Community.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    communities: Field<Vec<Field<AliasObject>>>,
}

/// One of `spec.communities` of a Community.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct AliasObject {
    name: Field<String>,
    value: Field<String>,
}

impl WireObject for CommunityObject {
    type Kind = Community;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(
        self,
        key: NamespacedName,
        _: &WatchFilter,
        faults: &mut Faults,
    ) -> Result<Option<Community>, Fault> {
        let list = self.spec.or_default("spec")?.communities;
        let aliases = each(list, "spec.communities", faults, |object, _| alias(object));
        Ok(Some(Community { key, aliases: aliases.into() }))
    }
}

fn alias(object: AliasObject) -> Result<(Box<str>, CommunityValue), Fault> {
    let (name, value) = (object.name.required("name")?, object.value.required("value")?);
    Ok((name.into(), value.parse().map_err(|error| Fault::new("value", format!("{error}")))?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_types::{Kind, Object};

    use super::*;
    use crate::resource::{Reading, read_document};

    #[test]
    fn names_of_communities_are_read_and_a_bad_one_is_left_out() {
        let object = json!({"metadata": {"name": "c", "namespace": "metallb-system"}, "spec": {"communities": [
            {"name": "no-export", "value": "65535:65281"}, {"name": "big", "value": "large:1:2:3"},
            {"name": "bad", "value": "1:2:3"},
        ]}});
        let reading = read_document(Kind::Community, object, &WatchFilter::default());
        let Reading::InPart(Object::Community(community), malformed) = reading else { panic!("{reading:?}") };
        let expected: [(Box<str>, _); 2] = [
            ("no-export".into(), CommunityValue::Standard(65535, 65281)),
            ("big".into(), CommunityValue::Large(1, 2, 3)),
        ];
        assert_eq!(*community.aliases, expected);
        let told = malformed.to_string();
        assert!(told.contains("spec.communities[2].value: \"1:2:3\" is no BGP community"), "{told}");
    }
}
