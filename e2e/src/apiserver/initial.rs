//! What a cluster has before anybody asks for anything: its namespaces, and the Service of the API server.

use serde_json::{Value, json};
use weft_types::Family;

use super::Config;
use super::error::Result;
use super::registry::{Registry, Target};
use super::resource::named;

/// Fills an empty registry.
pub(crate) fn fill(registry: &mut Registry, config: &Config) -> Result<()> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        create(registry, "namespaces", "", json!({"metadata": {"name": name}}))?;
    }
    let Some(range) = config.service_cidrs.first() else { return Ok(()) };
    let own_port = config.advertise.map_or(6443, |address| address.port());
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": labels},
        "spec": {
            // The first address of the range is the API server's, as in every cluster.
            "clusterIP": range.iter().nth(1).map(|address| address.to_string()),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": own_port}],
        },
    });
    create(registry, "services", "default", service)?;
    let Some(address) = config.advertise else { return Ok(()) };
    let slice = json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": Family::of(address.ip()).to_string(),
        "ports": [{"name": "https", "port": own_port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
    });
    create(registry, "endpointslices", "default", slice)
}

fn create(registry: &mut Registry, plural: &str, namespace: &str, object: Value) -> Result<()> {
    let resource = named(plural);
    let target = Target { resource, namespace: namespace.to_owned(), name: String::new() };
    registry.create(&target, object, false).map(drop)
}
