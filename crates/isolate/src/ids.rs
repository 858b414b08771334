//! User ids for stars of a nursery with privileges: a range of its own for each, far from anybody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{WaitId, WaitIdOptions};

use crate::sys::process;

/// The first id. It lies above what systemd hands to containers (up to 0x6fff_ffff) and below 2³¹, where programs
/// that take ids for signed numbers begin to err.
const BASE: u32 = 0x7000_0000;
/// Ids per star: every id a 16-bit program knows.
pub(crate) const PER_STAR: u32 = model::interior::IDS_PER_STAR;
/// How many ranges fit below 2³¹, and so how many stars one machine holds with privileges.
const SLOTS: u32 = (0x8000_0000 - BASE) / PER_STAR;

/// Mappings kept ready. Making one takes a short-lived process; slots are reused from the first, so eight serve a
/// usual node.
const KEPT: u32 = 8;

/// Hands out ranges, each named by its slot.
#[derive(Debug)]
pub(crate) struct IdRanges {
    used: BTreeSet<u32>,
    first: u32,
    /// User namespaces with a range's mapping, for mounts that show their owners through it. They are only ever
    /// looked at, so the stars that have a slot one after another share one. Kept for the first `KEPT` slots.
    mappings: BTreeMap<u32, OwnedFd>,
}

impl IdRanges {
    /// `seed` says where to begin, so that nurseries beside each other on one machine rarely take the same range.
    /// Should they, their stars are still apart by every other wall.
    pub(crate) fn new(seed: u64) -> Self {
        Self { used: BTreeSet::new(), first: (seed % u64::from(SLOTS)) as u32, mappings: BTreeMap::new() }
    }

    /// Whether this process may give the ranges away: inside a container's user namespace they do not exist.
    pub(crate) fn available() -> bool {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.lines().any(|line| {
            let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            matches!(numbers[..], [inside, _, count]
                if inside <= u64::from(BASE) && inside + count >= u64::from(BASE) + u64::from(SLOTS * PER_STAR))
        })
    }

    pub(crate) fn take(&mut self) -> Option<u32> {
        let slot = (0..SLOTS).map(|offset| (self.first + offset) % SLOTS).find(|slot| !self.used.contains(slot))?;
        self.used.insert(slot);
        Some(slot)
    }

    /// Marks the range of an adopted star.
    pub(crate) fn keep(&mut self, slot: u32) {
        self.used.insert(slot);
    }

    pub(crate) fn release(&mut self, slot: u32) {
        self.used.remove(&slot);
    }

    /// The slot's mapping as a user namespace.
    pub(crate) fn mapping(&mut self, slot: u32) -> io::Result<OwnedFd> {
        if let Some(mapping) = self.mappings.get(&slot) {
            return mapping.try_clone();
        }
        let mapping = make_mapping(slot)?;
        if (slot + SLOTS - self.first) % SLOTS < KEPT {
            self.mappings.insert(slot, mapping.try_clone()?);
        }
        Ok(mapping)
    }

    fn missing(&self) -> Option<u32> {
        (0..KEPT).map(|offset| (self.first + offset) % SLOTS).find(|slot| !self.mappings.contains_key(slot))
    }

    pub(crate) fn wants_more(&self) -> bool {
        self.missing().is_some()
    }

    /// Makes one more mapping to keep. Called when there is nothing else to do.
    pub(crate) fn prepare(&mut self) -> io::Result<()> {
        if let Some(slot) = self.missing() {
            self.mappings.insert(slot, make_mapping(slot)?);
        }
        Ok(())
    }
}

/// The host's number of a slot's user 0.
pub(crate) fn host_id(slot: u32) -> u32 {
    BASE + slot * PER_STAR
}

/// Gives a process that has just got a user namespace its ids: a slot's range, or only user 0 as this process's own.
pub(crate) fn map(pid: u32, slot: Option<u32>) -> io::Result<()> {
    let line = match slot {
        Some(slot) => format!("0 {} {PER_STAR}", host_id(slot)),
        None => "0 0 1".to_owned(),
    };
    if slot.is_none() {
        // Without privileges the kernel wants groups given up before they are mapped.
        fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    }
    fs::write(format!("/proc/{pid}/gid_map"), &line)?;
    fs::write(format!("/proc/{pid}/uid_map"), &line)
}

/// A namespace lives as long as something refers to it: a child is born in it and, once it is mapped and opened, ends.
fn make_mapping(slot: u32) -> io::Result<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let to_child = writer.as_fd();
    let (pid, pidfd) = process::clone(libc::CLONE_NEWUSER, None, || {
        process::close(to_child);
        // Returns when the parent closes its end or dies.
        let _ = rustix::io::read(&reader, &mut [0; 1]);
        process::exit(0)
    })?;
    let namespace = map(pid, Some(slot)).and_then(|()| fs::File::open(format!("/proc/{pid}/ns/user")));
    drop(writer);
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    Ok(namespace?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_distinct_until_they_are_given_back() {
        let mut ranges = IdRanges::new(u64::from(SLOTS) - 1);
        let taken: BTreeSet<u32> = (0..SLOTS).map(|_| ranges.take().unwrap()).collect();
        assert_eq!(taken.len() as u32, SLOTS);
        assert_eq!(ranges.take(), None);
        ranges.release(5);
        assert_eq!(ranges.take(), Some(5));
        assert!(taken.iter().all(|&slot| host_id(slot) >= BASE && host_id(slot) <= i32::MAX as u32));
    }
}
