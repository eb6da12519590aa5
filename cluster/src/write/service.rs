//! The addresses of Services' load balancers. Which Service has which is decided by who writes them.

use std::net::IpAddr;

use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use weft_types::{Kind, NamespacedName};

use crate::error::chain;
use crate::resource::api;

/// Why the status of a Service was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotWritten {
    /// The Service changed since, or is gone: what was decided may not hold for it any more.
    Stale,
    /// Something else, in one line.
    Problem(String),
}

/// Writes the addresses of a Service's load balancer, if it still is of that version. Traffic for them comes
/// to the nodes as it is (`ipMode: VIP`).
///
/// # Errors
/// Why the API server did not take it.
pub async fn set_addresses(
    client: &Client,
    service: &NamespacedName,
    version: &str,
    addresses: &[IpAddr],
) -> Result<(), NotWritten> {
    let patch = Patch::Merge(status(version, addresses));
    let request = Request::new(api(Kind::Service).path(Some(&service.namespace)))
        .patch_subresource("status", &service.name, &PatchParams::default(), &patch)
        .map_err(|error| NotWritten::Problem(chain(&error)))?;
    // The whole Service comes back, and the watch brings it anyway.
    match client.request::<IgnoredAny>(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Err(NotWritten::Stale),
        Err(error) => Err(NotWritten::Problem(chain(&error))),
    }
}

fn status(version: &str, addresses: &[IpAddr]) -> Value {
    let ingress: Vec<Value> =
        addresses.iter().map(|address| json!({"ip": address.to_string(), "ipMode": "VIP"})).collect();
    // A list of a merge patch replaces the one that is there (RFC 7386), and null takes it away.
    let ingress = if ingress.is_empty() { Value::Null } else { Value::from(ingress) };
    json!({"metadata": {"resourceVersion": version}, "status": {"loadBalancer": {"ingress": ingress}}})
}
