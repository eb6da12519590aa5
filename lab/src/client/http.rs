//! HTTP/1.1 GET over a plain socket: one connection, one request, one answer.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::Uri;
use serde::{Deserialize, Serialize};

use super::lookup;
use crate::error::{Error, Result};

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// When it was over, in microseconds since 1970.
    pub at_us: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// The body of a 200, or what went wrong.
    pub body: std::result::Result<String, String>,
}

/// A URL whose host is resolved.
#[derive(Clone, Debug)]
pub struct Target {
    address: SocketAddr,
    host: String,
    path: String,
}

impl Target {
    /// Parses a URL and resolves its host as a program in this place would.
    pub async fn resolve(url: &str) -> Result<Target> {
        let uri: Uri = url.parse().map_err(|error| invalid(url, format!("{error}")))?;
        let host = uri.host().ok_or_else(|| invalid(url, "has no host".to_owned()))?;
        // An IPv6 address stands in brackets (RFC 3986 section 3.2.2).
        let ip = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => ip,
            Err(_) => lookup::address(host).await?,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let address = SocketAddr::new(ip, uri.port_u16().unwrap_or(80));
        Ok(Target { address, host: host.to_owned(), path })
    }

    /// Makes one request.
    pub fn get(&self, timeout: Duration) -> Answer {
        let start = Instant::now();
        let body = get(self.address, &self.host, &self.path, timeout);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Answer { at_us: microseconds(since_epoch), took_us: microseconds(start.elapsed()), body }
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn invalid(url: &str, reason: String) -> Error {
    Error::Invalid { what: "URL", value: url.to_owned(), reason }
}

/// GET from the calling thread's namespace. Gives the body of a 2xx; all else is an error in words.
pub fn get(
    address: SocketAddr,
    host: &str,
    path: &str,
    timeout: Duration,
) -> std::result::Result<String, String> {
    let (status, body) = fetch(address, host, path, &[], timeout)?;
    if status / 100 == 2 { Ok(body) } else { Err(format!("HTTP status {status}")) }
}

/// As [`get`] with further headers, and the body of every answer with its status.
pub fn fetch(
    address: SocketAddr,
    host: &str,
    path: &str,
    headers: &[(String, String)],
    timeout: Duration,
) -> std::result::Result<(u16, String), String> {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        // In one piece: the stream sends each write as a packet.
        let further: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{further}\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = exchange().map_err(|error| format!("{address}: {error}"))?;
    parse(&answer).ok_or_else(|| format!("no HTTP answer: {answer:?}"))
}

/// The status and body of an answer that was ended by closing the connection.
fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        assert_eq!(parse("HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello"), Some((200, "hello".to_owned())));
        assert_eq!(parse("HTTP/1.1 503 Service Unavailable\r\n\r\nno"), Some((503, "no".to_owned())));
        assert_eq!(parse(""), None);
    }
}
