//! Messages as a fuzzer's input: whatever the bytes, they are read or refused, and what is read of a session
//! goes through its states and routes without harm.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use weft_announce::bgp::fsm::Fsm;
use weft_announce::bgp::peer::{Peer, RemoteAs};
use weft_announce::bgp::rib::AdjIn;
use weft_announce::bgp::session::{Action, Event, Side};
use weft_announce::bgp::wire::{self, Dialect, Message};

/// The first byte chooses how the ends speak; the rest is what comes, with headers before it or in it.
pub(crate) fn run(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else { return };
    let dialect = Dialect {
        four_octet_as: choice & 1 != 0,
        extended_next_hop: choice & 2 != 0,
        is_external: choice & 4 != 0,
    };
    let kind = choice >> 4;
    let framed = match u16::try_from(rest.len() + 19) {
        // Without a header of its own, few inputs would get anywhere.
        Ok(length) if kind > 0 => [&[0xff; 16][..], &length.to_be_bytes(), &[kind], rest].concat(),
        _ => rest.to_vec(),
    };
    read(framed, dialect);
}

fn read(mut bytes: Vec<u8>, dialect: Dialect) {
    let now = Instant::now();
    let address = IpAddr::from([10, 0, 0, 2]);
    let everything = ["0.0.0.0/0", "::/0"].map(|text| text.parse().expect("a network")).to_vec();
    let own = Ipv4Addr::new(10, 0, 0, 1);
    let peer = Peer { imports: everything, ..Peer::new(address, RemoteAs::External, 65000, own) };
    let peer = Arc::new(peer);
    let mut fsm = Fsm::new(peer.clone(), now, now);
    let mut taken = AdjIn::default();
    fsm.handle(Event::Connected(1, Side::Incoming), now);
    while let Ok(Some(message)) = wire::take(&mut bytes, dialect) {
        if let Message::Notification(told) = &message {
            let _ = told.to_string();
        }
        if let Message::Update(update) = &message {
            let _ = taken.update(update.clone(), &peer);
        }
        for action in fsm.handle(Event::Received(1, message), now) {
            if let Action::Up(_, session) = action {
                taken.up(&session, now);
            }
        }
    }
    for (prefix, path) in taken.paths() {
        let again = wire::announce(path.next_hop, &[*prefix], &path.attributes, dialect);
        assert!(again.is_empty() || again.len() <= 4096, "a message is never longer than one may be");
    }
}
