//! The shape of IPAMBlocks (weft.internal/v1), as `weft install --ipam blocks` defines them.

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// An IPAMBlock.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IpamBlock {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: Spec,
}

impl k8s_openapi::Resource for IpamBlock {
    const API_VERSION: &'static str = "weft.internal/v1";
    const GROUP: &'static str = "weft.internal";
    const KIND: &'static str = "IPAMBlock";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "ipamblocks";
    type Scope = ClusterResourceScope;
}

#[derive(Deserialize, Serialize)]
struct Spec {
    cidr: String,
    node: String,
    #[serde(rename = "nodeUID", skip_serializing_if = "Option::is_none")]
    node_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<String>,
}
