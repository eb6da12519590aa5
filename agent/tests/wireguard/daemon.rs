//! The daemon itself, with an API server on the loopback of its node. This runs in the virtual machine.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};

use axum::http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use weft_agent::routing::wireguard::key::PublicKey;
use weft_netlink::genl::wireguard::{Device, WireGuardClient};
use weft_netlink::netns::Namespace;
use weft_testkit::api_server::FakeApiServer;
use weft_testkit::namespace::{machine, sh};
use weft_testkit::wait::eventually_ok;

use crate::AGENT;

pub(crate) const NODES: &str = "/api/v1/nodes";
const STATUS: &str = "/api/v1/nodes/node1/status";
pub(crate) const KEY: &str = "weft.internal/wireguard-public-key";
const ENDPOINT: &str = "weft.internal/wireguard-endpoint";
const RETIRED: &str = "weft.internal/wireguard-retired-key";
const KEY2: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const KEY3: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

/// Somebody whom clients trust: they want to know of one, whom they are never asked about here.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----
MIIBeDCCAR+gAwIBAgIUOoxJEriZAXMbiKOx5R9VgThOc0gwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTIwMTAzMTIyN1oYDzIxMjYxMTA3MDMx
MjI3WjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQC4fissRCwZgk9+S7duBaFdCjHQKfPVghYnHY6d0lb4HchaJXK98epWxPnF3C0
T/GqMM2KKL1QDqmn1Lz9zhHMo1MwUTAdBgNVHQ4EFgQU0/GcHCJMSVDij43hHvNs
oBUqTm0wHwYDVR0jBBgwFoAU0/GcHCJMSVDij43hHvNsoBUqTm0wDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAenKya6k+i+zg3y8/Vb3UJr2WJqvzq
XzrQaFm/7t/9AQIgT9/G2Cv/xPQ7Gn3YpfaaFNvuIXQS/aMFrpGrG7Q3PVI=
-----END CERTIFICATE-----
";

pub(crate) struct Node {
    pub(crate) number: u8,
    pub(crate) namespace: Namespace,
    pub(crate) server: FakeApiServer,
    pub(crate) flags: Vec<&'static str>,
    folder: TempDir,
    daemon: Option<Child>,
}

impl Node {
    /// On a machine that has its uplink.
    pub(crate) fn new(number: u8, namespace: Namespace) -> Node {
        let server = namespace.run(FakeApiServer::start).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Node { number, namespace, server, flags: vec!["--backend=wireguard"], folder, daemon: None }
    }

    fn alone() -> Node {
        let namespace = machine();
        let uplink =
            "ip link add uplink type dummy; ip link set uplink up; ip addr add 172.30.0.11/24 dev uplink";
        sh(&namespace, uplink);
        Node::new(1, namespace)
    }

    fn name(&self) -> String {
        format!("node{}", self.number)
    }

    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        fs::write(self.path("authority"), AUTHORITY).unwrap();
        let mut command = Command::new(AGENT);
        command.env("SSL_CERT_FILE", self.path("authority"));
        command.arg("--kubeconfig").arg(self.server.kubeconfig()).args(["--hostname-override", &self.name()]);
        command
            .arg("--cni-conf-dir")
            .arg(self.path("net.d"))
            .arg("--cni-data-dir")
            .arg(self.path("networks"));
        command.arg("--cluster-cidr=10.244.0.0/16").args(&self.flags).stderr(log);
        self.daemon = Some(self.namespace.run(|| command.spawn()).unwrap().unwrap());
    }

    /// Ends the daemon without any warning.
    fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    pub(crate) fn device(&self) -> Device {
        let mut client = self.namespace.run(WireGuardClient::open).unwrap().unwrap();
        client.device("weft-wg").unwrap_or_default()
    }

    /// The public key of the device, as wg(8) writes it.
    fn key(&self) -> Option<String> {
        self.device().public_key.map(|key| PublicKey(key).to_string())
    }

    /// Its own Node.
    pub(crate) fn object(&self) -> Value {
        let nodes = self.server.objects(NODES);
        nodes.into_iter().find(|node| node["metadata"]["name"] == *self.name()).unwrap()
    }

    pub(crate) fn said(&self, annotation: &str) -> Option<String> {
        self.object()["metadata"]["annotations"][annotation].as_str().map(str::to_owned)
    }

    /// Waits, but not for ever.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&Node) -> bool) {
        eventually_ok(what, || if is_so(self) { Ok(()) } else { Err(self.log()) });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn node(number: u8, key: Option<&str>) -> Value {
    let address = format!("172.30.0.1{number}");
    let annotations = key.map(|key| json!({KEY: key, ENDPOINT: format!("{address}:51820")}));
    json!({
        "metadata": {"name": format!("node{number}"), "annotations": annotations},
        "spec": {"podCIDR": format!("10.244.{number}.0/24")},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

#[test]
#[ignore = "runs in the virtual machine"]
fn an_agent_tells_of_its_key_follows_those_of_others_and_leaves_all_when_it_ends() {
    let mut here = Node::alone();
    for object in [node(1, None), node(2, Some(KEY2)), node(3, None)] {
        here.server.put(NODES, object);
    }
    here.server.answer_once(STATUS, StatusCode::FORBIDDEN, "no");
    here.start();
    here.until("what may not be written", |here| here.log().contains("cannot write the WireGuard key"));
    here.until("its own key", |here| here.said(KEY).is_some() && here.said(KEY) == here.key());
    assert_eq!(here.said(ENDPOINT).as_deref(), Some("172.30.0.11:51820"));
    here.until("a word about node3", |here| here.log().contains("Node node3 has no WireGuard key"));
    assert_eq!(here.device().peers.len(), 1);

    here.server.put(NODES, node(3, Some(KEY3)));
    here.until("a peer more", |here| here.device().peers.len() == 2);
    here.server.delete(NODES, "node2");
    here.until("a peer less", |here| here.device().peers.len() == 1);

    // An agent that starts again finds all as it was.
    here.kill();
    let before = here.device();
    assert_eq!(before.peers.len(), 1);
    fs::write(here.path("log"), "").unwrap();
    here.start();
    here.server.put(NODES, node(4, None));
    here.until("another round", |here| here.log().contains("Node node4 has no WireGuard key"));
    assert_eq!(here.device(), before);
    assert!(!here.log().contains("gave the device"), "{}", here.log());

    // The key must go.
    let (old, mut object) = (here.key().unwrap(), here.object());
    object["metadata"]["annotations"][RETIRED] = json!(old);
    here.server.put(NODES, object);
    here.until("another key", |here| here.said(KEY) == here.key() && here.said(KEY).as_ref() != Some(&old));
    assert_eq!(here.device().peers.len(), 1);
}
