//! IPAMBlocks: claiming ranges of addresses, renewing claims, and giving them up. Each request says which
//! version of the object it is about, so that it does nothing to a later one. Which range is claimed or given
//! up is not decided here.

use std::time::Duration;

use kube::Client;
use kube::api::{DeleteParams, GetParams, PostParams, Preconditions};
use kube::core::Request;
use serde_json::{Value, json};
use tokio::time::timeout;
use weft_types::{IpamBlock, Kind};

use crate::error::chain;
use crate::resource::api;

/// How long the API server may take. A request that took longer may still be carried out.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was carried out.
    Done,
    /// It was not: there is another object, or another version of it.
    Conflict,
    /// It was not: there is no such object.
    Gone,
}

/// Claims a range: creates the object that stands for it.
///
/// # Errors
/// Why it is not known whether that was done, or why the API server did not take it, in one line.
pub async fn claim_block(client: &Client, block: &IpamBlock) -> Result<Written, String> {
    let body = document(block).to_string().into_bytes();
    let request = Request::new(path()).create(&PostParams::default(), body);
    send(client, request.map_err(|error| chain(&error))?).await
}

/// Brings the object of a range to what `block` says, if it still has that version.
///
/// # Errors
/// As of [`claim_block`].
pub async fn renew_block(client: &Client, block: &IpamBlock) -> Result<Written, String> {
    let mut document = document(block);
    document["metadata"]["uid"] = json!(block.uid);
    document["metadata"]["resourceVersion"] = json!(block.version);
    let body = document.to_string().into_bytes();
    let request = Request::new(path()).replace(&block.name, &PostParams::default(), body);
    send(client, request.map_err(|error| chain(&error))?).await
}

/// Gives up a range: deletes the object, if it still has that version.
///
/// # Errors
/// As of [`claim_block`].
pub async fn delete_block(client: &Client, block: &IpamBlock) -> Result<Written, String> {
    let preconditions =
        Preconditions { uid: Some(block.uid.clone()), resource_version: Some(block.version.clone()) };
    let how = DeleteParams::default().preconditions(preconditions);
    let request = Request::new(path()).delete(&block.name, &how);
    send(client, request.map_err(|error| chain(&error))?).await
}

/// Gives up the range of a Node that is gone, unless the API server has that Node after all.
///
/// # Errors
/// As of [`claim_block`].
pub async fn delete_block_of_lost_node(client: &Client, block: &IpamBlock) -> Result<Written, String> {
    let request = Request::new(api(Kind::Node).path(None)).get(&block.node, &GetParams::default());
    match send(client, request.map_err(|error| chain(&error))?).await? {
        Written::Gone => delete_block(client, block).await,
        Written::Done | Written::Conflict => Ok(Written::Conflict),
    }
}

fn path() -> String {
    api(Kind::IpamBlock).path(None)
}

fn document(block: &IpamBlock) -> Value {
    json!({
        "apiVersion": api(Kind::IpamBlock).version,
        "kind": Kind::IpamBlock.name(),
        "metadata": {"name": block.name},
        "spec": {
            "cidr": block.cidr, "node": block.node, "nodeUID": block.node_uid, "claim": block.claim,
        },
    })
}

async fn send(client: &Client, request: http::Request<Vec<u8>>) -> Result<Written, String> {
    let answer = timeout(PATIENCE, client.request::<Value>(request)).await;
    match answer.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))? {
        Ok(_) => Ok(Written::Done),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Written::Conflict),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Written::Gone),
        Err(error) => Err(chain(&error)),
    }
}
