//! A cluster by its API: connecting, applying, listing and deleting objects of any kind, as JSON. What to
//! apply or delete, and what a listing means, is decided elsewhere.

mod agents;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, TypeMeta,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{Error, Result};

/// The name under which fields are owned in server-side apply.
const MANAGER: &str = "weft";

/// Which cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct Connection {
    /// The kubeconfig. Without it, that of KUBECONFIG, or ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Without it, the current one.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// A connection to a cluster.
pub(crate) struct Cluster {
    client: Client,
    /// Takes the first answer. The other one asks again, for half a minute and more, where the server is not
    /// available, which here says that a pod or node is not.
    once: Client,
    server: http::Uri,
    /// A token that agents take, or why there is none.
    token: OnceCell<Result<String, String>>,
    /// The agents' pods, by their nodes.
    agents: OnceCell<BTreeMap<String, String>>,
}

/// Where everything of Weft lives.
pub(crate) const NAMESPACE: &str = "kube-system";
/// The Service by which pods reach DNS.
pub(crate) const DNS_SERVICE: &str = "kube-dns";

/// Kinds that are asked for by name: API version, kind.
pub(crate) type Kind = (&'static str, &'static str);
pub(crate) const NAMESPACES: Kind = ("v1", "Namespace");
pub(crate) const NODE: Kind = ("v1", "Node");
pub(crate) const CONFIG_MAP: Kind = ("v1", "ConfigMap");
pub(crate) const POD: Kind = ("v1", "Pod");
pub(crate) const SERVICE: Kind = ("v1", "Service");
pub(crate) const ENDPOINT_SLICE: Kind = ("discovery.k8s.io/v1", "EndpointSlice");
pub(crate) const DAEMON_SET: Kind = ("apps/v1", "DaemonSet");
pub(crate) const DEPLOYMENT: Kind = ("apps/v1", "Deployment");
pub(crate) const STATEFUL_SET: Kind = ("apps/v1", "StatefulSet");
pub(crate) const NETWORK_POLICY: Kind = ("networking.k8s.io/v1", "NetworkPolicy");
pub(crate) const IPAM_BLOCK: Kind = ("weft.internal/v1", "IPAMBlock");
/// By which agents agree on who gives load balancer addresses.
pub(crate) const LOAD_BALANCER_LEASE: (Kind, &str) =
    (("coordination.k8s.io/v1", "Lease"), "weft-load-balancers");
pub(crate) const DEFINITION: Kind = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");

impl Cluster {
    /// Connects. No request is made. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Kubeconfig`].
    pub(crate) async fn connect(connection: &Connection) -> Result<Cluster> {
        let refuse = |problem: String| Error::Kubeconfig { problem };
        let kubeconfig = match &connection.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let kubeconfig = kubeconfig.map_err(|error| refuse(chain(&error)))?;
        let options =
            KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let config = config.map_err(|error| refuse(chain(&error)))?;
        let server = config.cluster_url.clone();
        let client = |config: Config| Client::try_from(config).map_err(|error| refuse(chain(&error)));
        let mut impatient = config.clone();
        impatient.default_retry = false;
        let once = client(impatient)?;
        let (token, agents) = (OnceCell::new(), OnceCell::new());
        Ok(Cluster { client: client(config)?, once, server, token, agents })
    }

    /// The host and port by which the kubeconfig knows the API server.
    pub(crate) fn server(&self) -> (&str, u16) {
        let standard = if self.server.scheme_str() == Some("http") { 80 } else { 443 };
        (self.server.host().unwrap_or_default(), self.server.port_u16().unwrap_or(standard))
    }

    /// Makes an object what it should be, as `kubectl apply --server-side --force-conflicts` does.
    pub(crate) async fn apply(&self, object: &Value) -> Result<()> {
        let how = PatchParams::apply(MANAGER).force();
        let applied = self.api_of(object)?.patch(name(object), &how, &Patch::Apply(object)).await;
        applied.map(drop).map_err(failed("apply", &shown(object)))
    }

    /// Changes an object that is there by a JSON merge patch (RFC 7396).
    pub(crate) async fn patch(&self, object: &Value, patch: &Value) -> Result<()> {
        let patched =
            self.api_of(object)?.patch(name(object), &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(failed("patch", &shown(object)))
    }

    /// Deletes an object after all that it owns. Whether it was there.
    pub(crate) async fn delete(&self, object: &Value) -> Result<bool> {
        match self.api_of(object)?.delete(name(object), &DeleteParams::foreground()).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
            Err(error) => Err(failed("delete", &shown(object))(error)),
        }
    }

    /// An object as it is; none where it is not there. The namespace is empty for kinds that live in none.
    pub(crate) async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>> {
        let found = self.api(kind, Some(namespace).filter(|name| !name.is_empty())).get_opt(name).await;
        Ok(found
            .map_err(failed("get", &format!("{} {namespace}/{name}", kind.1)))?
            .map(|object| json(&object)))
    }

    /// All objects of a kind with these labels (a label selector; empty for all).
    pub(crate) async fn list(&self, kind: Kind, namespace: Option<&str>, labels: &str) -> Result<Vec<Value>> {
        let list = self.api(kind, namespace).list(&ListParams::default().labels(labels)).await;
        Ok(list.map_err(failed("list", kind.1))?.items.iter().map(json).collect())
    }

    /// What a node's program says on a port of the node, by way of the API server; none where there is no
    /// way.
    pub(crate) async fn ask_node(&self, node: &str, port: u16, path: &str) -> Option<Value> {
        let path = format!("/api/v1/nodes/{node}:{port}/proxy{path}");
        let request = http::Request::get(path).body(Vec::new()).ok()?;
        self.client.request(request).await.ok()
    }

    /// What is at a path of the API server, as text: for what a pod or node says by way of it.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub(crate) async fn text(&self, path: &str) -> Result<String> {
        let refuse = |problem: String| Error::Api { operation: "get", object: path.to_owned(), problem };
        let request = http::Request::get(path).body(Vec::new()).map_err(|error| refuse(error.to_string()))?;
        self.once.request_text(request).await.map_err(failed("get", path))
    }

    fn api(&self, (version, kind): Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        self.of(&GroupVersionKind::gvk(group, version, kind), namespace)
    }

    fn api_of(&self, object: &Value) -> Result<Api<DynamicObject>> {
        let types = TypeMeta {
            api_version: object["apiVersion"].as_str().unwrap_or_default().to_owned(),
            kind: object["kind"].as_str().unwrap_or_default().to_owned(),
        };
        let kind = GroupVersionKind::try_from(&types)
            .map_err(|error| Error::Manifests { problem: error.to_string() })?;
        Ok(self.of(&kind, object["metadata"]["namespace"].as_str()))
    }

    fn of(&self, kind: &GroupVersionKind, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(kind);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }
}

/// The objects of a YAML text of several documents.
pub(crate) fn objects(yaml: &str) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(yaml).map_err(|error| Error::Manifests { problem: error.to_string() })
}

/// An object's name.
pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether Weft's manifests made an object.
pub(crate) fn is_own(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/name"] == "weft"
}

/// `DaemonSet kube-system/weft-agent`
pub(crate) fn shown(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default();
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{}", name(object)),
        None => format!("{kind} {}", name(object)),
    }
}

fn json(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn failed(operation: &'static str, object: &str) -> impl FnOnce(kube::Error) -> Error {
    let object = object.to_owned();
    move |error| Error::Api { operation, object, problem: chain(&error) }
}

/// An error with its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
