//! Equal questions that are asked at the same time are asked of upstreams once: whoever comes later waits for the
//! answer that is under way. What is done on the way is not known here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_proto::op::Message;
use tokio::sync::watch;

use super::query::Ask;
use crate::error::Error;

/// What came of a question.
pub(super) type Outcome = Result<Arc<Message>, Arc<Error>>;

/// The questions under way.
#[derive(Debug, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Ask, watch::Receiver<Option<Outcome>>>>>);

/// Somebody who waits for an outcome.
pub(super) struct Passenger(watch::Receiver<Option<Outcome>>);

/// Whoever brings the outcome. Dropped without one, it tells all who wait that there is none.
pub(super) struct Pilot {
    flights: Flights,
    ask: Ask,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Flights {
    /// Waits for the answer to `ask`; with a pilot, who must see to it, where nobody does yet.
    pub(super) fn join(&self, ask: &Ask) -> (Passenger, Option<Pilot>) {
        let mut flights = self.lock();
        if let Some(outcome) = flights.get(ask) {
            return (Passenger(outcome.clone()), None);
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(ask.clone(), receiver.clone());
        let flights = Flights(self.0.clone());
        (Passenger(receiver), Some(Pilot { flights, ask: ask.clone(), outcome: sender }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ask, watch::Receiver<Option<Outcome>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passenger {
    /// The outcome, once it is there.
    pub(super) async fn arrive(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            _ => Err(Arc::new(Error::NoUpstream)),
        }
    }
}

impl Pilot {
    /// What is asked for.
    pub(super) fn ask(&self) -> &Ask {
        &self.ask
    }

    /// Tells all who wait.
    pub(super) fn land(self, outcome: Outcome) {
        // Whoever comes from now on finds what is remembered.
        self.flights.lock().remove(&self.ask);
        self.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        if self.outcome.borrow().is_none() {
            self.flights.lock().remove(&self.ask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::RecordType;

    fn ask() -> Ask {
        Ask::own(b"\x01a", RecordType::A)
    }

    #[tokio::test]
    async fn equal_questions_share_one_answer() {
        let flights = Flights::default();
        let (first, pilot) = flights.join(&ask());
        let (second, none) = flights.join(&ask());
        let (_other, another) = flights.join(&Ask::own(b"\x01a", RecordType::AAAA));
        assert!(none.is_none() && another.is_some());
        pilot.unwrap().land(Err(Arc::new(Error::NoUpstream)));
        assert!(first.arrive().await.is_err() && second.arrive().await.is_err());
        assert!(flights.join(&ask()).1.is_some(), "what has landed is asked anew");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_pilot_that_is_gone() {
        let flights = Flights::default();
        let (passenger, pilot) = flights.join(&ask());
        drop(pilot);
        assert!(passenger.arrive().await.is_err());
        assert!(flights.join(&ask()).1.is_some());
    }
}
