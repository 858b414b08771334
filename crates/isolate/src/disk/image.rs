//! A file system in a file: a sparse image with an ext4, shown by a loop device.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::{Mounted, pace};
use crate::sys::loopback;

/// Bytes of a block, of the file system and of the device.
const BLOCK: u64 = 4096;
/// How often to ask for a free device while others are quicker.
const TRIES: usize = 64;

/// Whether an image outlives the stars that see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// It has a journal: what was synced is there after a power cut.
    Yes,
    No,
}

/// What an image of that many bytes has.
pub(super) fn whole_blocks(size: u64) -> u64 {
    size / BLOCK * BLOCK
}

/// Whether images can be made and mounted here.
pub(super) fn probe() -> Result<(), String> {
    let missing = |what: &str, error: &io::Error| Err(format!("no images: {what}: {}", crate::fault::plain(error)));
    let control = match File::open("/dev/loop-control") {
        Ok(control) => control,
        Err(error) => return missing("no loop devices", &error),
    };
    if let Err(error) = loopback::free_device(control.as_fd()) {
        return missing("no loop devices", &error);
    }
    if let Err(error) = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC) {
        return missing("no ext4", &error.into());
    }
    run(mkfs().arg("-V")).or_else(|error| missing("`mkfs.ext4`", &error))
}

/// Makes an image that is not there yet. It takes some ten milliseconds.
pub(super) fn create(image: &Path, size: u64, files: u64, kept: Kept) -> io::Result<()> {
    let new = image.with_extension("img.new");
    let _ = fs::remove_file(&new);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.set_len(whole_blocks(size))?;
    let mut command = mkfs();
    // The image is all zeros where nothing is written: nothing has to be cleared.
    command.args(["-q", "-F", "-b", "4096", "-m", "0", "-N", &files.to_string()]);
    command.args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]);
    if kept == Kept::No {
        command.args(["-O", "^has_journal"]);
    }
    let made = run(command.arg(&new)).and_then(|()| match kept {
        Kept::Yes => file.sync_all(),
        Kept::No => Ok(()),
    });
    made.and_then(|()| fs::rename(&new, image)).inspect_err(|_| drop(fs::remove_file(&new)))
}

/// The file system of an image, not attached anywhere, and the number of its device. One that is mounted already is the same.
pub(super) fn mount(image: &Path) -> io::Result<(OwnedFd, u32)> {
    let (number, _device) = show(&open(image)?)?;
    // Where it cannot be, as where `/sys` is read-only, the disk is as good as it was.
    let _ = pace::bound(number);
    // The mount has its own hold on the device; until then `_device` keeps the kernel from giving it back.
    Ok((mount_device(number)?, number))
}

/// Makes an image larger, in use or not.
pub(super) fn grow(image: &Path, size: u64, workshop: &Path) -> io::Result<()> {
    let file = open(image)?;
    let before = file.metadata()?.len();
    file.set_len(whole_blocks(size))?;
    let grown = || -> io::Result<()> {
        let (number, device) = show(&file)?;
        loopback::take_size(device.as_fd())?;
        let mounted = Mounted::new(&mount_device(number)?, workshop)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&mounted.0, flags, Mode::empty())?;
        loopback::grow_ext4(folder.as_fd(), whole_blocks(size) / BLOCK).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => io::Error::other("that takes the capability SYS_RESOURCE"),
            _ => error,
        })
    };
    grown().inspect_err(|_| {
        // The file system still ends where it did.
        let _ = file.set_len(before);
        let _ = show(&file).and_then(|(_, device)| loopback::take_size(device.as_fd()));
    })
}

fn open(image: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(image)
}

/// The number of the device that shows a file, and the device. Two devices for one file system would destroy it, so that one is
/// looked for first.
fn show(file: &File) -> io::Result<(u32, OwnedFd)> {
    let metadata = file.metadata()?;
    let is_shown =
        |device: &OwnedFd| loopback::shown(device.as_fd()).is_ok_and(|it| it == (metadata.dev(), metadata.ino()));
    for entry in fs::read_dir("/sys/block")?.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop")).and_then(|number| number.parse().ok());
        let Some(number) = number.filter(|_| entry.path().join("loop").exists()) else { continue };
        // While it is open it stays what it is.
        if let Ok(device) = open_device(number)
            && is_shown(&device)
        {
            return Ok((number, device));
        }
    }
    let control = File::open("/dev/loop-control")?;
    for _ in 0..TRIES {
        let number = loopback::free_device(control.as_fd())?;
        let device = open_device(number)?;
        match loopback::configure(device.as_fd(), file.as_fd(), BLOCK as u32) {
            Ok(()) => return Ok((number, device)),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("others are always quicker to take a loop device"))
}

fn open_device(number: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(format!("/dev/loop{number}"), flags, Mode::empty())?)
}

fn mount_device(number: u32) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", format!("/dev/loop{number}"))?;
    // What is deleted inside takes no room in the image; nor do tables that nothing was written to.
    for flag in ["discard", "noinit_itable"] {
        rustix::mount::fsconfig_set_flag(context.as_fd(), flag)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn mkfs() -> Command {
    let mut command = Command::new("mkfs.ext4");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin");
    command
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(io::ErrorKind::NotFound, "the program `mkfs.ext4` is missing (package `e2fsprogs`)")
        }
        _ => error,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let first = words.lines().next().unwrap_or("no reason given");
    Err(io::Error::other(format!("`mkfs.ext4` failed: {first}")))
}
