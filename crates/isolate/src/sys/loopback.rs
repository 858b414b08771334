//! Loop devices: a file as a block device. loop(4), `include/uapi/linux/loop.h`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4c05;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4c07;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
/// The device is free again when nothing uses it any more.
const AUTOCLEAR: u32 = 4;
/// What is read and written goes past the page cache of the file's own file system: it would lie in memory twice.
const DIRECT_IO: u32 = 16;

/// The kernel's `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// The kernel's `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// The number of a device that nobody uses now; another may be quicker to take it.
pub(crate) fn free_device(control: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: the request takes no argument and returns a number.
    Ok(check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) }.into())? as u32)
}

/// Makes `device` show `file`, in blocks of `block_size` bytes. `ResourceBusy` when it shows another already.
pub(crate) fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>, block_size: u32) -> io::Result<()> {
    // SAFETY: `Config` is plain integers, for which zero is a valid value of each.
    let mut config: Config = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd() as u32;
    config.block_size = block_size;
    config.info.flags = AUTOCLEAR | DIRECT_IO;
    // SAFETY: the kernel reads a live structure of the layout it knows.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }.into())?;
    Ok(())
}

/// Device and inode number of the file that a device shows.
pub(crate) fn shown(device: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    // SAFETY: `Info` is plain integers, for which zero is a valid value of each.
    let mut info: Info = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a structure of the layout it knows into a live local.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) }.into())?;
    Ok((info.device, info.inode))
}

/// Takes note of the file's new size.
pub(crate) fn take_size(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY, 0) }.into())?;
    Ok(())
}

/// Lets an ext4 that is in use grow to so many blocks of its own. `folder` is any folder of it.
pub(crate) fn grow_ext4(folder: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    /// `_IOW('f', 16, __u64)` of `fs/ext4/ext4.h`.
    const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
    // SAFETY: the kernel reads one number from a live local.
    check(unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) }.into())?;
    Ok(())
}

const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);
