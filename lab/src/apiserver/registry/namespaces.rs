//! What a Namespace means for the objects in it.

use super::{Registry, Target};
use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::object::{self, Key};
use crate::apiserver::resource::named;

/// The namespaces that every cluster has.
const PERMANENT: [&str; 3] = ["default", "kube-public", "kube-system"];

/// Refuses to delete what no cluster can be without.
pub(super) fn check_delete(target: &Target) -> Result<()> {
    if target.resource.plural != "namespaces" || !PERMANENT.contains(&&*target.name) {
        return Ok(());
    }
    let detail = "this namespace may not be deleted".to_owned();
    Err(ApiError::Forbidden { resource: target.resource.qualified(), name: target.name.clone(), detail })
}

impl Registry {
    /// Says why no object can be created in the target's namespace: it is not there, or on its way out.
    pub(super) fn require_namespace(&self, target: &Target, name: &str) -> Result<()> {
        let namespace = &target.namespace;
        let Some(found) = self.store.get(&Key::new("namespaces", "", namespace)) else {
            return Err(ApiError::not_found(named("namespaces"), namespace));
        };
        if object::is_terminating(found) {
            let detail = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let resource = target.resource.qualified();
            return Err(ApiError::Forbidden { resource, name: name.to_owned(), detail });
        }
        Ok(())
    }
}
