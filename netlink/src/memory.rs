//! Gives memory back to the kernel. Which memory is needed is for others to know.

/// Gives back what the allocator keeps of memory that was freed. Worth its while (some milliseconds) when
/// much more was in use for a moment than will be from now on; glibc gives back of itself only what lies
/// behind the last thing in use.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code, reason = "the C library's allocator has no other way to be asked")]
    // SAFETY: malloc_trim(3) has no preconditions, and may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
