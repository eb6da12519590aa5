//! An API server as small as can be: it lists one small cluster, and sends the events it is told to. No test
//! lives here.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const PODS: &str = "/api/v1/pods";
const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";

/// A list of the API, and the connections that watch it.
struct Collection {
    path: &'static str,
    kind: &'static str,
    version: &'static str,
    items: &'static str,
    watchers: Mutex<Vec<TcpStream>>,
}

/// The server. Its threads live as long as the test.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    collections: Arc<[Collection; 5]>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Api {
    /// A cluster with the namespace `shop` and its Service `backend`, 10.96.0.20.
    pub(crate) fn start() -> Api {
        let collection = |path, kind, version, items| Collection {
            path,
            kind,
            version,
            items,
            watchers: Mutex::default(),
        };
        let service = r#"{"metadata":{"name":"backend","namespace":"shop","uid":"1","resourceVersion":"5"},
            "spec":{"type":"ClusterIP","clusterIP":"10.96.0.20","clusterIPs":["10.96.0.20"],"ports":[{"port":80,"protocol":"TCP"}]}}"#;
        let namespace = r#"{"metadata":{"name":"shop","uid":"2","resourceVersion":"6"}}"#;
        let collections = Arc::new([
            collection(SERVICES, "ServiceList", "v1", service),
            collection("/api/v1/namespaces", "NamespaceList", "v1", namespace),
            collection(SLICES, "EndpointSliceList", "discovery.k8s.io/v1", ""),
            collection(CONFIG_MAPS, "ConfigMapList", "v1", ""),
            collection(PODS, "PodList", "v1", ""),
        ]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let address = listener.local_addr().unwrap();
        let api = Api { address, collections: collections.clone(), asked: asked.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (collections, asked) = (collections.clone(), asked.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &collections[..], &asked));
            }
        });
        api
    }

    /// Whether anybody asked for something with that text in it.
    pub(crate) fn was_asked(&self, text: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|target| target.contains(text))
    }

    /// Sends an event about a Service to all who watch Services. False where nobody does yet.
    pub(crate) fn send(&self, event: &str) -> bool {
        self.send_to(SERVICES, event)
    }

    /// Sends an event about the ConfigMap `kube-dns` to all who watch it. False where nobody does yet.
    pub(crate) fn send_config_map(&self, event: &str) -> bool {
        self.send_to(CONFIG_MAPS, event)
    }

    /// Sends an event about an EndpointSlice to all who watch them. False where nobody does yet.
    pub(crate) fn send_slice(&self, event: &str) -> bool {
        self.send_to(SLICES, event)
    }

    /// Sends an event about a Pod to all who watch Pods. False where nobody does yet.
    pub(crate) fn send_pod(&self, event: &str) -> bool {
        self.send_to(PODS, event)
    }

    fn send_to(&self, path: &str, event: &str) -> bool {
        let collection = self.collections.iter().find(|collection| collection.path == path).unwrap();
        let watchers = collection.watchers.lock().unwrap();
        let line = event.replace('\n', "") + "\n";
        for mut watcher in watchers.iter() {
            write!(watcher, "{:x}\r\n{line}\r\n", line.len()).unwrap();
        }
        !watchers.is_empty()
    }
}

fn serve(mut stream: TcpStream, collections: &[Collection], asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(target) = request_target(&mut reader) {
        asked.lock().unwrap().push(target.clone());
        let path = target.split('?').next().unwrap_or_default();
        let Some(collection) = collections.iter().find(|collection| collection.path == path) else {
            panic!("{target} is not served");
        };
        if target.contains("watch=true") {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            .unwrap();
            collection.watchers.lock().unwrap().push(stream);
            return;
        }
        let Collection { kind, version, items, .. } = collection;
        let body = format!(
            r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{{"resourceVersion":"10"}},"items":[{items}]}}"#
        );
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
    }
}

/// The target of the next request; none once the client is gone.
fn request_target(reader: &mut impl BufRead) -> Option<String> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|&length| length > 0)?;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).ok().filter(|&length| length > 0)?;
    }
    first.split(' ').nth(1).map(str::to_owned)
}
