//! Which peers do not answer, going by what the kernel counts: packets go there, and no handshake is complete.
//! Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use weft_netlink::genl::wireguard::{Device, Key};

use crate::routing::wireguard::changes::SESSION;

/// A peer that does not answer for so long is told of: the kernel has tried a second time by then
/// (`REKEY_TIMEOUT`).
const PATIENCE: Duration = Duration::from_secs(10);

/// What was seen of the peers without a session.
#[derive(Debug, Default)]
pub(crate) struct Silences(BTreeMap<Key, Silence>);

#[derive(Clone, Copy, Debug)]
struct Silence {
    /// How many bytes had been sent there.
    sent: u64,
    /// Since when more have been.
    since: Option<Instant>,
}

impl Silences {
    /// Takes in how the device is. Returns the peers that do not answer.
    pub(crate) fn look(&mut self, device: &Device, now: Instant, clock: SystemTime) -> Vec<Key> {
        let silent =
            device.peers.iter().filter(|peer| peer.silence(clock).is_none_or(|silence| silence >= SESSION));
        let seen = silent.map(|peer| {
            let before = self.0.get(&peer.public_key);
            // What was sent before it was first seen like this may be of the session before.
            let is_more = before.is_some_and(|before| peer.sent > before.sent);
            let since = before.and_then(|before| before.since).or(is_more.then_some(now));
            (peer.public_key, Silence { sent: peer.sent, since })
        });
        self.0 = seen.collect();
        let is_long = |since: Instant| now.duration_since(since) >= PATIENCE;
        self.0.iter().filter(|(_, silence)| silence.since.is_some_and(is_long)).map(|(key, _)| *key).collect()
    }
}

#[cfg(test)]
mod tests {
    use weft_netlink::genl::wireguard::Peer;

    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    /// Looks every five seconds at a peer to which so much was sent, and whose last handshake was at that second.
    fn told(looks: &[(u64, Option<u64>)]) -> Vec<bool> {
        let (mut silences, start) = (Silences::default(), Instant::now());
        let look = |(index, &(sent, handshake)): (usize, &(u64, Option<u64>))| {
            let passed = Duration::from_secs(1000 + 5 * index as u64);
            let last_handshake = handshake.map(|second| START + Duration::from_secs(second));
            let peer = Peer { public_key: [1; 32], sent, last_handshake, ..Peer::default() };
            let device = Device { peers: vec![peer], ..Device::default() };
            !silences.look(&device, start + passed, START + passed).is_empty()
        };
        looks.iter().enumerate().map(look).collect()
    }

    #[test]
    fn a_peer_to_which_packets_go_and_that_never_answers_is_told_of_after_a_while() {
        let looks = [(0, None), (148, None), (296, None), (444, None)];
        assert_eq!(told(&looks), [false, false, false, true]);
    }

    #[test]
    fn a_peer_to_which_nobody_sends_is_none_that_does_not_answer() {
        assert_eq!(told(&[(0, None); 5]), [false; 5]);
        assert_eq!(told(&[(9000, Some(10)); 5]), [false; 5], "an old session");
    }

    #[test]
    fn an_answer_ends_it_and_a_session_that_ends_begins_it_anew() {
        let looks = [(0, None), (148, None), (296, None), (444, None), (592, Some(1015)), (700, Some(1015))];
        assert_eq!(told(&looks), [false, false, false, true, false, false]);
        let old = |sent| (sent, Some(500));
        assert_eq!(told(&[old(1), old(2), old(2), old(2)]), [false, false, false, true]);
    }
}
