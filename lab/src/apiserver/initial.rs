//! What a cluster has before anybody asks for anything: its namespaces, its ranges of Service addresses, and
//! the Service of the API server. What of it is deleted comes back: see `controllers::own_service`.

use serde_json::{Value, json};
use weft_types::Family;

use super::Config;
use super::error::Result;
use super::registry::{Registry, Target, Write};
use super::resource::named;

/// Fills an empty registry.
pub(crate) fn fill(registry: &mut Registry, config: &Config) -> Result<()> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        create(registry, "namespaces", "", json!({"metadata": {"name": name}}))?;
    }
    if !config.service_cidrs.is_empty() {
        let cidrs = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": config.service_cidrs}});
        create(registry, "servicecidrs", "", cidrs)?;
    }
    for (plural, object) in own_service(config) {
        create(registry, plural, "default", object)?;
    }
    Ok(())
}

/// The Service `default/kubernetes` and its endpoint, by which pods reach this server.
pub(crate) fn own_service(config: &Config) -> Vec<(&'static str, Value)> {
    let Some(range) = config.service_cidrs.first() else { return Vec::new() };
    let own_port = config.advertise.map_or(6443, |address| address.port());
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            // The first address of the range is the API server's, as in every cluster.
            "clusterIP": range.iter().nth(1).map(|address| address.to_string()),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": own_port}],
        },
    });
    let slice = config.advertise.map(|address| {
        let labels = json!({"kubernetes.io/service-name": "kubernetes"});
        json!({
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "addressType": Family::of(address.ip()).to_string(),
            "ports": [{"name": "https", "port": own_port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
        })
    });
    [Some(("services", service)), slice.map(|slice| ("endpointslices", slice))]
        .into_iter()
        .flatten()
        .collect()
}

fn create(registry: &mut Registry, plural: &str, namespace: &str, object: Value) -> Result<()> {
    let resource = named(plural);
    let target = Target { resource, namespace: namespace.to_owned(), name: String::new() };
    registry.create(&target, object, Write::default()).map(drop)
}
