//! What a Namespace means for the objects in it.

use super::{Registry, Target};
use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::object::{self, Key};
use crate::apiserver::resource::named;

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
