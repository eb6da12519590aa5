//! Datagrams that wait for the full lane. Clients take turns, and no client can fill the queue: one that asks
//! for much waits for itself, and not others for it.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::pipeline::fair_share::FairShare;
use crate::server::batch::Peer;

/// A datagram that the fast lane leaves to the full one.
pub(super) struct Deferred {
    pub(super) bytes: Vec<u8>,
    pub(super) peer: Peer,
    /// The socket that it came through, for the reply.
    pub(super) socket: Arc<UdpSocket>,
}

/// The end of the queue at which the full lane is.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// As many as wait, so that who wants one can wait too. Closed when there will be no more.
    count: Semaphore,
}

/// The other end. No more come when all clones of it are gone.
#[derive(Clone)]
pub(super) struct QueueSender(Arc<Closing>);

struct Closing(Arc<Queue>);

struct Waiting {
    shares: FairShare,
    /// What waits of each client, in order.
    of: HashMap<IpAddr, VecDeque<Deferred>>,
    /// Whose turn it is, each client once.
    turns: VecDeque<IpAddr>,
}

/// A queue for so many.
pub(super) fn queue(places: usize) -> (QueueSender, Arc<Queue>) {
    let waiting = Waiting { shares: FairShare::new(places), of: HashMap::new(), turns: VecDeque::new() };
    let queue = Arc::new(Queue { waiting: Mutex::new(waiting), count: Semaphore::new(0) });
    (QueueSender(Arc::new(Closing(queue.clone()))), queue)
}

impl QueueSender {
    /// Lets a client's datagram wait. False where there is no place for it.
    pub(super) fn take(&self, client: IpAddr, datagram: impl FnOnce() -> Deferred) -> bool {
        let queue = &self.0.0;
        let mut waiting = queue.waiting();
        if !waiting.shares.take(client) {
            return false;
        }
        waiting.put(client, datagram());
        drop(waiting);
        queue.count.add_permits(1);
        true
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.count.close();
    }
}

impl Queue {
    /// Waits for the next one. None when there will be no more.
    pub(super) async fn next(&self) -> Option<Deferred> {
        if let Ok(one) = self.count.acquire().await {
            one.forget();
        }
        self.waiting().next()
    }

    /// Nothing that could panic is done while it is held.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn put(&mut self, client: IpAddr, datagram: Deferred) {
        let of_client = self.of.entry(client).or_default();
        if of_client.is_empty() {
            self.turns.push_back(client);
        }
        of_client.push_back(datagram);
    }

    fn next(&mut self) -> Option<Deferred> {
        let client = self.turns.pop_front()?;
        let of_client = self.of.get_mut(&client)?;
        let datagram = of_client.pop_front();
        match of_client.is_empty() {
            true => drop(self.of.remove(&client)),
            false => self.turns.push_back(client),
        }
        self.shares.release(client);
        datagram
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::server::batch::Batch;

    fn client(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    /// Makes datagrams that come from somewhere.
    fn datagrams() -> impl Fn(u8) -> Deferred {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        socket.send_to(&[0], socket.local_addr().unwrap()).unwrap();
        let mut batch = Batch::new();
        batch.receive(socket.as_fd()).unwrap();
        let peer = *batch.slots()[0].peer();
        move |number| Deferred { bytes: vec![number], peer, socket: socket.clone() }
    }

    #[tokio::test]
    async fn clients_take_turns() {
        let ((sender, queue), datagram) = (queue(100), datagrams());
        for (of, number) in [(1, 10), (1, 11), (1, 12), (2, 20), (2, 21), (3, 30)] {
            assert!(sender.take(client(of), || datagram(number)));
        }
        drop(sender);
        let mut order = Vec::new();
        while let Some(next) = queue.next().await {
            order.push(next.bytes[0]);
        }
        assert_eq!(order, [10, 20, 30, 11, 21, 12], "and what waited before the end is still taken");
    }

    #[tokio::test]
    async fn who_asks_for_much_keeps_nobody_out_and_leaves_nothing_behind() {
        let ((sender, queue), datagram) = (queue(1024), datagrams());
        let of_one = (0..5000).filter(|_| sender.take(client(1), || datagram(1))).count();
        assert_eq!(of_one, 512);
        for of in 2..10 {
            assert!(sender.take(client(of), || datagram(of)));
        }
        let first: Vec<u8> =
            [queue.next().await, queue.next().await].map(|next| next.unwrap().bytes[0]).into();
        assert_eq!(first, [1, 2], "the second client does not wait for 512 questions of the first");
        drop(sender);
        while queue.next().await.is_some() {}
        let waiting = queue.waiting();
        assert!(waiting.of.is_empty() && waiting.turns.is_empty());
    }

    #[tokio::test]
    async fn who_waits_for_the_next_gets_it_and_is_told_of_the_end() {
        let ((sender, queue), datagram) = (queue(8), datagrams());
        let waits = tokio::spawn(async move { (queue.next().await.is_some(), queue.next().await.is_none()) });
        tokio::task::yield_now().await;
        assert!(sender.clone().take(client(1), || datagram(1)));
        drop(sender);
        assert_eq!(waits.await.unwrap(), (true, true));
    }
}
