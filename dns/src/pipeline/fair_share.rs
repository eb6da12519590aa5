//! Places that clients share. None of them can take so many that others find none, whatever it asks for.
//! Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A number of places, and who has how many. A client may have as many as are free: one alone gets half of
/// them, two a third each, and some are always left for the next.
#[derive(Debug)]
pub(crate) struct FairShare {
    free: usize,
    taken: HashMap<IpAddr, usize>,
}

impl FairShare {
    /// So many places, all of them free.
    pub(crate) fn new(places: usize) -> FairShare {
        FairShare { free: places, taken: HashMap::new() }
    }

    /// Takes a place for a client, if there is one for it.
    pub(crate) fn take(&mut self, client: IpAddr) -> bool {
        let taken = self.taken.get(&client).copied().unwrap_or(0);
        if taken >= self.free {
            return false;
        }
        self.free -= 1;
        self.taken.insert(client, taken + 1);
        true
    }

    /// Frees a place that a client took.
    pub(crate) fn release(&mut self, client: IpAddr) {
        let Some(taken) = self.taken.get_mut(&client) else { return };
        self.free += 1;
        *taken -= 1;
        if *taken == 0 {
            self.taken.remove(&client);
        }
    }
}

/// The same, shared by threads.
#[derive(Debug)]
pub(crate) struct FairSemaphore(Mutex<FairShare>);

/// One of them. Free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    of: Arc<FairSemaphore>,
    client: IpAddr,
}

impl FairSemaphore {
    pub(crate) fn new(places: usize) -> FairSemaphore {
        FairSemaphore(Mutex::new(FairShare::new(places)))
    }

    /// A place for a client, if there is one for it.
    pub(crate) fn take(self: &Arc<Self>, client: IpAddr) -> Option<Permit> {
        self.shares().take(client).then(|| Permit { of: self.clone(), client })
    }

    /// Nothing that could panic is done while it is held.
    fn shares(&self) -> MutexGuard<'_, FairShare> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of.shares().release(self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn taken(shares: &mut FairShare, client: IpAddr) -> usize {
        std::iter::from_fn(|| shares.take(client).then_some(())).count()
    }

    #[test]
    fn whoever_comes_finds_a_place_however_many_others_want() {
        let mut shares = FairShare::new(1000);
        let all: Vec<usize> = (0..5).map(|last| taken(&mut shares, client(last))).collect();
        assert_eq!(all, [500, 250, 125, 63, 31], "the next has half of what is left");
        (0..500).for_each(|_| shares.release(client(0)));
        assert_eq!(taken(&mut shares, client(1)), 141, "the others have a share each now");
        assert!(shares.take(client(9)));
    }

    #[test]
    fn few_places_are_shared_too() {
        assert_eq!([0, 1, 2, 3].map(|places| taken(&mut FairShare::new(places), client(0))), [0, 1, 1, 2]);
    }

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let places = Arc::new(FairSemaphore::new(1));
        let place = places.take(client(0));
        assert!(place.is_some() && places.take(client(1)).is_none());
        drop(place);
        assert!(places.take(client(1)).is_some());
        assert!(places.shares().taken.is_empty(), "nothing is kept of those who are gone");
    }
}
