//! Asking the agents, each by a task of its own, through the API server. Each is asked from where its last
//! answer ended, so that nothing comes twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout};
use weft_types::flow::FlowPage;

use super::flow::Verdict;
use crate::cluster::{Cluster, Connection};

/// For how long a token is used, of the ten minutes that it is good.
const RENEWED: Duration = Duration::from_secs(480);
/// How many seconds an agent may wait for news.
const WAIT: u64 = 10;
/// How much longer an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an agent that does not answer is left alone.
const RETRY: Duration = Duration::from_secs(2);

/// What comes from a node.
#[derive(Debug)]
pub(super) enum Told {
    /// An answer.
    Page(Result<FlowPage, String>),
    /// It has told all that it remembered, or cannot be asked.
    UpToDate,
}

/// The way to the agents: a connection with a token that they take, renewed before that ends.
pub(super) struct Access {
    connection: Connection,
    current: Mutex<Option<(Instant, Arc<Cluster>)>>,
}

impl Access {
    pub(super) fn new(connection: Connection) -> Access {
        Access { connection, current: Mutex::new(None) }
    }

    async fn cluster(&self) -> Result<Arc<Cluster>, String> {
        let mut current = self.current.lock().await;
        match &*current {
            Some((since, cluster)) if since.elapsed() < RENEWED => Ok(cluster.clone()),
            _ => {
                let cluster = Cluster::connect(&self.connection).await.map_err(|error| error.to_string())?;
                let cluster = Arc::new(cluster);
                *current = Some((Instant::now(), cluster.clone()));
                Ok(cluster)
            }
        }
    }
}

/// Asks the agent of a node until that moment, or for ever.
pub(super) async fn follow(
    access: &Access,
    node: String,
    verdict: Option<Verdict>,
    until: Option<Instant>,
    to: Sender<(String, Told)>,
) {
    let verdict = verdict.map(|verdict| format!("&verdict={verdict}")).unwrap_or_default();
    let (mut cursor, mut is_up_to_date) = (String::new(), false);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()).as_secs());
        let wait = if is_up_to_date { left.unwrap_or(WAIT).min(WAIT) } else { 0 };
        let path = format!("/flows?from={cursor}&wait={wait}{verdict}");
        let asked = async { access.cluster().await?.ask_agent::<FlowPage>(&node, &path).await };
        let answer = match timeout(PATIENCE + Duration::from_secs(wait), asked).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs() + wait)),
        };
        let (is_empty, fails) = (answer.as_ref().is_ok_and(|page| page.flows.is_empty()), answer.is_err());
        if let Ok(page) = &answer {
            cursor.clone_from(&page.cursor);
        }
        // Whoever listened is gone.
        if to.send((node.clone(), Told::Page(answer))).await.is_err() {
            return;
        }
        if !is_up_to_date && (is_empty || fails) {
            is_up_to_date = true;
            if to.send((node.clone(), Told::UpToDate)).await.is_err() {
                return;
            }
        }
        if is_up_to_date && until.is_some_and(|until| Instant::now() + Duration::from_secs(1) > until) {
            return;
        }
        if fails {
            sleep(RETRY).await;
        }
    }
}
