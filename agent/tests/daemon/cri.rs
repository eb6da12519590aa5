//! A container runtime that only lists its sandboxes: gRPC over a Unix socket, by hand.

use std::path::Path;
use std::thread::JoinHandle;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

/// It serves until it is dropped.
pub(crate) struct Runtime {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    pub(crate) fn serve(socket: &Path, sandboxes: &[&str]) -> Runtime {
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let answer = list(sandboxes);
        let method = "/runtime.v1.RuntimeService/ListPodSandbox";
        let router = Router::new().route(method, axum::routing::post(async move || reply(answer.clone())));
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let listener = UnixListener::from_std(listener).unwrap();
            tokio::select! {
                served = axum::serve(listener, router) => served.unwrap(),
                _ = stopped => {}
            }
        };
        let thread = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve);
        });
        Runtime { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `ListPodSandboxResponse`: field 1, of which field 1 is the id. All lengths are below 128.
fn list(sandboxes: &[&str]) -> Vec<u8> {
    let field = |bytes: &[u8]| [&[0x0a, bytes.len() as u8], bytes].concat();
    sandboxes.iter().flat_map(|id| field(&field(id.as_bytes()))).collect()
}

/// A message with its length before it, and the status behind it (gRPC over HTTP/2).
fn reply(message: Vec<u8>) -> Response {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let data = Bytes::from([&[0], &length[..], &message].concat());
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    let frames = [http_body::Frame::data(data), http_body::Frame::trailers(trailers)];
    let frames = stream::iter(frames.map(Ok::<_, std::convert::Infallible>));
    let body = Body::new(UnsyncBoxBody::new(StreamBody::new(frames)));
    ([("content-type", "application/grpc")], body).into_response()
}
