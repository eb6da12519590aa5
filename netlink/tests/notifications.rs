//! What other programs change is told to those who wait for it within a runtime, and a loss is told as one.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::timeout;
use weft_netlink::netns::Namespace;
use weft_netlink::notifications::{Notifications, Notified};
use weft_netlink::rtnl::{Bridge, Event, Group, Monitor, Object, RtnetlinkClient};

/// How long the kernel may take to tell.
const PATIENCE: Duration = Duration::from_secs(20);

/// In a namespace of its own.
fn waiting<F: Future<Output = ()>>(work: impl FnOnce() -> F) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let inside = || runtime.block_on(async { timeout(PATIENCE, work()).await.unwrap() });
    Namespace::temporary().unwrap().run(inside).unwrap();
}

fn bridge(name: &str) -> Bridge {
    Bridge { name: name.into(), mac: None, mtu: None }
}

async fn next(notifications: &mut Notifications<Monitor>) -> Notified<Event> {
    notifications.next().await.unwrap()
}

#[test]
fn a_link_that_comes_and_goes_is_told_to_who_waits() {
    waiting(async || {
        let mut links = Notifications::new(Monitor::open(&[Group::Link]).unwrap()).unwrap();
        let mut client = RtnetlinkClient::open().unwrap();
        assert!(timeout(Duration::ZERO, links.next()).await.is_err(), "nothing has happened");
        client.add_bridge(&bridge("br0")).unwrap();
        let index = client.link("br0").unwrap().index;
        let Notified::Events(events) = next(&mut links).await else { panic!("an overrun") };
        assert!(events.iter().all(|event| *event == Event { object: Object::Link(index), deleted: false }));
        client.delete_link(index).unwrap();
        let gone = Event { object: Object::Link(index), deleted: true };
        while !matches!(next(&mut links).await, Notified::Events(events) if events.contains(&gone)) {}
    });
}

#[test]
fn where_notifications_are_lost_that_is_told_and_later_ones_are_told_again() {
    waiting(async || {
        let mut monitor = Monitor::open(&[Group::Link]).unwrap();
        monitor.set_receive_buffer(1).unwrap();
        let mut links = Notifications::new(monitor).unwrap();
        let mut client = RtnetlinkClient::open().unwrap();
        for number in 0..10 {
            client.add_bridge(&bridge(&format!("br{number}"))).unwrap();
        }
        while next(&mut links).await != Notified::Overrun {}
        // What came before the loss; it may still be there.
        while timeout(Duration::from_millis(1), links.next()).await.is_ok() {}
        client.delete_link_named("br3").unwrap();
        while !matches!(next(&mut links).await, Notified::Events(events) if events[0].deleted) {}
    });
}
