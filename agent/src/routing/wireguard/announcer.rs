//! Telling the other nodes of this one's end of the encrypted tunnel, by annotations of the Node: beside the
//! daemon's rounds, one request at a time.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::info;
use weft_cluster::write::annotate;
use weft_types::well_known::annotation::{WIREGUARD_ENDPOINT, WIREGUARD_KEY};

use crate::routing::wireguard::plan::Announcement;
use crate::subsystem::Environment;

/// Tells of it, for as long as the plan says that the Node says something else.
#[derive(Default)]
pub(crate) struct Announcer {
    cluster: Option<(kube::Client, String)>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    is_asking: bool,
    /// What became of the last request, where it failed.
    problem: Option<String>,
}

impl Announcer {
    pub(crate) fn start(&mut self, environment: &Environment) {
        self.cluster = Some((environment.client.clone(), environment.node.clone()));
    }

    /// Has the Node say that. Returns what is in the way. What failed is tried again with the next round.
    pub(crate) fn tell(&self, announcement: Option<&Announcement>) -> Option<String> {
        let (announcement, (client, node)) = announcement.zip(self.cluster.clone())?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = state.problem.clone();
        if std::mem::replace(&mut state.is_asking, true) {
            return problem;
        }
        let (key, endpoint) = (announcement.key.to_string(), announcement.endpoint());
        let state = self.state.clone();
        // It ends with the runtime.
        tokio::spawn(async move {
            let annotations = [(WIREGUARD_KEY, key.as_str()), (WIREGUARD_ENDPOINT, endpoint.as_str())];
            let result = annotate(&client, &node, &annotations).await;
            if result.is_ok() {
                info!(node, key, endpoint, "told the other nodes of this one's WireGuard key");
            }
            let refused = |problem| {
                format!(
                    "cannot write the WireGuard key to the annotations of Node {node}: {problem}; other nodes cannot \
                     encrypt packets to this one's pods until then"
                )
            };
            let problem = result.err().map(refused);
            *state.lock().unwrap_or_else(PoisonError::into_inner) = State { is_asking: false, problem };
        });
        problem
    }
}
