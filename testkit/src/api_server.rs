//! A fake API server on loopback: lists in pages, watches with bookmarks and 410, and misbehaves on demand. It knows nothing
//! of what the objects mean.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::{broadcast, oneshot};

/// A request that was seen: its path and its query.
pub type Seen = (String, HashMap<String, String>);

/// How the server says that a version is too old.
#[derive(Clone, Copy, Debug)]
pub enum GoneAs {
    /// An event of the watch.
    Event,
    /// The answer to the watch.
    Status,
}

/// What goes to the open watches.
#[derive(Clone, Debug)]
enum Message {
    Line { path: String, line: String },
    Close,
}

#[derive(Debug)]
struct Store {
    version: u64,
    /// The version before which nothing is remembered.
    oldest: u64,
    objects: BTreeMap<(String, String), Value>,
    events: Vec<(u64, String, Value)>,
    seen: Vec<Seen>,
    /// Answers instead of the proper ones, by path, each used once.
    instead: Vec<(String, StatusCode, String)>,
    gone_as: GoneAs,
    /// The paths whose watches trickle.
    slow: BTreeSet<String>,
    watches: broadcast::Sender<Message>,
}

type Shared = Arc<Mutex<Store>>;

/// A thread that serves until it is told to stop.
#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// The server. Its connections end when it is stopped or dropped.
#[derive(Debug)]
pub struct FakeApiServer {
    store: Shared,
    address: SocketAddr,
    running: Option<Running>,
    kubeconfig: tempfile::NamedTempFile,
}

impl FakeApiServer {
    /// Serves on the loopback of the calling thread's namespace.
    pub fn start() -> Self {
        let store = Arc::new(Mutex::new(Store {
            version: 1,
            oldest: 0,
            objects: BTreeMap::new(),
            events: Vec::new(),
            seen: Vec::new(),
            instead: Vec::new(),
            gone_as: GoneAs::Event,
            slow: BTreeSet::new(),
            watches: broadcast::channel(1024).0,
        }));
        let (running, address) = serve(store.clone(), ([127, 0, 0, 1], 0).into());
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(kubeconfig.path(), text.to_string()).unwrap();
        FakeApiServer { store, address, running: Some(running), kubeconfig }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The kubeconfig that leads to it.
    pub fn kubeconfig(&self) -> &Path {
        self.kubeconfig.path()
    }

    /// Ends every connection and listens no more.
    pub fn stop(&mut self) {
        let Running { stop, thread } = self.running.take().unwrap();
        stop.send(()).unwrap();
        thread.join().unwrap();
    }

    /// Listens again, at the same address, with what it had.
    pub fn restart(&mut self) {
        self.running = Some(serve(self.store.clone(), self.address).0);
    }

    /// Creates or replaces an object; the watches hear of it.
    pub fn put(&self, path: &str, mut object: Value) {
        let mut store = self.store();
        store.version += 1;
        object["metadata"]["resourceVersion"] = store.version.to_string().into();
        let key = (path.to_owned(), name(&object));
        let type_ = if store.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        store.objects.insert(key, object.clone());
        store.tell(path, json!({"type": type_, "object": object}));
    }

    /// The objects of a path.
    pub fn objects(&self, path: &str) -> Vec<Value> {
        let store = self.store();
        store.objects.iter().filter(|((of, _), _)| of == path).map(|(_, object)| object.clone()).collect()
    }

    /// Deletes an object; the watches hear of it.
    pub fn delete(&self, path: &str, name: &str) {
        let mut store = self.store();
        store.version += 1;
        let mut object = store.objects.remove(&(path.to_owned(), name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = store.version.to_string().into();
        store.tell(path, json!({"type": "DELETED", "object": object}));
    }

    /// Deletes an object behind the back of the watches, and forgets all versions until now.
    pub fn delete_in_silence(&self, path: &str, name: &str, gone_as: GoneAs) {
        let mut store = self.store();
        store.version += 1;
        store.objects.remove(&(path.to_owned(), name.to_owned())).unwrap();
        store.events.clear();
        store.oldest = store.version;
        store.gone_as = gone_as;
    }

    /// Sends a bookmark of a new version to the watches. Returns the version.
    pub fn bookmark(&self, path: &str, kind: &str) -> String {
        let mut store = self.store();
        store.version += 1;
        let version = store.version.to_string();
        let object = json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": version}});
        store.send(path, json!({"type": "BOOKMARK", "object": object}).to_string());
        version
    }

    /// Sends a line to the watches that need not be an event.
    pub fn send_line(&self, path: &str, line: &str) {
        self.store().send(path, line.to_owned());
    }

    /// Lets the watches of the path trickle that begin from now on: a few bytes at a time.
    pub fn slow_down(&self, path: &str) {
        self.store().slow.insert(path.to_owned());
    }

    /// Ends all watches, as a server does when their time is over.
    pub fn close_watches(&self) {
        let _ = self.store().watches.send(Message::Close);
    }

    /// Answers the next request for the path with something else.
    pub fn answer_once(&self, path: &str, status: StatusCode, body: &str) {
        self.store().instead.push((path.to_owned(), status, body.to_owned()));
    }

    /// The queries of the requests for the path so far, lists or watches.
    pub fn queries(&self, path: &str, watches: bool) -> Vec<HashMap<String, String>> {
        let store = self.store();
        let matching = store.seen.iter().filter(|(seen, query)| seen == path && is_watch(query) == watches);
        matching.map(|(_, query)| query.clone()).collect()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }
}

impl Drop for FakeApiServer {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.stop();
        }
    }
}

impl Store {
    fn tell(&mut self, path: &str, event: Value) {
        self.events.push((self.version, path.to_owned(), event.clone()));
        self.send(path, event.to_string());
    }

    fn send(&self, path: &str, line: String) {
        // No watch may be open.
        let _ = self.watches.send(Message::Line { path: path.to_owned(), line });
    }

    fn create(&mut self, path: &str, object: Value) -> Response {
        match self.objects.entry((path.to_owned(), name(&object))) {
            Entry::Vacant(vacant) => (StatusCode::CREATED, vacant.insert(object).to_string()).into_response(),
            Entry::Occupied(_) => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "code": 409, "reason": "AlreadyExists", "message": "there is one"});
                (StatusCode::CONFLICT, status.to_string()).into_response()
            }
        }
    }

    fn list(&self, path: &str, query: &HashMap<String, String>) -> Value {
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
        let (start, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
        let of_path = self.objects.iter().filter(|((of, _), _)| of == path);
        let mut items: Vec<&Value> = of_path.map(|(_, object)| object).skip(start).collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if more {
            metadata["continue"] = (start + limit).to_string().into();
        }
        json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})
    }

    fn watch(&self, path: &str, query: &HashMap<String, String>) -> Response {
        let version: u64 = query["resourceVersion"].parse().unwrap();
        if version < self.oldest {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "code": 410, "reason": "Expired", "message": "too old resource version"});
            return match self.gone_as {
                GoneAs::Event => json!({"type": "ERROR", "object": status}).to_string().into_response(),
                GoneAs::Status => (StatusCode::GONE, status.to_string()).into_response(),
            };
        }
        let missed = self.events.iter().filter(|(of, at, _)| *of > version && at == path);
        let missed: Vec<_> = missed.map(|(_, _, event)| Ok(format!("{event}\n"))).collect();
        let live = stream::unfold(self.watches.subscribe(), |mut watch| async {
            watch.recv().await.ok().map(|message| (message, watch))
        });
        let (is_slow, path) = (self.slow.contains(path), path.to_owned());
        let lines = live
            .take_while(|message| std::future::ready(!matches!(message, Message::Close)))
            .filter_map(move |message| {
                let line = match message {
                    Message::Line { path: of, line } if of == path => {
                        Some(Ok::<_, std::io::Error>(line + "\n"))
                    }
                    _ => None,
                };
                std::future::ready(line)
            });
        let lines = stream::iter(missed).chain(lines);
        match is_slow {
            false => Body::from_stream(lines).into_response(),
            true => Body::from_stream(trickle(lines, self.watches.subscribe())).into_response(),
        }
    }
}

/// The bytes of the lines, a few each millisecond; watches that end, end in the midst of one.
fn trickle(
    lines: impl Stream<Item = std::io::Result<String>>,
    mut watch: broadcast::Receiver<Message>,
) -> impl Stream<Item = std::io::Result<Vec<u8>>> {
    let pieces = lines.flat_map(|line| {
        let pieces: Vec<Vec<u8>> = line.unwrap().as_bytes().chunks(7).map(<[u8]>::to_vec).collect();
        stream::iter(pieces)
    });
    let closed = async move { while !matches!(watch.recv().await, Ok(Message::Close) | Err(_)) {} };
    let pieces = pieces.then(|piece| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(piece)
    });
    pieces.take_until(Box::pin(closed))
}

/// Serves on a runtime of its own: when that ends, so do all its connections.
fn serve(store: Shared, address: SocketAddr) -> (Running, SocketAddr) {
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(store);
    let (stop, stopped) = oneshot::channel();
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        // As a real one does: else an event may wait for the acknowledgement of the one before, which takes 40 ms.
        let listener = listener.tap_io(|connection| connection.set_nodelay(true).unwrap());
        tokio::select! {
            served = axum::serve(listener, router) => served.unwrap(),
            stopped = stopped => stopped.unwrap(),
        }
    };
    let thread = std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve);
    });
    (Running { stop, thread }, address)
}

async fn answer(
    State(store): State<Shared>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Response {
    let mut store = store.lock().unwrap();
    let path = uri.path();
    store.seen.push((path.to_owned(), query.clone()));
    if let Some(place) = store.instead.iter().position(|(of, _, _)| of == path) {
        let (_, status, body) = store.instead.remove(place);
        return (status, body).into_response();
    }
    if method == Method::POST {
        return store.create(path, serde_json::from_slice(&body).unwrap());
    }
    match is_watch(&query) {
        true => store.watch(path, &query),
        false => store.list(path, &query).to_string().into_response(),
    }
}

fn is_watch(query: &HashMap<String, String>) -> bool {
    query.contains_key("watch")
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}
