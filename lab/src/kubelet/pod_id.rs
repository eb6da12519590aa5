//! Which pod is meant, whatever becomes of it.

use k8s_openapi::api::core::v1::Pod;

/// Which pod it is.
#[derive(Clone, Debug)]
pub(super) struct PodId {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl PodId {
    /// That of an object of the API server.
    pub(super) fn of(pod: &Pod) -> PodId {
        let metadata = &pod.metadata;
        PodId {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }
}
