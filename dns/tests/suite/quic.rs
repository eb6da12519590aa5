//! DNS over QUIC as RFC 9250 has it, over HTTP/3 as RFC 8484 has it, and what clients who mean harm can hold
//! on to.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use h3::client::SendRequest;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::EdnsOption;
use hyper::body::{Buf, Bytes};
use hyper::{Method, Request, StatusCode};
use nix::sys::signal::Signal;
use quinn::{Connection, ConnectionError};
use tokio::time::timeout;
use weft_dns::server::{Limits, Quic};

use crate::api;
use crate::daemon::{Daemon, NOBODY, await_status};
use crate::encrypted::{certify, kdig};
use crate::fixture::*;
use crate::peers::{Upstream, answer_section};
use crate::quic_client::*;

const BACKEND: &str = "backend.shop.svc.cluster.local.";

fn question(name: &str) -> Vec<u8> {
    query(name, RecordType::A).to_vec().unwrap()
}

async fn is_served(connection: &Connection) -> bool {
    let reply = exchange(connection, &framed(&question(BACKEND))).await;
    reply.is_some_and(|reply| reply.metadata.id == 0 && reply.answers.len() == 1)
}

#[test]
fn kdig_is_answered_over_quic() {
    let (upstream, folder) = (Upstream::start(), tempfile::tempdir().unwrap());
    let files = certify(folder.path());
    let [certificate, key] = files.each_ref().map(|path| path.to_str().unwrap());
    let upstream = upstream.address.to_string();
    let tls = ["--tls-certificate", certificate, "--tls-key", key, "--doq", "127.0.0.1:0"];
    let from = ["--snapshot", CLUSTER, "--upstream", &upstream];
    let daemon = Daemon::start_with(NOBODY, &[&tls[..], &from].concat());
    let ask = |question: &str| kdig(daemon.also[0], &files[0], &format!("+quic {question}"));
    let text = ask("backend.shop.svc.cluster.local A");
    assert_eq!(answer_section(&text), ["backend.shop.svc.cluster.local. A 10.96.0.20"], "{text}");
    assert!(ask("nothing.shop.svc.cluster.local AAAA").contains("status: NXDOMAIN"));
    let text = ask("big.example.com A");
    assert_eq!(answer_section(&text).len(), 200, "{text}");
    let text = ask("+padding www.example.com A");
    assert!(text.contains("Received 468 B"), "replies are padded for who pads: {text}");
    let metrics = daemon.get(2, "/metrics");
    assert!(metrics.contains("proto=\"quic\",family=\"1\",type=\"A\"} 3"), "{metrics}");
}

#[tokio::test]
async fn a_connection_of_quic_carries_several_questions_and_a_slow_one_holds_up_none() {
    let upstream = Upstream::start();
    let server = QuicServer::start(Quic::Doq, &[upstream.address], Limits::default());
    let connection = server.client("127.0.0.1").connect().await;
    let silent = framed(&question("silent.example.com."));
    let slow = exchange(&connection, &silent);
    let quick = async {
        for _ in 0..100 {
            assert!(is_served(&connection).await);
        }
        tokio::time::Instant::now()
    };
    let slow = async { (slow.await.unwrap(), tokio::time::Instant::now()) };
    let ((slow, answered), quick) = tokio::join!(slow, quick);
    assert_eq!((slow.metadata.id, slow.metadata.response_code), (0, ResponseCode::ServFail));
    assert!(quick < answered);
}

/// RFC 9250 section 4.3.3.
#[tokio::test]
async fn who_breaks_the_protocol_of_quic_loses_the_connection_and_nobody_else_does() {
    let limits = Limits { timeout: Duration::from_secs(1), ..Limits::default() };
    let server = QuicServer::start(Quic::Doq, &[], limits);
    let good = question(BACKEND);
    let answer = [&good[..2], &[0x80], &good[3..]].concat();
    let mut keepalive = query(BACKEND, RecordType::A);
    keepalive.edns.get_or_insert_with(Edns::new).options_mut().insert(EdnsOption::Unknown(11, vec![0, 9]));
    let client = server.client("127.0.0.1");
    for (what, bytes) in [
        ("nothing", vec![]),
        ("no message", vec![0, 0]),
        ("an ID", framed(&[&[0, 7], &good[2..]].concat())),
        ("two queries", framed(&good).repeat(2)),
        ("less than it says", [&[0, 200][..], &good].concat()),
        ("an answer", framed(&answer)),
        ("the keepalive of TCP", framed(&keepalive.to_vec().unwrap())),
        ("more than a message can be", vec![0; 70_000]),
    ] {
        let connection = client.connect().await;
        assert!(is_served(&connection).await);
        assert!(exchange(&connection, &bytes).await.is_none(), "{what}");
        assert_eq!(closed_with(&connection).await.into_inner(), 2, "DOQ_PROTOCOL_ERROR: {what}");
    }
    let connection = client.connect().await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&framed(&good)).await.unwrap();
    assert_eq!(closed_with(&connection).await.into_inner(), 2, "a stream without its end");
    // Of garbage as long as a message can be, the message is refused.
    let connection = client.connect().await;
    let long = [&[0xff, 0xff, 0, 0][..], &[0x5a; 65533]].concat();
    let reply = exchange(&connection, &long).await.unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
    assert!(is_served(&connection).await);
}

#[tokio::test]
async fn a_silent_connection_of_quic_ends_in_peace() {
    let limits = Limits { timeout: Duration::from_secs(1), ..Limits::default() };
    let server = QuicServer::start(Quic::Doq, &[], limits);
    let connection = server.client("127.0.0.1").connect().await;
    match timeout(DEADLINE, connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code.into_inner(), 0),
        ConnectionError::TimedOut => {}
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn one_client_cannot_take_all_connections_of_quic() {
    let limits = Limits { connections: 3, of_one_client: 2, ..Limits::default() };
    let server = QuicServer::start(Quic::Doq, &[], limits);
    let [one, two, three] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(|address| server.client(address));
    let [first, second] = [one.connect().await, one.connect().await];
    assert!(is_served(&first).await && is_served(&second).await);
    assert!(one.try_connect().await.is_err(), "one too many");
    let third = two.connect().await;
    assert!(is_served(&third).await, "another client is served");
    assert!(three.try_connect().await.is_err(), "all places are taken");
    first.close(0_u32.into(), b"");
    let again = async { while one.try_connect().await.is_err() {} };
    timeout(DEADLINE, again).await.expect("the client's place is not free again");
}

#[tokio::test]
async fn at_the_end_what_was_asked_over_quic_is_answered() {
    let upstream = Upstream::start();
    let server = QuicServer::start(Quic::Doq, &[upstream.address], Limits::default());
    let client = server.client("127.0.0.1");
    let connection = client.connect().await;
    let silent = framed(&question("silent.example.com."));
    let end = async {
        // Its own answer says that the other query was taken before.
        assert!(is_served(&connection).await);
        server.server.stop.all.cancel();
    };
    let (reply, ()) = tokio::join!(exchange(&connection, &silent), end);
    assert_eq!(reply.unwrap().metadata.response_code, ResponseCode::ServFail);
    assert_eq!(closed_with(&connection).await.into_inner(), 0, "DOQ_NO_ERROR");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_quic_are_handed_over_and_their_clients_connect_anew() {
    let (api_server, folder) = (api::start(), tempfile::tempdir().unwrap());
    let api = api_server.address().to_string();
    let files = certify(folder.path());
    let [certificate, key] = files.each_ref().map(|path| path.to_str().unwrap());
    let start = |[listen, doq, doh3]: [&str; 3]| {
        let tls = ["--tls-certificate", certificate, "--tls-key", key, "--doq", doq, "--doh3", doh3];
        Daemon::start_at(listen, &api, &[&["--handover", "--lameduck", "0"][..], &tls].concat())
    };
    let mut old = start(["127.0.0.1:0"; 3]);
    await_status(&old, "backend.shop.svc.cluster.local A", "NOERROR");
    let places = [old.dns, old.also[0], old.also[1]];
    let client = client(places[1], folder.path(), "doq", "127.0.0.1");
    for _ in 0..2 {
        let connection = client.connect().await;
        assert!(is_served(&connection).await);
        let texts = places.map(|place| place.to_string());
        let new = start([&texts[0], &texts[1], &texts[2]]);
        old.await_log("the next server answers");
        assert_eq!(closed_with(&connection).await.into_inner(), 0, "DOQ_NO_ERROR");
        assert!(is_served(&client.connect().await).await, "the next server has the socket");
        old.signal(Signal::SIGTERM);
        assert!(old.wait().success());
        assert!(is_served(&client.connect().await).await);
        old = new;
    }
}

type Http = SendRequest<h3_quinn::OpenStreams, Bytes>;

async fn http(connection: Connection) -> Http {
    let (mut driver, http) = h3::client::new(h3_quinn::Connection::new(connection)).await.unwrap();
    tokio::spawn(async move { std::future::poll_fn(|context| driver.poll_close(context)).await });
    http
}

/// The status, the head as text and the body of the response.
async fn request(
    http: &mut Http,
    (method, path, kind): (Method, &str, &str),
    body: &[u8],
) -> (StatusCode, String, Vec<u8>) {
    let uri = format!("https://dns.test{path}");
    let head = Request::builder().method(method).uri(uri).header("content-type", kind).body(()).unwrap();
    let work = async {
        let mut stream = http.send_request(head).await.unwrap();
        stream.send_data(Bytes::copy_from_slice(body)).await.unwrap();
        stream.finish().await.unwrap();
        let response = stream.recv_response().await.unwrap();
        let mut received = Vec::new();
        while let Some(part) = stream.recv_data().await.unwrap() {
            received.extend_from_slice(part.chunk());
        }
        (response.status(), format!("{:?}", response.headers()), received)
    };
    timeout(DEADLINE, work).await.expect("the server is silent")
}

#[tokio::test]
async fn https_by_http_3_is_as_rfc_8484_has_it() {
    const MESSAGE: &str = "application/dns-message";
    let server = QuicServer::start(Quic::Doh3, &[], Limits::default());
    let mut http = http(server.client("127.0.0.1").connect().await).await;
    let question = question(BACKEND);
    let get = format!("/dns-query?dns={}", BASE64URL_NOPAD.encode(&question));
    for (what, body) in
        [((Method::GET, get.as_str(), ""), &[][..]), ((Method::POST, "/dns-query", MESSAGE), &question)]
    {
        let (status, head, body) = request(&mut http, what, body).await;
        assert_eq!(status, 200, "{head}");
        assert!(head.contains(MESSAGE) && head.contains("max-age=30"), "section 5.1: {head}");
        assert_eq!(Message::from_vec(&body).unwrap().answers.len(), 1);
    }
    for (status, what, body) in [
        (404, (Method::GET, "/other?dns=AAAA", ""), &[][..]),
        (400, (Method::GET, "/dns-query", ""), &[]),
        (400, (Method::GET, "/dns-query?dns=!", ""), &[]),
        (400, (Method::GET, "/dns-query?dns=AAAA", ""), &[]),
        (405, (Method::PUT, "/dns-query", ""), &[]),
        (415, (Method::POST, "/dns-query", "text/plain"), &question),
        (413, (Method::POST, "/dns-query", MESSAGE), &[0; 70_000]),
    ] {
        assert_eq!(request(&mut http, what.clone(), body).await.0, status, "{what:?}");
    }
    let metrics = server.server.metrics.text();
    assert!(
        metrics.contains("coredns_dns_requests_total{") && metrics.contains("proto=\"quic\""),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_connection_of_http_3_is_told_of_the_end() {
    let server = QuicServer::start(Quic::Doh3, &[], Limits::default());
    let connection = server.client("127.0.0.1").connect().await;
    let mut http = http(connection.clone()).await;
    let path = format!("/dns-query?dns={}", BASE64URL_NOPAD.encode(&question(BACKEND)));
    assert_eq!(request(&mut http, (Method::GET, &path, ""), &[]).await.0, 200);
    server.server.stop.all.cancel();
    assert_eq!(closed_with(&connection).await.into_inner(), 0x100, "H3_NO_ERROR");
}
