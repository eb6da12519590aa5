//! The cluster, kept up to date: one [`Watch`] for all the kinds that a daemon needs.

use std::future::pending;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use weft_types::{ChangeSet, Kind, Snapshot};

use crate::filter::WatchFilter;
use crate::index::{Index, Stamped};
use crate::resource::ApiResource;
use crate::watcher::{self, Refusals};
use crate::wire::Codec;

/// The shortest time between two change sets. A single change is given at once; only what follows on its
/// heels, as in a rollout, is gathered.
const GAP: Duration = Duration::from_millis(5);
/// Events that wait while the daemon is busy. Beyond them, the connections to the API server fill and wait
/// too.
const BACKLOG: usize = 1024;

/// A running watch of some kinds of object, and the snapshot that it keeps. Ends when it is dropped.
///
/// ```no_run
/// # async fn example() -> weft_cluster::Result<()> {
/// use weft_cluster::{Watch, WatchFilter};
/// use weft_types::Kind;
///
/// let client = weft_cluster::client(None).await?;
/// let kinds = [Kind::Service, Kind::EndpointSlice];
/// let mut watch = Watch::start(client, &WatchFilter::service_proxy(), &kinds);
/// loop {
///     let changes = watch.next().await;
///     println!("{} of {} Services changed", changes.services.len(), watch.snapshot().services().count());
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Watch {
    index: Index,
    events: Receiver<Stamped>,
    /// When the last change set was given; none before the first.
    given: Option<Instant>,
    /// When the first event since then came.
    first: Option<Instant>,
    /// How long before they were given the last changes came.
    delay: Duration,
    refusals: Refusals,
    /// The tasks that watch the kinds. Dropping the set ends them.
    _watchers: JoinSet<()>,
}

impl Watch {
    /// Starts to list and watch these kinds. Must be called within a tokio runtime with time and I/O.
    ///
    /// Does not wait for the API server and cannot fail: while the server is away or refuses, the watch says
    /// why in the log and tries again with growing pauses.
    pub fn start(client: Client, filter: &WatchFilter, kinds: &[Kind]) -> Self {
        let (sender, events) = mpsc::channel(BACKLOG);
        let (mut watchers, refusals) = (JoinSet::new(), Refusals::default());
        for &kind in kinds {
            spawn(&mut watchers, kind, client.clone(), filter.clone(), (sender.clone(), refusals.clone()));
        }
        Watch {
            index: Index::new(kinds),
            events,
            given: None,
            first: None,
            delay: Duration::ZERO,
            refusals,
            _watchers: watchers,
        }
    }

    /// Waits for the next changes and applies them to the snapshot.
    ///
    /// The first call returns once every kind has listed, even if the cluster is empty; later ones when
    /// something changed. Nothing is lost if the future is dropped before it is ready (as in `select!`).
    pub async fn next(&mut self) -> ChangeSet {
        while !self.index.is_complete() || (self.given.is_some() && !self.index.has_changes()) {
            self.receive().await;
        }
        while let Ok(stamped) = self.events.try_recv() {
            self.take(stamped);
        }
        if let Some(given) = self.given {
            while timeout_at(given + GAP, self.receive()).await.is_ok() {}
        }
        let now = Instant::now();
        self.delay = self.first.take().map_or(Duration::ZERO, |first| now - first);
        self.given = Some(now);
        self.index.drain_changes()
    }

    /// How long the first event of the last change set had waited when [`Watch::next`] gave it.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Why this client may not read a kind, and what it takes; nothing as long as it may.
    pub fn refusal(&self, kind: Kind) -> Option<String> {
        self.refusals.get(kind)
    }

    /// The cluster as of the last change set that [`Watch::next`] gave.
    pub fn snapshot(&self) -> &Snapshot {
        self.index.snapshot()
    }

    async fn receive(&mut self) {
        match self.events.recv().await {
            Some(stamped) => self.take(stamped),
            // No watcher is left, so nothing will ever change.
            None => pending().await,
        }
    }

    fn take(&mut self, (came, event): Stamped) {
        if let Some(object) = self.index.take(event) {
            object.tell();
            self.index.leave_out(object);
        }
        // An event that changes nothing begins no wait.
        if self.index.has_changes() {
            self.first.get_or_insert(came);
        }
    }
}

macro_rules! spawn {
    ($($(#[$doc:meta])* $field:ident: $kind:ident,)*) => {
        fn spawn(
            watchers: &mut JoinSet<()>,
            kind: Kind,
            client: Client,
            filter: WatchFilter,
            events: (Sender<Stamped>, Refusals),
        ) {
            match kind {
                $(Kind::$kind => spawn_of::<weft_types::$kind>(watchers, client, filter, events),)*
            }
        }
    };
}

weft_types::for_each_kind!(spawn);

fn spawn_of<K: ApiResource>(
    watchers: &mut JoinSet<()>,
    client: Client,
    filter: WatchFilter,
    (events, refusals): (Sender<Stamped>, Refusals),
) {
    watchers.spawn(watcher::run(client, Codec::new::<K>(filter), events, refusals));
}
