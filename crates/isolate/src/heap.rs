//! The memory that a long-lived process no longer needs.

use crate::sys;

/// Gives memory that this process has freed back to the system. glibc keeps it, once it lies between what is in use: after its start
/// an agent holds as much as it needs, and the same again. Takes a millisecond for some 10 MB.
pub fn give_back() {
    sys::heap::trim();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of this process's own memory, in KiB.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim_end_matches("kB").trim().parse().unwrap()
    }

    #[test]
    fn what_is_free_between_what_is_in_use_is_given_back() {
        // Small ones, every hundredth of which stays: the allocator gives nothing back by itself.
        let mut pieces: Vec<Option<Box<[u8; 1_000]>>> = (0..40_000).map(|_| Some(Box::new([1; 1_000]))).collect();
        for (number, piece) in pieces.iter_mut().enumerate() {
            if number % 100 != 0 {
                *piece = None;
            }
        }
        let kept = resident();
        give_back();
        let left = resident();
        assert!(kept > left + (20 << 10), "{kept} KiB before, {left} KiB after");
        assert!(pieces.iter().flatten().all(|piece| piece[999] == 1));
    }
}
