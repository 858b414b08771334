//! What a running star has of its own and writes to, opened from outside: its `/tmp`, its `/run`, the layer over its root.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use model::StarId;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::record::Record;
use crate::{ids, star};

/// Files of a star's `/run` that are made for it.
pub const RUN_FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// Folders of a star, and how its users are numbered.
#[derive(Debug)]
pub struct Areas {
    /// In the order they were asked for.
    pub folders: Vec<OwnedFd>,
    /// The number on the host of its root, and how many users follow; `None` when its root is whoever runs the nursery,
    /// and there is nobody else.
    pub users: Option<(u32, u32)>,
}

/// Opens folders of a star by the paths it knows them by; no link of its own is followed. `None` when it does not run.
pub fn areas(data_dir: &Path, star: StarId, insides: &[String]) -> io::Result<Option<Areas>> {
    let record = Record::load(&crate::place::star(data_dir, star))?;
    if star::find(&record).is_none() {
        return Ok(None);
    }
    let member = match star::member_pid(&record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match rustix::fs::open(format!("/proc/{member}/root"), flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => return Ok(None),
        other => other?,
    };
    // The number may have gone to another process while it was looked at.
    if star::find(&record).is_none() || star::member_pid(&record).ok() != Some(member) {
        return Ok(None);
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open = |inside: &String| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&root, inside.as_str(), flags, Mode::empty(), resolve)
            .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("`{inside}`: {error}")))
    };
    // While its walls are raised it has none of its places yet. This one it could not take away itself.
    if matches!(open(&"/tmp".to_owned()), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let folders = insides.iter().map(open).collect::<io::Result<Vec<_>>>()?;
    Ok(Some(Areas { folders, users: record.slot.map(|slot| (ids::host_id(slot), ids::PER_STAR)) }))
}
