//! The ServiceAccount whose tokens agents take, as `weft install` makes it on a cluster.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use weft_types::well_known::access::{ACCOUNT, NAMESPACE};

use crate::error::{Error, Result};

/// Makes it.
pub(crate) async fn create(client: &Client) -> Result<()> {
    let metadata = ObjectMeta { name: Some(ACCOUNT.to_owned()), ..ObjectMeta::default() };
    let account = ServiceAccount { metadata, ..ServiceAccount::default() };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE);
    let made = accounts.create(&PostParams::default(), &account).await;
    made.map(drop).map_err(Error::api("create", format!("{NAMESPACE}/{ACCOUNT}")))
}
