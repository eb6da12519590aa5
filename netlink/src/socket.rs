//! A blocking netlink socket: requests and their answers, dumps, batches, notifications. What the messages
//! mean is for [`crate::rtnl`], [`crate::conntrack`] and the crates above.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR};
use netlink_sys::SocketAddr;
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, SndBuf, SndBufForce};
use nix::sys::socket::{MsgFlags, SetSockOpt, getsockopt, send, setsockopt};

use crate::detached::Sender;
use crate::frame::Answer;
use crate::{Error, Frame, Frames, Request, Result, in_flight};

/// The kernel fills at most 32 KiB of a dump at a time; a larger single message is reported, not cut.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// What a socket can send at once without asking for more (`net.core.wmem_default` is above it everywhere).
const DEFAULT_SEND_BUFFER: usize = 128 * 1024;
/// How often a dump that changes under the reader's eyes is started anew.
const DUMP_ATTEMPTS: u32 = 10;

/// A netlink family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours (NETLINK_ROUTE).
    Route,
    /// nf_tables and conntrack (NETLINK_NETFILTER).
    Netfilter,
    /// Sockets (NETLINK_SOCK_DIAG).
    SockDiag,
    /// IPVS and WireGuard (NETLINK_GENERIC).
    Generic,
}

/// A netlink socket. It belongs to the network namespace in which it was opened, wherever it is used later.
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
    send_capacity: usize,
    is_closed_by_kernel: bool,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("fd", &self.inner.as_raw_fd()).finish_non_exhaustive()
    }
}

/// Messages that are sent to the kernel in one go, each with its own sequence number.
#[derive(Debug, Default)]
pub struct Batch {
    /// Complete, aligned netlink messages, one behind the other.
    pub bytes: Vec<u8>,
}

impl Batch {
    /// Appends a message under that sequence number.
    pub fn push(&mut self, request: &Request, sequence: u32) {
        request.encode(sequence, &mut self.bytes);
    }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Socket> {
        let number = match protocol {
            Protocol::Route => NETLINK_ROUTE,
            Protocol::Netfilter => NETLINK_NETFILTER,
            Protocol::SockDiag => NETLINK_SOCK_DIAG,
            Protocol::Generic => NETLINK_GENERIC,
        };
        let mut inner = netlink_sys::Socket::new(number).map_err(failed("open"))?;
        inner.bind(&SocketAddr::new(0, 0)).map_err(failed("bind"))?;
        inner.set_ext_ack(true).map_err(failed("ask for error texts on"))?;
        // Without this a refusal repeats the refused message, however large.
        inner.set_cap_ack(true).map_err(failed("ask for short acknowledgements on"))?;
        // Memory that no answer has filled yet is never touched: each page of it would cost as much as a
        // request.
        let buffer = Vec::with_capacity(RECEIVE_BUFFER);
        let send_capacity = DEFAULT_SEND_BUFFER;
        Ok(Socket { inner, sequence: 0, buffer, send_capacity, is_closed_by_kernel: false })
    }

    /// Whoever drops this socket does not wait for its end. For programs that end soon: to close one of
    /// [`Protocol::Netfilter`], the kernel waits until what others deleted from nf_tables just before is out
    /// of use (a grace period of RCU, some milliseconds).
    pub fn let_kernel_close(&mut self) {
        self.is_closed_by_kernel = true;
    }

    /// Sends one request and waits for its acknowledgement.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's error number and text.
    pub fn request(&mut self, request: Request) -> Result<()> {
        self.query(request, |_| Ok(())).map(drop)
    }

    /// Sends one request and returns what the kernel answered before its acknowledgement, parsed.
    ///
    /// # Errors
    /// [`Error::Refused`], or the first error of `parse` (after all answers were read).
    pub fn query<T>(
        &mut self,
        mut request: Request,
        parse: impl FnMut(Frame<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        request.flags |= NLM_F_ACK;
        self.exchange(&request, parse).map(|(answers, _)| answers)
    }

    /// The same as [`Socket::request`], but a process of its own sends the request, and this one goes on with
    /// the kernel's first word about it: the acknowledgement, or an answer before that, which NLM_F_ECHO asks
    /// for. For programs that end soon: until then that process, when it has ended, stays a zombie.
    pub fn request_detached(&mut self, mut request: Request) -> Result<()> {
        request.flags |= NLM_F_ACK;
        let sequence = self.reserve_sequences(1);
        let mut message = Vec::new();
        request.encode(sequence, &mut message);
        // Where no process can be had there is time to wait.
        let Ok(sender) = Sender::start(self.inner.as_fd(), &message) else { return self.request(request) };
        loop {
            let answered = sender.await_answer(self.inner.as_fd()).map_err(failed("wait for"))?;
            if !answered || !self.receive(MsgFlags::MSG_DONTWAIT)? {
                // It was killed before it could send anything.
                return self.request(request);
            }
            for frame in Frames::new(&self.buffer) {
                match frame? {
                    frame if frame.sequence != sequence => {}
                    frame => {
                        return match frame.answer()? {
                            Answer::Refused(refusal) => Err(Error::Refused(refusal)),
                            Answer::Data | Answer::Done => Ok(()),
                        };
                    }
                }
            }
        }
    }

    /// Dumps a table of the kernel. A dump that the kernel marks as inconsistent (NLM_F_DUMP_INTR), or breaks
    /// off with EINTR, is thrown away and started anew.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::DumpInterrupted`], or the first error of `parse`.
    pub fn dump<T>(
        &mut self,
        mut request: Request,
        mut parse: impl FnMut(Frame<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        request.flags |= NLM_F_DUMP;
        for _ in 0..DUMP_ATTEMPTS {
            match self.exchange(&request, &mut parse) {
                Ok((answers, Consistent::Yes)) => return Ok(answers),
                Ok((_, Consistent::No)) => {}
                Err(error) if error.errno() == Some(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::DumpInterrupted { attempts: DUMP_ATTEMPTS })
    }

    /// Takes `count` sequence numbers for the messages of a batch and returns the first; they never wrap
    /// within it.
    pub fn reserve_sequences(&mut self, count: u32) -> u32 {
        // 0 is the number of notifications.
        let first =
            self.sequence.checked_add(1).filter(|first| first.checked_add(count).is_some()).unwrap_or(1);
        self.sequence = first + count.saturating_sub(1);
        first
    }

    /// Sends a batch as one datagram and returns what the kernel had to say (`parse` sees data messages only,
    /// such as those that NLM_F_ECHO asks for). The kernel works on a batch within the send itself, so that
    /// all its answers are there when that returns; messages need not ask for acknowledgements.
    ///
    /// # Errors
    /// [`Error::Batch`] with every refusal, in order.
    pub fn batch<T>(
        &mut self,
        batch: &Batch,
        mut parse: impl FnMut(Frame<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.make_room_for(batch.bytes.len())?;
        self.send(&batch.bytes)?;
        let (mut answers, mut refusals) = (Vec::new(), Vec::new());
        while self.receive(MsgFlags::MSG_DONTWAIT)? {
            for frame in Frames::new(&self.buffer) {
                let frame = frame?;
                match frame.answer()? {
                    Answer::Data => answers.push(parse(frame)?),
                    Answer::Done => {}
                    Answer::Refused(refusal) => refusals.push(refusal),
                }
            }
        }
        if refusals.is_empty() { Ok(answers) } else { Err(Error::Batch(refusals)) }
    }

    /// Makes the kernel check and obey every field of a request for a dump (NETLINK_GET_STRICT_CHK): filters
    /// count.
    pub fn set_strict_checks(&mut self) -> Result<()> {
        self.inner.set_netlink_get_strict_chk(true).map_err(failed("ask for strict checks on"))
    }

    /// Subscribes to a multicast group, by its number (not a bit mask).
    pub fn join(&mut self, group: u32) -> Result<()> {
        self.inner.add_membership(group).map_err(failed("join a multicast group on"))
    }

    /// Reads the notifications that have arrived, without waiting. Wait on the descriptor ([`AsFd`]) before.
    ///
    /// # Errors
    /// [`Error::Overrun`] where some were lost; the next call reads on.
    pub fn notifications<T>(&mut self, mut parse: impl FnMut(Frame<'_>) -> Result<T>) -> Result<Vec<T>> {
        let mut seen = Vec::new();
        self.for_each_notification(|frame| {
            seen.push(parse(frame)?);
            Ok(())
        })?;
        Ok(seen)
    }

    /// The same, one by one: what was shown before an error is not lost with it.
    ///
    /// # Errors
    /// As of [`Socket::notifications`], and the first one of `show`.
    pub fn for_each_notification(&mut self, mut show: impl FnMut(Frame<'_>) -> Result<()>) -> Result<()> {
        while self.receive(MsgFlags::MSG_DONTWAIT)? {
            for frame in Frames::new(&self.buffer) {
                let frame = frame?;
                if frame.answer()? == Answer::Data {
                    show(frame)?;
                }
            }
        }
        Ok(())
    }

    /// The most bytes that one datagram may have, up to `wanted`; fewer where the kernel keeps this process
    /// to `net.core.wmem_max`.
    pub fn send_limit(&mut self, wanted: usize) -> Result<usize> {
        self.make_room_for(wanted)?;
        Ok(wanted.min(self.send_capacity / 3 * 2))
    }

    /// Makes room for a datagram of that many bytes, beyond the system's limit where that is allowed.
    fn make_room_for(&mut self, bytes: usize) -> Result<()> {
        // Half again for the kernel's own bookkeeping.
        let needed = bytes + bytes / 2;
        if needed > self.send_capacity {
            self.enlarge(SndBufForce, SndBuf, needed, "enlarge the send buffer of")?;
            let granted = getsockopt(&self.inner, SndBuf).map_err(io::Error::from);
            self.send_capacity = granted.map_err(failed("read the send buffer's size of"))?;
        }
        Ok(())
    }

    /// Makes room for that many bytes of unread answers, beyond the system's limit where that is allowed.
    pub fn set_receive_buffer(&mut self, bytes: usize) -> Result<()> {
        self.enlarge(RcvBufForce, RcvBuf, bytes, "enlarge the receive buffer of").map(drop)
    }

    /// Whether sockets may have larger buffers than `net.core.rmem_max` and `wmem_max` allow. That takes
    /// CAP_NET_ADMIN over the machine, which root of a user namespace does not have, though it has all that
    /// rules and routes need there.
    pub fn may_exceed_limits(&self) -> Result<bool> {
        let held = getsockopt(&self.inner, RcvBuf).map_err(io::Error::from);
        // The kernel holds twice what it is told.
        let held = held.map_err(failed("read the receive buffer's size of"))? / 2;
        self.enlarge(RcvBufForce, RcvBuf, held, "set the receive buffer of")
    }

    /// Sets a buffer's size past the system's limit, and where that is refused, within it: a small buffer is
    /// slower, and no reason to go without a socket. Returns whether it was the former.
    fn enlarge(
        &self,
        forced: impl SetSockOpt<Val = usize>,
        plain: impl SetSockOpt<Val = usize>,
        bytes: usize,
        operation: &'static str,
    ) -> Result<bool> {
        match setsockopt(&self.inner, forced, &bytes) {
            Ok(()) => Ok(true),
            Err(Errno::EPERM) => setsockopt(&self.inner, plain, &bytes)
                .map(|()| false)
                .map_err(|errno| failed(operation)(errno.into())),
            Err(errno) => Err(failed(operation)(errno.into())),
        }
    }

    /// Sends one request and reads to the end of its answer, past an error of `parse` too, so that the next
    /// request finds the socket empty.
    fn exchange<T>(
        &mut self,
        request: &Request,
        mut parse: impl FnMut(Frame<'_>) -> Result<T>,
    ) -> Result<(Vec<T>, Consistent)> {
        let sequence = self.reserve_sequences(1);
        let mut message = Vec::with_capacity(request.payload.len() + 20);
        request.encode(sequence, &mut message);
        self.send(&message)?;
        let mut answers = Ok(Vec::new());
        let mut consistent = Consistent::Yes;
        loop {
            if !self.receive(MsgFlags::empty())? {
                continue;
            }
            for frame in Frames::new(&self.buffer) {
                let frame = frame?;
                if frame.sequence != sequence {
                    continue;
                }
                if frame.flags & NLM_F_DUMP_INTR != 0 {
                    consistent = Consistent::No;
                }
                match frame.answer()? {
                    Answer::Data => collect(&mut answers, &mut parse, frame),
                    Answer::Done => return answers.map(|answers| (answers, consistent)),
                    Answer::Refused(refusal) => return Err(Error::Refused(refusal)),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        loop {
            match send(self.inner.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EMSGSIZE) => return Err(Error::TooLarge { bytes: bytes.len() }),
                Err(errno) => return Err(failed("send on")(errno.into())),
            }
        }
    }

    /// Reads one datagram into the buffer; whether there was one to be had.
    fn receive(&mut self, flags: MsgFlags) -> Result<bool> {
        loop {
            self.buffer.clear();
            // With MSG_TRUNC the length is the datagram's own, not that of what fitted.
            match self.inner.recv(&mut self.buffer, (flags | MsgFlags::MSG_TRUNC).bits()) {
                Ok(length) if length > self.buffer.len() => {
                    return Err(Error::Malformed(format!("a datagram of {length} bytes is too long")));
                }
                Ok(_) => return Ok(true),
                Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                    Errno::EINTR => {}
                    Errno::EAGAIN => return Ok(false),
                    Errno::ENOBUFS => return Err(Error::Overrun),
                    _ => return Err(failed("receive from")(error)),
                },
            }
        }
    }
}

/// Whether what a dump said was true all at one time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Consistent {
    Yes,
    No,
}

fn collect<T>(
    answers: &mut Result<Vec<T>>,
    parse: &mut impl FnMut(Frame<'_>) -> Result<T>,
    frame: Frame<'_>,
) {
    if let Ok(parsed) = answers {
        match parse(frame) {
            Ok(answer) => parsed.push(answer),
            Err(error) => *answers = Err(error),
        }
    }
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Socket { operation, source }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_closed_by_kernel {
            // Otherwise it is closed here, which takes longer and does the same.
            let _ = in_flight::put(self.inner.as_fd());
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}
