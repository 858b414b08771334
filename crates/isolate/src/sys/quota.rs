//! Project quota: what the files of one project on a file system may take together. quotactl(2), ioctl_xfs_fsgetxattr(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
/// What is made in the folder belongs to its project.
const PROJECT_INHERIT: u32 = 0x200;

const PROJECTS: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const Q_XGETQSTAT: u32 = 0x5805;
/// Limits of bytes and of files are meant.
const VALID_LIMITS: u32 = 1 | 4;
/// A quota's unit of bytes.
const BLOCK: u64 = 1024;
/// `FS_QUOTA_PDQ_ENFD`: limits of projects are enforced.
const PROJECTS_ENFORCED: u16 = 1 << 5;

/// The kernel's `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    pad: [u8; 8],
}

/// The kernel's `struct if_dqblk`.
#[repr(C)]
#[derive(Default)]
struct Entry {
    blocks_hard: u64,
    blocks_soft: u64,
    bytes: u64,
    files_hard: u64,
    files_soft: u64,
    files: u64,
    blocks_time: u64,
    files_time: u64,
    valid: u32,
}

/// What a project may have and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    /// 0 is no limit.
    pub(crate) bytes_max: u64,
    /// 0 is no limit.
    pub(crate) files_max: u64,
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

/// The project of a file or folder; 0 is none.
pub(crate) fn project(file: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(attributes(file)?.project)
}

/// Makes a file or folder belong to a project, and what is made in a folder from now on.
pub(crate) fn set_project(file: BorrowedFd<'_>, project: u32, is_folder: bool) -> io::Result<()> {
    let mut attributes = attributes(file)?;
    attributes.project = project;
    attributes.flags |= if is_folder { PROJECT_INHERIT } else { 0 };
    // SAFETY: the kernel reads a live structure of the layout it knows.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const attributes) }.into())?;
    Ok(())
}

fn attributes(file: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the kernel writes a structure of the layout it knows into a live local.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) }.into())?;
    Ok(attributes)
}

/// Whether the file system that `folder` is on holds projects to their limits.
pub(crate) fn is_enforced(folder: BorrowedFd<'_>) -> io::Result<bool> {
    // `struct fs_quota_stat` takes 80 bytes; its second field, at byte 2, has the flags.
    let mut state = [0u64; 16];
    control(folder, Q_XGETQSTAT, 0, state.as_mut_ptr().cast())?;
    Ok((state[0].to_ne_bytes()[2..4])
        .try_into()
        .map(u16::from_ne_bytes)
        .is_ok_and(|flags| flags & PROJECTS_ENFORCED != 0))
}

pub(crate) fn quota(folder: BorrowedFd<'_>, project: u32) -> io::Result<Quota> {
    let mut entry = Entry::default();
    control(folder, Q_GETQUOTA, project, (&raw mut entry).cast())?;
    Ok(Quota {
        bytes_max: entry.blocks_hard * BLOCK,
        files_max: entry.files_hard,
        bytes: entry.bytes,
        files: entry.files,
    })
}

/// Limits a project on the file system that `folder` is on; 0 takes a limit away.
pub(crate) fn set_quota(folder: BorrowedFd<'_>, project: u32, bytes: u64, files: u64) -> io::Result<()> {
    let mut entry =
        Entry { blocks_hard: bytes.div_ceil(BLOCK), files_hard: files, valid: VALID_LIMITS, ..Entry::default() };
    control(folder, Q_SETQUOTA, project, (&raw mut entry).cast())
}

fn control(folder: BorrowedFd<'_>, command: u32, project: u32, structure: *mut libc::c_void) -> io::Result<()> {
    let command = (command << 8) | PROJECTS;
    // SAFETY: every caller passes a live structure of the layout and at least the size that its command has.
    check(unsafe { libc::syscall(libc::SYS_quotactl_fd, folder.as_raw_fd(), command, project, structure) })?;
    Ok(())
}

const _: () = assert!(size_of::<Attributes>() == 28 && size_of::<Entry>() == 72);
