//! Volumes that are bounded, for those who keep their files and bring them back while the nursery has its own to do.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use model::Bytes;
use rustix::fs::{Mode, OFlags};

use super::image::{self, Kept};
use super::trash::Trash;
use super::{files, project};
use crate::usage;
use crate::walls::DiskMeans;

/// Where the files are in an image: the rest of it is the file system's own.
const DATA: &str = "data";

/// The files of a volume that is an image, for as long as they are open; stars may be using it.
pub fn open_image(image: &Path) -> io::Result<OwnedFd> {
    let (mount, _) = image::mount(image)?;
    data(&mount)
}

/// Makes an image as large as another one and gives its files, of which there are none.
pub fn make_image(new: &Path, like: &Path) -> io::Result<OwnedFd> {
    let size = fs::metadata(like)?.len();
    image::create(new, size, files(size), Kept::Yes)?;
    data(&image::mount(new)?.0)
}

/// Bounds an empty folder as another one is. Nothing is done where that is not bounded by a quota.
pub fn bound_folder(new: &Path, like: &Path) -> io::Result<()> {
    match project::limits(like)? {
        Some((bytes, files)) => project::claim(new, bytes, files),
        None => Ok(()),
    }
}

/// Gives back the quota of a folder, if it has one of ours.
pub fn release_folder(folder: &Path) -> io::Result<()> {
    match project::limits(folder)? {
        Some(_) => project::release(folder),
        None => Ok(()),
    }
}

/// Makes a volume what a star would find that has it with a size, where nobody has used it yet.
pub fn prepare(host: &Path, size: Bytes, means: &DiskMeans) -> io::Result<()> {
    let image = image_of(host);
    if image.exists() || fs::read_dir(host)?.next().is_some() {
        return Ok(());
    }
    match means {
        DiskMeans::ProjectQuota => project::claim(host, size.0, files(size.0)),
        DiskMeans::Image => image::create(&image, size.0, files(size.0), Kept::Yes),
        DiskMeans::Memory { .. } => Ok(()),
    }
}

/// What a volume takes of the disk; `None` when it has too many files to go through.
pub fn bytes(host: &Path) -> io::Result<Option<u64>> {
    let image = match fs::symlink_metadata(image_of(host)) {
        // An image is as large as may be and takes what was written.
        Ok(image) => image.blocks() * 512,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = usage::held(&rustix::fs::open(host, flags, Mode::empty())?, usage::FILES_MAX)?;
    Ok(held.map(|held| held + image))
}

/// Takes a volume that no star has out of the way, to be removed by [`remove_aside`]: at once, however much it holds.
pub fn put_aside(host: &Path, aside: &Path) -> io::Result<()> {
    let mut trash = Trash::at(aside.to_owned());
    let image = image_of(host);
    if image.exists() {
        trash.take(&image)?;
    }
    trash.take(host)
}

/// Removes what was put aside. Blocks for as long as it takes.
pub fn remove_aside(aside: &Path) {
    let mut trash = Trash::at(aside.to_owned());
    while trash.is_there() {
        trash.empty_a_little();
    }
}

fn image_of(host: &Path) -> PathBuf {
    let name = host.file_name().unwrap_or_default().to_string_lossy().into_owned();
    host.with_file_name(format!("{name}.img"))
}

/// The folder of the files, which a new file system does not have.
fn data(mount: &OwnedFd) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(mount, DATA, Mode::RWXU | Mode::XGRP | Mode::XOTH) {
        Err(rustix::io::Errno::EXIST) => {}
        other => other?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(mount, DATA, flags, Mode::empty())?)
}
