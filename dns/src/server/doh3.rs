//! DNS over HTTPS (RFC 8484) with HTTP/3 (RFC 9114). What a request says is the business of [`super::doh`].

use std::net::SocketAddr;

use h3::error::StreamError;
use h3::server::{RequestResolver, RequestStream};
use http_body_util::{BodyExt, Full};
use hyper::body::{Buf, Bytes};
use hyper::{Request, Response};
use quinn::{Connection, VarInt};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::server::doh::{HEAD, LONGEST};
use crate::server::session::Session;

/// `H3_NO_ERROR` (RFC 9114 section 8.1).
const NO_ERROR: VarInt = VarInt::from_u32(0x100);

type Resolver = RequestResolver<h3_quinn::Connection, Bytes>;
type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// One connection, until the client closes it, asks nothing for too long or breaks the protocol. Requests
/// that were taken are answered. Why to close it then.
pub(super) async fn serve_connection(connection: &Connection, session: Session) -> VarInt {
    let (client, limit) = (connection.remote_address(), session.limits.timeout);
    let mut builder = h3::server::builder();
    builder.max_field_section_size(u64::from(HEAD));
    let http = timeout(limit, builder.build(h3_quinn::Connection::new(connection.clone()))).await;
    let Ok(Ok(mut http)) = http else { return NO_ERROR };
    let requests = TaskTracker::new();
    loop {
        let request = tokio::select! {
            () = session.stop.cancelled() => break,
            request = timeout(limit, http.accept()) => request,
        };
        let Ok(Ok(Some(request))) = request else { break };
        requests.spawn(respond(request, client, session.clone()));
    }
    requests.close();
    // The client is told which of its requests are not taken, to ask elsewhere at once.
    let _ = timeout(limit, http.shutdown(0)).await;
    requests.wait().await;
    NO_ERROR
}

/// Answers one request. Who takes too long to ask, or to take the answer, gets none.
async fn respond(request: Resolver, client: SocketAddr, session: Session) {
    let limit = session.limits.timeout;
    let Ok(Ok((request, stream))) = timeout(limit, receive(request)).await else { return };
    let response = session.request(request, client).await;
    if !matches!(timeout(limit, send(stream, response)).await, Ok(Ok(()))) {
        tracing::debug!(%client, "cannot send over HTTP/3");
    }
}

/// A whole request. Of a body that is too long, enough to see that.
async fn receive(request: Resolver) -> Result<(Request<Full<Bytes>>, Stream), StreamError> {
    let (head, mut stream) = request.resolve_request().await?;
    let mut body = Vec::new();
    while let Some(mut part) = stream.recv_data().await? {
        let room = (LONGEST + 1).saturating_sub(body.len());
        let part = part.copy_to_bytes(part.remaining());
        body.extend_from_slice(&part[..part.len().min(room)]);
    }
    Ok((head.map(|()| Full::from(body)), stream))
}

async fn send(mut stream: Stream, response: Response<Full<Bytes>>) -> Result<(), StreamError> {
    let (head, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    stream.send_response(Response::from_parts(head, ())).await?;
    stream.send_data(body.to_bytes()).await?;
    stream.finish().await
}
