//! weft.internal/v1 IPAMBlock: a range of addresses that a node has claimed.

use serde::Deserialize;
use weft_types::IpamBlock;

use super::address::network;
use super::metadata::Metadata;
use super::{ApiResource, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

impl ApiResource for IpamBlock {
    const API_VERSION: &'static str = "weft.internal/v1";
    const PLURAL: &'static str = "ipamblocks";

    type Wire = IpamBlockObject;
}

/// weft.internal/v1 IPAMBlock
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct IpamBlockObject {
    metadata: Field<Metadata>,
    spec: Field<Spec>,
}

/// `spec` of an IPAMBlock.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    cidr: Field<String>,
    node: Field<String>,
    #[serde(rename = "nodeUID")]
    node_uid: Field<String>,
    claim: Field<String>,
}

impl WireObject for IpamBlockObject {
    type Kind = IpamBlock;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(self, name: String, _: &WatchFilter, _: &mut Faults) -> Result<Option<IpamBlock>, Fault> {
        let (spec, metadata) = (self.spec.required("spec")?, self.metadata.required("metadata")?);
        Ok(Some(IpamBlock {
            name,
            cidr: network(&spec.cidr.required("spec.cidr")?, "spec.cidr")?,
            node: spec.node.required("spec.node")?,
            node_uid: spec.node_uid.or_default("spec.nodeUID")?,
            claim: spec.claim.or_default("spec.claim")?,
            uid: metadata.uid.or_default("metadata.uid")?,
            version: metadata.resource_version.or_default("metadata.resourceVersion")?,
        }))
    }
}
