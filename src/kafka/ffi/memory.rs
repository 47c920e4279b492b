//! The C library's memory, which librdkafka and this program share.

/// Blocks from this size on are asked of the operating system and given back to it. Far above what is taken all the time, so
/// that this costs nothing there; below what a record may have that is handled alone.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: i32 = 8 << 20;

/// Makes the C library give large blocks back as soon as they are freed. By itself it stops doing so once it has seen some,
/// up to 32 MiB, and the holes that they leave are then memory that nobody uses: half as much again as the records had.
pub(crate) fn give_large_blocks_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a parameter of the allocator, which may be set at any time; it says itself if it takes it.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) };
}
