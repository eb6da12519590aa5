//! Packet sockets (packet(7)): frames of one protocol on one interface, without the headers of the link,
//! which the kernel takes off and puts on.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::rtnl::Mac;
use crate::{Error, Result};

/// ARP's number (`ETH_P_ARP`).
pub const ARP: u16 = 0x0806;
/// IPv6's number (`ETH_P_IPV6`).
pub const IPV6: u16 = 0x86dd;

#[cfg(feature = "tokio")]
pub use waiting::AwaitedFrames;

/// The longest filter that the kernel takes (`BPF_MAXINSNS`).
pub const LONGEST_FILTER: usize = 4096;

/// An instruction of a filter, as linux/filter.h has it: classic BPF, over the frame without the headers of
/// the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do (`BPF_LD | BPF_W | BPF_ABS` and the like).
    pub code: u16,
    /// How many instructions to skip where it holds.
    pub if_true: u8,
    /// How many where it does not.
    pub if_false: u8,
    /// The number that goes with it.
    pub number: u32,
}

/// A frame that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many of its bytes stand in the buffer.
    pub length: usize,
    /// Who sent it, where the link has Ethernet addresses.
    pub source: Option<Mac>,
    /// This machine sent it.
    pub is_own: bool,
}

/// A packet socket.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    interface: u32,
    protocol: u16,
}

impl PacketSocket {
    /// For frames of that protocol on the interface of that index, in the calling thread's network namespace;
    /// of them only those that the filter lets through.
    ///
    /// # Errors
    /// Where there is no such interface, and without the capability NET_RAW.
    pub fn open(interface: u32, protocol: u16, filter: &[Instruction]) -> Result<PacketSocket> {
        let failed = |source| Error::System {
            operation: format!("listen to frames of protocol {protocol:#06x} on link #{interface}"),
            source,
        };
        // Without a protocol nothing comes until the filter is in place and the socket bound.
        let socket = new_socket().map_err(failed)?;
        let socket = PacketSocket { socket, interface, protocol };
        socket.set_filter(filter)?;
        socket.bind().map_err(failed)?;
        Ok(socket)
    }

    /// Lets through other frames from now on.
    ///
    /// # Errors
    /// Where the kernel finds the filter faulty.
    #[allow(unsafe_code, reason = "setsockopt takes a pointer")]
    pub fn set_filter(&self, filter: &[Instruction]) -> Result<()> {
        let mut instructions: Vec<libc::sock_filter> = filter
            .iter()
            .map(|it| libc::sock_filter { code: it.code, jt: it.if_true, jf: it.if_false, k: it.number })
            .collect();
        let program = libc::sock_fprog {
            len: u16::try_from(instructions.len()).unwrap_or(u16::MAX),
            filter: instructions.as_mut_ptr(),
        };
        // SAFETY: the program names as many live instructions as it says (a longer list is cut short by its
        // own length), which the kernel copies.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(Error::System {
                operation: format!("filter the frames of link #{}", self.interface),
                source: io::Error::last_os_error(),
            }),
        }
    }

    #[allow(unsafe_code, reason = "no safe wrapper makes link-layer addresses")]
    fn bind(&self) -> io::Result<()> {
        let address = self.address(None);
        // SAFETY: the address is a whole, live `sockaddr_ll` of the length that is given.
        let result = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn address(&self, mac: Option<Mac>) -> libc::sockaddr_ll {
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&mac.unwrap_or(Mac([0; 6])).0);
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: self.protocol.to_be(),
            sll_ifindex: self.interface as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: if mac.is_some() { 6 } else { 0 },
            sll_addr: bytes,
        }
    }

    /// Sends a frame to an Ethernet address.
    ///
    /// # Errors
    /// Where the link is down or gone.
    #[allow(unsafe_code, reason = "sendto takes pointers")]
    pub fn send(&self, to: Mac, frame: &[u8]) -> io::Result<()> {
        let address = self.address(Some(to));
        // SAFETY: the frame and the address are live for the call and as long as is said.
        let result = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads the next frame, without waiting; what of it does not fit into the buffer is lost.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where there is none; others where the link went down or is gone.
    #[allow(unsafe_code, reason = "recvfrom takes pointers")]
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut address = MaybeUninit::<libc::sockaddr_ll>::zeroed();
        let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the buffer and the place for the address are live for the call and as long as is said.
        let result = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                address.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let received = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: it is of numbers alone, began as zeros, and the kernel may have written over them.
        let address = unsafe { address.assume_init() };
        let mac = address.sll_addr.first_chunk().copied().map(Mac);
        Ok(Received {
            length: received,
            source: mac.filter(|_| address.sll_halen == 6),
            is_own: address.sll_pkttype == libc::PACKET_OUTGOING,
        })
    }
}

#[allow(unsafe_code, reason = "no safe wrapper makes a packet socket without a protocol")]
fn new_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes numbers alone; the descriptor that it returns is new and owned by nobody.
    unsafe {
        match libc::socket(libc::AF_PACKET, kind, 0) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(feature = "tokio")]
mod waiting {
    use std::io;
    use std::os::fd::{AsFd, OwnedFd};

    use tokio::io::unix::AsyncFd;

    use super::{PacketSocket, Received};
    use crate::readiness::register;
    use crate::rtnl::Mac;
    use crate::{Error, Result};

    /// A packet socket whose frames are awaited.
    #[derive(Debug)]
    pub struct AwaitedFrames {
        /// A descriptor of its own for the socket.
        ready: AsyncFd<OwnedFd>,
        socket: PacketSocket,
    }

    impl AwaitedFrames {
        /// Registers a socket with the runtime of the calling task.
        ///
        /// # Errors
        /// What the operating system refused.
        pub fn new(socket: PacketSocket) -> Result<AwaitedFrames> {
            let descriptor = socket.as_fd().try_clone_to_owned();
            let registered = descriptor.and_then(register);
            let failed = |source| Error::Socket { operation: "wait for", source };
            registered.map(|ready| AwaitedFrames { ready, socket }).map_err(failed)
        }

        /// Waits for the next frame. Nothing is lost if the future is dropped.
        ///
        /// # Errors
        /// Where the link went down or is gone: told once.
        pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
            loop {
                let mut ready = self.ready.readable().await?;
                match self.socket.receive(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                    outcome => return outcome,
                }
            }
        }

        /// Sends a frame to an Ethernet address.
        ///
        /// # Errors
        /// Where the link is down or gone.
        pub fn send(&self, to: Mac, frame: &[u8]) -> io::Result<()> {
            self.socket.send(to, frame)
        }
    }
}
