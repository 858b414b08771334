//! A folder bounded by a project quota of the file system it is on.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use model::Bytes;
use rustix::fs::{Mode, OFlags};

use crate::fault::plain;
use crate::sys::quota::{self, Quota};

/// Ids of projects given here have this bit: people number theirs from one.
const OURS: u32 = 0x4000_0000;
/// How many ids are tried until one is free.
const TRIES: u32 = 256;

/// Whether the file system of the data folder holds projects to their limits.
pub(super) fn probe(data_dir: &Path) -> Result<(), String> {
    let why = |error: &io::Error| format!("no project quota on the file system of the data folder: {}", plain(error));
    let folder = open(data_dir).map_err(|error| why(&error))?;
    match quota::is_enforced(folder.as_fd()) {
        Ok(true) => {}
        Ok(false) => return Err(why(&io::Error::other("it is not switched on (mount option `prjquota`)"))),
        Err(error) => return Err(why(&error)),
    }
    let trial = data_dir.join("trial");
    // One that was begun may not have been ended.
    let _ = fs::remove_dir(&trial);
    let tried = fs::create_dir(&trial).and_then(|()| claim(&trial, 1 << 20, 16)).and_then(|()| release(&trial));
    let _ = fs::remove_dir(&trial);
    tried.map_err(|error| why(&error))
}

/// Bounds a folder. One that has no project yet is to be empty: what is in it would not count.
pub(super) fn claim(folder: &Path, bytes: u64, files: u64) -> io::Result<()> {
    let opened = open(folder)?;
    let mut project = quota::project(opened.as_fd())?;
    let is_new = project == 0;
    if is_new {
        if fs::read_dir(folder)?.next().is_some() {
            return Err(io::Error::other(
                "it has files from before it had a size: give it another name, or leave its size out",
            ));
        }
        project = free(&opened, folder)?;
    }
    quota::set_quota(opened.as_fd(), project, bytes, files)?;
    if is_new { quota::set_project(opened.as_fd(), project, true) } else { Ok(()) }
}

/// Changes the bounds of a folder that has some.
pub(super) fn limit(folder: &Path, bytes: u64, files: u64) -> Result<(), String> {
    let change = || -> io::Result<()> {
        let opened = open(folder)?;
        let project = quota::project(opened.as_fd())?;
        let has = quota::quota(opened.as_fd(), project)?.bytes;
        if has > bytes {
            return Err(io::Error::other(format!("it holds {}, more than {}", Bytes(has), Bytes(bytes))));
        }
        quota::set_quota(opened.as_fd(), project, bytes, files)
    };
    change().map_err(|error| format!("cannot change the size of its disk: {}", plain(&error)))
}

/// What a folder of ours may hold, as the kernel has it; `None` when it is bounded by no project of ours.
pub(super) fn bound(folder: &OwnedFd) -> io::Result<Option<u64>> {
    let project = quota::project(folder.as_fd())?;
    if project & OURS == 0 {
        return Ok(None);
    }
    let quota = quota::quota(folder.as_fd(), project)?;
    Ok(Some(quota.bytes_max).filter(|bytes| *bytes > 0))
}

/// How many bytes and files a folder may have, if it is bounded here.
pub(super) fn limits(folder: &Path) -> io::Result<Option<(u64, u64)>> {
    let opened = open(folder)?;
    // A file system without projects knows of none.
    let Ok(project) = quota::project(opened.as_fd()) else { return Ok(None) };
    if project & OURS == 0 {
        return Ok(None);
    }
    match quota::quota(opened.as_fd(), project) {
        Ok(quota) => Ok(Some((quota.bytes_max, quota.files_max))),
        // It is not mounted with quotas any more.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOTSUP)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives the project of an empty folder back.
pub(super) fn release(folder: &Path) -> io::Result<()> {
    let opened = open(folder)?;
    let project = quota::project(opened.as_fd())?;
    if project & OURS == 0 {
        return Ok(());
    }
    quota::set_quota(opened.as_fd(), project, 0, 0)
}

/// A project that has nothing and is bounded by nothing. Where to begin is told by the folder's path.
fn free(file_system: &OwnedFd, folder: &Path) -> io::Result<u32> {
    let bytes = folder.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0x811c_9dc5, |hash: u32, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut candidates = (0..TRIES).map(|offset| OURS | (hash.wrapping_add(offset) & (OURS - 1)));
    let is_free = |&project: &u32| match quota::quota(file_system.as_fd(), project) {
        Ok(Quota { bytes_max: 0, files_max: 0, bytes: 0, files: 0 }) => true,
        // XFS knows nothing of a project that has nothing.
        Err(error) => matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)),
        Ok(_) => false,
    };
    candidates.find(is_free).ok_or_else(|| io::Error::other("no project id is free"))
}

pub(super) fn open(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}
