//! kube-rs against the server: lists, watches, bookmarks, what is too old, and refusals.

use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::api::{
    Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::core::{PartialObjectMeta, Status};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Error, ResourceExt};
use serde_json::json;
use weft_lab::apiserver::Config;

use crate::fixture::{self, DEADLINE};

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some([("key".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

async fn create(client: &Client, name: &str, value: &str) -> ConfigMap {
    config_maps(client).create(&PostParams::default(), &config_map(name, value)).await.expect("created")
}

/// The next thing of a stream, within the deadline.
async fn next<T, E: std::fmt::Debug>(stream: &mut (impl Stream<Item = Result<T, E>> + Unpin)) -> T {
    let item = tokio::time::timeout(DEADLINE, stream.try_next()).await.expect("something comes in time");
    item.expect("no error").expect("the stream goes on")
}

fn refusal(error: Error) -> Box<Status> {
    match error {
        Error::Api(status) => status,
        other => panic!("not an answer of the server: {other}"),
    }
}

#[tokio::test]
async fn a_watcher_sees_what_was_there_and_every_change() {
    let fixture = fixture::start(Config::default());
    let api = config_maps(&fixture.client);
    create(&fixture.client, "old", "1").await;
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = pin!(watcher(api.clone(), config));
        assert!(matches!(next(&mut events).await, watcher::Event::Init));
        let watcher::Event::InitApply(first) = next(&mut events).await else { panic!("no object") };
        assert_eq!(first.name_any(), "old");
        assert!(matches!(next(&mut events).await, watcher::Event::InitDone));
        create(&fixture.client, "new", "1").await;
        let watcher::Event::Apply(added) = next(&mut events).await else { panic!("no change") };
        assert_eq!(added.name_any(), "new");
        api.delete("new", &DeleteParams::default()).await.expect("deleted");
        let watcher::Event::Delete(gone) = next(&mut events).await else { panic!("no deletion") };
        assert_eq!(gone.name_any(), "new");
    }
    fixture.server.shutdown().await;
}

#[tokio::test]
async fn a_watcher_of_metadata_gets_no_data() {
    let fixture = fixture::start(Config::default());
    create(&fixture.client, "old", "1").await;
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(fixture.client.clone(), "default");
    let objects = watcher(api, watcher::Config::default()).applied_objects();
    let mut objects = pin!(objects);
    assert_eq!(next(&mut objects).await.name_any(), "old");
}

#[tokio::test]
async fn a_quiet_watch_gets_bookmarks_from_which_it_can_continue() {
    let fixture =
        fixture::start(Config { bookmark_interval: Duration::from_millis(20), ..Config::default() });
    let api = config_maps(&fixture.client);
    let namespaces: Api<Namespace> = Api::all(fixture.client.clone());
    let start =
        api.list(&ListParams::default()).await.expect("listed").metadata.resource_version.expect("a version");
    let mut events = api.watch(&WatchParams::default(), &start).await.expect("watched").boxed();
    // A change of another kind moves the version on.
    let other = json!({"metadata": {"name": "other"}});
    let other = serde_json::from_value(other).expect("a Namespace");
    let other = namespaces.create(&PostParams::default(), &other).await.expect("created");
    let bookmark = loop {
        let WatchEvent::Bookmark(bookmark) = next(&mut events).await else { panic!("no bookmark") };
        if bookmark.metadata.resource_version != start {
            break bookmark;
        }
    };
    assert_eq!(Some(bookmark.metadata.resource_version.clone()), other.resource_version());
    create(&fixture.client, "after", "1").await;
    let mut events = api
        .watch(&WatchParams::default(), &bookmark.metadata.resource_version)
        .await
        .expect("watched")
        .boxed();
    let WatchEvent::Added(after) = next(&mut events).await else { panic!("no change") };
    assert_eq!(after.name_any(), "after");
}

#[tokio::test]
async fn a_version_that_is_forgotten_is_gone_and_a_watcher_lists_again() {
    let fixture = fixture::start(Config { history: 4, ..Config::default() });
    let api = config_maps(&fixture.client);
    let old = create(&fixture.client, "first", "1").await.resource_version().expect("a version");
    for number in 0..8 {
        create(&fixture.client, &format!("later-{number}"), "1").await;
    }
    for version in [old.as_str(), "1", "9999999999999999"] {
        let mut events = api.watch(&WatchParams::default(), version).await.expect("watched").boxed();
        let WatchEvent::Error(error) = next(&mut events).await else { panic!("no error for {version}") };
        assert_eq!((error.code, error.reason.as_str()), (410, "Expired"), "{version}");
        assert!(
            tokio::time::timeout(DEADLINE, events.try_next())
                .await
                .expect("an end")
                .expect("no error")
                .is_none()
        );
    }
    let listed = api.list(&ListParams::default().limit(3)).await.expect("listed");
    for number in 0..8 {
        create(&fixture.client, &format!("even-later-{number}"), "1").await;
    }
    let token = listed.metadata.continue_.expect("a continue token");
    let refused =
        api.list(&ListParams::default().limit(3).continue_token(&token)).await.expect_err("too old");
    assert_eq!(refusal(refused).code, 410);
}

#[tokio::test]
async fn a_list_in_pieces_is_whole() {
    let fixture = fixture::start(Config::default());
    let api = config_maps(&fixture.client);
    for number in 0..7 {
        create(&fixture.client, &format!("map-{number}"), "1").await;
    }
    let mut parameters = ListParams::default().limit(3);
    let mut names = Vec::new();
    loop {
        let piece = api.list(&parameters).await.expect("listed");
        names.extend(piece.items.iter().map(ResourceExt::name_any));
        match piece.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => break,
        }
    }
    let want: Vec<String> = (0..7).map(|number| format!("map-{number}")).collect();
    assert_eq!(names, want);
}

#[tokio::test]
async fn selectors_hold_for_lists_and_watches() {
    let fixture = fixture::start(Config::default());
    let api = config_maps(&fixture.client);
    create(&fixture.client, "one", "1").await;
    create(&fixture.client, "two", "1").await;
    let named = ListParams::default().fields("metadata.name=two");
    assert_eq!(api.list(&named).await.expect("listed").items.len(), 1);
    let version =
        api.list(&ListParams::default()).await.expect("listed").metadata.resource_version.expect("a version");
    let parameters = WatchParams::default().labels("tier=front");
    let mut events = api.watch(&parameters, &version).await.expect("watched").boxed();
    for (tier, word) in [(json!("front"), "added"), (json!(null), "deleted")] {
        let patch = json!({"metadata": {"labels": {"tier": tier}}});
        api.patch("two", &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched");
        match (next(&mut events).await, word) {
            (WatchEvent::Added(map), "added") | (WatchEvent::Deleted(map), "deleted") => {
                assert_eq!(map.name_any(), "two")
            }
            (other, word) => panic!("{other:?} is not {word}"),
        }
    }
}

#[tokio::test]
async fn refusals_are_statuses_with_their_reasons() {
    let fixture = fixture::start(Config::default());
    let api = config_maps(&fixture.client);
    let first = create(&fixture.client, "map", "1").await;
    let again =
        refusal(api.create(&PostParams::default(), &config_map("map", "1")).await.expect_err("there"));
    assert_eq!((again.code, &*again.reason), (409, "AlreadyExists"));
    let mut changed = first.clone();
    changed.data = Some([("key".to_owned(), "2".to_owned())].into());
    api.replace("map", &PostParams::default(), &changed).await.expect("the first writer wins");
    let late =
        refusal(api.replace("map", &PostParams::default(), &changed).await.expect_err("the second does not"));
    assert_eq!((late.code, &*late.reason), (409, "Conflict"));
    let missing = refusal(api.get("nothing").await.expect_err("not there"));
    assert_eq!((missing.code, &*missing.message), (404, "configmaps \"nothing\" not found"));
    let elsewhere: Api<ConfigMap> = Api::namespaced(fixture.client.clone(), "nowhere");
    let refused = refusal(
        elsewhere.create(&PostParams::default(), &config_map("x", "1")).await.expect_err("no namespace"),
    );
    assert_eq!(&*refused.message, "namespaces \"nowhere\" not found");
    let services: Api<Service> = Api::namespaced(fixture.client.clone(), "default");
    let bad = json!({"metadata": {"name": "Bad"}, "spec": {"ports": [{"port": 80}]}});
    let bad = serde_json::from_value(bad).expect("a Service");
    let invalid = refusal(services.create(&PostParams::default(), &bad).await.expect_err("a bad name"));
    assert_eq!((invalid.code, &*invalid.reason), (422, "Invalid"));
    let causes = invalid.details.expect("details").causes;
    assert_eq!(causes.first().map(|cause| &*cause.field), Some("metadata.name"));
}

#[tokio::test]
async fn an_apply_creates_and_merges_and_a_dry_run_does_neither() {
    let fixture = fixture::start(Config::default());
    let services: Api<Service> = Api::namespaced(fixture.client.clone(), "default");
    let wanted = |port: u16| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
               "spec": {"selector": {"app": "web"}, "ports": [{"port": port, "name": "http"}]}})
    };
    let dry = PatchParams { dry_run: true, ..PatchParams::apply("test") };
    let told = services.patch("web", &dry, &Patch::Apply(wanted(80))).await.expect("a dry run");
    assert!(told.spec.and_then(|spec| spec.cluster_ip).is_some());
    assert!(services.get_opt("web").await.expect("looked up").is_none());
    let parameters = PatchParams::apply("test");
    let made = services.patch("web", &parameters, &Patch::Apply(wanted(80))).await.expect("applied");
    let again = services.patch("web", &parameters, &Patch::Apply(wanted(80))).await.expect("applied");
    assert_eq!(made, again, "the same again changes nothing");
    let address = made.spec.and_then(|spec| spec.cluster_ip);
    assert_eq!(again.spec.and_then(|spec| spec.cluster_ip), address);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_up_nobody() {
    let fixture = fixture::start(Config::default());
    let api = config_maps(&fixture.client);
    let version =
        api.list(&ListParams::default()).await.expect("listed").metadata.resource_version.expect("a version");
    let slow =
        Client::try_from(kube::Config::new(format!("http://{}", fixture.address).parse().expect("a URL")))
            .expect("a client of its own");
    let mut events =
        config_maps(&slow).watch(&WatchParams::default(), &version).await.expect("watched").boxed();
    // Far more than the buffers of a connection hold.
    let large = "x".repeat(200_000);
    for number in 0..100 {
        create(&fixture.client, &format!("map-{number:02}"), &large).await;
    }
    for number in 0..100 {
        let WatchEvent::Added(map) = next(&mut events).await else { panic!("no change") };
        assert_eq!(map.name_any(), format!("map-{number:02}"));
    }
}

#[tokio::test]
async fn a_server_that_stops_ends_its_watches() {
    let fixture = fixture::start(Config::default());
    let version = "0";
    let mut events =
        config_maps(&fixture.client).watch(&WatchParams::default(), version).await.expect("watched").boxed();
    let ending = tokio::spawn(fixture.server.shutdown());
    while let Ok(Some(_)) = tokio::time::timeout(DEADLINE, events.try_next()).await.expect("an end in time") {
    }
    tokio::time::timeout(DEADLINE, ending).await.expect("the server ends").expect("no panic");
    assert!(tokio::net::TcpStream::connect(fixture.address).await.is_err(), "nobody listens any more");
}
