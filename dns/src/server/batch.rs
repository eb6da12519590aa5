//! Datagrams by the batch: many are received with one system call, and their replies leave with another. What
//! they say is not known here.
//!
//! The one file of this crate with `unsafe`. The safe wrappers at hand share one control message among all
//! that is sent, so that replies could not leave from different addresses, and do not tell how much of a
//! batch was sent.
#![allow(unsafe_code)] // recvmmsg(2) and sendmmsg(2) have no safe wrapper that serves; see above

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{mem, ptr};

use crate::wire::format::LARGEST_UDP;

/// How many datagrams are taken at a time, and for how many there is always room.
const MOST: usize = 32;
const FEWEST: usize = 4;
/// The longest datagram that is read; what is longer is no query.
const LONGEST: usize = 4096;

/// The client of a datagram and, where the kernel was told to say so, which of our addresses it was sent to;
/// kept as the kernel gave it, for that is how the kernel takes it back.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    name: libc::sockaddr_storage,
    name_length: libc::socklen_t,
    control: Control,
    control_length: usize,
}

/// Room for one control message, aligned as its header must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

/// A datagram, and the reply to it as far as there is one.
pub(super) struct Slot {
    datagram: [u8; LONGEST],
    length: usize,
    reply: [u8; LARGEST_UDP as usize],
    reply_length: usize,
    peer: Peer,
}

/// The buffers of a batch. They are used again and again: nothing is allocated once a batch exists.
pub(super) struct Batch {
    slots: Box<[Slot]>,
    /// What the kernel is told of the slots. Written anew before each call: it points to nothing in between.
    parts: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    received: usize,
}

impl Batch {
    /// An empty batch.
    pub(super) fn new() -> Batch {
        // SAFETY: both are plain integers and pointers, for which zero is a value.
        let (parts, headers) = unsafe { mem::zeroed::<([libc::iovec; MOST], [libc::mmsghdr; MOST])>() };
        let slots = (0..MOST).map(|_| Slot::new()).collect();
        Batch { slots, parts: parts.into(), headers: headers.into(), received: 0 }
    }

    /// Waits for a datagram, and takes all that are there. Whatever the batch held is gone.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        // Twice as many as came last: to prepare for more than come costs more than to ask once more.
        let room = (2 * self.received).clamp(FEWEST, MOST);
        self.received = 0;
        let Batch { slots, parts, headers, .. } = self;
        for ((slot, part), header) in slots.iter_mut().zip(parts).zip(&mut *headers).take(room) {
            slot.peer.forget();
            *part = libc::iovec { iov_base: slot.datagram.as_mut_ptr().cast(), iov_len: LONGEST };
            header.msg_hdr = message(&mut slot.peer, part);
        }
        // SAFETY: there are `room` headers and more; each of those points to one part and to the buffers of
        // one slot, of which it gives the true sizes, and all of them outlive the call. The slots are
        // borrowed exclusively.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                room as _,
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        self.received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (slot, header) in self.slots.iter_mut().zip(&self.headers).take(self.received) {
            slot.length = (header.msg_len as usize).min(LONGEST);
            slot.reply_length = 0;
            slot.peer.name_length = header.msg_hdr.msg_namelen;
            slot.peer.control_length = header.msg_hdr.msg_controllen;
        }
        Ok(())
    }

    /// What was received.
    pub(super) fn slots(&mut self) -> &mut [Slot] {
        &mut self.slots[..self.received]
    }

    /// Sends the replies. One that cannot be sent does not hold up the others; the last error is returned.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let Batch { slots, parts, headers, received } = self;
        let mut replies = 0;
        let replied = slots[..*received].iter_mut().filter(|slot| slot.reply_length > 0);
        for ((slot, part), header) in replied.zip(parts).zip(&mut *headers) {
            slot.peer.address_reply();
            *part = readable(&slot.reply[..slot.reply_length]);
            header.msg_hdr = message(&mut slot.peer, part);
            replies += 1;
        }
        let (mut left, mut result) = (&mut headers[..replies], Ok(()));
        while !left.is_empty() {
            // SAFETY: each header that is left points to one part and to the buffers of one slot, of which it
            // gives the true sizes; the kernel only reads them, and they outlive the call.
            let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), left.as_mut_ptr(), left.len() as _, 0) };
            let done = usize::try_from(sent).unwrap_or_else(|_| {
                result = Err(io::Error::last_os_error());
                1 // The first of them is the one that failed.
            });
            left = &mut left[done..];
        }
        result
    }
}

impl Slot {
    fn new() -> Slot {
        let peer = Peer {
            // SAFETY: an address is plain integers, for which zero is a value.
            name: unsafe { mem::zeroed() },
            name_length: 0,
            control: Control([0; 64]),
            control_length: 0,
        };
        Slot { datagram: [0; LONGEST], length: 0, reply: [0; LARGEST_UDP as usize], reply_length: 0, peer }
    }

    /// The datagram, and room for the reply to it.
    pub(super) fn exchange(&mut self) -> (&[u8], &mut [u8; LARGEST_UDP as usize]) {
        (&self.datagram[..self.length], &mut self.reply)
    }

    /// So many bytes of the reply are to be sent.
    pub(super) fn replied(&mut self, length: usize) {
        self.reply_length = length;
    }

    /// Who sent the datagram.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Peer {
    /// The client's address; none where the kernel gave none of the Internet's.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match libc::c_int::from(self.name.ss_family) {
            _ if self.name_length == 0 => None,
            libc::AF_INET => {
                // SAFETY: a sockaddr_storage is large and aligned enough for every address, and any bytes are
                // one.
                let name = unsafe { *ptr::from_ref(&self.name).cast::<libc::sockaddr_in>() };
                Some(Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let name = unsafe { *ptr::from_ref(&self.name).cast::<libc::sockaddr_in6>() };
                Some(Ipv6Addr::from(name.sin6_addr.s6_addr).to_canonical())
            }
            _ => None,
        }
    }

    /// Sends one reply, from the address that was asked, without waiting for room.
    pub(super) fn send(mut self, socket: BorrowedFd<'_>, reply: &[u8]) -> io::Result<()> {
        self.address_reply();
        let mut part = readable(reply);
        let header = message(&mut self, &mut part);
        // SAFETY: the header points to one part and to the buffers of this peer, of which it gives the true
        // sizes; the kernel only reads them, and they outlive the call.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_DONTWAIT) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// All room is free again.
    fn forget(&mut self) {
        self.name_length = mem::size_of_val(&self.name) as libc::socklen_t;
        self.control_length = mem::size_of_val(&self.control);
    }

    /// The destination that the kernel told becomes the source that it is told. IPv4's route back is the
    /// kernel's choice: only the address is bound, not the interface. A link-local IPv6 address means nothing
    /// without it.
    fn address_reply(&mut self) {
        let is_v4 = libc::c_int::from(self.name.ss_family) == libc::AF_INET;
        let size = mem::size_of::<libc::cmsghdr>() + mem::size_of::<libc::in_pktinfo>();
        if is_v4 && self.control_length >= size {
            let interface = mem::size_of::<libc::cmsghdr>() + mem::offset_of!(libc::in_pktinfo, ipi_ifindex);
            self.control.0[interface..interface + mem::size_of::<libc::c_int>()].fill(0);
        }
    }
}

/// A part that the kernel only reads.
fn readable(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// The header of one message: whom it is from or for, and its bytes.
fn message(peer: &mut Peer, part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: a header is plain integers and pointers, for which zero is a value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = ptr::from_mut(&mut peer.name).cast();
    header.msg_namelen = peer.name_length;
    header.msg_iov = part;
    header.msg_iovlen = 1;
    if peer.control_length > 0 {
        header.msg_control = peer.control.0.as_mut_ptr().cast();
        header.msg_controllen = peer.control_length;
    }
    header
}
