//! UDP datagrams with what is left of their hops: whoever sees that nothing was taken off knows that the
//! sender is on the link (RFC 5082). By the options of ip(7) and ipv6(7) that no safe wrapper has.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

/// A datagram that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many bytes of it there are.
    pub length: usize,
    /// Who sent it.
    pub source: SocketAddr,
    /// The index of the interface by which it came; 0 where that is not known.
    pub interface: u32,
    /// What is left of its hops.
    pub hops: Option<u8>,
}

/// Has the kernel tell of each datagram of this socket what is left of its hops, and by which interface it
/// came.
pub fn tell_hops(socket: &impl AsFd, is_ipv4: bool) -> io::Result<()> {
    let options = match is_ipv4 {
        true => [(libc::IPPROTO_IP, libc::IP_RECVTTL), (libc::IPPROTO_IP, libc::IP_PKTINFO)],
        false => {
            [(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT), (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)]
        }
    };
    options.into_iter().try_for_each(|(level, name)| set(socket, level, name))
}

/// Has the kernel tell, by the next call that uses this socket, that a router or the link has nobody at the
/// address that it is connected to; without that it tells of closed ports alone.
pub fn tell_unreachable(socket: &impl AsFd, is_ipv4: bool) -> io::Result<()> {
    match is_ipv4 {
        true => set(socket, libc::IPPROTO_IP, libc::IP_RECVERR),
        false => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    }
}

#[allow(unsafe_code, reason = "setsockopt takes a pointer")]
fn set(socket: &impl AsFd, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option is a whole, live number of the length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads the next datagram of a socket for which [`tell_hops`] was called, without waiting.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] where there is none.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = nix::cmsg_space!(libc::c_int, libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let source = message.address.and_then(|address| socket_address(&address));
    let source = source.ok_or_else(|| io::Error::other("a datagram without a sender"))?;
    let mut received = Received { length: message.bytes, source, interface: 0, hops: None };
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::Ipv4Ttl(hops) | ControlMessageOwned::Ipv6HopLimit(hops) => {
                received.hops = u8::try_from(hops).ok();
            }
            ControlMessageOwned::Ipv4PacketInfo(info) => received.interface = info.ipi_ifindex as u32,
            ControlMessageOwned::Ipv6PacketInfo(info) => received.interface = info.ipi6_ifindex,
            _ => {}
        }
    }
    Ok(received)
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|it| SocketAddr::new(IpAddr::V4(it.ip()), it.port()));
    v4.or_else(|| address.as_sockaddr_in6().map(|it| SocketAddr::new(IpAddr::V6(it.ip()), it.port())))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_datagram_comes_with_its_hops_and_its_interface() {
        for (address, is_ipv4) in [("127.0.0.1:0", true), ("[::1]:0", false)] {
            let receiver = UdpSocket::bind(address).unwrap();
            tell_hops(&receiver, is_ipv4).unwrap();
            let sender = UdpSocket::bind(address).unwrap();
            let mut buffer = [0; 8];
            let nothing = receive(&receiver, &mut buffer).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            sender.send_to(b"hops", receiver.local_addr().unwrap()).unwrap();
            let received = receive(&receiver, &mut buffer).unwrap();
            assert_eq!((received.length, received.source), (4, sender.local_addr().unwrap()));
            assert!(received.hops.is_some() && received.interface != 0, "{received:?}");
        }
    }

    #[test]
    fn a_closed_port_is_told_of() {
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(closed).unwrap();
        tell_unreachable(&sender, true).unwrap();
        sender.send(b"anybody?").unwrap();
        assert_eq!(sender.send(b"anybody?").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
