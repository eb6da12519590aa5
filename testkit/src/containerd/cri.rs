//! A client of the Container Runtime Interface: what a kubelet says to containerd, with the fields that the
//! tests set or read. Field numbers are those of k8s.io/cri-api, `runtime.v1`.

#![allow(missing_docs, reason = "the names of messages and fields are those of the interface")]

use std::collections::HashMap;
use std::path::Path;

use prost::Message;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::image;

/// TCP as the `Protocol` of a port mapping.
pub const TCP: i32 = 0;

#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct PortMapping {
    #[prost(int32, tag = "1")]
    pub protocol: i32,
    #[prost(int32, tag = "2")]
    pub container_port: i32,
    #[prost(int32, tag = "3")]
    pub host_port: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Linux {
    #[prost(string, tag = "1")]
    pub cgroup_parent: String,
}

/// `DNSConfig`.
#[derive(Clone, PartialEq, Message)]
pub struct Dns {
    #[prost(string, repeated, tag = "1")]
    pub servers: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub searches: Vec<String>,
}

/// `PodSandboxConfig`.
#[derive(Clone, PartialEq, Message)]
pub struct Pod {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    pub hostname: String,
    #[prost(message, optional, tag = "4")]
    pub dns: Option<Dns>,
    #[prost(message, repeated, tag = "5")]
    pub port_mappings: Vec<PortMapping>,
    #[prost(map = "string, string", tag = "7")]
    pub annotations: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub linux: Option<Linux>,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<Pod>,
}

/// A message whose first field is the id of a sandbox or of a container, as most are.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Ids {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Id>,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxStatus {
    #[prost(message, optional, tag = "1")]
    status: Option<SandboxState>,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxState {
    #[prost(message, optional, tag = "5")]
    network: Option<Network>,
}

#[derive(Clone, PartialEq, Message)]
struct Network {
    #[prost(string, tag = "1")]
    ip: String,
    #[prost(message, repeated, tag = "2")]
    additional_ips: Vec<Id>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    /// `ImageSpec`, of which the first field is the image's name.
    #[prost(message, optional, tag = "2")]
    image: Option<Id>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    pod: Option<Pod>,
}

#[derive(Clone, PartialEq, Message)]
struct ExecSync {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(int64, tag = "3")]
    seconds: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Executed {
    #[prost(bytes = "vec", tag = "1")]
    stdout: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    stderr: Vec<u8>,
    #[prost(int32, tag = "3")]
    exit_code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, Message)]
struct Condition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    status: bool,
}

/// A connection to a runtime's socket.
#[derive(Debug)]
pub struct Cri {
    runtime: Runtime,
    grpc: Grpc<Channel>,
}

impl Cri {
    /// Connects with the first call.
    pub fn new(socket: &Path) -> Cri {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        let channel = runtime.block_on(async { endpoint.connect_lazy() });
        Cri { runtime, grpc: Grpc::new(channel) }
    }

    fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = format!("/runtime.v1.RuntimeService/{method}");
        let path = PathAndQuery::try_from(path).unwrap();
        let mut grpc = self.grpc.clone();
        self.runtime.block_on(async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let answer = grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await?;
            Ok(answer.into_inner())
        })
    }

    /// Whether the runtime answers, and whether it has a CNI configuration.
    pub fn network_ready(&self) -> Result<bool, Status> {
        let answer: StatusResponse = self.call("Status", Id::default())?;
        let conditions = answer.status.unwrap_or_default().conditions;
        Ok(conditions.iter().any(|condition| condition.kind == "NetworkReady" && condition.status))
    }

    /// Makes a pod's sandbox; its id.
    pub fn run_sandbox(&self, pod: &Pod) -> Result<String, Status> {
        let answer: Id = self.call("RunPodSandbox", RunPodSandbox { config: Some(pod.clone()) })?;
        Ok(answer.id)
    }

    /// The sandbox's addresses, the first one first.
    pub fn addresses(&self, sandbox: &str) -> Vec<String> {
        let answer: SandboxStatus = self.call("PodSandboxStatus", by_id(sandbox)).unwrap();
        let network = answer.status.and_then(|status| status.network).unwrap_or_default();
        let others = network.additional_ips.into_iter().map(|other| other.id);
        std::iter::once(network.ip).chain(others).collect()
    }

    /// The ids of all sandboxes, stopped ones too.
    pub fn sandboxes(&self) -> Result<Vec<String>, Status> {
        let answer: Ids = self.call("ListPodSandbox", Id::default())?;
        Ok(answer.items.into_iter().map(|item| item.id).collect())
    }

    /// Ends a sandbox and its containers.
    pub fn stop_sandbox(&self, sandbox: &str) -> Result<(), Status> {
        self.call("StopPodSandbox", by_id(sandbox)).map(|Id { .. }| ())
    }

    /// Deletes a sandbox with its containers.
    pub fn remove_sandbox(&self, sandbox: &str) -> Result<(), Status> {
        self.stop_sandbox(sandbox)?;
        self.call("RemovePodSandbox", by_id(sandbox)).map(|Id { .. }| ())
    }

    /// Starts a container of the local image in a sandbox; its id.
    pub fn start(&self, pod: &Pod, sandbox: &str, command: &[&str]) -> String {
        let config = ContainerConfig {
            metadata: Some(Metadata { name: "main".into(), ..Metadata::default() }),
            image: Some(by_id(image::NAME)),
            command: words(command),
        };
        let create =
            CreateContainer { sandbox: sandbox.into(), config: Some(config), pod: Some(pod.clone()) };
        let Id { id } = self.call("CreateContainer", create).unwrap();
        let Id { .. } = self.call("StartContainer", by_id(&id)).unwrap();
        id
    }

    /// Runs a command in a container. What it prints to both streams, as `Ok` where it exits with 0.
    pub fn exec(&self, container: &str, command: &[&str]) -> Result<String, String> {
        let request = ExecSync { container: container.into(), command: words(command), seconds: 60 };
        let answer: Executed = self.call("ExecSync", request).map_err(|status| status.to_string())?;
        let text = [answer.stdout, answer.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if answer.exit_code == 0 { Ok(text) } else { Err(text) }
    }
}

fn by_id(id: &str) -> Id {
    Id { id: id.to_owned() }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|&word| word.to_owned()).collect()
}
