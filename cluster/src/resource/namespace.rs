//! v1 Namespace: its name, and its labels for those who select by them.

use serde::Deserialize;
use weft_types::Namespace;

use super::metadata::{Metadata, labels};
use super::values::label;
use super::{ApiResource, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

impl ApiResource for Namespace {
    const API_VERSION: &'static str = "v1";
    const PLURAL: &'static str = "namespaces";

    type Wire = NamespaceObject;

    fn label_selector(filter: &WatchFilter) -> Option<String> {
        filter.namespaces.clone()
    }
}

/// v1 Namespace
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NamespaceObject {
    metadata: Field<Metadata>,
}

impl WireObject for NamespaceObject {
    type Kind = Namespace;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(
        self,
        name: String,
        filter: &WatchFilter,
        faults: &mut Faults,
    ) -> Result<Option<Namespace>, Fault> {
        let name = label(name, "metadata.name")?.into();
        Ok(Some(Namespace { name, labels: labels(self.metadata, filter, faults) }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_types::{Kind, Object};

    use super::*;
    use crate::resource::{Reading, read_document};

    #[test]
    fn labels_are_read_for_those_who_ask_for_them() {
        let labels = json!({"kubernetes.io/metadata.name": "shop"});
        let object = json!({"metadata": {"name": "shop", "labels": labels}});
        let labels = |filter: &WatchFilter| match read_document(Kind::Namespace, object.clone(), filter) {
            Reading::Object(Object::Namespace(namespace)) => namespace.labels,
            other => panic!("{other:?}"),
        };
        assert!(labels(&WatchFilter::default()).is_empty());
        let labels = labels(&WatchFilter { labels: true, ..WatchFilter::default() });
        assert_eq!(labels.get("kubernetes.io/metadata.name"), Some("shop"));
    }
}
