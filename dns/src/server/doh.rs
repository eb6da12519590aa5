//! DNS over HTTPS (RFC 8484), here with HTTP/2 and HTTP/1.1: `GET /dns-query?dns=…` and `POST /dns-query`.
//! Each request is one query.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::BoxError;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use data_encoding::BASE64URL_NOPAD;
use hickory_proto::op::Message;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::server::session::Session;

/// The path that clients know (RFC 8484 section 4.1.1 has it in its examples).
const PATH: &str = "/dns-query";
/// The type of a message (RFC 8484 section 6).
const MESSAGE: HeaderValue = HeaderValue::from_static("application/dns-message");
/// The longest message.
pub(super) const LONGEST: usize = u16::MAX as usize;
/// The longest head of a request. A query of 4 KB fits into a GET.
pub(super) const HEAD: u32 = 8192;
/// How long a connection lives at most: an idle one of HTTP/2 would live for ever.
const LIFE: Duration = Duration::from_secs(300);

/// One connection, until either side closes it.
pub(super) async fn serve_connection(stream: TlsStream<TcpStream>, client: SocketAddr, session: Session) {
    let (limits, stop) = (session.limits, session.stop.clone());
    let second = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = TokioIo::new(stream);
    let service = service_fn(move |request| {
        let session = session.clone();
        async move { Ok::<_, Infallible>(session.request(request, client).await) }
    });
    if second {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_header_list_size(HEAD);
        builder.keep_alive_interval(limits.timeout).keep_alive_timeout(limits.timeout);
        builder.max_concurrent_streams(u32::try_from(limits.in_flight).unwrap_or(u32::MAX));
        live(builder.serve_connection(stream, service), &stop, limits.timeout).await;
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(limits.timeout).max_buf_size(HEAD as usize);
        live(builder.serve_connection(stream, service), &stop, limits.timeout).await;
    }
}

/// Lets a connection live until it ends, or it is time to end; what was asked before is still answered.
async fn live(connection: impl GracefulConnection, stop: &CancellationToken, limit: Duration) {
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
        () = tokio::time::sleep(LIFE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(limit, connection).await;
}

impl Session {
    /// The response to a request, of whatever version of HTTP.
    pub(super) async fn request<B>(self, request: Request<B>, client: SocketAddr) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let question = match timeout(self.limits.timeout, question(request)).await {
            Ok(Ok(question)) => question,
            Ok(Err(status)) => return refusal(status),
            Err(_) => return refusal(StatusCode::REQUEST_TIMEOUT),
        };
        let reply = self.answer(&question, client.ip()).await;
        reply.map_or_else(|| refusal(StatusCode::BAD_REQUEST), success)
    }
}

/// The message in a request (RFC 8484 section 4.1).
async fn question<B>(request: Request<B>) -> Result<Bytes, StatusCode>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    if request.uri().path() != PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    match *request.method() {
        Method::GET => {
            let query = request.uri().query().unwrap_or_default();
            let message = query.split('&').find_map(|parameter| parameter.strip_prefix("dns="));
            let decoded = BASE64URL_NOPAD.decode(message.ok_or(StatusCode::BAD_REQUEST)?.as_bytes());
            decoded.map(Bytes::from).map_err(|_| StatusCode::BAD_REQUEST)
        }
        Method::POST => {
            let is_message = request.headers().get(CONTENT_TYPE) == Some(&MESSAGE);
            // Read in any case: some clients take an early refusal for a broken connection.
            let body = Limited::new(request.into_body(), LONGEST).collect().await;
            let body = body.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?.to_bytes();
            is_message.then_some(body).ok_or(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        }
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn success(reply: Vec<u8>) -> Response<Full<Bytes>> {
    let lifetime = HeaderValue::from_str(&format!("max-age={}", lifetime(&reply)));
    let mut response = Response::new(Full::from(reply));
    response.headers_mut().insert(CONTENT_TYPE, MESSAGE);
    response.headers_mut().extend(lifetime.ok().map(|lifetime| (CACHE_CONTROL, lifetime)));
    response
}

/// How long a reply holds (RFC 8484 section 5.1): no longer than any of its records.
fn lifetime(reply: &[u8]) -> u32 {
    let Ok(message) = Message::from_vec(reply) else { return 0 };
    message.answers.iter().chain(&message.authorities).map(|record| record.ttl).min().unwrap_or(0)
}

fn refusal(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}
