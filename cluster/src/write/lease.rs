//! One process among many that does something for the whole cluster, by a Lease (coordination.k8s.io/v1) as
//! client-go elects leaders. What the holder does is not decided here.
//!
//! Nobody's clock is compared with another's: the times in a Lease are for people. Whoever waits measures by
//! its own clock for how long it has seen no change; the holder stops well before that, if it cannot renew.

use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use kube::api::{GetParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info};

use crate::error::chain;

/// For how long a Lease that nobody renews stands; so long another one waits.
const DURATION: Duration = Duration::from_secs(15);
/// After so long without having renewed it, the holder gives up.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often the holder renews, and the others look.
const PERIOD: Duration = Duration::from_secs(2);

/// One that holds the Lease, or would like to.
pub struct Candidate {
    client: Client,
    path: String,
    name: &'static str,
    /// The name by which it holds the Lease. One that starts again under its name holds it still.
    identity: String,
    seen: Option<Seen>,
}

/// A Lease as it was seen, and when it was seen first.
#[derive(Clone, Debug)]
struct Seen {
    version: String,
    holder: String,
    duration: Duration,
    transitions: i64,
    since: Instant,
}

/// What a candidate does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// There is no Lease.
    Create,
    /// It is free, or its own.
    Take,
    /// Somebody else has it.
    Wait,
}

/// Why the API server did not take a change.
enum Refusal {
    /// Somebody else was faster.
    Conflict,
    Other(String),
}

impl Candidate {
    /// One for the Lease of that name.
    pub fn new(client: Client, namespace: &str, name: &'static str, identity: String) -> Candidate {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        Candidate { client, path, name, identity, seen: None }
    }

    /// Waits until it holds the Lease. Returns since when.
    pub async fn acquire(&mut self) -> Instant {
        let mut told = None;
        loop {
            let now = Instant::now();
            match self.attempt(now).await {
                Ok(true) => return now,
                Ok(false) => told = None,
                Err(problem) => {
                    if told.as_ref() != Some(&problem) {
                        info!(%problem, lease = self.name, "cannot look at the Lease; trying again");
                    }
                    told = Some(problem);
                }
            }
            sleep(PERIOD).await;
        }
    }

    /// Renews the Lease that it has held since `renewed`, until it is lost. Returns why it is.
    pub async fn keep(&mut self, mut renewed: Instant) -> String {
        let mut problem = "it was not renewed in time".to_owned();
        loop {
            let deadline = renewed + DEADLINE;
            let renewal = async {
                sleep(PERIOD).await;
                let now = Instant::now();
                (now, self.attempt(now).await)
            };
            match timeout_at(deadline, renewal).await {
                Ok((now, Ok(true))) => renewed = now,
                Ok((_, Ok(false))) => {
                    let holder = self.seen.as_ref().map_or("nobody", |seen| seen.holder.as_str());
                    return format!("it is held by {holder}");
                }
                Ok((_, Err(why))) => {
                    debug!(problem = %why, lease = self.name, "cannot renew the Lease");
                    problem = why;
                }
                Err(_) => return problem,
            }
        }
    }

    /// Looks at the Lease, and takes or renews it where it may. Returns whether it holds it.
    async fn attempt(&mut self, now: Instant) -> Result<bool, String> {
        self.look(now).await?;
        let done = match next(self.seen.as_ref(), &self.identity, now) {
            Move::Wait => return Ok(false),
            Move::Create => self.create().await,
            Move::Take => self.take().await,
        };
        match done {
            Ok(lease) => {
                self.note(&lease, now);
                Ok(true)
            }
            Err(Refusal::Conflict) => {
                // Whoever was faster may have been this process, whose answer was lost on its way.
                self.look(now).await?;
                Ok(self.seen.as_ref().is_some_and(|seen| seen.holder == self.identity))
            }
            Err(Refusal::Other(problem)) => Err(problem),
        }
    }

    async fn look(&mut self, now: Instant) -> Result<(), String> {
        let request = Request::new(&self.path).get(self.name, &GetParams::default());
        let request = request.map_err(|error| chain(&error))?;
        match self.client.request::<Value>(request).await {
            Ok(lease) => self.note(&lease, now),
            Err(kube::Error::Api(status)) if status.code == 404 => self.seen = None,
            Err(error) => return Err(chain(&error)),
        }
        Ok(())
    }

    /// Remembers a Lease, and since when it is as it is.
    fn note(&mut self, lease: &Value, now: Instant) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = text(&lease["metadata"]["resourceVersion"]);
        let spec = &lease["spec"];
        let since = self.seen.as_ref().filter(|seen| seen.version == version).map_or(now, |seen| seen.since);
        let seconds = spec["leaseDurationSeconds"].as_u64();
        self.seen = Some(Seen {
            version,
            holder: text(&spec["holderIdentity"]),
            duration: seconds.map_or(DURATION, Duration::from_secs),
            transitions: spec["leaseTransitions"].as_i64().unwrap_or_default(),
            since,
        });
    }

    async fn create(&self) -> Result<Value, Refusal> {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": self.name},
            "spec": self.spec(true, 0),
        });
        let request = Request::new(&self.path).create(&PostParams::default(), lease.to_string().into_bytes());
        self.send(request).await
    }

    async fn take(&self) -> Result<Value, Refusal> {
        let Some(seen) = &self.seen else { return Err(Refusal::Conflict) };
        let is_new = seen.holder != self.identity;
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": seen.version},
            "spec": self.spec(is_new, seen.transitions + i64::from(is_new)),
        }));
        self.send(Request::new(&self.path).patch(self.name, &PatchParams::default(), &patch)).await
    }

    fn spec(&self, is_new: bool, transitions: i64) -> Value {
        let now = format!("{:.6}", Timestamp::now());
        let mut spec = json!({
            "holderIdentity": self.identity, "leaseDurationSeconds": DURATION.as_secs(), "renewTime": now,
            "leaseTransitions": transitions,
        });
        if is_new {
            spec["acquireTime"] = now.into();
        }
        spec
    }

    async fn send<E: std::error::Error>(
        &self,
        request: Result<http::Request<Vec<u8>>, E>,
    ) -> Result<Value, Refusal> {
        let request = request.map_err(|error| Refusal::Other(chain(&error)))?;
        self.client.request(request).await.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 409 => Refusal::Conflict,
            error => Refusal::Other(chain(&error)),
        })
    }
}

/// What a candidate does about a Lease that it sees, or sees not to be there.
fn next(seen: Option<&Seen>, identity: &str, now: Instant) -> Move {
    match seen {
        None => Move::Create,
        Some(seen) if seen.holder.is_empty() || seen.holder == identity => Move::Take,
        Some(seen) if now.duration_since(seen.since) >= seen.duration => Move::Take,
        Some(_) => Move::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: &str, since: Instant) -> Seen {
        Seen { version: "1".to_owned(), holder: holder.to_owned(), duration: DURATION, transitions: 0, since }
    }

    #[test]
    fn a_lease_is_left_to_its_holder_until_it_has_not_changed_for_its_duration() {
        let start = Instant::now();
        let at = |holder, after| next(Some(&seen(holder, start)), "node1", start + after);
        assert_eq!(next(None, "node1", start), Move::Create);
        assert_eq!(at("node1", Duration::ZERO), Move::Take);
        assert_eq!(at("", Duration::ZERO), Move::Take);
        assert_eq!(at("node2", DURATION - Duration::from_millis(1)), Move::Wait);
        assert_eq!(at("node2", DURATION), Move::Take);
    }

    #[test]
    fn the_holder_gives_up_before_another_may_begin() {
        assert!(DEADLINE + PERIOD < DURATION);
    }
}
