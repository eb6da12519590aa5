//! Waits for packets that are on their way through the kernel. For what that matters is for others to know.

/// `MEMBARRIER_CMD_GLOBAL` (linux/membarrier.h)
const GLOBAL: libc::c_long = 1;

/// Returns when every packet that some processor was at work with has got through its hooks: what was judged
/// by rules of before is in the table of connections then. Takes some milliseconds: the kernel waits for a
/// grace period of RCU, under which it works on packets. Where it refuses to (processors that are never to be
/// disturbed), this returns at once.
pub fn wait_for_packets() {
    #[allow(unsafe_code, reason = "the C library has no function for it")]
    // SAFETY: membarrier(2) takes numbers alone, and touches no memory.
    unsafe {
        libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn packets_are_not_waited_for_for_ever() {
        super::wait_for_packets();
    }
}
