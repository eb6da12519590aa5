//! bpf(2): a command and its attributes, which are bytes whose places linux/bpf.h says.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// What the call is asked to do (`enum bpf_cmd`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    ProgramLoad = 5,
    Pin = 6,
    Open = 7,
    Info = 15,
    BtfOpen = 19,
    BtfNext = 23,
    MapLookupBatch = 24,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// `union bpf_attr`, as long as the newest command here needs it. What a kernel does not know of it is zero,
/// which it takes.
const LENGTH: usize = 128;

/// The attributes of a command. They point to what the caller lends them, so that it outlives the call.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    bytes: [u8; LENGTH],
    lent: std::marker::PhantomData<&'a mut [u8]>,
}

impl<'a> Attributes<'a> {
    pub(super) fn new() -> Attributes<'a> {
        Attributes { bytes: [0; LENGTH], lent: std::marker::PhantomData }
    }

    /// A number at that place.
    pub(super) fn number(mut self, at: usize, number: u32) -> Self {
        self.bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
        self
    }

    /// The same of 64 bits.
    pub(super) fn long(mut self, at: usize, number: u64) -> Self {
        self.bytes[at..at + 8].copy_from_slice(&number.to_ne_bytes());
        self
    }

    /// Bytes in place; what is too long for a name (`BPF_OBJ_NAME_LEN`) is cut.
    pub(super) fn name(mut self, at: usize, name: &str) -> Self {
        let bytes = &name.as_bytes()[..name.len().min(15)];
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// A pointer to bytes that the kernel reads.
    pub(super) fn input<T>(self, at: usize, bytes: &'a [T]) -> Self {
        self.long(at, bytes.as_ptr() as u64)
    }

    /// A pointer to bytes that the kernel writes.
    pub(super) fn output(self, at: usize, bytes: &'a mut [u8]) -> Self {
        self.long(at, bytes.as_mut_ptr() as u64)
    }

    /// A pointer to information that the kernel writes, and reads first: what else it is to write, and where.
    pub(super) fn information(self, at: usize, information: &'a mut Attributes<'_>) -> Self {
        self.output(at, &mut information.bytes)
    }

    /// The number at that place, where the kernel has written one.
    pub(super) fn read(&self, at: usize) -> u32 {
        self.bytes[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }

    /// Calls the kernel.
    #[allow(unsafe_code, reason = "bpf(2) has no safe wrapper")]
    pub(super) fn call(&mut self, command: Command) -> io::Result<i32> {
        // SAFETY: the attributes are as long as is said, and what they point to is borrowed for as long as
        // they live. How much the kernel reads or writes there follows from the sizes of a map, or is among
        // the attributes; `map.rs`, `program.rs` and `object.rs` lend that much.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, command as libc::c_long, self.bytes.as_mut_ptr(), self.bytes.len())
        };
        match result {
            0.. => Ok(result as i32),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Calls the kernel for a new descriptor.
    #[allow(unsafe_code, reason = "a descriptor that the kernel returns is owned by nobody yet")]
    pub(super) fn descriptor(mut self, command: Command) -> io::Result<OwnedFd> {
        let descriptor = self.call(command)?;
        // SAFETY: these commands return a new descriptor (bpf(2)).
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}
