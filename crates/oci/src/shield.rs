//! This program's own file, out of a container's reach.
//!
//! While a container is made or entered, a process of it may see a process that still runs this program, and reach its
//! file through `/proc/PID/exe`; a container that is root on the host could wait for the file to be free and overwrite it
//! (CVE-2019-5736). So such a command runs from a sealed copy in memory, which nobody can write to.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use isolate::{is_sealed, seal};
use rustix::fs::MemfdFlags;

/// Goes on as a sealed copy of this program, unless it is one.
pub(crate) fn raise() -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot run from a sealed copy: {error}");
    let mut own = File::open("/proc/self/exe").map_err(failed)?;
    if is_sealed(&own) {
        return Ok(());
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 know no memory that may not be executed, and refuse the word for one that may.
    let copy = rustix::fs::memfd_create("rads-oci", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("rads-oci", flags))
        .map_err(|error| failed(error.into()))?;
    let mut copy = File::from(copy);
    let mut rest = own.metadata().map_err(failed)?.len();
    while rest > 0 {
        // Within the kernel where it can.
        match rustix::fs::sendfile(&copy, &own, None, rest as usize) {
            Ok(0) => break,
            Ok(sent) => rest -= sent as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => {
                std::io::copy(&mut own.by_ref().take(rest), &mut copy).map_err(failed)?;
                break;
            }
        }
    }
    seal(&copy).map_err(failed)?;
    let mut args = std::env::args_os();
    let mut command = Command::new(format!("/proc/self/fd/{}", copy.as_raw_fd()));
    command.arg0(args.next().unwrap_or_else(|| "rads-oci".into())).args(args);
    Err(failed(command.exec()))
}
