//! What stars write that is not memory, within bounds: a disk for `/tmp` and for what a star changes in a root of its own, and
//! volumes of a given size.
//!
//! Three means, the first that the machine has: a project quota on the file system of the data folder; an image, a sparse file
//! with an ext4 of its own on a loop device; memory, for a user who may do neither. Which it is is found when the nursery starts.
//! What a star has is told by its folder: `disk` is a folder with a quota, `disk.img` an image, neither memory.
//!
//! A mount of an image belongs to the stars that see it. The device is given back by the kernel when the last of them ends,
//! whatever became of the nursery; the next one finds it by the file it shows.

mod image;
pub mod pace;
mod project;
mod trash;
pub mod volumes;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::Bytes;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::mount::UnmountFlags;

use self::pace::Bounded;
use self::trash::Trash;
use crate::fault::{Because, plain};
use crate::record::Record;
use crate::root::{attach, detached, resize, tmpfs};
use crate::walls::DiskMeans;
use crate::{star, sys};

/// One file to so many bytes, as file systems are usually made.
const BYTES_PER_FILE: u64 = 16 << 10;
/// Between two looks at devices that are about to be given back.
const LOOK: Duration = Duration::from_millis(3);
/// Files of even the smallest disk.
const FILES_MIN: u64 = 1 << 10;
/// Files of even the largest: they are entered in tables when an image is made, which takes time.
const FILES_MAX: u64 = 4 << 20;

/// How many files fit beside each other on so many bytes.
fn files(bytes: u64) -> u64 {
    (bytes / BYTES_PER_FILE).clamp(FILES_MIN, FILES_MAX)
}

/// What a folder with a project of ours may hold; `None` for any other.
pub(crate) fn quota_at(folder: &OwnedFd) -> io::Result<Option<u64>> {
    project::bound(folder)
}

/// The same by its path.
pub(crate) fn quota_of(folder: &Path) -> io::Result<Option<u64>> {
    project::bound(&project::open(folder)?)
}

/// What the data folder's disk offers.
#[derive(Debug)]
pub(crate) struct Disks {
    means: DiskMeans,
    trash: Trash,
    devices: Bounded,
}

/// A star's disk while the star is made. It is mounted in the nursery's workshop until this is dropped.
pub(crate) struct Area {
    tmp: OwnedFd,
    mounted: Mounted,
}

impl Area {
    /// Where `upper` and `work` are, if they were asked for.
    pub(crate) fn folder(&self) -> &Path {
        &self.mounted.0
    }

    /// What is to be mounted at `/tmp`.
    pub(crate) fn into_tmp(self) -> OwnedFd {
        self.tmp
    }
}

/// A folder on which something is mounted for a moment.
struct Mounted(PathBuf);

impl Mounted {
    fn new(mount: &OwnedFd, workshop: &Path) -> io::Result<Self> {
        let folder = workshop.join("disk");
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => attach(mount, &folder)?,
        }
        Ok(Self(folder))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

impl Disks {
    /// Finds out what there is, by trying it.
    pub(crate) fn probe(data_dir: &Path, privileged: bool) -> Self {
        let means = match privileged {
            false => DiskMeans::Memory { reason: "quotas and images take root".to_owned() },
            true => match (project::probe(data_dir), image::probe()) {
                (Ok(()), _) => DiskMeans::ProjectQuota,
                (Err(_), Ok(())) => DiskMeans::Image,
                (Err(no_quota), Err(no_image)) => DiskMeans::Memory { reason: format!("{no_quota}; {no_image}") },
            },
        };
        let devices = if means == DiskMeans::Image { Bounded::found() } else { Bounded::default() };
        Self { means, trash: Trash::at(data_dir.join("trash")), devices }
    }

    pub(crate) fn means(&self) -> &DiskMeans {
        &self.means
    }

    /// Makes a star's disk in the star's folder, with room for `upper` and `work` of an overlay if need be. What is left in the
    /// folder after a failure is taken away by `give_back`.
    pub(crate) fn make(
        &mut self,
        folder: &Path,
        size: u64,
        owner: Option<u32>,
        with_upper: bool,
        workshop: &Path,
    ) -> Result<Area, String> {
        let failed = || "cannot make the star's disk".to_owned();
        let mount = match self.means {
            DiskMeans::ProjectQuota => {
                let disk = folder.join("disk");
                fs::create_dir(&disk).and_then(|()| project::claim(&disk, size, files(size))).because(failed)?;
                detached(&disk, NO_PRIVILEGES, None).because(failed)?
            }
            DiskMeans::Image => {
                let image = folder.join("disk.img");
                image::create(&image, size, files(size), image::Kept::No).because(failed)?;
                let (mount, device) = image::mount(&image).because(failed)?;
                self.devices.used(device);
                mount
            }
            DiskMeans::Memory { .. } => {
                let (size, files) = (size.to_string(), files(size).to_string());
                tmpfs(&[("size", &*size), ("nr_inodes", &*files), ("mode", "0755")]).because(failed)?
            }
        };
        let make = |name: &str, mode: Mode| -> io::Result<()> {
            rustix::fs::mkdirat(&mount, name, mode)?;
            // The nursery's mask took bits away.
            rustix::fs::chmodat(&mount, name, mode, AtFlags::empty())?;
            let Some(id) = owner else { return Ok(()) };
            Ok(rustix::fs::chownat(&mount, name, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)), AtFlags::empty())?)
        };
        let all = Mode::RWXU | Mode::RWXG | Mode::RWXO;
        make("tmp", all | Mode::SVTX).because(failed)?;
        if with_upper {
            for name in ["upper", "work"] {
                make(name, all - Mode::WGRP - Mode::WOTH).because(failed)?;
            }
        }
        let mounted = Mounted::new(&mount, workshop).because(failed)?;
        let tmp = detached(&mounted.0.join("tmp"), NO_PRIVILEGES, None).because(failed)?;
        Ok(Area { tmp, mounted })
    }

    /// Lets a running star's disk become larger, or smaller where that can be.
    pub(crate) fn resize(
        &self,
        record: &Record,
        folder: &Path,
        before: Option<Bytes>,
        after: Option<Bytes>,
        workshop: &Path,
    ) -> Result<(), String> {
        let (before, after) = match (before, after) {
            _ if before == after => return Ok(()),
            (None, Some(_)) => return Err("it began with its `/tmp` in memory; stars that start get a disk".to_owned()),
            (Some(_), None) => return Err("it began with a disk of its own; stars that start have none".to_owned()),
            (Some(Bytes(before)), Some(Bytes(after))) => (before, after),
            (None, None) => return Ok(()),
        };
        let failed = || "cannot change the size of its disk".to_owned();
        let (disk, image) = (folder.join("disk"), folder.join("disk.img"));
        if disk.is_dir() {
            project::limit(&disk, after, files(after))
        } else if image.exists() {
            if after < before {
                return Err("a disk in an image can only grow while its star runs".to_owned());
            }
            image::grow(&image, after, workshop).because(failed)
        } else {
            // What it has in memory is reached through one of its processes.
            let tmp = star::member_pid(record).and_then(tmp_of).because(failed)?;
            let used = rustix::fs::fstatvfs(&tmp).because(failed)?;
            let used = (used.f_blocks - used.f_bfree) * used.f_frsize;
            if used > after {
                return Err(format!("its disk holds {}, more than {}", Bytes(used), Bytes(after)));
            }
            resize(&tmp, after).because(failed)
        }
    }

    /// Takes away what a star that is over wrote to its disk.
    pub(crate) fn give_back(&mut self, folder: &Path) {
        let _ = fs::remove_file(folder.join("disk.img"));
        let disk = folder.join("disk");
        if disk.exists() {
            // What cannot be moved is left to the next nursery.
            let _ = self.trash.take(&disk);
        }
        self.devices.look();
    }

    /// Whether there is something to take away still.
    pub(crate) fn has_trash(&self) -> bool {
        self.trash.is_there() || self.devices.are_leaving()
    }

    /// Removes some of what was given back: there may be very much of it.
    pub(crate) fn empty_trash_a_little(&mut self) {
        self.trash.empty_a_little();
        self.devices.let_go();
    }

    /// The rest of it.
    pub(crate) fn empty_trash(&mut self) {
        while self.has_trash() {
            self.empty_trash_a_little();
            if !self.trash.is_there() && self.devices.are_leaving() {
                // The kernel gives devices back when it comes to it.
                std::thread::sleep(LOOK);
            }
        }
    }

    /// A volume that is bounded: detached, and shown through `owners`. `None`: it is the folder `host` itself, without bounds of
    /// its own.
    pub(crate) fn volume(
        &mut self,
        host: &Path,
        size: Option<u64>,
        owners: Option<BorrowedFd<'_>>,
        workshop: &Path,
    ) -> Result<Option<OwnedFd>, String> {
        let name = host.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let failed = || format!("cannot use the volume `{name}`");
        let image = host.with_file_name(format!("{name}.img"));
        let there = image.exists();
        match (&self.means, size) {
            _ if there => {
                if matches!(self.means, DiskMeans::Memory { .. }) {
                    return Err(format!("the volume `{name}` is in an image, which takes root to be mounted"));
                }
            }
            (_, None) | (DiskMeans::Memory { .. }, _) => return Ok(None),
            (DiskMeans::ProjectQuota, Some(size)) => {
                return project::claim(host, size, files(size)).because(failed).map(|()| None);
            }
            (DiskMeans::Image, Some(size)) => {
                if fs::read_dir(host).because(failed)?.next().is_some() {
                    return Err(format!(
                        "the volume `{name}` has files from before it had a size, and here a size takes an image of its own: \
                         give it another name, or leave its size out"
                    ));
                }
                image::create(&image, size, files(size), image::Kept::Yes).because(failed)?;
            }
        }
        if let Some(size) = size {
            let has = fs::metadata(&image).because(failed)?.len();
            if has > image::whole_blocks(size) {
                let (has, size) = (Bytes(has), Bytes(size));
                return Err(format!("the volume `{name}` has {has} and cannot shrink to {size}"));
            }
            if has < image::whole_blocks(size) {
                image::grow(&image, size, workshop).because(failed)?;
            }
        }
        let (mount, device) = image::mount(&image).because(failed)?;
        self.devices.used(device);
        match rustix::fs::mkdirat(&mount, "data", Mode::RWXU | Mode::XGRP | Mode::XOTH) {
            Err(rustix::io::Errno::EXIST) => {}
            other => other.because(failed)?,
        }
        let mounted = Mounted::new(&mount, workshop).because(failed)?;
        let data = detached(&mounted.0.join("data"), NO_PRIVILEGES, owners);
        data.map(Some).map_err(|error| format!("{}: {}", failed(), plain(&error)))
    }
}

const NO_PRIVILEGES: u64 = sys::mount::NO_SUID | sys::mount::NO_DEV;

/// A star's `/tmp`, through any process in it.
fn tmp_of(pid: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root.as_fd(), "tmp", flags, Mode::empty(), resolve)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_files_for_its_size() {
        let check = |bytes: u64, expected: u64| assert_eq!(files(bytes), expected, "{bytes}");
        check(1 << 20, 1024);
        check(1 << 30, 65_536);
        check(1 << 44, 4 << 20);
    }
}
