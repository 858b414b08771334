//! What the allocator keeps of the memory that this process has freed.

/// Gives pages that hold nothing back to the system.
pub(crate) fn trim() {
    // SAFETY: it takes the allocator's own locks and moves nothing that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
