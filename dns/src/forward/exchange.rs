//! One question to one upstream: sockets, identifiers and the time limit. Which upstream, and what becomes of a
//! failure, is decided by the caller.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::error::Error;

/// How long an upstream may take for one try.
const PATIENCE: Duration = Duration::from_millis(900);

/// A message from an upstream, read and as it came.
pub(super) struct Response {
    /// The message.
    pub(super) message: Message,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}

/// Asks over UDP, and again over TCP where the answer did not fit. `request` is the whole message that holds
/// `query`, its first two bytes being the id.
pub(super) async fn exchange(upstream: SocketAddr, query: &Query, request: &[u8]) -> Result<Response, Error> {
    let response = within(upstream, over_udp(upstream, query, request)).await?;
    if response.message.metadata.truncation {
        return within(upstream, over_tcp(upstream, query, request)).await;
    }
    Ok(response)
}

async fn within<T>(upstream: SocketAddr, work: impl Future<Output = io::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, work).await {
        Err(_) => Err(Error::Timeout(upstream)),
        Ok(Err(source)) if source.kind() == io::ErrorKind::InvalidData => Err(Error::Malformed(upstream)),
        Ok(result) => result.map_err(|source| Error::Unreachable { upstream, source }),
    }
}

/// A fresh socket for each question: the kernel picks a random port, which a forger would have to guess along
/// with the id (RFC 5452 section 9).
async fn over_udp(upstream: SocketAddr, query: &Query, request: &[u8]) -> io::Result<Response> {
    let local: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(upstream).await?;
    socket.send(request).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What is no answer to this question may be forged: the right one may still come.
        if let Some(response) = matching(&buffer[..length], query, request) {
            return Ok(response);
        }
    }
}

async fn over_tcp(upstream: SocketAddr, query: &Query, request: &[u8]) -> io::Result<Response> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), request].concat()).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    matching(&bytes, query, request).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The message, if it answers this very question (RFC 5452 section 9.1).
fn matching(bytes: &[u8], query: &Query, request: &[u8]) -> Option<Response> {
    if bytes.get(..2)? != request.get(..2)? {
        return None;
    }
    let message = Message::from_vec(bytes).ok()?;
    let answers = |asked: &Query| {
        asked.name == query.name
            && asked.query_type == query.query_type
            && asked.query_class == query.query_class
    };
    // Some servers leave the question out of a failure.
    let right = message.queries.first().map_or(message.answers.is_empty(), answers);
    (right && message.metadata.message_type == MessageType::Response)
        .then(|| Response { message, bytes: bytes.to_vec() })
}
