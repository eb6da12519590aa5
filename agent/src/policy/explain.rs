//! `/policy/explain`: what this node does with a connection, from the kernel's tables and the plan. The
//! question comes by HTTP and is answered by the loop that has both.

use std::net::IpAddr;

use axum::Router;
use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use weft_nftables::KnownTable;
use weft_policy::plan::{Packet, Planner};
use weft_policy::report::Report;
use weft_types::Protocol;

/// How many questions may wait.
const MOST: usize = 16;

/// A question, and who waits for the answer.
#[derive(Debug)]
pub(crate) struct Question {
    /// The first packet of the connection.
    pub(crate) packet: Packet,
    /// Where the answer goes: what is wrong, where there is none.
    pub(crate) answer: oneshot::Sender<Result<Report, String>>,
}

/// As it is asked: `source=10.244.1.2&destination=10.244.1.3&protocol=tcp&port=80`, or without a port.
#[derive(Debug, Deserialize)]
struct Parameters {
    source: IpAddr,
    destination: IpAddr,
    protocol: Option<String>,
    port: Option<u16>,
}

/// The endpoint, and the questions that come to it.
pub(crate) fn endpoint() -> (Router, mpsc::Receiver<Question>) {
    let (ask, questions) = mpsc::channel(MOST);
    let explain = move |Query(parameters): Query<Parameters>| serve(ask.clone(), parameters);
    (Router::new().route("/policy/explain", get(explain)), questions)
}

async fn serve(ask: mpsc::Sender<Question>, parameters: Parameters) -> Response {
    let packet = match packet(&parameters) {
        Ok(packet) => packet,
        Err(problem) => return (StatusCode::BAD_REQUEST, problem).into_response(),
    };
    let (answer, report) = oneshot::channel();
    // Whoever does not answer is about to end.
    let stops = || (StatusCode::SERVICE_UNAVAILABLE, "the agent stops\n").into_response();
    if ask.send(Question { packet, answer }).await.is_err() {
        return stops();
    }
    match report.await.map(|report| report.and_then(|report| json(&report))) {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(problem)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")).into_response(),
        Err(_) => stops(),
    }
}

fn json(report: &Report) -> Result<String, String> {
    serde_json::to_string(report).map_err(|error| error.to_string())
}

fn packet(parameters: &Parameters) -> Result<Packet, String> {
    let Parameters { source, destination, protocol, port } = parameters;
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(format!("{source} and {destination} are not of one family\n"));
    }
    let port = match (protocol.as_deref(), port) {
        (None, None) => None,
        (Some(name), Some(port)) => Some((protocol_named(name)?, *port)),
        _ => return Err("protocol and port go together\n".to_owned()),
    };
    Ok(Packet { source: *source, destination: *destination, port })
}

fn protocol_named(name: &str) -> Result<Protocol, String> {
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let found = known.into_iter().find(|protocol| protocol.to_string().eq_ignore_ascii_case(name));
    found.ok_or_else(|| format!("protocol {name:?} is none of tcp, udp, sctp\n"))
}

/// What is said of a packet: without a planner nothing is enforced, for the reason that is given.
pub(super) fn report(
    node: &str,
    planner: Result<&Planner, &str>,
    tables: &[KnownTable],
    packet: &Packet,
) -> Report {
    match planner {
        Ok(planner) => Report::new(node, &planner.explain(packet), tables, packet),
        Err(reason) => {
            let notes = vec![reason.to_owned()];
            Report { node: node.to_owned(), notes, ..Report::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(query: &str, answer: Option<Result<Report, String>>) -> (StatusCode, String) {
        let (router, mut questions) = endpoint();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        tokio::spawn(async move {
            let (Some(question), Some(answer)) = (questions.recv().await, answer) else { return };
            question.answer.send(answer).unwrap();
        });
        let query = query.to_owned();
        let get = move || {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            write!(stream, "GET /policy/explain?{query} HTTP/1.0\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let text = tokio::task::spawn_blocking(get).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (StatusCode::from_u16(code).unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn a_question_is_answered_in_json_and_a_bad_one_by_what_is_wrong() {
        let whole = "source=10.0.0.1&destination=10.0.0.2&protocol=TCP&port=80";
        let report = report("node1", Err("no policy"), &[], &packet(&parameters(80)).unwrap());
        let (code, text) = asked(whole, Some(Ok(report.clone()))).await;
        assert_eq!((code, serde_json::from_str::<Report>(&text).unwrap()), (StatusCode::OK, report));
        let (code, text) = asked(whole, Some(Err("cannot read".to_owned()))).await;
        assert_eq!((code, text.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "cannot read\n"));
        assert_eq!(asked(whole, None).await.0, StatusCode::SERVICE_UNAVAILABLE);
        for (query, problem) in [
            ("source=10.0.0.1&destination=fd00::1", "not of one family"),
            ("source=10.0.0.1&destination=10.0.0.2&port=80", "go together"),
            ("source=10.0.0.1&destination=10.0.0.2&protocol=x&port=80", "none of tcp"),
            ("source=web&destination=10.0.0.2", "invalid IP address"),
        ] {
            let (code, text) = asked(query, None).await;
            assert!(code == StatusCode::BAD_REQUEST && text.contains(problem), "{query}: {code} {text}");
        }
    }

    fn parameters(port: u16) -> Parameters {
        let [source, destination] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        Parameters { source, destination, protocol: Some("tcp".to_owned()), port: Some(port) }
    }
}
