//! Snapshots from manifests on disk: for `--dry-run`, and for tests that need no cluster.

use std::path::{Path, PathBuf};

use serde_json::Value;
use weft_types::{Kind, Snapshot};

use crate::filter::WatchFilter;
use crate::index::{Event, Index};
use crate::resource::{KINDS, api, read_document};
use crate::{Error, Result};

/// Reads manifests, in YAML (of one or more documents) or JSON, into a snapshot.
///
/// `List` objects are unpacked, objects of kinds that Weft does not read are skipped, and malformed ones are
/// named in the log and left out, or what of them cannot be used. Objects without a namespace are of the
/// namespace `default`, as with kubectl.
pub fn load(filter: &WatchFilter, paths: &[PathBuf]) -> Result<Snapshot> {
    let mut index = Index::default();
    for path in paths {
        for document in documents(path)? {
            take(document, filter, &mut index);
        }
    }
    Ok(index.into_snapshot())
}

fn documents(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path)
        .map_err(|problem| Error::ReadManifest { path: path.to_owned(), problem })?;
    // JSON is YAML too, but its own reader is many times faster; and tells no line where it fails.
    if let Ok(document) = serde_json::from_str(&text) {
        return Ok(vec![document]);
    }
    // The file is the user's own, so there is no budget for its size.
    serde_saphyr::from_multiple_with_options(&text, serde_saphyr::options! { budget: None })
        .map_err(|error| Error::ParseManifest { path: path.to_owned(), problem: error.to_string() })
}

fn take(mut document: Value, filter: &WatchFilter, index: &mut Index) {
    let version = document["apiVersion"].as_str().unwrap_or_default();
    let name = document["kind"].as_str().unwrap_or_default();
    let is_it = |kind: &&Kind| (api(**kind).version, kind.name()) == (version, name);
    if let Some(&kind) = KINDS.iter().find(is_it) {
        if let Some(metadata) = document["metadata"].as_object_mut() {
            metadata.entry("namespace").or_insert_with(|| "default".into());
        }
        let reading = read_document(kind, document, filter);
        if let Some(malformed) = index.take(Event::Applied(reading)) {
            malformed.tell();
        }
    } else if name.ends_with("List")
        && let Value::Array(items) = document["items"].take()
    {
        items.into_iter().for_each(|item| take(item, filter, index));
    }
}

#[cfg(test)]
mod tests {
    use weft_types::NamespacedName;

    use super::*;

    const MANIFESTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
# A document of a kind that is of no concern.
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: shop}
  spec: {clusterIP: 10.96.0.7, ports: [{port: 80}]}
- apiVersion: v1
  kind: Service
  metadata: {name: bad, namespace: shop}
  spec: {clusterIP: nowhere}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.244.1.7]}]
---
";

    const JSON: &str = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db",
        "labels": {"service.kubernetes.io/headless": ""}}, "spec": {"clusterIP": "None"}}"#;

    fn load_texts(filter: &WatchFilter, texts: &[&str]) -> Result<Snapshot> {
        let folder = tempfile::tempdir().unwrap();
        let path = |place| folder.path().join(format!("{place}.yaml"));
        for (place, text) in texts.iter().enumerate() {
            std::fs::write(path(place), text).unwrap();
        }
        load(filter, &(0..texts.len()).map(path).collect::<Vec<_>>())
    }

    fn services(snapshot: &Snapshot) -> Vec<String> {
        snapshot.services().map(|service| service.key.to_string()).collect()
    }

    #[test]
    fn all_documents_and_lists_are_read_and_the_rest_left_out() {
        let snapshot = load_texts(&WatchFilter::default(), &[MANIFESTS, JSON]).unwrap();
        assert_eq!(services(&snapshot), ["default/db", "shop/web"]);
        assert_eq!(snapshot.slices_of(&NamespacedName::new("shop", "web")).count(), 1);
        assert_eq!(snapshot.namespaces().collect::<Vec<_>>(), ["shop"]);
    }

    #[test]
    fn the_proxys_view_leaves_headless_services_out() {
        assert_eq!(
            services(&load_texts(&WatchFilter::service_proxy(), &[JSON]).unwrap()),
            Vec::<String>::new()
        );
    }

    #[test]
    fn unreadable_files_are_named() {
        let error = load(&WatchFilter::default(), &[PathBuf::from("/no/such.yaml")]).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the manifest /no/such.yaml: No such file"), "{error}");
        let error = load_texts(&WatchFilter::default(), &["a: [1, 2"]).unwrap_err().to_string();
        assert!(error.contains("0.yaml is not valid YAML or JSON: "), "{error}");
    }
}
