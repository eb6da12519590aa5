//! The fast lane's turn: a batch of datagrams in, their replies out, all else handed over. Runs on a thread
//! of its own, without a runtime and without allocating for what it answers itself.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::metrics::{Source, Tally};
use crate::pipeline::fast_lane;
use crate::pipeline::handler::Handler;
use crate::pipeline::query_log;
use crate::server::batch::{Batch, Slot};
use crate::server::queue::{Deferred, QueueSender};
use crate::wire::format::Transport;

/// Of so many queries beyond a limit one is answered with a truncated reply.
const SLIP: u32 = 2;

/// One thread's socket and what it needs to answer.
pub(super) struct UdpWorker {
    socket: Arc<UdpSocket>,
    handler: Arc<Handler>,
    tally: Tally,
    full_lane: QueueSender,
    /// How many queries were beyond the limits of their clients.
    refused: u32,
}

impl UdpWorker {
    pub(super) fn new(socket: Arc<UdpSocket>, handler: Arc<Handler>, full_lane: QueueSender) -> UdpWorker {
        let tally = handler.metrics().tally();
        UdpWorker { socket, handler, tally, full_lane, refused: 0 }
    }

    /// Answers datagrams until `stop`, which is seen when the next one comes or none came for the socket's
    /// timeout.
    pub(super) fn run(mut self, stop: &CancellationToken) {
        let mut batch = Batch::new();
        while !stop.is_cancelled() {
            self.turn(&mut batch);
        }
    }

    fn turn(&mut self, batch: &mut Batch) {
        match batch.receive(self.socket.as_fd()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return tracing::debug!(%error, "cannot receive"),
        }
        let started = Instant::now();
        let answered = self.answer(batch.slots(), started);
        if let Err(error) = batch.send(self.socket.as_fd()) {
            tracing::debug!(%error, "cannot send");
        }
        // Those of a batch wait for each other: they took equally long.
        let took = started.elapsed();
        let sources = [Source::Zone, Source::Upstream].into_iter().zip(answered);
        for (source, answers) in sources.filter(|(_, answers)| *answers > 0) {
            self.tally.took(source, answers, took);
        }
    }

    /// Writes the replies that it can, all from the same zone; returns how many are from there, and how many
    /// are cached.
    fn answer(&mut self, slots: &mut [Slot], started: Instant) -> [u64; 2] {
        let handler = self.handler.clone();
        let (zone, recurses, blocks) = (handler.zone(), handler.recurses(), handler.blocks());
        let mut answers = [0; 2];
        for slot in slots {
            let Some(client) = slot.peer().address() else { continue };
            if self.handler.limit().is_some_and(|limit| !limit.admits(client, started)) {
                self.refuse(slot);
                continue;
            }
            let (datagram, reply) = slot.exchange();
            let answered =
                fast_lane::respond_or_cached(&zone, (&**blocks, started), recurses, client, datagram, reply);
            let Some(answered) = answered else {
                self.hand_over(slot, client);
                continue;
            };
            self.tally.request(Transport::Udp, client, answered.record_type, datagram.len());
            self.tally.response(Transport::Udp, answered.source, answered.code, answered.length);
            if answered.dnssec_ok {
                self.tally.wants_dnssec(answered.source);
            }
            if let Some(log) = self.handler.log() {
                let reply = &reply[..answered.length];
                log.note(query_log::Lane::Fast, client, Transport::Udp, reply, started.elapsed());
            }
            slot.replied(answered.length);
            answers[usize::from(answered.source == Source::Upstream)] += 1;
        }
        answers
    }

    /// Of the queries beyond a limit every other gets a reply that sends its client to TCP, where nobody can
    /// be asked in another's name; the others get none.
    fn refuse(&mut self, slot: &mut Slot) {
        self.refused = self.refused.wrapping_add(1);
        let (datagram, reply) = slot.exchange();
        let slips = self.refused.is_multiple_of(SLIP);
        let length = slips.then(|| fast_lane::truncated(self.handler.recurses(), datagram, reply)).flatten();
        self.handler.metrics().limited(length.is_some());
        slot.replied(length.unwrap_or(0));
    }

    /// Where there is no place left for it, the client is left to ask again.
    fn hand_over(&self, slot: &mut Slot, client: IpAddr) {
        let (peer, socket) = (*slot.peer(), self.socket.clone());
        let deferred = || Deferred { bytes: slot.exchange().0.to_vec(), peer, socket };
        if !self.full_lane.take(client, deferred) {
            self.handler.metrics().dropped();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use arc_swap::ArcSwap;
    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::{Name, RecordType};
    use weft_types::Snapshot;

    use super::*;
    use crate::forward::{ForwardOptions, Forwarder};
    use crate::metrics::Metrics;
    use crate::pipeline::query_log::QueryLog;
    use crate::server::queue::{Queue, queue};
    use crate::zone::{Exposure, PodNames, Zone, ZoneConfig};

    /// A lane over the zone of an empty cluster, with a limit for clients and a log that is off; a client of
    /// its socket, and what it hands over.
    fn lane(room: usize, rate: u32) -> (UdpWorker, UdpSocket, Arc<Queue>) {
        let config = ZoneConfig {
            zone: "cluster.local".parse().unwrap(),
            ttl: 30,
            pods: PodNames::default(),
            complete_search: false,
            listen: Vec::new(),
            stub_domains: Arc::default(),
            exposure: Exposure::default(),
        };
        let zone = Zone::compile(&Snapshot::default(), Arc::new(config), 1);
        let metrics = Arc::new(Metrics::new(53, "cluster.local."));
        let forwarder = Arc::new(Forwarder::new(ForwardOptions::default(), metrics.clone()));
        let log = Arc::new(QueryLog::start(metrics.unlogged()).unwrap());
        let handler = Handler::new(Arc::new(ArcSwap::from_pointee(zone)), forwarder, 1, metrics);
        let handler = Arc::new(handler.limited(NonZeroU32::new(rate).unwrap()).logged(log));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(socket.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
        let (sender, queue) = queue(room);
        (UdpWorker::new(Arc::new(socket), handler, sender), client, queue)
    }

    fn question(name: &str, id: u16) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = id;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    fn received_id(client: &UdpSocket) -> u16 {
        let mut reply = [0; 1232];
        client.recv(&mut reply).unwrap();
        u16::from_be_bytes([reply[0], reply[1]])
    }

    #[test]
    fn a_turn_of_the_fast_lane_allocates_nothing() {
        let (mut lane, client, _unusual) = lane(1, 1_000_000);
        let (mut batch, asked) = (Batch::new(), 200);
        for id in 0..asked {
            client.send(&question("nothing.shop.svc.cluster.local.", id)).unwrap();
        }
        // The thread's first look at the zone makes its place among those who look.
        lane.turn(&mut batch);
        let mut answered = u16::try_from(batch.slots().len()).unwrap();
        assert!(answered < asked, "there are more turns to measure");
        while answered < asked {
            let used = allocation_counter::measure(|| lane.turn(&mut batch));
            assert_eq!(used.count_total, 0);
            answered += u16::try_from(batch.slots().len()).unwrap();
        }
        assert_eq!(
            (0..asked).map(|_| received_id(&client)).collect::<Vec<_>>(),
            (0..asked).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_question_beyond_the_limit_allocates_nothing_either() {
        let (mut lane, client, _unusual) = lane(1, 1);
        let mut batch = Batch::new();
        // The first has an answer, the second none, and the third is sent to TCP.
        for turn in 0..9 {
            client.send(&question("nothing.shop.svc.cluster.local.", turn)).unwrap();
            let used = allocation_counter::measure(|| lane.turn(&mut batch));
            // What counts them is made with the first of each.
            assert!(turn < 3 || used.count_total == 0, "{turn}: {used:?}");
        }
        assert_eq!([(); 5].map(|()| received_id(&client)), [0, 2, 4, 6, 8]);
    }

    #[tokio::test]
    async fn what_the_full_lane_has_no_room_for_does_not_hold_up_the_fast_one() {
        let (mut lane, client, deferred) = lane(1, 1_000_000);
        for id in 0..4 {
            client.send(&question("www.example.com.", id)).unwrap();
        }
        client.send(&question("nothing.shop.svc.cluster.local.", 4)).unwrap();
        let (mut batch, mut taken) = (Batch::new(), 0);
        while taken < 5 {
            lane.turn(&mut batch);
            taken += batch.slots().len();
        }
        assert_eq!(received_id(&client), 4);
        let first = deferred.next().await.unwrap();
        assert_eq!(first.bytes, question("www.example.com.", 0));
        let dropped = lane.handler.metrics().text();
        assert!(
            dropped.contains("weft_dns_full_lane_dropped_total{server=\"dns://:53\",view=\"\"} 3"),
            "{dropped}"
        );
        first.peer.send(first.socket.as_fd(), &[0, 9, 0]).unwrap();
        assert_eq!(received_id(&client), 9, "the full lane's reply finds its way");
    }
}
