//! Equal queries that are asked at the same time are asked of upstreams once: whoever comes later waits for
//! the answer that is under way. What is done on the way is not known here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_proto::op::Message;
use tokio::sync::watch;

use super::query::UpstreamQuery;
use crate::error::Error;

/// What came of a query.
pub(super) type Outcome = Result<Arc<Message>, Arc<Error>>;

/// The queries under way.
#[derive(Debug, Default)]
pub(super) struct InFlight(Arc<Mutex<HashMap<UpstreamQuery, watch::Receiver<Option<Outcome>>>>>);

/// Somebody who waits for an outcome.
pub(super) struct Waiter(watch::Receiver<Option<Outcome>>);

/// Whoever brings the outcome. Dropped without one, it tells all who wait that there is none.
pub(super) struct Leader {
    in_flight: InFlight,
    query: UpstreamQuery,
    outcome: watch::Sender<Option<Outcome>>,
}

impl InFlight {
    /// Waits for the answer to `query`; with a leader, who must see to it, where nobody does yet.
    pub(super) fn join(&self, query: &UpstreamQuery) -> (Waiter, Option<Leader>) {
        let mut in_flight = self.lock();
        if let Some(outcome) = in_flight.get(query) {
            return (Waiter(outcome.clone()), None);
        }
        let (sender, receiver) = watch::channel(None);
        in_flight.insert(query.clone(), receiver.clone());
        let in_flight = InFlight(self.0.clone());
        (Waiter(receiver), Some(Leader { in_flight, query: query.clone(), outcome: sender }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UpstreamQuery, watch::Receiver<Option<Outcome>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// The outcome, once it is there.
    pub(super) async fn wait(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            _ => Err(Arc::new(Error::NoUpstream)),
        }
    }
}

impl Leader {
    /// What is asked for.
    pub(super) fn query(&self) -> &UpstreamQuery {
        &self.query
    }

    /// Tells all who wait.
    pub(super) fn finish(self, outcome: Outcome) {
        // Whoever comes from now on finds what is cached.
        self.in_flight.lock().remove(&self.query);
        self.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.outcome.borrow().is_none() {
            self.in_flight.lock().remove(&self.query);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::RecordType;

    fn query() -> UpstreamQuery {
        UpstreamQuery::own(b"\x01a", RecordType::A)
    }

    #[tokio::test]
    async fn equal_questions_share_one_answer() {
        let in_flight = InFlight::default();
        let (first, leader) = in_flight.join(&query());
        let (second, none) = in_flight.join(&query());
        let (_other, another) = in_flight.join(&UpstreamQuery::own(b"\x01a", RecordType::AAAA));
        assert!(none.is_none() && another.is_some());
        leader.unwrap().finish(Err(Arc::new(Error::NoUpstream)));
        assert!(first.wait().await.is_err() && second.wait().await.is_err());
        assert!(in_flight.join(&query()).1.is_some(), "what has landed is asked anew");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_pilot_that_is_gone() {
        let in_flight = InFlight::default();
        let (waiter, leader) = in_flight.join(&query());
        drop(leader);
        assert!(waiter.wait().await.is_err());
        assert!(in_flight.join(&query()).1.is_some());
    }
}
