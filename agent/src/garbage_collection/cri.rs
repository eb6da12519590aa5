//! What a container runtime says of itself over the Container Runtime Interface (k8s.io/cri-api,
//! `runtime.v1`): the sandboxes that it has. Messages are cut down to the fields that are read.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::{Error, Result};

/// How long a runtime may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// `ListPodSandboxRequest` without a filter: all sandboxes, stopped ones too.
#[derive(Clone, PartialEq, Message)]
struct ListRequest {}

/// `ListPodSandboxResponse`
#[derive(Clone, PartialEq, Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Sandbox>,
}

/// `PodSandbox`
#[derive(Clone, PartialEq, Message)]
struct Sandbox {
    #[prost(string, tag = "1")]
    id: String,
}

/// A connection to a runtime, made by the first call and made again after it broke.
#[derive(Clone, Debug)]
pub(crate) struct Cri {
    channel: Channel,
    socket: String,
}

impl Cri {
    /// For the socket at that path. Must be called within a tokio runtime.
    pub(crate) fn new(socket: &Path) -> Result<Cri> {
        let socket = socket.display().to_string();
        let endpoint = Endpoint::from_shared(format!("unix://{socket}"))
            .map_err(|error| Error::Cri { socket: socket.clone(), problem: error.to_string() })?;
        Ok(Cri { channel: endpoint.timeout(PATIENCE).connect_lazy(), socket })
    }

    /// The ids of all sandboxes. Those that are just being made are not among them.
    pub(crate) async fn sandboxes(&self) -> Result<BTreeSet<String>> {
        let failed = |problem: String| Error::Cri { socket: self.socket.clone(), problem };
        let answer = self.list().await.map_err(|status| failed(status.message().to_owned()))?;
        Ok(answer.items.into_iter().map(|sandbox| sandbox.id).collect())
    }

    async fn list(&self) -> Result<ListResponse, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListPodSandbox");
        let codec = ProstCodec::<ListRequest, ListResponse>::default();
        Ok(grpc.unary(Request::new(ListRequest {}), path, codec).await?.into_inner())
    }
}
