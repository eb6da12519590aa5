//! `weft dns explain`: what a pod gets for a name, and why. The DNS server itself tells it; here it is only asked.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::{Args, Subcommand};
use thiserror::Error;

/// How long the server may take: it may wait for upstreams itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// What can be asked of the DNS server.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Tell what a pod gets for a name: each name that its resolver tries, what that leads to, and what is missing.
    Explain(Explain),
}

/// A question to be explained.
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// Who asks: a namespace, or a pod as NAMESPACE/POD.
    #[arg(value_name = "NAMESPACE[/POD]", value_parser = namespace)]
    pub from: String,
    /// The name as the pod asks for it.
    pub name: String,
    /// The type of records.
    #[arg(value_name = "TYPE", default_value = "A")]
    pub record_type: String,
    /// Where a weft-dns says whether it is ready. From elsewhere than its node, first run
    /// `kubectl -n kube-system port-forward deployment/weft-dns 8181`.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8181")]
    pub server: SocketAddr,
}

/// Why there is no explanation.
#[derive(Debug, Error)]
pub enum Error {
    /// The server cannot be asked.
    #[error(
        "cannot ask weft-dns at {server}: {source}; name another with --server, or run \
         `kubectl -n kube-system port-forward deployment/weft-dns 8181`"
    )]
    Ask {
        /// The server.
        server: SocketAddr,
        /// What the network says.
        source: io::Error,
    },
    /// The server does not explain this.
    #[error("weft-dns at {server} refuses: {problem}")]
    Refused {
        /// The server.
        server: SocketAddr,
        /// What it says.
        problem: String,
    },
}

/// The explanation, as lines for people.
///
/// # Errors
/// The server cannot be asked, or does not know what to make of the question.
pub fn explain(question: &Explain) -> Result<String, Error> {
    let server = question.server;
    let answer = get(server, &path(question)).map_err(|source| Error::Ask { server, source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ if body.trim().is_empty() => Err(Error::Refused { server, problem: status.to_owned() }),
        _ => Err(Error::Refused { server, problem: body.trim().to_owned() }),
    }
}

/// HTTP/1.0: the body ends with the connection, in one piece.
fn get(server: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn path(question: &Explain) -> String {
    let Explain { from, name, record_type, .. } = question;
    format!("/explain?namespace={}&name={}&type={}", encoded(from), encoded(name), encoded(record_type))
}

/// RFC 3986 section 2.1.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn namespace(text: &str) -> Result<String, String> {
    let namespace = text.split('/').next().unwrap_or_default();
    match weft_types::is_dns_label(namespace) {
        true => Ok(namespace.to_owned()),
        false => Err("expected a namespace, or NAMESPACE/POD".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    /// A server that answers one request, and what it was asked.
    fn ask(answer: &'static str, arguments: &[&str]) -> (Result<String, Error>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().to_string();
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            stream.write_all(answer.as_bytes()).unwrap();
            request[0].clone()
        });
        let Command::Explain(question) =
            Cli::parse_from([&["weft", "explain", "--server", &server], arguments].concat()).command;
        (explain(&question), asked.join().unwrap())
    }

    #[test]
    fn the_server_is_asked_on_behalf_of_the_pods_namespace() {
        let (told, asked) = ask("HTTP/1.0 200 OK\r\n\r\n1. a. NXDOMAIN\n", &["shop/web-0", "a&b.svc", "srv"]);
        assert_eq!(told.unwrap(), "1. a. NXDOMAIN\n");
        assert_eq!(asked, "GET /explain?namespace=shop&name=a%26b.svc&type=srv HTTP/1.0");
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let (told, _) = ask("HTTP/1.0 400 Bad Request\r\n\r\nX is no type of records\n", &["shop", "a", "x"]);
        assert!(told.unwrap_err().to_string().ends_with("refuses: X is no type of records"));
    }

    #[test]
    fn a_server_that_is_not_there_is_named_with_what_to_do() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let question = Explain { from: "shop".into(), name: "a".into(), record_type: "A".into(), server };
        let error = explain(&question).unwrap_err().to_string();
        assert!(error.contains(&server.to_string()) && error.contains("port-forward"), "{error}");
        assert!(Cli::try_parse_from(["weft", "explain", "No_Namespace", "a"]).is_err());
    }
}
