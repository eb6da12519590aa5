//! Claims to ranges of addresses, at an API server that others write to as well.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use serde_json::json;
use weft_cluster::write::{Written, claim_block, delete_block, delete_block_of_lost_node, renew_block};
use weft_cluster::{Watch, WatchFilter};
use weft_testkit::api_server::FakeApiServer;
use weft_types::{IpNetwork, IpamBlock, Kind};

const NODES: &str = "/api/v1/nodes";

fn block(node: &str) -> IpamBlock {
    let cidr: IpNetwork = "10.244.1.0/26".parse().unwrap();
    let [node, node_uid, claim] = [node, "u1", "now"].map(str::to_owned);
    let name = IpamBlock::name_of(&cidr);
    IpamBlock { name, cidr, node, node_uid, claim, uid: String::new(), version: String::new() }
}

/// The one block, as a watch shows it.
async fn seen(server: &FakeApiServer) -> IpamBlock {
    let client = weft_cluster::client(Some(server.kubeconfig())).await.unwrap();
    let mut watch = Watch::start(client, &WatchFilter::network_policies(), &[Kind::IpamBlock]);
    watch.next().await;
    watch.snapshot().ipam_blocks().next().unwrap().clone()
}

#[tokio::test]
async fn of_two_nodes_that_claim_one_range_one_gets_it() {
    let server = FakeApiServer::start();
    let client = weft_cluster::client(Some(server.kubeconfig())).await.unwrap();
    let (one, two) = (block("node1"), block("node2"));
    let (one, two) = tokio::join!(claim_block(&client, &one), claim_block(&client, &two));
    let mut answers = [one.unwrap(), two.unwrap()];
    answers.sort_by_key(|answer| *answer == Written::Conflict);
    assert_eq!(answers, [Written::Done, Written::Conflict]);
}

#[tokio::test]
async fn requests_about_an_earlier_version_do_nothing() {
    let server = FakeApiServer::start();
    let client = weft_cluster::client(Some(server.kubeconfig())).await.unwrap();
    assert_eq!(claim_block(&client, &block("node1")).await, Ok(Written::Done));
    let first = seen(&server).await;
    assert_eq!((first.node.as_str(), first.node_uid.as_str()), ("node1", "u1"));
    let renewed = IpamBlock { claim: "later".to_owned(), ..first.clone() };
    assert_eq!(renew_block(&client, &renewed).await, Ok(Written::Done));
    assert_eq!(delete_block(&client, &first).await, Ok(Written::Conflict));
    assert_eq!(renew_block(&client, &first).await, Ok(Written::Conflict));
    let second = seen(&server).await;
    assert_eq!(second.claim, "later");
    assert_eq!(delete_block(&client, &second).await, Ok(Written::Done));
    assert_eq!(delete_block(&client, &second).await, Ok(Written::Gone));
    assert_eq!(renew_block(&client, &second).await, Ok(Written::Gone));
}

#[tokio::test]
async fn the_block_of_a_node_that_is_there_after_all_stays() {
    let server = FakeApiServer::start();
    server.put(NODES, json!({"metadata": {"name": "node1"}}));
    let client = weft_cluster::client(Some(server.kubeconfig())).await.unwrap();
    assert_eq!(claim_block(&client, &block("node1")).await, Ok(Written::Done));
    let held = seen(&server).await;
    assert_eq!(delete_block_of_lost_node(&client, &held).await, Ok(Written::Conflict));
    server.put(NODES, json!({"metadata": {"name": "node2"}}));
    server.delete(NODES, "node1");
    assert_eq!(delete_block_of_lost_node(&client, &held).await, Ok(Written::Done));
}
