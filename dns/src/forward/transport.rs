//! One query to one upstream: how it is put, over which transport, and what of the answer is believed. Which
//! upstream, and for how long, is decided by the caller.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::cache::is_negative;
use super::query::{Match, UpstreamQuery};
use super::upstream::Upstream;
use crate::error::Error;
use crate::wire::decoder::decode;

/// How long an upstream may take before it is taken for one that does not answer.
pub(super) const TIMEOUT: Duration = Duration::from_millis(900);
/// After so long a silence a query is put more plainly too, where that may be the reason.
const FALLBACK_DELAY: Duration = Duration::from_millis(300);
/// For so much longer the answer to the usual query is the better one.
const GRACE: Duration = Duration::from_millis(50);
/// After so long a datagram is sent again: it may be lost.
const RETRANSMIT: Duration = Duration::from_secs(1);
/// The longest datagram there is: some servers send more than they were asked for.
const LONGEST: usize = u16::MAX as usize;
/// The code of servers that do not know a version of EDNS (RFC 6891 section 9). By number: TSIG's BADSIG is
/// the same.
const BAD_VERSION: u16 = 16;

/// A message from an upstream, read and as it came, its question spelled in lower case.
#[derive(Debug)]
pub(super) struct Response {
    /// The message.
    pub(super) message: Message,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// Whether it repeats the spelling of the query.
    repeats: bool,
}

/// How a query is put.
#[derive(Clone, Copy)]
struct Form {
    /// Which letters are in upper case.
    spelling: u64,
    edns: bool,
}

/// In lower case, without EDNS: as the oldest servers know it.
const PLAIN: Form = Form { spelling: 0, edns: false };

/// What an upstream does not seem to take, for it answered only without.
#[derive(Clone, Copy)]
enum Unsupported {
    Case,
    Edns,
}

/// An answer, and what was learnt.
type Attempt = Result<(Response, Option<Unsupported>), Error>;

/// What an answer is worth beside the answer to the same query in another form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Quality {
    Failure,
    NoName,
    NoData,
    Data,
}

/// Whether another upstream may know better.
pub(super) fn is_failure(message: &Message) -> bool {
    use ResponseCode::{NXDomain, NoError, YXDomain};
    !matches!(message.metadata.response_code, NoError | NXDomain | YXDomain)
}

/// Asks one upstream, for as long as somebody waits for it. While it is silent it is asked in plainer manners
/// too, as long as it is not known to take the usual one: some servers drop what they do not know.
pub(super) async fn exchange(upstream: &Upstream, query: &UpstreamQuery) -> Result<Response, Error> {
    let spelling = upstream.spelling(query);
    let doubts_case = query.has_capitals(spelling) && !upstream.finds_any_case(query);
    let doubts_edns = upstream.edns().may_be_supported() && !upstream.edns().is_supported();
    if !doubts_case && !doubts_edns {
        return verified(upstream, query, spelling).await;
    }
    let usual = async { Ok((verified(upstream, query, spelling).await?, None)) };
    // Few queries get so far: the others need no room for it.
    let plainer = async { Box::pin(without_extensions(upstream, query, doubts_case, doubts_edns)).await };
    let (response, unsupported) = first_or_fallback(usual, plainer).await?;
    match unsupported.filter(|_| !is_failure(&response.message)) {
        Some(Unsupported::Case) => upstream.note_case_silent(query),
        Some(Unsupported::Edns) => upstream.note_edns_silent(),
        None => {}
    }
    Ok(response)
}

/// Without what may be the reason of a silence.
async fn without_extensions(
    upstream: &Upstream,
    query: &UpstreamQuery,
    doubts_case: bool,
    doubts_edns: bool,
) -> Attempt {
    let in_lower_case =
        async { Ok((with_edns_fallback(upstream, query, 0).await?, Some(Unsupported::Case))) };
    let without_edns = async { Ok((transmit(upstream, query, PLAIN).await?, Some(Unsupported::Edns))) };
    match (doubts_case, doubts_edns) {
        (true, true) => first_or_fallback(in_lower_case, without_edns).await,
        (true, false) => in_lower_case.await,
        (false, _) => without_edns.await,
    }
}

/// What is said to the first query; or to the second, which is asked after a silence.
async fn first_or_fallback(
    first: impl Future<Output = Attempt>,
    second: impl Future<Output = Attempt>,
) -> Attempt {
    let mut first = pin!(first);
    if let Ok(attempt) = timeout(FALLBACK_DELAY, &mut first).await {
        return attempt;
    }
    tokio::select! {
        attempt = &mut first => attempt,
        // Where the second fails, the first is still awaited.
        Ok(attempt) = second => match timeout(GRACE, &mut first).await {
            Ok(Ok(better)) => Ok(better),
            _ => Ok(attempt),
        },
    }
}

/// The letters of the name are spelled at random: a forger would have to guess them along with the id and the
/// port. Some servers do not find a name that is spelled so. So what was found is believed at once, and what
/// was not only where the name is not found in lower case either, or where others of its domain were found.
async fn verified(upstream: &Upstream, query: &UpstreamQuery, spelling: u64) -> Result<Response, Error> {
    let response = with_edns_fallback(upstream, query, spelling).await?;
    // Where the spelling got lost, the name was looked for without it.
    if !query.has_capitals(spelling) || !response.repeats {
        return Ok(response);
    }
    let found = quality(&response.message);
    if found == Quality::Data {
        upstream.note_case_found(query);
    }
    if found == Quality::Data || upstream.finds_any_case(query) {
        return Ok(response);
    }
    match timeout(TIMEOUT, with_edns_fallback(upstream, query, 0)).await {
        Ok(Ok(plain)) if quality(&plain.message) > found => {
            // A failure may have been of the moment.
            if found != Quality::Failure {
                upstream.note_case_denied(query);
            }
            Ok(plain)
        }
        _ => Ok(response),
    }
}

fn quality(message: &Message) -> Quality {
    match message.metadata.response_code {
        _ if is_failure(message) => Quality::Failure,
        ResponseCode::NXDomain => Quality::NoName,
        _ if is_negative(message) => Quality::NoData,
        _ => Quality::Data,
    }
}

/// With EDNS, and again without where the upstream says that it does not know that (RFC 6891 sections 6.2.2
/// and 7).
async fn with_edns_fallback(
    upstream: &Upstream,
    query: &UpstreamQuery,
    spelling: u64,
) -> Result<Response, Error> {
    let without = Form { spelling, edns: false };
    if !upstream.edns().may_be_supported() {
        return transmit(upstream, query, without).await;
    }
    let response = transmit(upstream, query, Form { spelling, edns: true }).await?;
    if !may_refuse_edns(&response.message) {
        if response.message.edns.is_some() || !is_failure(&response.message) {
            upstream.edns().note_supported();
        }
        return Ok(response);
    }
    match timeout(TIMEOUT, transmit(upstream, query, without)).await {
        Ok(Ok(plain)) if !may_refuse_edns(&plain.message) => {
            upstream.note_edns_refused();
            Ok(plain)
        }
        _ => Ok(response),
    }
}

fn may_refuse_edns(message: &Message) -> bool {
    let code = message.metadata.response_code;
    matches!(code, ResponseCode::FormErr | ResponseCode::NotImp) || u16::from(code) == BAD_VERSION
}

/// Over UDP, and again over TCP where the answer did not fit, or does not repeat the spelling: that may be
/// forged, but TCP cannot be from aside. An upstream that does not repeat the spelling there either is
/// believed without it from then on.
async fn transmit(upstream: &Upstream, query: &UpstreamQuery, form: Form) -> Result<Response, Error> {
    let address = upstream.address();
    let failed = |source| failure(address, source);
    let loses = |response: &Response| form.spelling != 0 && !response.repeats;
    let first = if upstream.takes_tcp_alone() {
        None
    } else {
        Some(over_udp(address, query, form).await.map_err(failed)?)
    };
    let Some(response) = first.filter(|response| !response.message.metadata.truncation) else {
        let whole = over_tcp(address, query, form).await.map_err(failed)?;
        if loses(&whole) {
            upstream.note_case_lost();
        }
        return Ok(whole);
    };
    if !loses(&response) {
        return Ok(response);
    }
    match timeout(TIMEOUT, over_tcp(address, query, form)).await {
        Ok(Ok(response)) => {
            if loses(&response) {
                upstream.note_case_lost();
            }
            Ok(response)
        }
        Ok(Err(source)) if is_our_own(&source) => Err(Error::NoSocket(source)),
        // No TCP there: all that is left is to do without the spelling.
        _ => {
            upstream.note_case_lost();
            over_udp(address, query, Form { spelling: 0, ..form }).await.map_err(failed)
        }
    }
}

fn failure(upstream: SocketAddr, source: io::Error) -> Error {
    match source {
        source if source.kind() == io::ErrorKind::InvalidData => Error::Malformed(upstream),
        source if is_our_own(&source) => Error::NoSocket(source),
        source => Error::Unreachable { upstream, source },
    }
}

/// Whether this machine has no room left, which says nothing about the upstream.
fn is_our_own(error: &io::Error) -> bool {
    let number = error.raw_os_error().unwrap_or_default();
    [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL].contains(&number)
}

/// A fresh socket for each query: the kernel picks a random port, which a forger would have to guess along
/// with the id (RFC 5452 section 9). A query that is sent again is the same one, so that the answer to any is
/// heard.
async fn over_udp(upstream: SocketAddr, query: &UpstreamQuery, form: Form) -> io::Result<Response> {
    let local: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let request = query.request(rand::random(), form.spelling, form.edns);
    let socket = UdpSocket::bind(local).await?;
    socket.connect(upstream).await?;
    loop {
        socket.send(&request).await?;
        if let Ok(result) = timeout(RETRANSMIT, listen(&socket, query, &request)).await {
            return result;
        }
    }
}

async fn listen(socket: &UdpSocket, query: &UpstreamQuery, request: &[u8]) -> io::Result<Response> {
    loop {
        socket.readable().await?;
        match datagram(socket, query, request) {
            // What is no answer to this query may be forged: the right one may still come.
            Ok(None) => {}
            Ok(Some(response)) => return Ok(response),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// What came. Not a part of what waits for it: many queries wait at a time, and the room for a datagram is
/// large.
fn datagram(socket: &UdpSocket, query: &UpstreamQuery, request: &[u8]) -> io::Result<Option<Response>> {
    let mut bytes = Vec::with_capacity(LONGEST);
    socket.try_recv_buf(&mut bytes)?;
    read(query, &bytes, request)
}

async fn over_tcp(upstream: SocketAddr, query: &UpstreamQuery, form: Form) -> io::Result<Response> {
    let request = query.request(rand::random(), form.spelling, form.edns);
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), &request[..]].concat()).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    read(query, &bytes, &request)?.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The message, if it answers the request.
fn read(query: &UpstreamQuery, bytes: &[u8], request: &[u8]) -> io::Result<Option<Response>> {
    let matched = query.matches(bytes, request);
    if matched == Match::Unrelated {
        return Ok(None);
    }
    let mut bytes = bytes.to_vec();
    query.respell(&mut bytes);
    let message = decode(&bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Some(Response { message, bytes, repeats: matched == Match::Answer }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::Case;
    use hickory_proto::rr::RecordType;

    /// A thousand queries may wait at a time, each of several upstreams.
    #[test]
    fn a_question_that_waits_takes_little_room() {
        let upstream = Upstream::new(([192, 0, 2, 1], 53).into(), Case::Random);
        let query = UpstreamQuery::own(b"\x01a", RecordType::A);
        let size = size_of_val(&exchange(&upstream, &query));
        assert!(size < 8192, "{size}");
    }
}
