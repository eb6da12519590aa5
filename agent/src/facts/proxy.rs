//! What the proxy of this node says of itself on its own ports, over HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weft_types::node_facts::ProxyFacts;
use weft_types::well_known::port;

/// How long an answer may take, on one machine.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much of an answer is read.
const MOST: u64 = 64 * 1024;

/// None where it does not answer.
pub(super) async fn ask() -> Option<ProxyFacts> {
    let health = get(port::PROXY_HEALTH, "/healthz").await?;
    let mode = get(port::PROXY_METRICS, "/proxyMode").await;
    Some(facts(&health, mode.as_deref()))
}

/// kube-proxy's JSON, with what Weft's proxy says besides.
fn facts(health: &str, mode: Option<&str>) -> ProxyFacts {
    let health: Value = serde_json::from_str(health).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let conflicts = health["conflicts"].as_array().into_iter().flatten();
    ProxyFacts {
        problem: text(&health["problem"]),
        last_updated: text(&health["lastUpdated"]),
        conflicts: conflicts.filter_map(text).collect(),
        mode: mode.map(|mode| mode.trim().to_owned()).filter(|mode| !mode.is_empty() && mode.len() < 32),
        ebpf_problem: text(&health["ebpf"]["problem"]),
    }
}

/// The body of what is at a path, whatever the code; none where nobody answers.
async fn get(port: u16, path: &str) -> Option<String> {
    for host in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        if let Ok(Some(body)) = timeout(PATIENCE, fetch(host, port, path)).await {
            return Some(body);
        }
    }
    None
}

async fn fetch(host: IpAddr, port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_proxy_says_is_read_and_nonsense_is_nothing() {
        let text = r#"{"lastUpdated": "2026-01-01T00:00:00Z", "problem": null, "conflicts": ["a chain; a remedy", 7],
                       "ebpf": {"led": false, "problem": "no cgroup2"}}"#;
        let told = facts(text, Some("nftables\n"));
        assert_eq!((told.problem, told.mode.as_deref()), (None, Some("nftables")));
        assert_eq!((told.conflicts.len(), told.ebpf_problem.as_deref()), (1, Some("no cgroup2")));
        assert_eq!(facts("<html>", Some(&"x".repeat(100))), ProxyFacts::default());
    }

    #[tokio::test]
    async fn a_body_is_told_whatever_the_code_and_silence_is_none() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 512];
            let _ = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.0 503 No\r\n\r\nbehind").await.unwrap();
        });
        assert_eq!(fetch(Ipv4Addr::LOCALHOST.into(), port, "/").await.as_deref(), Some("behind"));
        assert_eq!(fetch(Ipv4Addr::LOCALHOST.into(), port, "/").await, None);
    }
}
