//! An API server for one daemon: lists in pages, and watches, which may begin with all objects and be in
//! protobuf. Its objects have the fields that a real one's have, those that nobody reads included. It does as
//! little as it can, so that what is measured is the daemon.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::sync::broadcast;
use weft_testkit::api_server::protobuf;

use crate::cluster::{
    NODE, NODE_ADDRESS, PORT, Size, TARGET, cluster_ip, name, namespace, namespaces, node_of, slices,
};

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const NODES: &str = "/api/v1/nodes";
const SERVICE_CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const NAMESPACES: &str = "/api/v1/namespaces";
/// How the path of any namespace's ConfigMaps ends. There are none.
const CONFIG_MAPS: &str = "/configmaps";
/// How much of a long answer is written at once.
const PIECE: usize = 16 << 10;
/// Events that wait until a connection takes them.
const BACKLOG: usize = 1 << 17;

/// The server; it ends with the process.
pub struct Server {
    store: Arc<Mutex<Store>>,
    kubeconfig: tempfile::NamedTempFile,
}

/// How the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// JSON, and lists in pages.
    JsonInPages,
    /// JSON; watches may begin with all objects.
    Json,
    /// Watches in protobuf to those who ask for it, which may begin with all objects; all else in JSON.
    Protobuf,
}

/// An object, or an event of one, in both encodings. That in protobuf is a frame of a watch; empty where the
/// kind has none.
#[derive(Clone)]
struct Written {
    json: Arc<str>,
    frame: Arc<[u8]>,
}

impl Written {
    /// An object, whose frame says that it is there.
    fn object(path: &str, json: String) -> Written {
        let event = format!("{{\"type\":\"ADDED\",\"object\":{json}}}");
        Written { frame: Written::event(path, event).frame, json: json.into() }
    }

    fn event(path: &str, json: String) -> Written {
        let frame = protobuf::kind_of(path).map(|kind| protobuf::frame(kind, &json)).unwrap_or_default();
        Written { json: json.into(), frame: frame.into() }
    }
}

struct Store {
    dialect: Dialect,
    version: u64,
    nodes: Vec<Written>,
    namespaces: Vec<Written>,
    services: Vec<Written>,
    slices: Vec<Written>,
    /// Where the slices of each Service stand.
    slices_of: Vec<Range<usize>>,
    /// Every change of a slice so far, and the version that it made.
    events: Vec<(u64, Written)>,
    watches: broadcast::Sender<Written>,
}

impl Server {
    /// Serves that cluster on the loopback of the calling thread's namespace.
    pub fn start(size: Size) -> Server {
        Server::start_with(size, Dialect::Protobuf)
    }

    /// The same, in that dialect.
    pub fn start_with(size: Size, dialect: Dialect) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let kubeconfig = kubeconfig(listener.local_addr().unwrap());
        let store = Arc::new(Mutex::new(Store::new(size, dialect)));
        let router = Router::new().fallback(answer).with_state(store.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                // As a real one does: else an event may wait for the acknowledgement of the one before, which
                // takes 40 ms.
                let listener = listener.tap_io(|connection| connection.set_nodelay(true).unwrap());
                axum::serve(listener, router).await.unwrap();
            });
        });
        Server { store, kubeconfig }
    }

    /// The kubeconfig that leads to it.
    pub fn kubeconfig(&self) -> &Path {
        self.kubeconfig.path()
    }

    /// Gives a Service as many other endpoints as fit into the slices that it has; the watch hears of it.
    pub fn set_endpoints(&self, service: usize, pods: &[Ipv4Addr]) {
        self.store().set_endpoints(service, pods);
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }
}

impl Store {
    fn new(size: Size, dialect: Dialect) -> Store {
        let written = |path, json: String| Written::object(path, json);
        let mut store = Store {
            dialect,
            version: 1,
            nodes: vec![written(NODES, node())],
            namespaces: namespaces(size)
                .map(|name| written(NAMESPACES, format!("{{\"metadata\":{{\"name\":\"{name}\"}}}}")))
                .collect(),
            services: (0..size.services).map(|number| written(SERVICES, service(number))).collect(),
            slices: Vec::new(),
            slices_of: Vec::new(),
            events: Vec::new(),
            watches: broadcast::channel(BACKLOG).0,
        };
        for number in 0..size.services {
            let first = store.slices.len();
            let pods = size.endpoints_of(number);
            let slices = slices(number, &pods).map(|(name, pods)| slice(number, &name, pods, 1));
            store.slices.extend(slices.map(|slice| written(SLICES, slice)));
            store.slices_of.push(first..store.slices.len());
        }
        store
    }

    fn set_endpoints(&mut self, service: usize, pods: &[Ipv4Addr]) {
        for (place, (name, pods)) in self.slices_of[service].clone().zip(slices(service, pods)) {
            self.version += 1;
            let object = slice(service, &name, pods, self.version);
            let event = Written::event(SLICES, format!("{{\"type\":\"MODIFIED\",\"object\":{object}}}"));
            self.slices[place] = Written::object(SLICES, object);
            self.events.push((self.version, event.clone()));
            // Nobody may be listening.
            let _ = self.watches.send(event);
        }
    }

    fn objects(&self, path: &str) -> &[Written] {
        match path {
            SERVICES => &self.services,
            SLICES => &self.slices,
            NODES => &self.nodes,
            SERVICE_CIDRS => &[],
            NAMESPACES => &self.namespaces,
            _ if path.ends_with(CONFIG_MAPS) => &[],
            _ => panic!("nobody serves {path}"),
        }
    }

    fn list(&self, path: &str, query: &HashMap<String, String>) -> String {
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
        let objects = self.objects(path);
        let start = number("continue").unwrap_or(0);
        let end = objects.len().min(start + number("limit").unwrap_or(usize::MAX - start));
        let more = if end < objects.len() { format!(",\"continue\":\"{end}\"") } else { String::new() };
        let version = self.version;
        format!(
            "{{\"kind\":\"List\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"{version}\"{more}}},\"items\":[{}]}}",
            objects[start..end].iter().map(|object| &*object.json).collect::<Vec<_>>().join(",")
        )
    }

    fn watch(&self, path: &str, query: &HashMap<String, String>, has_protobuf: bool) -> Response {
        let bytes = move |event: Written| match has_protobuf {
            true => event.frame.to_vec(),
            false => format!("{}\n", event.json).into_bytes(),
        };
        let missed: Vec<Vec<u8>> = match query["resourceVersion"].parse::<u64>() {
            Ok(from) if path == SLICES => {
                let missed = self.events.iter().filter(|(version, _)| *version > from);
                missed.map(|(_, event)| bytes(event.clone())).collect()
            }
            Ok(_) => Vec::new(),
            Err(_) => self.initial(path, has_protobuf),
        };
        let live = stream::unfold(self.watches.subscribe(), |mut watch| async {
            watch.recv().await.ok().map(|event| (event, watch))
        });
        let live = match path {
            SLICES => live.map(bytes).left_stream(),
            _ => stream::pending().right_stream(),
        };
        let body = stream::iter(missed).chain(live).map(Ok::<_, std::io::Error>);
        let media_type = if has_protobuf { protobuf::WATCH_MEDIA_TYPE } else { "application/json" };
        ([(CONTENT_TYPE, media_type)], Body::from_stream(body)).into_response()
    }

    /// All objects, in pieces of some size, and the bookmark after the last (KEP-3157).
    fn initial(&self, path: &str, has_protobuf: bool) -> Vec<Vec<u8>> {
        let metadata = json!({
            "resourceVersion": self.version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"},
        });
        let end = json!({"type": "BOOKMARK", "object": {"metadata": metadata}}).to_string();
        let end = Written::event(path, end);
        let mut pieces = vec![Vec::new()];
        let mut put = |bytes: &[u8]| match pieces.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.extend(bytes),
            _ => pieces.push(bytes.to_vec()),
        };
        for object in self.objects(path) {
            match has_protobuf {
                true => put(&object.frame),
                false => put(format!("{{\"type\":\"ADDED\",\"object\":{}}}\n", object.json).as_bytes()),
            }
        }
        put(if has_protobuf { &end.frame } else { end.json.as_bytes() });
        put(if has_protobuf { b"" } else { b"\n" });
        pieces
    }
}

async fn answer(
    State(store): State<Arc<Mutex<Store>>>,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let store = store.lock().unwrap();
    if query.contains_key("sendInitialEvents") && store.dialect == Dialect::JsonInPages {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let is_asked = protobuf::kind_of(uri.path()).is_some() && accept.contains(protobuf::MEDIA_TYPE);
    match query.contains_key("watch") {
        true => store.watch(uri.path(), &query, is_asked && store.dialect == Dialect::Protobuf),
        false => store.list(uri.path(), &query).into_response(),
    }
}

fn kubeconfig(address: SocketAddr) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "bench", "user": {}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    });
    file.write_all(text.to_string().as_bytes()).unwrap();
    file
}

fn node() -> String {
    json!({
        "metadata": {"name": NODE, "resourceVersion": "1"},
        "status": {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]},
    })
    .to_string()
}

/// What the API server keeps about who set which field; about as long as in a real cluster.
fn metadata(namespace: &str, name: &str, version: u64, labels: &str) -> String {
    format!(
        r#"{{"name":"{name}","namespace":"{namespace}","uid":"6fbf5a1e-0c1d-4d2b-9d0e-{version:012}","resourceVersion":"{version}","generation":1,"creationTimestamp":"2026-01-01T00:00:00Z","labels":{{{labels}}},"annotations":{{"kubectl.kubernetes.io/last-applied-configuration":"{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{{\"annotations\":{{}},\"name\":\"{name}\",\"namespace\":\"{namespace}\"}},\"spec\":{{\"ports\":[{{\"name\":\"http\",\"port\":80,\"targetPort\":8080}}],\"selector\":{{\"app\":\"{name}\"}}}}}}\n"}},"managedFields":[{{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:labels":{{".":{{}},"f:app":{{}}}}}},"f:spec":{{"f:internalTrafficPolicy":{{}},"f:ports":{{".":{{}},"k:{{\"port\":80,\"protocol\":\"TCP\"}}":{{".":{{}},"f:name":{{}},"f:port":{{}},"f:protocol":{{}},"f:targetPort":{{}}}}}},"f:selector":{{}},"f:sessionAffinity":{{}},"f:type":{{}}}}}}}}]}}"#
    )
}

fn service(number: usize) -> String {
    let (ip, name) = (cluster_ip(number), name(number));
    let metadata = metadata(&namespace(number), &name, 1, &format!(r#""app":"{name}""#));
    format!(
        r#"{{"kind":"Service","apiVersion":"v1","metadata":{metadata},"spec":{{"ports":[{{"name":"http","protocol":"TCP","port":{PORT},"targetPort":{TARGET}}}],"selector":{{"app":"{name}"}},"clusterIP":"{ip}","clusterIPs":["{ip}"],"type":"ClusterIP","sessionAffinity":"None","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","internalTrafficPolicy":"Cluster"}},"status":{{"loadBalancer":{{}}}}}}"#
    )
}

fn slice(service: usize, slice: &str, pods: &[Ipv4Addr], version: u64) -> String {
    let (namespace, name) = (namespace(service), name(service));
    let labels = format!(
        r#""app":"{name}","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"{name}""#
    );
    let mut endpoints = String::new();
    for (place, pod) in pods.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let _ = write!(
            endpoints,
            r#"{comma}{{"addresses":["{pod}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"targetRef":{{"kind":"Pod","namespace":"{namespace}","name":"{name}-5d4f8c7b9-{place:05}","uid":"0b4bd0ab-5c3d-4b8f-8e02-{place:012}"}},"nodeName":"{}"}}"#,
            node_of(*pod)
        );
    }
    let metadata = metadata(&namespace, slice, version, &labels);
    format!(
        r#"{{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{metadata},"addressType":"IPv4","endpoints":[{endpoints}],"ports":[{{"name":"http","protocol":"TCP","port":{TARGET}}}]}}"#
    )
}
