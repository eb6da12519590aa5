//! Watches in protobuf and watches that begin with all objects, against servers that have both, one or none
//! of them, and against those that break off.

use serde_json::json;
use weft_testkit::api_server::{FakeApiServer, GoneAs, InitialEvents};
use weft_types::{Kind, ObjectKey};

use crate::{NAMESPACES, NODES, changed, client, names, node, until_seen, watch_nodes, within};

/// Every way to answer: with protobuf or without it, and each way to begin.
fn of_every_kind() -> Vec<FakeApiServer> {
    use InitialEvents::{BreakOff, Gone, Refused, Sent, Unmarked};
    let server = |has_protobuf: bool, how| {
        let server = FakeApiServer::start();
        server.initial_events(how);
        if !has_protobuf {
            server.without_protobuf();
        }
        server
    };
    let ways = [Sent, Refused, Unmarked, BreakOff(0), BreakOff(1), Gone(0), Gone(1)];
    ways.into_iter().flat_map(|how| [true, false].map(|has_protobuf| server(has_protobuf, how))).collect()
}

#[tokio::test]
async fn every_server_tells_the_same() {
    for server in of_every_kind() {
        for number in 0..101 {
            server.put(NODES, node(&format!("node{number}")));
        }
        let mut watch = watch_nodes(&server).await;
        assert_eq!(changed(&mut watch).await.len(), 101);
        until_seen(&server, NODES, true, 1).await;
        server.delete(NODES, "node0");
        assert_eq!(changed(&mut watch).await, ["node0"]);
        server.put(NODES, node("more"));
        assert_eq!(changed(&mut watch).await, ["more"]);
        let node = watch.snapshot().node("more").unwrap();
        assert_eq!(node.pod_cidrs, ["10.244.1.0/24".parse().unwrap()]);
    }
}

#[tokio::test]
async fn one_request_tells_all_and_what_changes() {
    let server = FakeApiServer::start();
    server.put(NODES, node("a"));
    let mut watch = watch_nodes(&server).await;
    assert_eq!(changed(&mut watch).await, ["a"]);
    server.put(NODES, node("b"));
    assert_eq!(changed(&mut watch).await, ["b"]);
    let queries = server.queries(NODES, true);
    let [query] = &queries[..] else { panic!("{queries:?}") };
    let expected =
        [("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan"), ("resourceVersion", "")];
    expected.into_iter().for_each(|(name, value)| assert_eq!(query[name], value));
    assert_eq!(query["allowWatchBookmarks"], "true");
}

#[tokio::test]
async fn a_kind_without_protobuf_streams_as_well() {
    let server = FakeApiServer::start();
    server.put(NAMESPACES, json!({"metadata": {"name": "shop"}}));
    let client = client(&server).await;
    let mut watch =
        weft_cluster::Watch::start(client, &weft_cluster::WatchFilter::default(), &[Kind::Namespace]);
    assert_eq!(within(watch.next()).await.namespaces.len(), 1);
    assert_eq!(server.queries(NAMESPACES, true).len(), 1);
}

#[tokio::test]
async fn a_refusal_is_remembered() {
    let server = FakeApiServer::start();
    server.initial_events(InitialEvents::Refused);
    server.put(NODES, node("a"));
    let mut watch = watch_nodes(&server).await;
    assert_eq!(changed(&mut watch).await, ["a"]);
    for lists in 1..4 {
        until_seen(&server, NODES, true, lists).await;
        server.send_line(NODES, "}{");
        until_seen(&server, NODES, false, lists + 1).await;
    }
    assert_eq!(server.refused(), 1);
}

/// Such a server is silent after the last object. What is there is told all the same, a few seconds later.
#[tokio::test]
async fn a_server_that_does_not_know_what_it_was_asked_for_is_listed() {
    let server = FakeApiServer::start();
    server.initial_events(InitialEvents::Unknown);
    server.put(NODES, node("a"));
    let mut watch = watch_nodes(&server).await;
    assert_eq!(changed(&mut watch).await, ["a"]);
    assert_eq!(server.queries(NODES, false).len(), 2);
}

#[tokio::test]
async fn a_stream_that_breaks_off_takes_away_nothing_that_is_known() {
    let server = FakeApiServer::start();
    ["a", "b", "c"].into_iter().for_each(|name| server.put(NODES, node(name)));
    let mut watch = watch_nodes(&server).await;
    assert_eq!(changed(&mut watch).await, ["a", "b", "c"]);
    until_seen(&server, NODES, true, 1).await;
    server.initial_events(InitialEvents::BreakOff(1));
    server.send_line(NODES, "}{");
    // The stream that breaks off, and the list that is asked for in its place.
    until_seen(&server, NODES, false, 3).await;
    server.put(NODES, node("d"));
    assert_eq!(changed(&mut watch).await, ["d"]);
    assert_eq!(names(&watch), ["a", "b", "c", "d"]);

    // The next time it is a stream again.
    server.initial_events(InitialEvents::Sent);
    until_seen(&server, NODES, true, 3).await;
    server.send_line(NODES, "}{");
    until_seen(&server, NODES, true, 4).await;
    assert!(server.queries(NODES, true)[3].contains_key("sendInitialEvents"));
}

/// The server's history is too short for it (410 Gone), as where the objects change faster than they are sent.
#[tokio::test]
async fn a_version_that_is_gone_amid_the_initial_events_means_a_list_in_pages_this_once() {
    let server = FakeApiServer::start();
    server.initial_events(InitialEvents::Gone(1));
    ["a", "b"].into_iter().for_each(|name| server.put(NODES, node(name)));
    let mut watch = watch_nodes(&server).await;
    assert_eq!(changed(&mut watch).await, ["a", "b"]);
    let in_pages = |server: &FakeApiServer| -> Vec<bool> {
        let queries = server.queries(NODES, false);
        queries.iter().map(|query| !query.contains_key("sendInitialEvents")).collect()
    };
    assert_eq!(in_pages(&server), [false, true]);

    // Once more, when there is something to lose.
    until_seen(&server, NODES, true, 2).await;
    server.delete_in_silence(NODES, "b", GoneAs::Event);
    server.close_watches();
    assert_eq!(changed(&mut watch).await, ["b"]);
    assert_eq!(names(&watch), ["a"]);
    assert_eq!(in_pages(&server), [false, true, false, true]);
}

#[tokio::test]
async fn what_went_while_nobody_watched_is_taken_away_at_the_end_of_the_stream() {
    let server = FakeApiServer::start();
    ["a", "b", "c"].into_iter().for_each(|name| server.put(NODES, node(name)));
    let mut watch = watch_nodes(&server).await;
    changed(&mut watch).await;
    until_seen(&server, NODES, true, 1).await;
    server.delete_in_silence(NODES, "b", GoneAs::Event);
    server.close_watches();
    assert_eq!(changed(&mut watch).await, ["b"]);
    let lists: Vec<bool> =
        server.queries(NODES, false).iter().map(|query| query.contains_key("sendInitialEvents")).collect();
    assert_eq!(lists, [true, true], "no list in pages");
}

/// What is broken in the frames of a watch: a length beyond all measure, a frame that is no event, half a
/// frame.
#[tokio::test]
async fn frames_that_are_garbage_hide_no_change() {
    let server = FakeApiServer::start();
    server.put(NODES, node("a"));
    let mut watch = watch_nodes(&server).await;
    changed(&mut watch).await;
    for garbage in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02\x0a\xff", b"\0\0\0\0"] {
        let lists = server.queries(NODES, false).len();
        until_seen(&server, NODES, true, lists).await;
        server.send_bytes(NODES, garbage);
        until_seen(&server, NODES, false, lists + 1).await;
    }
    let watches = server.queries(NODES, true).len();
    server.send_bytes(NODES, b"\0\0\0\x7fhalf of a frame");
    server.close_watches();
    until_seen(&server, NODES, true, watches + 1).await;
    assert_eq!(server.queries(NODES, false).len(), watches, "it went on where it was");
    server.put(NODES, node("b"));
    assert_eq!(changed(&mut watch).await, ["b"]);
}

#[tokio::test]
async fn an_object_that_is_cut_off_is_left_out_and_named() {
    let server = FakeApiServer::start();
    ["a", "b"].into_iter().for_each(|name| server.put(NODES, node(name)));
    let mut watch = watch_nodes(&server).await;
    changed(&mut watch).await;
    until_seen(&server, NODES, true, 1).await;
    // An event of the type MODIFIED with a Node: its name, and a spec that ends too soon.
    let field =
        |number: u8, bytes: &[u8]| [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let node = [field(1, &field(1, b"a")), b"\x12\x05\x0a".to_vec()].concat();
    let envelope = [field(1, &field(2, b"Node")), field(2, &node)].concat();
    let object = [b"k8s\0", &envelope[..]].concat();
    let event = [field(1, b"MODIFIED"), field(2, &field(1, &object))].concat();
    server.send_bytes(NODES, &[&[0, 0, 0, u8::try_from(event.len()).unwrap()], &event[..]].concat());
    let changes = within(watch.next()).await;
    assert_eq!(changes.invalid[0].key, Some(ObjectKey::Node("a".to_owned())));
    assert_eq!(changes.invalid[0].fault, "its protobuf: is not well-formed");
    assert_eq!(names(&watch), ["b"]);
}
