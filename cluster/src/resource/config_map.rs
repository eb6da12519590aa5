//! v1 ConfigMap: its data.

use std::collections::BTreeMap;

use serde::Deserialize;
use weft_types::{ConfigMap, NamespacedName};

use super::metadata::Metadata;
use super::{ApiResource, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

impl ApiResource for ConfigMap {
    const API_VERSION: &'static str = "v1";
    const PLURAL: &'static str = "configmaps";

    type Wire = ConfigMapObject;

    fn namespace(filter: &WatchFilter) -> Option<&str> {
        filter.config_map.as_ref().map(|key| &*key.namespace)
    }

    fn field_selector(filter: &WatchFilter) -> Option<String> {
        filter.config_map.as_ref().map(|key| format!("metadata.name={}", key.name))
    }
}

/// v1 ConfigMap
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigMapObject {
    metadata: Field<Metadata>,
    data: Field<BTreeMap<String, Field<String>>>,
}

impl WireObject for ConfigMapObject {
    type Kind = ConfigMap;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    // The settings in it belong together.
    fn convert(
        self,
        key: NamespacedName,
        _: &WatchFilter,
        _: &mut Faults,
    ) -> Result<Option<ConfigMap>, Fault> {
        let data = self.data.or_default("data")?.into_iter();
        let value = |(key, text): (String, Field<String>)| {
            let text = text.required(&format!("data[{key}]"))?;
            Ok((key, text))
        };
        Ok(Some(ConfigMap { key, data: data.map(value).collect::<Result<_, Fault>>()? }))
    }
}
