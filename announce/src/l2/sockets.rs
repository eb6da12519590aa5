//! The sockets by which frames come and go: on each interface with addresses one of each protocol, which
//! hears what is about these addresses alone; and memberships in the groups in which IPv6 neighbours ask.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use weft_netlink::packet::{ARP, IPV6, Instruction, PacketSocket};

use super::speaker::{Frame, Heard, Speaker};
use super::{filter, ndp};

/// How many frames of a socket are read before something else is looked at.
const BATCH: usize = 256;
/// More than any frame has that is answered.
const LONGEST: usize = 512;

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// By interface, and by whether it is for ARP.
    packets: BTreeMap<(u32, bool), Bound>,
    groups: Groups,
}

#[derive(Debug)]
struct Bound {
    socket: PacketSocket,
    filter: Vec<Instruction>,
}

/// Memberships: the kernel has to hear these groups, and switches that follow MLD (RFC 4541) must know.
#[derive(Debug, Default)]
struct Groups {
    /// A socket has room for some hundred memberships (`net.core.optmem_max`).
    sockets: Vec<UdpSocket>,
    /// Group and interface, and which socket has it.
    joined: BTreeMap<(Ipv6Addr, u32), usize>,
}

impl Sockets {
    /// Listens for what the speaker has from now on. Gives what is in the way.
    pub(super) fn follow(&mut self, speaker: &Speaker) -> BTreeSet<String> {
        let mut filters: BTreeMap<(u32, bool), Vec<Instruction>> = BTreeMap::new();
        let mut groups = BTreeSet::new();
        for port in speaker.held().flat_map(|(_, places)| places).copied().collect::<BTreeSet<u32>>() {
            let (v4, v6) = by_family(speaker.addresses(port));
            if !v4.is_empty() {
                filters.insert((port, true), filter::arp(&v4));
            }
            if !v6.is_empty() {
                groups.extend(v6.iter().map(|address| (ndp::solicited_node(*address), port)));
                filters.insert((port, false), filter::ndp(&v6));
            }
        }
        self.packets.retain(|key, _| filters.contains_key(key));
        let mut problems = BTreeSet::new();
        for (key, filter) in filters {
            if let Err(error) = self.listen(key, filter) {
                problems.insert(format!("cannot answer for load balancer addresses: {error}"));
            }
        }
        problems.extend(self.groups.follow(&groups));
        problems
    }

    fn listen(&mut self, key: (u32, bool), filter: Vec<Instruction>) -> weft_netlink::Result<()> {
        match self.packets.get_mut(&key) {
            Some(bound) if bound.filter == filter => {}
            Some(bound) => {
                bound.socket.set_filter(&filter)?;
                bound.filter = filter;
            }
            None => {
                let (port, is_arp) = key;
                let socket = PacketSocket::open(port, if is_arp { ARP } else { IPV6 }, &filter)?;
                self.packets.insert(key, Bound { socket, filter });
            }
        }
        Ok(())
    }

    /// What came, as the speaker understands it.
    pub(super) fn read(&self, speaker: &mut Speaker, now: Instant) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut buffer = [0; LONGEST];
        for (&(port, is_arp), bound) in &self.packets {
            for _ in 0..BATCH {
                // Empty, or the link is down, of which the kernel tells otherwise, too.
                let Ok(received) = bound.socket.receive(&mut buffer) else { break };
                if received.is_own {
                    continue;
                }
                let bytes = &buffer[..received.length];
                heard.extend(match is_arp {
                    true => speaker.arp(port, bytes, now),
                    false => speaker.ndp(port, received.source, bytes, now),
                });
            }
        }
        heard
    }

    /// Sends a frame. What does not go out is repeated, or asked for again.
    pub(super) fn send(&self, frame: &Frame) {
        if let Some(bound) = self.packets.get(&(frame.port, frame.is_arp))
            && let Err(error) = bound.socket.send(frame.to, &frame.bytes)
        {
            tracing::debug!(link = frame.port, %error, "cannot send");
        }
    }

    /// What to wait for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.packets.values().map(|bound| bound.socket.as_fd())
    }
}

impl Groups {
    fn follow(&mut self, wanted: &BTreeSet<(Ipv6Addr, u32)>) -> Vec<String> {
        let gone: Vec<(Ipv6Addr, u32)> =
            self.joined.keys().filter(|key| !wanted.contains(key)).copied().collect();
        for (group, port) in gone {
            if let Some(socket) = self.joined.remove(&(group, port)).and_then(|at| self.sockets.get(at)) {
                // With its interface the membership is gone already.
                let _ = socket.leave_multicast_v6(&group, port);
            }
        }
        if self.joined.is_empty() {
            self.sockets.clear();
        }
        let mut problems = Vec::new();
        for &(group, port) in wanted {
            if self.joined.contains_key(&(group, port)) {
                continue;
            }
            match self.join(group, port) {
                Ok(at) => drop(self.joined.insert((group, port), at)),
                Err(error) => problems.push(format!(
                    "cannot join {group} on link #{port}, where IPv6 neighbours ask for a load balancer address: {error}"
                )),
            }
        }
        problems
    }

    /// Joins by the last socket, or by a new one where that has no more room.
    fn join(&mut self, group: Ipv6Addr, port: u32) -> io::Result<usize> {
        if let Some(socket) = self.sockets.last() {
            match socket.join_multicast_v6(&group, port) {
                Err(error) if is_full(&error) => {}
                joined => return joined.map(|()| self.sockets.len() - 1),
            }
        }
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        socket.join_multicast_v6(&group, port)?;
        self.sockets.push(socket);
        Ok(self.sockets.len() - 1)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::ENOMEM | nix::libc::ENOBUFS))
}

fn by_family(addresses: impl Iterator<Item = IpAddr>) -> (Vec<Ipv4Addr>, Vec<Ipv6Addr>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.push(address),
            IpAddr::V6(address) => v6.push(address),
        }
    }
    (v4, v6)
}
