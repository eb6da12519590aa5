//! networking.k8s.io/v1 ServiceCIDR: what ClusterIPs are taken from.

use serde::Deserialize;
use weft_types::ServiceCidr;

use super::address::network;
use super::metadata::Metadata;
use super::values::each;
use super::{ApiResource, Optional, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

impl ApiResource for ServiceCidr {
    const API_VERSION: &'static str = "networking.k8s.io/v1";
    const PLURAL: &'static str = "servicecidrs";
    // Kubernetes before 1.33 has none.
    const OPTIONAL: Optional = Optional::Version;

    type Wire = ServiceCidrObject;
}

/// networking.k8s.io/v1 ServiceCIDR
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceCidrObject {
    metadata: Field<Metadata>,
    spec: Field<ServiceCidrSpec>,
}

/// `spec` of a ServiceCIDR.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceCidrSpec {
    cidrs: Field<Vec<Field<String>>>,
}

impl WireObject for ServiceCidrObject {
    type Kind = ServiceCidr;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(
        self,
        name: String,
        _: &WatchFilter,
        faults: &mut Faults,
    ) -> Result<Option<ServiceCidr>, Fault> {
        let cidrs = self.spec.required("spec")?.cidrs;
        let cidrs = each(cidrs, "spec.cidrs", faults, |text, _| network(&text, ""));
        Ok(Some(ServiceCidr { name, cidrs }))
    }
}
