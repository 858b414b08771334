//! Where things lie in the data folder, and the socket by its path.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use model::StarId;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

const SOCKET: &str = "nursery.sock";

/// The nursery's lock, with its pid as text.
pub(crate) fn pid_file(data_dir: &Path) -> PathBuf {
    data_dir.join("nursery.pid")
}

pub(crate) fn stars(data_dir: &Path) -> PathBuf {
    data_dir.join("stars")
}

/// One star's folder: its record, its two pipes, its exit note and its logs.
pub fn star(data_dir: &Path, star: StarId) -> PathBuf {
    stars(data_dir).join(star.to_string())
}

/// Makes a folder only its owner can enter, and those above it.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a folder that must not be there yet, for its owner only.
pub(crate) fn make_new(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Listens on the nursery's socket. The caller holds the lock, so a socket left by a dead nursery is replaced.
pub(crate) fn listen(data_dir: &Path) -> io::Result<OwnedFd> {
    let path = data_dir.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket()?;
    with_short_path(data_dir, |address| rustix::net::bind(&socket, address))?;
    // Between bind and this line the socket refuses everyone: nothing listens yet.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

pub(crate) fn connect(data_dir: &Path) -> io::Result<OwnedFd> {
    let socket = socket()?;
    with_short_path(data_dir, |address| rustix::net::connect(&socket, address))?;
    Ok(socket)
}

pub(crate) fn remove_socket(data_dir: &Path) {
    // Nobody is left to hear of a failure, and the next nursery replaces the file.
    let _ = fs::remove_file(data_dir.join(SOCKET));
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// A socket address holds 107 bytes of path; a data folder may lie deeper. It is reached through its descriptor.
fn with_short_path(data_dir: &Path, act: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<()>) -> io::Result<()> {
    let folder = rustix::fs::open(data_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))?;
    Ok(act(&address)?)
}
