//! A fake API server on loopback: lists in pages and as initial events of watches, watches with bookmarks and
//! 410, in JSON or in protobuf as it is asked, and misbehaves on demand. It knows nothing of what the objects
//! mean.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::{broadcast, oneshot};

use self::form::Form;
pub use self::initial_events::InitialEvents;

mod form;
mod initial_events;
mod objects;
pub mod protobuf;
mod write;

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
    Bytes { path: String, bytes: Vec<u8> },
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
    /// The paths that nobody may read.
    forbidden: BTreeSet<String>,
    gone_as: GoneAs,
    has_protobuf: bool,
    initial_events: InitialEvents,
    /// How many watches it found invalid.
    refused: usize,
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
        FakeApiServer::start_at([127, 0, 0, 1])
    }

    /// Serves at an address of the calling thread's namespace, so that other machines reach it.
    pub fn start_at(address: [u8; 4]) -> Self {
        let store = Arc::new(Mutex::new(Store {
            version: 1,
            oldest: 0,
            objects: BTreeMap::new(),
            events: Vec::new(),
            seen: Vec::new(),
            instead: Vec::new(),
            forbidden: BTreeSet::new(),
            gone_as: GoneAs::Event,
            has_protobuf: true,
            initial_events: InitialEvents::Sent,
            refused: 0,
            slow: BTreeSet::new(),
            watches: broadcast::channel(1024).0,
        }));
        let (running, address) = serve(store.clone(), (address, 0).into());
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

    /// As servers were: it answers in JSON whatever it is asked for, and lists in pages.
    pub fn of_old() -> Self {
        let server = FakeApiServer::start();
        server.without_protobuf();
        server.initial_events(InitialEvents::Refused);
        server
    }

    /// From now on it answers in JSON, whatever it is asked for.
    pub fn without_protobuf(&self) {
        self.store().has_protobuf = false;
    }

    /// What it does from now on where a watch is to begin with all objects.
    pub fn initial_events(&self, how: InitialEvents) {
        self.store().initial_events = how;
    }

    /// How many watches it refused because they were to begin with all objects.
    pub fn refused(&self) -> usize {
        self.store().refused
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
    pub fn put(&self, path: &str, object: Value) {
        self.store().put(path, object);
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

    /// Sends a line to the watches that need not be an event; to those in protobuf what it is there, or as a
    /// frame of its text.
    pub fn send_line(&self, path: &str, line: &str) {
        self.store().send(path, line.to_owned());
    }

    /// Sends bytes to the watches, which need not be a line or frame.
    pub fn send_bytes(&self, path: &str, bytes: &[u8]) {
        let _ = self.store().watches.send(Message::Bytes { path: path.to_owned(), bytes: bytes.to_vec() });
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

    /// Allows nobody to read a path any more, or everybody again.
    pub fn forbid(&self, path: &str, is_forbidden: bool) {
        let mut store = self.store();
        match is_forbidden {
            true => store.forbidden.insert(path.to_owned()),
            false => store.forbidden.remove(path),
        };
    }

    /// The queries of the requests for the path so far, lists or watches. A watch that begins with all
    /// objects is both.
    pub fn queries(&self, path: &str, watches: bool) -> Vec<HashMap<String, String>> {
        let store = self.store();
        let is_wanted = |query: &HashMap<String, String>| match watches {
            true => is_watch(query),
            false => !is_watch(query) || query.contains_key("sendInitialEvents"),
        };
        let matching = store.seen.iter().filter(|(seen, query)| seen == path && is_wanted(query));
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
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let key = (path.to_owned(), name(&object));
        let type_ = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.objects.insert(key, object.clone());
        self.tell(path, json!({"type": type_, "object": object}));
        object
    }

    fn tell(&mut self, path: &str, event: Value) {
        self.events.push((self.version, path.to_owned(), event.clone()));
        self.send(path, event.to_string());
    }

    fn send(&self, path: &str, line: String) {
        // No watch may be open.
        let _ = self.watches.send(Message::Line { path: path.to_owned(), line });
    }

    fn list(&self, path: &str, query: &HashMap<String, String>, form: Form) -> Response {
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
        let (start, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
        let mut items: Vec<&Value> = self.of_path(path).skip(start).collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if more {
            metadata["continue"] = (start + limit).to_string().into();
        }
        let list = || json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items});
        match form {
            Form::Json => list().to_string().into_response(),
            Form::Protobuf(kind) => {
                let bytes = protobuf::list(kind, &metadata, items.iter().copied());
                ([(CONTENT_TYPE, protobuf::MEDIA_TYPE)], bytes).into_response()
            }
        }
    }

    fn of_path(&self, path: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |((of, _), _)| of == path).map(|(_, object)| object)
    }

    fn watch(&mut self, path: &str, query: &HashMap<String, String>, form: Form) -> Response {
        let version: Option<u64> = query["resourceVersion"].parse().ok();
        if version.is_some_and(|version| version < self.oldest) {
            return match self.gone_as {
                GoneAs::Event => {
                    ([(CONTENT_TYPE, form.of_watch())], form.frame(gone_event())).into_response()
                }
                GoneAs::Status => form.refuse(StatusCode::GONE, &gone()),
            };
        }
        let first: Vec<String> = match version {
            Some(version) => {
                let missed = self.events.iter().filter(|(of, at, _)| *of > version && at == path);
                missed.map(|(_, _, event)| event.to_string()).collect()
            }
            None => self.initial(path),
        };
        let first = first.into_iter().map(|line| Ok(form.frame(line)));
        let first = stream::iter(first.collect::<Vec<std::io::Result<Vec<u8>>>>());
        let breaks_off = version.is_none() && self.initial_events.breaks_off();
        let (is_slow, path) = (self.slow.contains(path), path.to_owned());
        let live = stream::unfold(self.watches.subscribe(), |mut watch| async {
            watch.recv().await.ok().map(|message| (message, watch))
        });
        let live = live
            .take_while(move |message| std::future::ready(!breaks_off && !matches!(message, Message::Close)))
            .filter_map(move |message| {
                let bytes = match message {
                    Message::Line { path: of, line } if of == path => Some(Ok(form.frame(line))),
                    Message::Bytes { path: of, bytes } if of == path => Some(Ok(bytes)),
                    _ => None,
                };
                std::future::ready(bytes)
            });
        let body = match (is_slow, breaks_off) {
            (true, _) => Body::from_stream(trickle(first.chain(live), self.watches.subscribe())),
            (false, true) => Body::from_stream(first),
            (false, false) => Body::from_stream(first.chain(live)),
        };
        ([(CONTENT_TYPE, form.of_watch())], body).into_response()
    }

    /// All objects as events, and what says that these are all.
    fn initial(&self, path: &str) -> Vec<String> {
        let added = |object: &Value| json!({"type": "ADDED", "object": object}).to_string();
        let mut events: Vec<String> = self.of_path(path).map(added).collect();
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        match self.initial_events {
            InitialEvents::BreakOff(count) => events.truncate(count),
            InitialEvents::Gone(count) => {
                events.truncate(count);
                events.push(gone_event());
            }
            InitialEvents::Unknown | InitialEvents::Refused => {}
            InitialEvents::Sent | InitialEvents::Unmarked => {
                if self.initial_events == InitialEvents::Sent {
                    metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                }
                events.push(json!({"type": "BOOKMARK", "object": {"metadata": metadata}}).to_string());
            }
        }
        events
    }
}

/// Why nothing is told of a version.
fn gone() -> Value {
    refusal(410, "Expired", "too old resource version")
}

fn gone_event() -> String {
    json!({"type": "ERROR", "object": gone()}).to_string()
}

fn refusal(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": message})
}

/// The bytes of the frames, a few each millisecond; watches that end, end in the midst of one.
fn trickle(
    frames: impl Stream<Item = std::io::Result<Vec<u8>>>,
    mut watch: broadcast::Receiver<Message>,
) -> impl Stream<Item = std::io::Result<Vec<u8>>> {
    let pieces = frames.flat_map(|frame| {
        let pieces: Vec<Vec<u8>> = frame.unwrap().chunks(7).map(<[u8]>::to_vec).collect();
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
        // As a real one does: else an event may wait for the acknowledgement of the one before, which takes
        // 40 ms.
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
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut store = store.lock().unwrap();
    let path = uri.path();
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let form = match protobuf::kind_of(path) {
        Some(kind) if store.has_protobuf && accept.contains(protobuf::MEDIA_TYPE) => Form::Protobuf(kind),
        _ => Form::Json,
    };
    let is_instead = |(of, _, _): &(String, StatusCode, String)| of == path;
    let instead = store.instead.iter().position(is_instead);
    let begins_with_all = query.contains_key("sendInitialEvents");
    if instead.is_none() && begins_with_all && store.initial_events == InitialEvents::Refused {
        store.refused += 1;
        let status = refusal(422, "Invalid", "sendInitialEvents is forbidden for watch");
        return form.refuse(StatusCode::UNPROCESSABLE_ENTITY, &status);
    }
    store.seen.push((path.to_owned(), query.clone()));
    if let Some(place) = instead {
        let (_, status, body) = store.instead.remove(place);
        return (status, body).into_response();
    }
    if store.forbidden.contains(path) {
        let status = refusal(403, "Forbidden", &format!("cannot list {path}"));
        return form.refuse(StatusCode::FORBIDDEN, &status);
    }
    if method == Method::POST && path == write::TOKEN_REVIEWS {
        return write::review(&serde_json::from_slice(&body).unwrap());
    }
    if method == Method::POST {
        return store.create(path, serde_json::from_slice(&body).unwrap());
    }
    let is_merge = headers.get(CONTENT_TYPE).is_some_and(|it| it == "application/merge-patch+json");
    let single = match method {
        Method::GET => store.get(path),
        Method::PATCH if is_merge => store.merge(path, &serde_json::from_slice(&body).unwrap()),
        _ => None,
    };
    let single = match is_watch(&query) {
        true => None,
        false => single.or_else(|| store.single(&method, path, &body)),
    };
    if let Some(response) = single {
        return response;
    }
    match is_watch(&query) {
        true => store.watch(path, &query, form),
        false => store.list(path, &query, form),
    }
}

fn is_watch(query: &HashMap<String, String>) -> bool {
    query.contains_key("watch")
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}
