//! A container's interface, as the client sends and hears by it.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use tracing::debug;
use weft_netlink::netns::Namespace;
use weft_netlink::packet::{AwaitedFrames, PacketSocket};
use weft_netlink::rtnl::{LinkChange, Mac, RtnetlinkClient};

use crate::client::Transmit;
use crate::datagram::{filter, unwrap, wrap};
use crate::message::Message;

/// IPv4's number (`ETH_P_IP`).
const IPV4: u16 = 0x0800;
/// A kind of interface that shares its Ethernet address with others, so that a message to that address alone
/// may not reach it.
const SHARING: &str = "ipvlan";
/// More than any message.
const LONGEST: usize = 0x1_0000;

/// An interface that is up. Its namespace lives as long as this does.
#[derive(Debug)]
pub(crate) struct Port {
    namespace: Namespace,
    ifname: String,
    index: u32,
    /// Its Ethernet address.
    pub(crate) mac: [u8; 6],
    /// Whether it hears broadcasts alone before it has an address.
    pub(crate) broadcast: bool,
    frames: AwaitedFrames,
    buffer: Vec<u8>,
}

impl Port {
    /// The interface of that name in a namespace; it is set up.
    ///
    /// # Errors
    /// What is in the way, in words.
    pub(crate) fn open(netns: &Path, ifname: &str) -> Result<Port, String> {
        let text = |error: weft_netlink::Error| error.to_string();
        let namespace = Namespace::open(netns).map_err(text)?;
        let opened = namespace.run(|| -> weft_netlink::Result<_> {
            let mut route = RtnetlinkClient::open()?;
            let Some(link) = route.find_link(ifname)? else { return Ok(None) };
            if !link.up {
                route.change_link(link.index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
            }
            let socket = PacketSocket::open(link.index, IPV4, &filter())?;
            Ok(Some((link, AwaitedFrames::new(socket)?)))
        });
        let opened = opened.and_then(|opened| opened).map_err(text)?;
        let (link, frames) =
            opened.ok_or_else(|| format!("{} has no interface {ifname}", netns.display()))?;
        let mac = link.mac.ok_or_else(|| format!("interface {ifname} has no Ethernet address"))?;
        Ok(Port {
            namespace,
            ifname: ifname.to_owned(),
            index: link.index,
            mac: mac.0,
            broadcast: link.kind.as_deref() == Some(SHARING),
            frames,
            buffer: vec![0; LONGEST],
        })
    }

    /// Whether that file is its namespace's still, and the interface is there.
    pub(crate) fn is_at(&self, netns: &Path) -> bool {
        let is_same = Namespace::open(netns).and_then(|found| found.is_same(&self.namespace));
        is_same.unwrap_or_else(|error| !error.is_missing()) && self.is_there()
    }

    /// Whether the interface is there, wherever the namespace's file is.
    pub(crate) fn is_there(&self) -> bool {
        let link = self.namespace.run(|| RtnetlinkClient::open()?.find_link(&self.ifname));
        match link.and_then(|link| link) {
            Ok(link) => link.is_some_and(|link| link.index == self.index),
            // The kernel has other troubles.
            Err(_) => true,
        }
    }

    /// Sends a message. What cannot be sent is sent again later, as if it were lost.
    pub(crate) fn send(&self, transmit: &Transmit) {
        let Transmit { message, from, to } = transmit;
        let (address, mac) = match to {
            Some(station) => (station.address, Mac(station.mac)),
            None => (Ipv4Addr::BROADCAST, Mac([0xff; 6])),
        };
        let sent = self.frames.send(mac, &wrap(*from, address, &message.encode()));
        debug!(interface = self.ifname, %address, kind = ?message.kind(), outcome = ?sent, "sent");
    }

    /// Waits for a message, and who sent it. What is none is passed over.
    ///
    /// # Errors
    /// Where nothing can be heard at present.
    pub(crate) async fn receive(&mut self) -> io::Result<(Message, [u8; 6])> {
        loop {
            let received = self.frames.receive(&mut self.buffer).await?;
            let payload = self.buffer.get(..received.length).and_then(unwrap);
            let message = payload.and_then(Message::decode).filter(|_| !received.is_own);
            if let Some((message, source)) = message.zip(received.source) {
                return Ok((message, source.0));
            }
        }
    }

    /// Nothing more goes by it: its address may be another's.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(crate) fn set_down(&self) -> weft_netlink::Result<()> {
        let down = LinkChange { up: Some(false), ..LinkChange::default() };
        self.namespace.run(|| RtnetlinkClient::open()?.change_link(self.index, &down))?
    }
}

/// Sends a message by whatever way the machine has to a server: the container's interface is gone.
pub(crate) fn send_from_host(transmit: &Transmit) -> io::Result<()> {
    let Some(server) = transmit.to else { return Ok(()) };
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_nonblocking(true)?;
    socket.send_to(&transmit.message.encode(), (server.address, 67)).map(drop)
}
