//! How often a client may ask: a token bucket for each address, in a table of fixed size that all threads
//! share. What becomes of a query too many is decided where datagrams are taken.

use std::array;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Buckets in the table: as many clients are told apart. 512 KiB.
const SETS: usize = 1 << 14;
const WAYS: usize = 4;
/// A bucket's upper bits are those of its client's hash; the others are a moment in microseconds since the
/// start.
const MOMENT: u32 = 48;
/// A full bucket lets so many microseconds' worth of queries through at once.
const BURST: u64 = 1_000_000;

/// A limit on queries of each client: an IPv4 address, or the /64 of an IPv6 address, which one host has to
/// itself.
#[derive(Debug)]
pub struct ClientLimit {
    /// Microseconds for each query.
    interval: u64,
    /// Chosen at random, so that nobody knows which addresses share a set.
    key: RandomState,
    started: Instant,
    /// When each client will have used up what it may have by then (the "theoretical arrival time" of GCRA).
    sets: Box<[[AtomicU64; WAYS]]>,
}

impl ClientLimit {
    /// So many queries a second for each client, and no more than a second's worth at once.
    pub fn new(rate: u32) -> ClientLimit {
        let sets = (0..SETS).map(|_| array::from_fn(|_| AtomicU64::new(0))).collect();
        let interval = (1_000_000 / u64::from(rate.max(1))).max(1);
        ClientLimit { interval, key: RandomState::new(), started: Instant::now(), sets }
    }

    /// Whether a query that comes from `client` now is within the limit; if so, it is counted. Allocates
    /// nothing.
    pub fn admits(&self, client: IpAddr, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.started).as_micros() as u64;
        let (set, mark) = self.place(client);
        let buckets = set.iter().map(|bucket| (bucket, bucket.load(Ordering::Relaxed)));
        // Without a bucket of its own the client takes that of whoever has been quiet for longest.
        let own = buckets.clone().find(|(_, held)| held >> MOMENT == mark);
        let Some((bucket, held)) = own.or_else(|| buckets.min_by_key(|(_, held)| moment(*held))) else {
            return true;
        };
        let used_up = if held >> MOMENT == mark { moment(held) } else { 0 };
        let then = used_up.max(now) + self.interval;
        let admitted = then <= now + BURST;
        if admitted {
            // Of two threads at the same moment one may go uncounted: that is cheaper than a locked
            // instruction.
            bucket.store(mark << MOMENT | then, Ordering::Relaxed);
        }
        admitted
    }

    /// The set in which a client's bucket is, and the mark that it has there. No mark is 0: empty buckets are
    /// nobody's.
    fn place(&self, client: IpAddr) -> (&[AtomicU64; WAYS], u64) {
        let hash = match client {
            IpAddr::V4(address) => self.key.hash_one(address.to_bits()),
            IpAddr::V6(address) => self.key.hash_one((address.to_bits() >> 64) as u64),
        };
        (&self.sets[hash as usize % SETS], hash >> MOMENT | 1)
    }
}

fn moment(held: u64) -> u64 {
    held & ((1 << MOMENT) - 1)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admitted(limit: &ClientLimit, client: &str, now: Instant) -> usize {
        (0..1000).filter(|_| limit.admits(ip(client), now)).count()
    }

    #[test]
    fn a_second_s_worth_at_once_and_then_as_much_as_time_brings() {
        let limit = ClientLimit::new(100);
        let start = limit.started;
        assert_eq!(admitted(&limit, "10.0.0.1", start), 100);
        assert_eq!(admitted(&limit, "10.0.0.1", start + Duration::from_millis(100)), 10);
        assert_eq!(admitted(&limit, "10.0.0.2", start), 100, "each has its own");
        assert_eq!(admitted(&limit, "10.0.0.1", start + Duration::from_secs(3600)), 100, "no more than that");
    }

    #[test]
    fn of_ipv6_the_network_counts() {
        let limit = ClientLimit::new(10);
        let start = limit.started;
        assert_eq!(admitted(&limit, "2001:db8::1", start), 10);
        assert_eq!(admitted(&limit, "2001:db8::ffff:1", start), 0);
        assert_eq!(admitted(&limit, "2001:db8:0:1::1", start), 10);
    }

    #[test]
    fn a_flood_of_addresses_keeps_the_table_its_size_and_lets_nobody_pass_for_long() {
        let limit = ClientLimit::new(10);
        let now = limit.started;
        for number in 0..1_000_000_u32 {
            limit.admits(Ipv4Addr::from_bits(number).into(), now);
        }
        assert_eq!(limit.sets.len() * WAYS, 65_536);
        assert_eq!(admitted(&limit, "192.0.2.1", now), 10, "a new one has its bucket, and no more");
    }
}
