//! The demo's manifests, and applying them as `kubectl apply --server-side` does.

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Client, ResourceExt};

use crate::error::{Error, Result};

/// The port on which backend pods listen.
pub(super) const BACKEND_PORT: u16 = 8080;
/// The namespace of the application.
pub const NAMESPACE: &str = "shop";

/// The files of `lab/demo`, in the order in which they are applied.
const FILES: [(&str, &str); 5] = [
    ("00-namespace.yaml", include_str!("../../demo/00-namespace.yaml")),
    ("10-database.yaml", include_str!("../../demo/10-database.yaml")),
    ("20-backend.yaml", include_str!("../../demo/20-backend.yaml")),
    ("30-frontend.yaml", include_str!("../../demo/30-frontend.yaml")),
    ("40-legacy-database.yaml", include_str!("../../demo/40-legacy-database.yaml")),
];

/// What the backend lets in, once the application runs.
const POLICY: (&str, &str) = ("50-backend-policy.yaml", include_str!("../../demo/50-backend-policy.yaml"));

/// Applies all manifests, but for the NetworkPolicy.
pub async fn apply(client: &Client) -> Result<()> {
    apply_files(client, &FILES).await
}

/// Applies the NetworkPolicy.
pub(super) async fn apply_policy(client: &Client) -> Result<()> {
    apply_files(client, &[POLICY]).await
}

/// Applies manifests: their names and texts.
pub(crate) async fn apply_files(client: &Client, files: &[(&str, &str)]) -> Result<()> {
    for (file, text) in files {
        for object in parse(file, text)? {
            apply_one(client, object).await?;
        }
    }
    Ok(())
}

async fn apply_one(client: &Client, object: DynamicObject) -> Result<()> {
    let types = object.types.clone().unwrap_or_default();
    let name = object.name_any();
    let shown = format!("{} {name}", types.kind);
    let kind = GroupVersionKind::try_from(&types).map_err(|error| Error::Invalid {
        what: "kind",
        value: shown.clone(),
        reason: error.to_string(),
    })?;
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let applied = api.patch(&name, &PatchParams::apply("weft-lab-demo"), &Patch::Apply(object)).await;
    applied.map(drop).map_err(Error::api("apply", shown))
}

fn parse(file: &str, text: &str) -> Result<Vec<DynamicObject>> {
    serde_saphyr::from_multiple(text)
        .map_err(|error| Error::Manifest { path: file.into(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_is_one_or_more_objects_of_the_application() {
        let mut kinds = Vec::new();
        for (file, text) in FILES.into_iter().chain([POLICY]) {
            for object in parse(file, text).unwrap() {
                let kind = object.types.as_ref().unwrap().kind.clone();
                assert!(kind == "Namespace" || object.namespace().as_deref() == Some(NAMESPACE), "{file}");
                kinds.push(format!("{kind} {}", object.name_any()));
            }
        }
        for expected in [
            "Service backend",
            "Deployment backend",
            "StatefulSet database",
            "Service legacy-database",
            "NetworkPolicy backend",
        ] {
            assert!(kinds.iter().any(|kind| kind == expected), "{expected} not in {kinds:?}");
        }
    }
}
