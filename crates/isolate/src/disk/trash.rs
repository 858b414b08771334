//! Folders that nobody needs any more, removed a little at a time: a star may have left a million files, or a folder in a folder
//! in a folder, ten thousand deep.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::project;

/// Files and folders removed at a time: a few milliseconds.
const BATCH: usize = 256;

#[derive(Debug)]
pub(super) struct Trash {
    folder: PathBuf,
    /// What is in it.
    there: Vec<PathBuf>,
    /// Names what is moved.
    moved: u64,
}

impl Trash {
    /// What an earlier nursery left there is in it.
    pub(super) fn at(folder: PathBuf) -> Self {
        let there = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        Self { folder, there, moved: 0 }
    }

    /// Takes a folder or file of the same file system.
    pub(super) fn take(&mut self, what: &Path) -> io::Result<()> {
        crate::place::make_private(&self.folder)?;
        let name = loop {
            self.moved += 1;
            let name = self.folder.join(self.moved.to_string());
            if !name.exists() {
                break name;
            }
        };
        fs::rename(what, &name)?;
        self.there.push(name);
        Ok(())
    }

    pub(super) fn is_there(&self) -> bool {
        !self.there.is_empty()
    }

    /// Removes a little. What cannot be removed is left to the next nursery.
    pub(super) fn empty_a_little(&mut self) {
        let Some(top) = self.there.last() else { return };
        let removed = match top.is_dir() && !top.is_symlink() {
            true => remove_some(top, &mut self.moved),
            false => fs::remove_file(top).map(|()| true),
        };
        match removed {
            Ok(false) => {}
            Ok(true) => {
                let _ = project::release(top);
                let _ = fs::remove_dir(top);
                self.there.pop();
            }
            Err(_) => drop(self.there.pop()),
        }
        if self.there.is_empty() {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// Removes some of what is in a folder; whether it is empty now.
fn remove_some(top: &Path, moved: &mut u64) -> io::Result<bool> {
    let mut left = BATCH;
    for entry in fs::read_dir(top)? {
        let entry = entry?;
        if left == 0 {
            return Ok(false);
        }
        left -= 1;
        if !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
            continue;
        }
        // Its folders come up beside it, so that nothing is ever more than one deep.
        for below in fs::read_dir(entry.path())? {
            let below = below?;
            if left == 0 {
                return Ok(false);
            }
            left -= 1;
            if below.file_type()?.is_dir() {
                raise(&below.path(), top, moved)?;
            } else {
                fs::remove_file(below.path())?;
            }
        }
        fs::remove_dir(entry.path())?;
    }
    Ok(fs::read_dir(top)?.next().is_none())
}

fn raise(folder: &Path, top: &Path, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let name = OsString::from(format!("raised-{moved}"));
        match rustix::fs::renameat_with(CWD, folder, CWD, top.join(name), RenameFlags::NOREPLACE) {
            // Somebody had the same idea of a name.
            Err(rustix::io::Errno::EXIST) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emptied(make: impl FnOnce(&Path)) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let waste = folder.path().join("waste");
        fs::create_dir(&waste).unwrap();
        make(&waste);
        let mut trash = Trash::at(folder.path().join("trash"));
        trash.take(&waste).unwrap();
        // One that is found by a nursery that follows.
        let mut trash = Trash::at(trash.folder);
        let mut times = 0;
        while trash.is_there() {
            trash.empty_a_little();
            times += 1;
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "all of it is gone");
        times
    }

    #[test]
    fn what_is_deep_or_much_goes_a_little_at_a_time() {
        let deep = emptied(|waste| {
            let mut folder = fs::File::open(waste).unwrap();
            for _ in 0..3000 {
                rustix::fs::mkdirat(&folder, "d", rustix::fs::Mode::RWXU).unwrap();
                let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
                folder = rustix::fs::openat(&folder, "d", flags, rustix::fs::Mode::empty()).unwrap().into();
            }
        });
        assert!(deep > 3, "{deep}");
        let many = emptied(|waste| {
            fs::create_dir(waste.join("raised-1")).unwrap();
            fs::create_dir(waste.join("raised-1/inner")).unwrap();
            for number in 0..1000 {
                fs::write(waste.join(format!("raised-1/{number}")), "").unwrap();
            }
            std::os::unix::fs::symlink("/etc", waste.join("link")).unwrap();
        });
        assert!(many >= 4, "{many}");
    }
}
