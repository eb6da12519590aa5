//! One question to one upstream: sockets, identifiers and the time limit. Which upstream, and what becomes of a
//! failure, is decided by the caller.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::ask::{Ask, Match};
use super::upstream::Upstream;
use crate::error::Error;
use crate::wire::decode;

/// How long an upstream may take for one try.
const PATIENCE: Duration = Duration::from_millis(900);
/// Longer datagrams than were asked for are no answers.
const LONGEST: usize = 4096;

/// A message from an upstream, read and as it came, its question spelled in lower case.
#[derive(Debug)]
pub(super) struct Response {
    /// The message.
    pub(super) message: Message,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}

/// What came over a transport.
enum Reading {
    /// The answer.
    Answer(Response),
    /// Perhaps the answer: the name is not spelled as it was asked.
    OtherCase(Response),
}

/// Asks over UDP, and again over TCP where the answer did not fit or may be forged.
pub(super) async fn exchange(upstream: &Upstream, ask: &Ask) -> Result<Response, Error> {
    let response = converse(upstream, ask, true).await?;
    // RFC 6891 section 7: a server that does not know EDNS says so, without EDNS.
    if response.message.metadata.response_code == ResponseCode::FormErr && response.message.edns.is_none() {
        return converse(upstream, ask, false).await;
    }
    Ok(response)
}

/// The letters of the name are spelled at random: a forger would have to guess them along with the id and the port.
/// An answer that is spelled otherwise is asked for again over TCP, which cannot be forged from aside. An upstream
/// that does not keep the spelling there either is believed without it from then on.
async fn converse(upstream: &Upstream, ask: &Ask, edns: bool) -> Result<Response, Error> {
    let address = upstream.address();
    let spelling = if upstream.keeps_case() { rand::random() } else { 0 };
    match within(address, over_udp(address, ask, spelling, edns)).await? {
        Reading::Answer(response) if !response.message.metadata.truncation => return Ok(response),
        Reading::OtherCase(response) if spelling == 0 => return Ok(response),
        Reading::Answer(_) => {}
        Reading::OtherCase(_) => upstream.note_other_case(),
    }
    match within(address, over_tcp(address, ask, spelling, edns)).await {
        Ok(Reading::Answer(response)) => Ok(response),
        Ok(Reading::OtherCase(response)) => {
            upstream.note_folds_case();
            Ok(response)
        }
        // No TCP there: all that is left is to do without the spelling.
        Err(Error::Unreachable { .. } | Error::Timeout(_)) if upstream.suspected() => {
            upstream.note_folds_case();
            match within(address, over_udp(address, ask, 0, edns)).await? {
                Reading::Answer(response) | Reading::OtherCase(response) => Ok(response),
            }
        }
        Err(error) => Err(error),
    }
}

async fn within<T>(upstream: SocketAddr, work: impl Future<Output = io::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, work).await {
        Err(_) => Err(Error::Timeout(upstream)),
        Ok(Err(source)) if source.kind() == io::ErrorKind::InvalidData => Err(Error::Malformed(upstream)),
        Ok(Err(source)) if is_our_own(&source) => Err(Error::NoSocket(source)),
        Ok(result) => result.map_err(|source| Error::Unreachable { upstream, source }),
    }
}

/// Whether this machine has no room left, which says nothing about the upstream.
fn is_our_own(error: &io::Error) -> bool {
    let number = error.raw_os_error().unwrap_or_default();
    [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL].contains(&number)
}

/// A fresh socket for each question: the kernel picks a random port, which a forger would have to guess along
/// with the id (RFC 5452 section 9).
async fn over_udp(upstream: SocketAddr, ask: &Ask, spelling: u64, edns: bool) -> io::Result<Reading> {
    let local: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let request = ask.request(rand::random(), spelling, edns);
    let socket = UdpSocket::bind(local).await?;
    socket.connect(upstream).await?;
    socket.send(&request).await?;
    let mut buffer = [0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What is no answer to this question may be forged: the right one may still come.
        if let Some(reading) = read(ask, &buffer[..length], &request) {
            return reading;
        }
    }
}

async fn over_tcp(upstream: SocketAddr, ask: &Ask, spelling: u64, edns: bool) -> io::Result<Reading> {
    let request = ask.request(rand::random(), spelling, edns);
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), &request[..]].concat()).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    read(ask, &bytes, &request).unwrap_or_else(|| Err(io::ErrorKind::InvalidData.into()))
}

/// The message, if it answers the request.
fn read(ask: &Ask, bytes: &[u8], request: &[u8]) -> Option<io::Result<Reading>> {
    let matched = ask.matches(bytes, request);
    if matched == Match::Stranger {
        return None;
    }
    let mut bytes = bytes.to_vec();
    ask.respell(&mut bytes);
    let Ok(message) = decode(&bytes) else { return Some(Err(io::ErrorKind::InvalidData.into())) };
    let response = Response { message, bytes };
    Some(Ok(if matched == Match::Answer { Reading::Answer(response) } else { Reading::OtherCase(response) }))
}
